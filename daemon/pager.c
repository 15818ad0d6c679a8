/* SPDX-License-Identifier: MIT */
/*
 * The pager: a thread per session that reads its userfaultfd, answers its faults, and does all REGISTERs, on behalf of loop and dropper too,
 * since each of them can wait for the client's mmap_lock.
 *
 * Always: only this thread fills, arms and disarms. It allocates nothing after its start. It waits in one place, poll(2), without
 * timeout unless a fault is deferred. A fault that has to wait (for a drop under way, or at the gate) is put aside and asked again
 * when somebody kicks or its time is up, so the thread goes on reading events: a client's munmap waits for that.
 */

#include "pager.h"

#include "container.h"
#include "crash-point.h"
#include "fault.h"
#include "gate.h"
#include "intercept.h"
#include "kernel.h"
#include "pager-events.h"
#include "pieces.h"
#include "process.h"
#include "session.h"
#include "uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define PAGER_EVENTS 16
/* How long a fault may be put aside before the least is filled all the same. */
#define PAGER_DROP_WAIT_NS UINT64_C(10000000)
#define PAGER_GATE_WAIT_NS UINT64_C(100000000)
#define PAGER_POPULATE_WAIT_NS UINT64_C(1000000000)
#define PAGER_REARM_SPANS 256
/*
 * Of looks at a client's maps in one request to arm, which may run before everybody else: a client can have tens of thousands of pieces, and
 * a look takes up to 10 ms.
 */
#define PAGER_LOOKS_NS UINT64_C(20000000)

/* ---- handshake ---- */

