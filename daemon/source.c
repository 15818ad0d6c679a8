/* SPDX-License-Identifier: MIT */
/*
 * Sources of pressure beside the sampler. A source watches one domain:
 *
 *   the machine    /proc/pressure/memory, two triggers (psi.c)
 *   a v2 cgroup    memory.pressure, two triggers; memory.events
 *   a v1 cgroup    by eventfds: a threshold of memory.usage_in_bytes, two levels of memory.pressure_level
 *
 * What fires only tells the pressure thread to look at this domain, and why. None of it is needed: where something cannot be had, it is
 * noted in domains.missing, and the sampler sees the same a little later.
 *
 * Each cgroup is watched for itself, since all its ancestors are domains, too: of memory.events the local counts, of pressure_level the local
 * mode. Otherwise a small cgroup at its limit would have all above it looked at, which have plenty. (memory.events has the counts of
 * descendants since Linux 5.2, the version that brought memory.events.local; before, it is local itself.)
 *
 * Lives: a source belongs to the loop, which alone makes and closes it, and frees it when the last handle is closed. It points to its domain, and a
 * domain with a source is freed by the loop only (domain.c): so no event finds a domain that is gone, and no lock is taken for it.
 * domain->source and what belongs to it change under the manager's lock, as others read them.
 *
 * Files are opened, written and closed in libuv's threads: that can wait for the kernel's cgroup lock, for a thread of the kernel to be made,
 * and for an RCU grace period (v1's thresholds at the start, PSI's triggers at the end): 20 ms, 400 on a busy machine. Whoever can move
 * between cgroups, make them or change their limits can ask for that as often as he likes. A few are opened at a time; a domain that ends meanwhile is let
 * go of, and its source ends when its files are there.
 *
 * No timer runs while nothing fires. PSI fires once a window and memory.events every 10 ms at most, as the kernel sees to itself. v1's eventfds
 * fire with every crossing, 2000 times a second around a threshold, so they rest for 10 ms after each time.
 */

#include "source.h"

#include "container.h"
#include "log.h"
#include "manager.h"
#include "psi.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SOURCE_REST_MS 10
#define SOURCE_FILES 3
#define SOURCE_OPENINGS 2

struct source_file {
    uv_poll_t poll;
    struct source *source;
    enum demand_source what; /* DEMAND_HIGH: memory.events, which tells of DEMAND_MAX, too */
    uint32_t edges;          /* DEMAND_EDGE() of all that it tells of */
    int events;              /* of poll */
    int fd;
    bool resting;
    uv_fs_t closing;
};

struct source {
    LIST_ENTRY(source) link;
    struct sources *sources;
    struct domain *domain; /* NULL: let go of */
    struct source_file files[SOURCE_FILES];
    unsigned n_files;            /* that are open, or being closed */
    struct cgroup_events events; /* as of the last time */

    /* While its files are opened: of the thread that does it. */
    bool opening;
    uv_work_t work;
    int version;        /* of the cgroup; 0: the machine */
    int directory;      /* of it; -1: none */
    uint64_t threshold; /* v1 */
    uint32_t missing;   /* DEMAND_EDGE() of what could not be had */
    int missing_error;
    bool short_windows; /* of PSI */
};

/* ---- what fires ---- */

static void tell(struct source *source, enum demand_source what) {
    static const char *const names[] = {
        [DEMAND_PSI_SOME] = "PSI: some stall",          [DEMAND_PSI_FULL] = "PSI: full stall",
        [DEMAND_HIGH] = "memory.high was crossed",      [DEMAND_MAX] = "the limit was met",
        [DEMAND_THRESHOLD] = "usage is near the limit", [DEMAND_LEVEL] = "reclaim has trouble",
    };
    struct manager *manager = source->sources->manager;

    log_about(LOG_LEVEL_DEBUG, &(struct log_about){.domain = source->domain->path}, "domain '%s': %s",
              source->domain->path, names[what]);
    manager->edges[what]++;
    pressure_edge(&manager->pressure, source->domain, what);
}

static int read_events(int fd, struct cgroup_events *ret) {
    char text[512];
    ssize_t n = pread(fd, text, sizeof(text), 0); /* also makes the file wait for the next event */

    return n < 0 ? -errno : cgroup_parse_events(text, (size_t)n, ret);
}

