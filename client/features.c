/* SPDX-License-Identifier: MIT */

/*
 * Backend by feature: what can be had on this system, and why not. Each row of the table has what is always so, by backend, and where that is not all, a
 * function that judges what was found by trying. Options of regions have their reasons in options.c, where creation takes them from, too.
 */

#include "cancel.h"
#include "choice.h"
#include "client.h"
#include "local.h"
#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REASON_SIZE 192
#define LIMITS_BUDGET 4096

struct drp_features {
    struct drp_probe found;
    char no_backend[DRP_BACKEND_NONE + 1][REASON_SIZE]; /* empty: available */
    char no_interception[REASON_SIZE];
    char no_signal[REASON_SIZE];
    char no_shared_signal[REASON_SIZE];
    char no_shared_no_swap[REASON_SIZE];
    char no_limits[REASON_SIZE]; /* of native regions */
};

#define NOT_TOLD "the kernel does not tell what it drops"
#define NOT_KEPT "the kernel keeps nothing for a pin; mlock(2) has no effect on MAP_DROPPABLE"
#define NEVER_DROPS "nothing is dropped but by drp_drop()"
#define NOT_SEEN "the kernel answers all accesses itself"
#define PRIVATE "it is private memory of one process"

static const char *ask_available(const struct drp_features *f, enum drp_backend backend) {
    return f->no_backend[backend][0] ? f->no_backend[backend] : NULL;
}

static const char *ask_interception(const struct drp_features *f, enum drp_backend backend) {
    return backend == DRP_BACKEND_DAEMON && f->no_interception[0] ? f->no_interception : NULL;
}

static const char *ask_signal(const struct drp_features *f, enum drp_backend backend) {
    (void)backend;
    return f->no_signal[0] ? f->no_signal : NULL;
}

/* The service says that it has none, not why: it found neither of two ways when it started. */
static const char *why_no_huge(void) {
    return access("/sys/kernel/mm/transparent_hugepage/shmem_enabled", F_OK) < 0
               ? "the kernel has no huge pages for shared memory (Linux 4.8, CONFIG_TRANSPARENT_HUGEPAGE)"
               : "the service has no tmpfs of its own (Linux 5.2, CAP_SYS_ADMIN), and without one there are none where "
                 "/sys/kernel/mm/transparent_hugepage/shmem_enabled is 'never' when it starts";
}

static const char *ask_huge(const struct drp_features *f, enum drp_backend backend) {
    if (backend == DRP_BACKEND_DAEMON)
        return f->found.daemon_regions & DRP_REGION_HUGE ? NULL : why_no_huge();
    return local_has_huge() ? NULL : "the system gives no transparent huge pages";
}

static const char *ask_mergeable(const struct drp_features *f, enum drp_backend backend) {
    (void)f, (void)backend;
    return local_has_merging() ? NULL : "the kernel does not merge pages (KSM)";
}

static const char *ask_no_swap(const struct drp_features *f, enum drp_backend backend) {
    return backend != DRP_BACKEND_DAEMON || f->found.daemon_regions & DRP_REGION_NO_SWAP
               ? NULL
               : "the service has neither a tmpfs without swap (Linux 6.4) nor locked segments";
}

static const char *ask_shared(const struct drp_features *f, enum drp_backend backend) {
    (void)backend;
    return f->found.daemon_regions & DRP_REGION_SHARED ? NULL : "the service is too old";
}

static const char *ask_shared_signal(const struct drp_features *f, enum drp_backend backend) {
    (void)backend;
    return f->no_shared_signal[0] ? f->no_shared_signal : NULL;
}

static const char *ask_shared_no_swap(const struct drp_features *f, enum drp_backend backend) {
    (void)backend;
    return f->no_shared_no_swap[0] ? f->no_shared_no_swap : NULL;
}

static const char *ask_limits(const struct drp_features *f, enum drp_backend backend) {
    return backend == DRP_BACKEND_NATIVE && f->no_limits[0] ? f->no_limits : NULL;
}