int pager_handshake(int uffd, bool wp_shmem, bool *ret_use_wp) {
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP |
                    UFFD_FEATURE_EVENT_REMOVE |
                    (wp_shmem ? UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP : 0),
    };

    if (ioctl(uffd, UFFDIO_API, &api) < 0)
        return -errno;
    if (fcntl(uffd, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    *ret_use_wp = wp_shmem;
    return 0;
}

static void pager_run_arm(struct session *session);

/* ---- commands ---- */

/*
 * The pressure thread hears of it once, and kicks when there is credit, or no hope. It goes on looking after who waits until then, or until
 * nothing waits any more.
 */
static void pager_wait_at_gate(struct session *session) {
    session->pager.gated = true;
    if (!atomic_exchange(&session->pager.waits_at_gate, true))
        session_wake_pressure(session);
}

static void pager_run_commands(struct session *session) {
    struct pager *pager = &session->pager;
    struct pager_command *command;
    bool gated = false;

    for (;;) {
        session_lock(session);
        command = TAILQ_FIRST(&pager->commands);
        session_unlock(session);
        if (!command)
            break;
        switch (command->type) {
        case PAGER_MAP:
            pieces_map_mapping(session, command);
            break;
        case PAGER_UNMAP:
            pager_run_arm(session); /* what still refers to the region comes before its end */
            if (command->mapping)
                pieces_unmap_mapping(session, command->mapping);
            break;
        case PAGER_MAP_PIECES:
            pieces_map(session, command);
            break;
        case PAGER_UNMAP_PIECES:
            pieces_unmap(session, command);
            break;
        case PAGER_POPULATE: {
            enum fault_answer answer = fault_populate(session, command);

            if (answer == FAULT_GATED && pager->hopeless) {
                command->result = -ENOMEM;
                break;
            }
            if (answer == FAULT_GATED && command->deadline == 0)
                command->deadline = kernel_now() + PAGER_POPULATE_WAIT_NS;
            if (answer != FAULT_DONE) {
                gated = answer == FAULT_GATED;
                goto out; /* events first */
            }
            break;
        }
        }
        session_lock(session);
        TAILQ_REMOVE(&pager->commands, command, link);
        session_unlock(session);
        command->done(command);
    }
out:
    if (gated)
        pager_wait_at_gate(session);
    else if (command)
        pager->again = true; /* the next step after the events */
}

void pager_submit(struct session *session, struct pager_command *command) {
    session_lock(session);
    TAILQ_INSERT_TAIL(&session->pager.commands, command, link);
    session_unlock(session);
    worker_kick(&session->pager.worker);
}

/* ---- arming ---- */

static int pager_open_maps(struct session *session) {
    int fd;

    worker_call_begin(&session->pager.worker); /* waits for an exec under way */
    fd = process_open(session->pid, session->pager.pidfd, "maps");
    worker_call_end(&session->pager.worker);
    return fd;
}

int pager_still_mapped(struct session *session, const struct mapping *mapping, uint64_t address, uint64_t length,
                       uint64_t offset) {
    uint64_t start, end, file_offset, inode, covered = address;
    char buffer[4096], perms[5];
    unsigned major, minor;
    size_t have = 0;
    off_t at = 0;
    ssize_t n;

    if (session->pager.looks_until > 0 && kernel_now() > session->pager.looks_until)
        return -ETIMEDOUT;
    if (session->pager.maps_fd < 0)
        session->pager.maps_fd = pager_open_maps(session);
    if (session->pager.maps_fd < 0)
        return session->pager.maps_fd;
    while (covered < address + length) {
        char *line = buffer, *newline;

        worker_call_begin(&session->pager.worker); /* takes the client's mmap_lock */
        n = pread(session->pager.maps_fd, buffer + have, sizeof(buffer) - 1 - have, at);
        worker_call_end(&session->pager.worker);
        if (n <= 0)
            return n < 0 ? -errno : 0;
        at += n;
        have += (size_t)n;
        buffer[have] = '\0';
        while ((newline = strchr(line, '\n'))) {
            *newline = '\0';
            if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64, &start, &end, perms,
                       &file_offset, &major, &minor, &inode) == 7 &&
                end > covered) {
                if (start > covered || inode != mapping->region->inode ||
                    makedev(major, minor) != mapping->region->device ||
                    file_offset + (covered - start) != mapping->region->object_offset + offset + (covered - address))
                    return 0;
                covered = end;
                if (covered >= address + length)
                    return 1;
            }
            line = newline + 1;
        }
        have -= (size_t)(line - buffer);
        memmove(buffer, line, have);
        if (have == sizeof(buffer) - 1) /* a path longer than any: its line's head is parsed already or is not ours */
            have = 0;
    }
    return 1;
}

