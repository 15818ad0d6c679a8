/* SPDX-License-Identifier: MIT */

/*
 * Forked from the worker, not executed: what they run is the same code on the same struct memory, and a thousand of them must
 * not take long. The library makes a connection of a child's own with its first request.
 *
 * All that is shared is one anonymous mapping. They wait on a futex, since a thousand pollers would be the load that is measured;
 * the worker polls, and so notices a process that died.
 */

#include "crew.h"

#include "service.h"
#include "team.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEP_NS UINT64_C(120000000000)
#define LOOK_NS UINT64_C(100000000) /* after the dead */

struct shared {
    _Atomic unsigned started; /* futex */
    _Atomic unsigned ready, done;
    _Atomic int error; /* of the first who failed; its reason is there when `told' is */
    atomic_bool told;
    char reason[sizeof(((struct task *)0)->reason)];
    uint64_t start_ns;
    double values[];
};

struct crew {
    struct shared *shared;
    size_t shared_size;
    unsigned count, values_each, threads_before;
    pid_t service;
    pid_t pids[]; /* count of them, 0: none */
};

/* ---- in the process ---- */

uint64_t member_ready(struct member *member) {
    struct shared *shared = member->crew->shared;

    atomic_fetch_add(&shared->ready, 1);
    while (shared->started == 0)
        syscall(SYS_futex, &shared->started, FUTEX_WAIT, 0, NULL, NULL, 0);
    return shared->start_ns;
}

static _Noreturn void run_member(struct member *member, crew_work work, pid_t parent) {
    struct shared *shared = member->crew->shared;
    int r, none = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    r = work(member);
    if (r < 0 && atomic_compare_exchange_strong(&shared->error, &none, r)) {
        if (!*member->task.reason)
            task_fail(&member->task, r, "%s", strerror(-r));
        memcpy(shared->reason, member->task.reason, sizeof(shared->reason));
        shared->told = true;
    }
    atomic_fetch_add(&shared->done, 1);
    for (;;)
        pause();
}

/* ---- in the worker ---- */

static int look_after_dead(struct crew *crew, struct task *task) {
    for (unsigned i = 0; i < crew->count; i++) {
        int status;

        if (crew->pids[i] > 0 && waitpid(crew->pids[i], &status, WNOHANG) == crew->pids[i]) {
            crew->pids[i] = 0;
            return WIFSIGNALED(status) ? task_fail(task, -ECONNRESET, "process %u of the row was ended by signal %d", i,
                                                   WTERMSIG(status))
                                       : task_fail(task, -ECONNRESET, "process %u of the row has ended", i);
        }
    }
    return 0;
}

/* Until all have counted up. */
static int await(struct crew *crew, struct task *task, _Atomic unsigned *counter) {
    uint64_t start = now_ns(), looked = start;
    int r = 0;

    while (r == 0 && *counter < crew->count) {
        uint64_t now = now_ns();

        if (crew->shared->told) {
            memcpy(task->reason, crew->shared->reason, sizeof(task->reason));
            return crew->shared->error;
        }
        if (now - start > STEP_NS)
            return task_fail(task, -ETIMEDOUT, "%u of %u processes of the row are late", crew->count - *counter,
                             crew->count);
        if (now - looked > LOOK_NS) {
            r = look_after_dead(crew, task);
            looked = now;
        }
        usleep(500);
    }
    if (r == 0 && crew->shared->told) {
        memcpy(task->reason, crew->shared->reason, sizeof(task->reason));
        r = crew->shared->error;
    }
    return r;
}

static int make(struct crew **ret, struct task *task, unsigned count, unsigned values_each) {
    struct crew *crew = calloc(1, sizeof(*crew) + count * sizeof(*crew->pids));

    if (!crew)
        return -ENOMEM;
    crew->count = count;
    crew->values_each = values_each;
    crew->service = task->service;
    crew->threads_before = service_threads(task->service);
    crew->shared_size = sizeof(*crew->shared) + (size_t)count * values_each * sizeof(double);
    crew->shared = mmap(NULL, crew->shared_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (crew->shared == MAP_FAILED) {
        free(crew);
        return -ENOMEM;
    }
    *ret = crew;
    return 0;
}

int crew_new(struct crew **ret, struct task *task, unsigned count, unsigned values_each, crew_work work,
             const void *context) {
    pid_t parent = getpid();
    struct crew *crew = NULL;
    int r;

    r = make(&crew, task, count, values_each);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < count && r == 0; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            struct member member = {.crew = crew, .task = *task, .number = i, .context = context};

            member.values = crew->shared->values + (size_t)i * values_each;
            run_member(&member, work, parent);
        }
        if (pid < 0)
            r = task_fail(task, -errno, "fork of process %u of %u", i + 1, count);
        else
            crew->pids[i] = pid;
    }
    if (r == 0)
        r = await(crew, task, &crew->shared->ready);
    if (r < 0)
        crew_free(crew);
    else
        *ret = crew;
    return r;
}

struct crew *crew_free(struct crew *crew) {
    if (!crew)
        return NULL;
    for (unsigned i = 0; i < crew->count; i++)
        if (crew->pids[i] > 0)
            kill(crew->pids[i], SIGKILL);
    for (unsigned i = 0; i < crew->count; i++)
        if (crew->pids[i] > 0)
            waitpid(crew->pids[i], NULL, 0);
    service_settle(crew->service, crew->threads_before);
    munmap(crew->shared, crew->shared_size);
    free(crew);
    return NULL;
}

void crew_start(struct crew *crew, uint64_t start_ns) {
    crew->shared->start_ns = start_ns;
    crew->shared->started = 1;
    syscall(SYS_futex, &crew->shared->started, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

int crew_wait(struct crew *crew, struct task *task) {
    return await(crew, task, &crew->shared->done);
}

double *crew_values(struct crew *crew) {
    return crew->shared->values;
}