static int tell_events(struct source_file *file) {
    struct source *source = file->source;
    struct cgroup_events old = source->events;
    int r;

    r = read_events(file->fd, &source->events);
    if (r < 0)
        return r;
    if (source->events.max != old.max || source->events.oom != old.oom || source->events.oom_kill != old.oom_kill)
        tell(source, DEMAND_MAX);
    else if (source->events.high != old.high)
        tell(source, DEMAND_HIGH);
    return 0;
}

static void file_ready(uv_poll_t *poll, int status, int events);

static void sources_rested(uv_timer_t *timer) {
    struct sources *sources = container_of(timer, struct sources, rest);
    struct source *source;

    LIST_FOREACH (source, &sources->list, link)
        for (unsigned i = 0; i < source->n_files; i++)
            if (source->files[i].resting) {
                source->files[i].resting = false;
                uv_poll_start(&source->files[i].poll, UV_READABLE, file_ready);
            }
}

static int tell_eventfd(struct source_file *file) {
    struct sources *sources = file->source->sources;
    uint64_t count;

    if (read(file->fd, &count, sizeof(count)) < 0)
        return -errno;
    tell(file->source, file->what);
    file->resting = true;
    uv_poll_stop(&file->poll);
    return uv_is_active((uv_handle_t *)&sources->rest)
               ? 0
               : uv_timer_start(&sources->rest, sources_rested, SOURCE_REST_MS, 0);
}

/* A file of a cgroup that was removed is ready for ever. */
static int tell_psi(struct source_file *file) {
    char byte;

    if (pread(file->fd, &byte, sizeof(byte), 0) < 0)
        return -errno;
    tell(file->source, file->what);
    return 0;
}

static void file_ready(uv_poll_t *poll, int status, int events) {
    struct source_file *file = container_of(poll, struct source_file, poll);
    int r = status;

    if (r >= 0 && (events & UV_READABLE))
        r = tell_eventfd(file);
    else if (r >= 0 && file->what == DEMAND_HIGH)
        r = tell_events(file);
    else if (r >= 0)
        r = tell_psi(file);
    if (r < 0) { /* gone, most likely: the next look will see */
        uv_poll_stop(poll);
        pressure_kick(&file->source->sources->manager->pressure);
    }
}

/* ---- opening, in one of libuv's threads ---- */

/* Takes fd over, which may be an error. */
static void add_file(struct source *source, enum demand_source what, uint32_t edges, int fd, int events) {
    if (fd < 0) {
        source->missing |= edges;
        source->missing_error = -fd;
        return;
    }
    source->files[source->n_files++] =
        (struct source_file){.source = source, .what = what, .edges = edges, .events = events, .fd = fd};
}

/* v1: an eventfd that the kernel writes to, or negative errno. */
static int open_v1_event(int directory, const char *name, const char *arguments) {
    int control = openat(directory, "cgroup.event_control", O_WRONLY | O_CLOEXEC);
    int file = openat(directory, name, O_RDONLY | O_CLOEXEC);
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    char text[96];
    int r = -errno;

    if (control >= 0 && file >= 0 && event >= 0) {
        snprintf(text, sizeof(text), "%d %d %s", event, file, arguments);
        r = write(control, text, strlen(text)) < 0 ? -errno : event;
    }
    if (control >= 0)
        close(control);
    if (file >= 0)
        close(file);
    if (r < 0 && event >= 0)
        close(event);
    return r;
}

static int open_level(int directory, const char *level) {
    char arguments[32];
    int fd;

    snprintf(arguments, sizeof(arguments), "%s,local", level);
    fd = open_v1_event(directory, "memory.pressure_level", arguments);
    return fd == -EINVAL ? open_v1_event(directory, "memory.pressure_level", level) : fd; /* before Linux 4.13 */
}

static void watch_psi(struct source *source, int directory, const char *path) {
    add_file(source, DEMAND_PSI_SOME, DEMAND_EDGE(DEMAND_PSI_SOME),
             psi_open(directory, path, PSI_SOME, &source->short_windows), UV_PRIORITIZED);
    add_file(source, DEMAND_PSI_FULL, DEMAND_EDGE(DEMAND_PSI_FULL),
             psi_open(directory, path, PSI_FULL, &source->short_windows), UV_PRIORITIZED);
}