static void pager_run_arm(struct session *session) {
    struct pager *pager = &session->pager;
    struct pager_arm arm;

    if (!(atomic_load(&pager->arm_sequence) & 1))
        return;
    session_lock(session);
    arm = pager->arm;
    session_unlock(session);
    pager->looks_until = kernel_now() + PAGER_LOOKS_NS;
    for (unsigned i = 0, run; i < arm.n; i += run) {
        for (run = 1;
             i + run < arm.n && arm.regions[i + run] == arm.regions[i] && arm.spans[i + run] == arm.spans[i] + run;)
            run++;
        intercept_arm(session, arm.regions[i], arm.spans[i], run);
    }
    pager->looks_until = 0;
    if (arm.realtime)
        worker_set_realtime(&pager->worker, false);
    else
        worker_set_nice(&pager->worker, pager->worker.nice);
    atomic_fetch_add(&pager->arm_sequence, 1);
    syscall(SYS_futex, &pager->arm_sequence, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool needs_arming(const struct region *region, uint32_t span) {
    for (unsigned i = 0; i < region->n_mappings; i++)
        if (region->mappings[i]->intercepted && region->mappings[i]->span_state[span] != MAPPING_ARMED)
            return true;
    return false;
}

void pager_arm_spans(struct session *session, struct region *const *regions, const uint32_t *spans, unsigned n,
                     uint64_t wait_ns, bool realtime) {
    struct pager *pager = &session->pager;
    uint64_t deadline = kernel_now() + wait_ns, now;
    uint32_t sequence;
    unsigned wanted = 0;

    /* For this request only: a client's storm of faults shall not run at that. Before the request, which sets it back. */
    session_lock(session);
    sequence = atomic_load(&pager->arm_sequence);
    /*
     * Else an earlier request still stands: its thread is held up, these go unarmed. Nor of one that ends: its number may be another's by then. (It
     * takes this lock once more between being told to and its end.)
     */
    if (!(sequence & 1) && !worker_stopping(&pager->worker)) {
        for (unsigned i = 0; i < n && i < PAGER_ARM_MAX; i++)
            if (needs_arming(regions[i], spans[i])) {
                pager->arm.regions[wanted] = regions[i];
                pager->arm.spans[wanted++] = spans[i];
            }
        pager->arm.n = wanted;
        if (wanted > 0) {
            pager->arm.realtime = realtime;
            if (realtime)
                worker_set_realtime(&pager->worker, true);
            else
                worker_set_nice(&pager->worker, WORKER_URGENT_NICE);
            atomic_store(&pager->arm_sequence, sequence + 1);
        }
    }
    session_unlock(session);
    if (wanted == 0)
        return;
    worker_kick_by(&pager->worker, session->home.dropper.pager_handle);
    while (atomic_load(&pager->arm_sequence) == sequence + 1 && (now = kernel_now()) < deadline) {
        struct timespec left = {.tv_nsec = (long)(deadline - now)};

        syscall(SYS_futex, &pager->arm_sequence, FUTEX_WAIT_PRIVATE, sequence + 1, &left, NULL, 0);
    }
}

static void pager_run_rearm(struct session *session) {
    uint64_t wanted = atomic_exchange(&session->pager.rearm_bytes, 0);

    if (wanted > 0 && intercept_refresh(session, PAGER_REARM_SPANS, true, wanted) > 0)
        session_wake_pressure(session);
}

/* ---- events ---- */

/* Has everybody ask anew. Takes no lock of the client's, and none of ours: this thread alone changes extents, and there may be thousands. */
static void pager_wake_all(struct session *session) {
    session->pager.overflow = false;
    for (size_t i = 0; i < session->extents.entries.n; i++) {
        const struct extent *e = extent_at(&session->extents.entries, i);

        uffd_wake(session, e->address, e->length);
    }
}

static void count_wait(struct session *session, struct pager_deferred *d) {
    if (!d->waited)
        counter_add(&session->home.counters.gate_waits, 1);
    d->waited = true;
}

/* Asked again after its fill was disturbed, it passes again. */
static void count_pass(struct session *session, struct pager_deferred *d) {
    count_wait(session, d);
    if (!d->passed)
        counter_add(&session->home.counters.gate_timeouts, 1);
    d->passed = true;
}

static void pager_defer(struct session *session, uint64_t address, enum fault_answer answer) {
    struct pager *pager = &session->pager;
    bool at_gate = answer == FAULT_GATED, passed = pager->passed_gate;
    struct pager_deferred *d;

    if (pager->n_deferred == PAGER_DEFERRED_MAX) { /* more threads than that at once: these are woken, and ask anew */
        pager->overflow = true;
        return;
    }
    d = &pager->deferred[pager->n_deferred++];
    CRASH_POINT("fault-deferred");
    *d = (struct pager_deferred){
        .address = address,
        .deadline = kernel_now() + (at_gate ? PAGER_GATE_WAIT_NS : PAGER_DROP_WAIT_NS),
        .at_gate = at_gate,
        .waited = passed,
        .passed = passed,
    };
    if (at_gate) {
        count_wait(session, d);
        pager_wait_at_gate(session);
    } else {
        atomic_store(&pager->waits_for_drop, true);
        pager->again = true; /* ask once more: the drop may have ended before it could see that we wait */
    }
}

static void pager_run_deferred(struct session *session) {
    struct pager *pager = &session->pager;
    bool gate = false, drop = false;
    unsigned kept = 0;

    if (pager->n_deferred == 0)
        return;
    /* Told before asking: who changes the answer after this kicks again. */
    atomic_store(&pager->waits_for_drop, true);
    for (unsigned i = 0; i < pager->n_deferred; i++) {
        struct pager_deferred *d = &pager->deferred[i];
        bool forced = kernel_now() >= d->deadline || (pager->hopeless && d->at_gate);
        enum fault_answer answer;

        pager->passed_gate = false;
        answer = fault_answer(session, d->address, forced);
        if (answer == FAULT_GATED && !d->waited) /* it was a drop that it waited for, or for nothing */
            d->deadline = kernel_now() + PAGER_GATE_WAIT_NS;
        if (answer == FAULT_GATED)
            count_wait(session, d);
        if (pager->passed_gate)
            count_pass(session, d);
        if (answer == FAULT_DONE && d->at_gate)
            session_note_gate_wait(session, kernel_now() - (d->deadline - PAGER_GATE_WAIT_NS));
        if (answer == FAULT_DONE)
            continue;
        d->at_gate = answer == FAULT_GATED;
        gate |= d->at_gate;
        drop |= !d->at_gate;
        pager->deferred[kept++] = *d;
    }
    pager->n_deferred = kept;
    if (!drop)
        atomic_store(&pager->waits_for_drop, false);
    if (gate)
        pager_wait_at_gate(session);
    if (pager->overflow && kept < PAGER_DEFERRED_MAX / 2)
        pager_wake_all(session);
}

/* A new fault. */
static void pager_answer(struct session *session, uint64_t address) {
    enum fault_answer answer;

    session->pager.passed_gate = false;
    answer = fault_answer(session, address, false);
    if (session->pager.passed_gate) { /* at once: its wait was short */
        counter_add(&session->home.counters.gate_waits, 1);
        counter_add(&session->home.counters.gate_timeouts, 1);
    }
    if (answer != FAULT_DONE)
        pager_defer(session, address, answer);
}

static void pager_event(struct session *session, const struct uffd_msg *message) {
    switch (message->event) {
    case UFFD_EVENT_PAGEFAULT:
        if (message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) { /* only the client itself can have protected it */
            uffd_wake(session, message->arg.pagefault.address & ~UINT64_C(4095), UINT64_C(1) << PAGE_SHIFT);
            break;
        }
        counter_add(&session->home.counters.intercepted_faults, 1);
        pager_answer(session, message->arg.pagefault.address);
        break;
    case UFFD_EVENT_REMAP:
        CRASH_POINT("event-remap");
        pager_note_remap(session, message->arg.remap.from, message->arg.remap.to, message->arg.remap.len);
        break;
    case UFFD_EVENT_UNMAP:
        CRASH_POINT("event-unmap");
        session_lock(session);
        extents_remove(&session->extents, message->arg.remove.start, message->arg.remove.end);
        session_unlock(session);
        break;
    case UFFD_EVENT_REMOVE:
        CRASH_POINT("event-remove");
        pager_note_remove(session, message->arg.remove.start, message->arg.remove.end);
        break;
    default:
        counter_add(&session->home.counters.unexpected_errors, 1);
    }
}

/* One batch: between batches commands and arming get their turn, however many threads of the client fault. */
static void pager_read_events(struct session *session) {
    struct uffd_msg messages[PAGER_EVENTS];
    ssize_t size;

    /* Announced: a client that cleared O_NONBLOCK and stole the event makes this wait. */
    worker_call_begin(&session->pager.worker);
    size = read(session->pager.uffd, messages, sizeof(messages));
    worker_call_end(&session->pager.worker);
    if (size > 0) {
        CRASH_POINT("event-read");
        move_check(session);
    }
    for (ssize_t i = 0; i < size / (ssize_t)sizeof(messages[0]); i++)
        pager_event(session, &messages[i]);
}

/* ---- the thread ---- */

/* Milliseconds until the next deadline, rounded up; -1: none. */
static int pager_timeout(struct session *session) {
    uint64_t now = kernel_now(), next = UINT64_MAX;
    struct pager_command *command;

    if (session->pager.again)
        return 0;
    for (unsigned i = 0; i < session->pager.n_deferred; i++)
        if (session->pager.deferred[i].deadline < next)
            next = session->pager.deferred[i].deadline;
    session_lock(session);
    command = TAILQ_FIRST(&session->pager.commands);
    if (command && command->deadline != 0 && command->deadline < next)
        next = command->deadline;
    session_unlock(session);
    if (next == UINT64_MAX)
        return -1;
    /* What is overdue and could not be answered needs an event, or somebody's kick: no spinning. */
    return next <= now ? 1 : (int)((next - now) / 1000000 + 1);
}

/* The end: what waits is answered. */
static void pager_abort_commands(struct session *session) {
    struct pager_command *command;

    for (;;) {
        session_lock(session);
        command = TAILQ_FIRST(&session->pager.commands);
        if (command)
            TAILQ_REMOVE(&session->pager.commands, command, link);
        session_unlock(session);
        if (!command)
            return;
        command->result = -ESHUTDOWN;
        session_lock(session);
        if (command->type == PAGER_MAP) /* freed with its region */
            region_add_mapping(command->mapping->region, command->mapping);
        else if (command->type == PAGER_UNMAP && command->mapping)
            pieces_unlink_mapping(session, command->mapping);
        session_unlock(session);
        command->done(command);
    }
}

static void pager_main(struct worker *worker) {
    struct session *session = container_of(worker, struct session, pager.worker);
    struct pager *pager = &session->pager;
    void *data;
    int fd;

    session_lock(session);
    worker_calm(worker);
    if (atomic_load(&pager->arm_sequence) & 1 && pager->arm.realtime) /* so soon */
        worker_set_realtime(worker, true);
    session_unlock(session);
    pager->uffd = worker->keep[0];
    pager->pidfd = worker->keep[1];
    while (!worker_stopping(worker)) {
        struct pollfd fds[] = {{.fd = pager->uffd, .events = POLLIN}, {.fd = worker->control, .events = POLLIN}};

        pager->again = pager->gated = false;
        pager->hopeless = atomic_exchange(&pager->gate_hopeless, false);
        pager_run_arm(session); /* before commands: an UNMAP is the last that hears of its region */
        pager_run_commands(session);
        pager_run_rearm(session);
        pager_run_deferred(session);
        if (!pager->gated) /* what waited went ahead without */
            atomic_store(&pager->waits_at_gate, false);
        if (poll(fds, 2, pager_timeout(session)) < 0)
            continue;
        worker_begin_turn(worker);
        while (fds[1].revents && worker_receive(worker, &fd, &data) > 0)
            close(fd); /* nobody sends any */
        if (atomic_exchange(&session->move.wanted, false))
            move_check(session);
        if (fds[0].revents & POLLERR) /* the client made its copy blocking: that holds for ours, too */
            fcntl(pager->uffd, F_SETFL, O_NONBLOCK);
        else if (fds[0].revents & POLLIN)
            pager_read_events(session);
        worker_let_others(worker);
    }
    pager_abort_commands(session);
    /* Waiting faults resume when this closes, and the kernel fills them. */
    worker_call_begin(worker);
    close(pager->uffd);
    worker_call_end(worker);
    if (pager->maps_fd >= 0)
        close(pager->maps_fd);
    move_deinit(&session->move);
}

int pager_start(struct session *session, int uffd, bool use_wp, struct worker_pool *pool) {
    struct pager *pager = &session->pager;
    int keep[2] = {uffd, session->pidfd};

    pager->maps_fd = -1;
    pager->use_wp = use_wp;
    return worker_start(&pager->worker, pager_main, pool, keep, 2, "drp-pager");
}
