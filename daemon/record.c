/* SPDX-License-Identifier: MIT */
/*
 * The recorder: a ring that many threads fill, and one thread that empties it into a file.
 *
 * A place of the ring has a turn: equal to the position it is for while free, one more once it is filled. Who enters an event takes a
 * position, and has the place for himself until he moves the turn; the writer takes places in order and frees them for the next round. So
 * nobody waits for anybody: a producer that is stopped half-way holds up the writer, and what comes then is lost and counted.
 *
 * The writer runs at the lowest priority and takes no lock. It looks into the ring 50 times a second, since waking it would cost those
 * who enter events a system call.
 */

#include "record.h"

#include "kernel.h"
#include "pages.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define RING_SIZE 16384
#define WRITER_NS 20000000
#define WRITER_NICE 19

struct event {
    _Atomic uint64_t turn;
    uint64_t ns;
    enum record_kind kind;
    uint64_t values[5];
};

static struct {
    FILE *file;
    struct event *ring;
    _Atomic uint64_t tail; /* the next position to be taken */
    _Atomic uint64_t lost;
    _Atomic bool stop;
    pthread_t thread;
    bool started;

    /* of the writer */
    uint64_t head;
    uint64_t began; /* ns: the trace's zero */
    uint64_t ms;    /* of the last line */
    int error;
} recorder;

_Atomic bool record_on;

/* ---- entering ---- */

void record_event(enum record_kind kind, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) {
    uint64_t position = atomic_load_explicit(&recorder.tail, memory_order_relaxed);
    struct event *event;

    for (;;) {
        uint64_t turn;

        event = &recorder.ring[position % RING_SIZE];
        turn = atomic_load_explicit(&event->turn, memory_order_acquire);
        if (turn < position) { /* not yet written out */
            atomic_fetch_add_explicit(&recorder.lost, 1, memory_order_relaxed);
            return;
        }
        if (turn > position) /* somebody was faster */
            position = atomic_load_explicit(&recorder.tail, memory_order_relaxed);
        else if (atomic_compare_exchange_weak_explicit(&recorder.tail, &position, position + 1, memory_order_relaxed,
                                                       memory_order_relaxed))
            break;
    }
    event->ns = kernel_now();
    event->kind = kind;
    event->values[0] = a;
    event->values[1] = b;
    event->values[2] = c;
    event->values[3] = d;
    event->values[4] = e;
    atomic_store_explicit(&event->turn, position + 1, memory_order_release);
}

void record_drop_runs(bool pressure, uint64_t region, uint64_t first, const uint64_t *bits, unsigned chunks) {
    for (unsigned i = 0, run; i < chunks; i += run + 1) {
        for (run = 0; i + run < chunks && (bits[(i + run) / 64] >> ((i + run) % 64) & 1); run++)
            ;
        if (run > 0)
            record_event(pressure ? RECORD_DROP : RECORD_OWNER_DROP, region, first + i, run, 0, 0);
    }
}

/* ---- writing ---- */

/* Time only goes forward in a trace: events of several threads meet within microseconds. */
static void write_time(uint64_t ns) {
    uint64_t ms = ns > recorder.began ? (ns - recorder.began) / 1000000 : 0;

    if (ms > recorder.ms) {
        recorder.ms = ms;
        fprintf(recorder.file, "t %" PRIu64 "\n", ms);
    }
}

static uint64_t tick_ms(uint64_t tick) {
    uint64_t began = recorder.began / 1000000, ms = tick * DRP_TICK_MS;

    return ms > began ? ms - began : 0;
}

static void write_region(const uint64_t *v) {
    fprintf(recorder.file, "R %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %u %u %u\n", v[0], v[1], v[2], v[3],
            (unsigned)(v[4] >> 48), (unsigned)(v[4] >> 32 & 0xffff), (unsigned)v[4]);
}

