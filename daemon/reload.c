/* SPDX-License-Identifier: MIT */
/*
 * New settings for a running daemon: read and validated whole, or the old ones stay. Connections, regions, and what was set at run time
 * (budgets by droppablectl) are not touched: the settings are looked up where they are used, and only the few that were made into something
 * else at the start are made so again here.
 *
 * The settings change in the loop, which reads them as it likes, and under the manager's lock, for the pressure thread.
 */

#include "reload.h"

#include "crash-point.h"
#include "log.h"
#include "manager.h"
#include "notify.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void swap_texts(char **a, char **b) {
    char *text = *a;

    *a = *b;
    *b = text;
}

/* Privileges are gone by now: what the kernel does not let us do takes a restart, and stays as it is. */
static void apply_socket(struct config *old, struct config *new) {
    if (strcmp(old->socket_path, new->socket_path) != 0) {
        log_warning("Socket=: '%s' -> '%s' takes a restart, ignoring", old->socket_path, new->socket_path);
        swap_texts(&old->socket_path, &new->socket_path);
    }
    if (old->socket_mode != new->socket_mode && chmod(old->socket_path, new->socket_mode) < 0) {
        log_warning("SocketMode=: %s: %s, which takes a restart, ignoring", old->socket_path, strerror(errno));
        new->socket_mode = old->socket_mode;
    }
    if (old->socket_gid != new->socket_gid &&
        chown(old->socket_path, (uid_t)-1, new->socket_gid == (gid_t)-1 ? getegid() : new->socket_gid) < 0) {
        log_warning("SocketGroup=: %s: %s, which takes a restart, ignoring", old->socket_path, strerror(errno));
        new->socket_gid = old->socket_gid;
        swap_texts(&old->socket_group, &new->socket_group);
    }
}

static bool log_change(const char *section, const char *name, const char *before, const char *after) {
    if (strcmp(before, after) == 0)
        return false;
    log_notice("[%s] %s=: '%s' -> '%s'", section, name, before, after);
    return true;
}

static unsigned log_changes(const struct config *old, const struct config *new) {
    char before[4096], after[4096];
    const char *section, *name;
    unsigned n = 0;

    for (size_t i = 0; config_value(old, i, &section, &name, before, sizeof(before)); i++) {
        size_t same = config_same(old, i, new);

        after[0] = '\0';
        if (same != SIZE_MAX)
            config_value(new, same, &section, &name, after, sizeof(after));
        n += log_change(section, name, before, after);
    }
    for (size_t i = 0; config_value(new, i, &section, &name, after, sizeof(after)); i++)
        n += config_same(new, i, old) == SIZE_MAX && log_change(section, name, "", after);
    return n;
}

static void reload_now(uv_signal_t *signal, int number) {
    struct reload *reload = signal->data;
    struct manager *manager = reload->manager;
    struct config fresh, *old = manager->config;
    char *error = NULL;
    int r;

    (void)number;
    notify_reloading();
    r = config_load(&fresh, reload->source, &error);
    if (r >= 0) {
        r = budgets_hold_sections(manager, &fresh);
        if (r < 0)
            config_deinit(&fresh);
    }
    if (r < 0) {
        log_about(LOG_LEVEL_ERROR, &(struct log_about){.id = LOG_ID_NOT_RELOADED}, "%s: the settings stay as they were",
                  error ? error : "no memory to read the settings");
        free(error);
        CRASH_POINT("reload-refused");
        notify_state("READY=1");
        return;
    }
    CRASH_POINT("reload-read");
    if (!reload->source->passed)
        apply_socket(old, &fresh);
    CRASH_POINT("socket-changed");
    log_about(LOG_LEVEL_NOTICE, &(struct log_about){.id = LOG_ID_RELOADED}, "settings read again, %u changed",
              log_changes(old, &fresh));
    pthread_mutex_lock(&manager->lock);
    config_deinit(old);
    *old = fresh;
    CRASH_POINT("reload-swapped");
    manager->domains.machine_reserve = fresh.machine_reserve;
    manager->domains.cgroup_reserve = fresh.cgroup_reserve;
    budgets_take_sections(manager, old);
    budgets_reload(manager);
    pthread_mutex_unlock(&manager->lock);
    pressure_kick(&manager->pressure); /* a greater reserve may be missing already */
    CRASH_POINT("reload-done");
    notify_state("READY=1");
}

int reload_start(struct reload *reload, uv_loop_t *loop, struct manager *manager, const struct config_source *source) {
    int r;

    *reload = (struct reload){.manager = manager, .source = source};
    r = uv_signal_init(loop, &reload->signal);
    if (r < 0)
        return r;
    reload->signal.data = reload;
    uv_unref((uv_handle_t *)&reload->signal);
    return uv_signal_start(&reload->signal, reload_now, SIGHUP);
}

void reload_stop(struct reload *reload) {
    uv_close((uv_handle_t *)&reload->signal, NULL);
}