/* By enum drp_backend. */
#define WHY_NOT(daemon_reason, native_reason, none_reason) \
    { NULL, daemon_reason, native_reason, none_reason }

static const struct row {
    const char *name;
    const char *why_not[DRP_BACKEND_NONE + 1];
    uint64_t option; /* DRP_REGION_*: why_not is that of options.c */
    const char *(*ask)(const struct drp_features *f, enum drp_backend backend);
} rows[] = {
    {"available", WHY_NOT(NULL, NULL, NULL), 0, ask_available},
    {"no-service", WHY_NOT("it is the service's memory", NULL, NULL), 0, NULL},
    {"dropped-in-need", WHY_NOT(NULL, NULL, NEVER_DROPS), 0, NULL},
    {"drop-by-hand", WHY_NOT(NULL, NULL, NULL), 0, NULL},
    {"populate", WHY_NOT(NULL, NULL, NULL), 0, NULL},
    {"pins", WHY_NOT(NULL, NOT_KEPT, NULL), 0, NULL},
    {"generations", WHY_NOT(NULL, NOT_TOLD, NULL), 0, NULL},
    {"notification", WHY_NOT(NULL, NOT_TOLD, NULL), 0, NULL},
    {"volatile", WHY_NOT(NULL, NOT_KEPT, NULL), 0, NULL},
    {"interception", WHY_NOT(NULL, NOT_SEEN, NOT_SEEN), 0, ask_interception},
    {"signal", WHY_NOT(NULL, NULL, NULL), DRP_REGION_SIGNAL, ask_signal},
    {"shared", WHY_NOT(NULL, NULL, NULL), DRP_REGION_SHARED, ask_shared},
    {"shared-signal", WHY_NOT(NULL, NULL, NULL), DRP_REGION_SHARED, ask_shared_signal},
    {"shared-no-swap", WHY_NOT(NULL, NULL, NULL), DRP_REGION_SHARED, ask_shared_no_swap},
    {"object", WHY_NOT(NULL, PRIVATE, PRIVATE), 0, NULL},
    {"fork-zeros", WHY_NOT(NULL, NULL, NULL), 0, NULL},
    {"fork-shared", WHY_NOT(NULL, NULL, NULL), DRP_REGION_FORK_SHARED, NULL},
    {"fork-absent", WHY_NOT(NULL, NULL, NULL), DRP_REGION_FORK_ABSENT, NULL},
    {"dump", WHY_NOT(NULL, NULL, NULL), DRP_REGION_DUMP, NULL},
    {"no-dump", WHY_NOT(NULL, NULL, NULL), 0, NULL},
    {"no-swap", WHY_NOT(NULL, NULL, NULL), DRP_REGION_NO_SWAP, ask_no_swap},
    {"huge", WHY_NOT(NULL, NULL, NULL), DRP_REGION_HUGE, ask_huge},
    {"mergeable", WHY_NOT(NULL, NULL, NULL), DRP_REGION_MERGEABLE, ask_mergeable},
    {"chunk-size", WHY_NOT(NULL, NULL, NULL), DRP_REGION_CHUNK_SIZE, NULL},
    {"priority", WHY_NOT(NULL, NULL, NULL), DRP_REGION_PRIORITY, ask_limits},
    {"share", WHY_NOT(NULL, NULL, NULL), DRP_REGION_SHARE, ask_limits},
    {"budget", WHY_NOT(NULL, NULL, NULL), DRP_REGION_BUDGET, ask_limits},
};

#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

/* ---- finding out ---- */

/* What the service may and can is known when it has such a region. */
static void try_region(const struct drp_config *config, enum drp_backend backend,
                       const struct drp_region_options *options, char *reason) {
    struct drp_config own = {.struct_size = sizeof(own),
                             .socket_path = config ? config->socket_path : NULL,
                             .name = config ? config->name : NULL,
                             .backend = backend};
    struct drp_region *region = NULL;
    struct drp *d = NULL;

    if (drp_new(&d, &own) < 0 || drp_region_new(&region, d, 1, options) < 0)
        snprintf(reason, REASON_SIZE, "%s", drp_detail());
    drp_region_free(region);
    drp_free(d);
}