static void write_event(const struct event *event) {
    static const char letters[] = {
        [RECORD_DOMAIN] = 'D',  [RECORD_REGION] = 'R', [RECORD_END] = 'E',    [RECORD_FAULT] = 'f',
        [RECORD_REFAULT] = 'r', [RECORD_PINS] = 'p',   [RECORD_DROP] = 'x',   [RECORD_OWNER_DROP] = 'o',
        [RECORD_DEMAND] = 'd',  [RECORD_FREED] = 'g',  [RECORD_BUDGET] = 'b',
    };
    static const unsigned numbers[] = {
        [RECORD_DOMAIN] = 2, [RECORD_END] = 1,        [RECORD_FAULT] = 2,  [RECORD_REFAULT] = 2, [RECORD_PINS] = 3,
        [RECORD_DROP] = 3,   [RECORD_OWNER_DROP] = 3, [RECORD_DEMAND] = 3, [RECORD_FREED] = 2,   [RECORD_BUDGET] = 2,
    };

    write_time(event->ns);
    if (event->kind == RECORD_REGION) {
        write_region(event->values);
        return;
    }
    fputc(letters[event->kind], recorder.file);
    for (unsigned i = 0; i < numbers[event->kind]; i++)
        fprintf(recorder.file, " %" PRIu64, event->values[i]);
    if (event->kind == RECORD_PINS)
        fprintf(recorder.file, " %" PRIu64, tick_ms(event->values[3]));
    fputc('\n', recorder.file);
}

static void drain(void) {
    uint64_t lost;

    for (;;) {
        struct event *event = &recorder.ring[recorder.head % RING_SIZE];

        if (atomic_load_explicit(&event->turn, memory_order_acquire) != recorder.head + 1)
            break;
        write_event(event);
        atomic_store_explicit(&event->turn, recorder.head + RING_SIZE, memory_order_release);
        recorder.head++;
    }
    lost = atomic_exchange_explicit(&recorder.lost, 0, memory_order_relaxed);
    if (lost > 0)
        fprintf(recorder.file, "L %" PRIu64 "\n", lost);
    if ((fflush(recorder.file) != 0 || ferror(recorder.file)) && recorder.error == 0) {
        recorder.error = errno ? -errno : -EIO;
        atomic_store(&record_on, false);
    }
}

static void *writer_main(void *data) {
    (void)data;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), WRITER_NICE);
    while (!atomic_load(&recorder.stop) && recorder.error == 0) {
        drain();
        nanosleep(&(struct timespec){.tv_nsec = WRITER_NS}, NULL);
    }
    return NULL;
}

/* ---- the file ---- */

int record_open(const char *path, const char **ret_what) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600), r = 0;
    struct stat st;

    *ret_what = "cannot open it";
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        r = -errno;
    else if (!S_ISREG(st.st_mode)) {
        *ret_what = "not a regular file";
        r = -EINVAL;
    } else {
        *ret_what = "cannot make it empty and one's own";
        /* It tells when somebody does what: not for others, whoever had made the file. */
        if (fchmod(fd, 0600) < 0 || ftruncate(fd, 0) < 0)
            r = -errno;
    }
    if (r == 0) {
        *ret_what = "no memory";
        recorder.ring = calloc(RING_SIZE, sizeof(*recorder.ring));
        recorder.file = recorder.ring ? fdopen(fd, "w") : NULL;
        if (recorder.file)
            return 0;
        r = -ENOMEM;
        free(recorder.ring);
        recorder.ring = NULL;
    }
    close(fd);
    return r;
}

int record_start(void) {
    int r;

    if (!recorder.file)
        return 0;
    for (uint64_t i = 0; i < RING_SIZE; i++)
        atomic_store(&recorder.ring[i].turn, i);
    recorder.began = kernel_now();
    fprintf(recorder.file, "droppable-trace 1\nB %" PRIu64 "\n", recorder.began);
    r = pthread_create(&recorder.thread, NULL, writer_main, NULL);
    if (r != 0)
        return -r;
    pthread_setname_np(recorder.thread, "drp-record");
    recorder.started = true;
    atomic_store(&record_on, true);
    return 0;
}

int record_stop(void) {
    int r;

    if (!recorder.file)
        return 0;
    atomic_store(&record_on, false);
    atomic_store(&recorder.stop, true);
    if (recorder.started) {
        pthread_join(recorder.thread, NULL);
        drain();
    }
    r = recorder.error;
    if (fclose(recorder.file) != 0 && r == 0)
        r = -errno;
    recorder.file = NULL; /* not the ring: a thread that is stuck may still enter something */
    return r;
}