static int open_events(struct source *source) {
    int fd = openat(source->directory, "memory.events.local", O_RDONLY | O_CLOEXEC), r;

    if (fd < 0)
        fd = openat(source->directory, "memory.events", O_RDONLY | O_CLOEXEC);
    r = fd < 0 ? -errno : read_events(fd, &source->events);
    if (r < 0 && fd >= 0)
        close(fd);
    return r < 0 ? r : fd;
}

static void watch_v2(struct source *source) {
    watch_psi(source, source->directory, "memory.pressure");
    add_file(source, DEMAND_HIGH, DEMAND_EDGE(DEMAND_HIGH) | DEMAND_EDGE(DEMAND_MAX), open_events(source),
             UV_PRIORITIZED);
}

/* Critical is said when hardly anything can be reclaimed, right before the OOM killer: as bad as meeting memory.max. */
static void watch_v1(struct source *source) {
    char text[32];

    snprintf(text, sizeof(text), "%" PRIu64, source->threshold);
    if (source->threshold > 0)
        add_file(source, DEMAND_THRESHOLD, DEMAND_EDGE(DEMAND_THRESHOLD),
                 open_v1_event(source->directory, "memory.usage_in_bytes", text), UV_READABLE);
    add_file(source, DEMAND_LEVEL, DEMAND_EDGE(DEMAND_LEVEL), open_level(source->directory, "medium"), UV_READABLE);
    add_file(source, DEMAND_MAX, DEMAND_EDGE(DEMAND_MAX), open_level(source->directory, "critical"), UV_READABLE);
}

static void source_open(struct source *source) {
    char path[256];

    snprintf(path, sizeof(path), "%s/pressure/memory", source->sources->manager->domains.roots.proc);
    if (source->version == 0)
        watch_psi(source, AT_FDCWD, path);
    else if (source->directory >= 0 && source->version == 1)
        watch_v1(source);
    else if (source->directory >= 0)
        watch_v2(source);
    if (source->directory >= 0)
        close(source->directory);
}

static void source_work(uv_work_t *work) {
    source_open(container_of(work, struct source, work));
}

/* ---- life ---- */

static void file_gone(struct source *source) {
    if (--source->n_files == 0)
        free(source);
}

static void file_closed(uv_fs_t *closing) {
    struct source_file *file = container_of(closing, struct source_file, closing);

    uv_fs_req_cleanup(closing);
    file_gone(file->source);
}

static void file_close(struct source_file *file) {
    if (uv_fs_close(file->source->sources->loop, &file->closing, file->fd, file_closed) < 0) {
        close(file->fd);
        file_gone(file->source);
    }
}

static void poll_closed(uv_handle_t *handle) {
    file_close(container_of((uv_poll_t *)handle, struct source_file, poll));
}

/* Under the manager's lock. */
static void source_close(struct source *source) {
    unsigned n = source->n_files;

    source->domain->source = NULL;
    source->domain->sources = source->domain->missing = 0;
    source->domain = NULL;
    LIST_REMOVE(source, link);
    if (source->opening)
        return; /* source_opened() goes on with it */
    for (unsigned i = 0; i < n; i++)
        uv_close((uv_handle_t *)&source->files[i].poll, poll_closed);
    if (n == 0)
        free(source);
}

/* Nobody wants it any more. */
static void source_discard(struct source *source) {
    unsigned n = source->n_files;

    for (unsigned i = 0; i < n; i++)
        file_close(&source->files[i]);
    if (n == 0)
        free(source);
}

/* Under the manager's lock: what could be opened is watched. */
static void source_watch(struct source *source) {
    struct domain *domain = source->domain;
    unsigned n = source->n_files;

    source->n_files = 0;
    for (unsigned i = 0; i < n; i++) {
        struct source_file *file = &source->files[source->n_files];
        int r;

        if (file != &source->files[i])
            *file = source->files[i];
        r = uv_poll_init(source->sources->loop, &file->poll, file->fd);
        if (r < 0) {
            close(file->fd);
            source->missing |= file->edges;
            source->missing_error = -r;
            continue;
        }
        source->n_files++;
        domain->sources |= file->edges;
        uv_poll_start(&file->poll, file->events, file_ready);
    }
    domain->missing = source->missing;
    domain->missing_error = source->missing_error;
    domain->short_windows = source->short_windows;
}