static void find_by_regions(struct drp_features *f, const struct drp_config *config) {
    const struct drp_region_options limited = {.struct_size = sizeof(limited), .budget = LIMITS_BUDGET};
    const struct drp_region_options signalling = {.struct_size = sizeof(signalling),
                                                  .required = DRP_REGION_SHARED | DRP_REGION_SIGNAL};
    const struct drp_region_options unswapped = {.struct_size = sizeof(unswapped),
                                                 .required = DRP_REGION_SHARED | DRP_REGION_NO_SWAP};

    if (!f->found.native || !f->found.daemon)
        snprintf(f->no_limits, REASON_SIZE, "there is no service, and the kernel alone decides what it drops");
    else
        try_region(config, DRP_BACKEND_NATIVE, &limited, f->no_limits);
    if (f->found.daemon) {
        try_region(config, DRP_BACKEND_DAEMON, &signalling, f->no_shared_signal);
        try_region(config, DRP_BACKEND_DAEMON, &unswapped, f->no_shared_no_swap);
    }
}

static void find(struct drp_features *f) {
    const struct drp_probe *found = &f->found;

    if (!found->native)
        snprintf(f->no_backend[DRP_BACKEND_NATIVE], REASON_SIZE, "the kernel has no MAP_DROPPABLE (Linux 6.11): %s",
                 strerror(-found->native_error));
    if (!found->daemon)
        snprintf(f->no_backend[DRP_BACKEND_DAEMON], REASON_SIZE, "no service at %s: %s",
                 found->daemon_socket[0] ? found->daemon_socket : "its socket", strerror(-found->daemon_error));
    if (found->daemon_interception != DRP_INTERCEPTION_FULL)
        snprintf(f->no_interception, REASON_SIZE,
                 "this process may have no full userfaultfd (LendUserfaultfd= of the service): %s",
                 strerror(-found->interception_error));
    if (signal_probe() < 0)
        snprintf(f->no_signal, REASON_SIZE, "no userfaultfd that raises signals (Linux 4.14): %s",
                 strerror(-signal_probe()));
}

int drp_features_new(struct drp_features **ret, const struct drp_config *config) {
    NOT_CANCELLED;
    struct drp_features *f = calloc(1, sizeof(*f));
    int error;

    if (!f)
        return error_detail(-ENOMEM, "no memory for what this system can do");
    error = drp_get_probe(config, &f->found);
    if (error < 0) {
        free(f);
        return error;
    }
    find(f);
    find_by_regions(f, config);
    *ret = f;
    return 0;
}

struct drp_features *drp_features_free(struct drp_features *f) {
    free(f);
    return NULL;
}

static const char *why_not(const struct drp_features *f, const struct row *row, enum drp_backend backend) {
    const char *reason = row->why_not[backend];

    if (row->ask != ask_available && f->no_backend[backend][0])
        return "the backend is not available";
    if (row->option)
        reason = options_why_not(backend, row->option);
    return !reason && row->ask ? row->ask(f, backend) : reason;
}

int drp_features_get(const struct drp_features *f, unsigned i, enum drp_backend backend, const char **ret_name,
                     const char **ret_reason) {
    const char *reason;

    if ((unsigned)backend > DRP_BACKEND_NONE || backend == DRP_BACKEND_AUTO)
        return error_detail(-EINVAL, "%d is no backend: DRP_BACKEND_DAEMON, DRP_BACKEND_NATIVE or DRP_BACKEND_NONE",
                            (int)backend);
    if (i >= N_ROWS)
        return -ERANGE;
    reason = why_not(f, &rows[i], backend);
    *ret_name = rows[i].name;
    *ret_reason = reason ? reason : "";
    return !reason;
}