static void source_opened(uv_work_t *work, int status) {
    struct source *source = container_of(work, struct source, work);
    struct sources *sources = source->sources;

    (void)status;
    sources->n_opening--;
    pthread_mutex_lock(&sources->manager->lock);
    source->opening = false;
    if (source->domain)
        source_watch(source);
    else
        source_discard(source);
    pthread_mutex_unlock(&sources->manager->lock);
    sources_tidy(sources);
}

/* Under the manager's lock. NULL: no memory. */
static struct source *source_new(struct sources *sources, struct domain *domain) {
    struct source *source = calloc(1, sizeof(*source));

    if (!source)
        return NULL;
    source->sources = sources;
    source->domain = domain;
    source->version = domain->version;
    source->directory = domain->cgroup ? fcntl(cgroup_directory(domain->cgroup), F_DUPFD_CLOEXEC, 0) : -1;
    source->threshold = domain_threshold(domain);
    return source;
}

/* Under the manager's lock. */
static void source_join(struct sources *sources, struct source *source, struct domain *domain) {
    LIST_INSERT_HEAD(&sources->list, source, link);
    domain->source = source;
    domain->threshold = source->threshold;
}

/* Under the manager's lock. Negative: it is not watched, until something changes. One of which no file can be had gets a source without any. */
static int source_start(struct sources *sources, struct domain *domain) {
    struct source *source = source_new(sources, domain);
    int r;

    if (!source)
        return -ENOMEM;
    source->opening = true;
    r = uv_queue_work(sources->loop, &source->work, source_work, source_opened);
    if (r < 0) {
        if (source->directory >= 0)
            close(source->directory);
        free(source);
        return r;
    }
    sources->n_opening++;
    source_join(sources, source, domain);
    return 0;
}

/* At once, while we may: a trigger is set with the rights of whoever opens the file, and keeps working without them. */
static int watch_machine(struct sources *sources) {
    struct source *source;

    pthread_mutex_lock(&sources->manager->lock);
    source = source_new(sources, sources->manager->domains.machine);
    if (source) {
        source_open(source);
        source_join(sources, source, sources->manager->domains.machine);
        source_watch(source);
    }
    pthread_mutex_unlock(&sources->manager->lock);
    return source ? 0 : -ENOMEM;
}

int sources_init(struct sources *sources, uv_loop_t *loop, struct manager *manager) {
    int r;

    *sources = (struct sources){.loop = loop, .manager = manager};
    LIST_INIT(&sources->list);
    r = uv_timer_init(loop, &sources->rest);
    return r < 0 ? r : watch_machine(sources);
}

/* One that has to be watched, or is watched although it is gone, or for the wrong threshold. */
static struct domain *find_changed(struct domains *domains) {
    struct domain *domain;

    LIST_FOREACH (domain, &domains->list, link)
        if (domain->source ? domain->gone || domain_is_off_threshold(domain) : !domain->gone)
            return domain;
    return NULL;
}

void sources_tidy(struct sources *sources) {
    struct domains *domains = &sources->manager->domains;
    struct domain *domain;
    int r = 0;

    pthread_mutex_lock(&sources->manager->lock);
    while ((domain = domains_take_retired(domains))) {
        source_close(domain->source);
        domain_free(domain);
    }
    sources->behind |= domains->changed;
    domains->changed = false;
    while (r >= 0 && sources->behind && !sources->ended && sources->n_opening < SOURCE_OPENINGS) {
        domain = find_changed(domains);
        if (!domain)
            sources->behind = false;
        else if (domain->source)
            source_close(domain->source);
        else
            r = source_start(sources, domain);
    }
    pthread_mutex_unlock(&sources->manager->lock);
}

static void do_nothing(uv_work_t *work) {
    (void)work;
}

int sources_start(struct sources *sources) {
    int r = uv_queue_work(sources->loop, &sources->start, do_nothing, NULL);

    sources_tidy(sources);
    return r;
}

void sources_end(struct sources *sources) {
    sources->ended = true;
    sources_tidy(sources);
    pthread_mutex_lock(&sources->manager->lock);
    while (!LIST_EMPTY(&sources->list))
        source_close(LIST_FIRST(&sources->list));
    pthread_mutex_unlock(&sources->manager->lock);
    uv_close((uv_handle_t *)&sources->rest, NULL);
}
