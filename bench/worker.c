/* SPDX-License-Identifier: MIT */

/*
 * Driver and worker are the same program and so agree on the row table and on these structs; a row goes over the socket by
 * its place in the table. The worker has its end as descriptor 3, and dies with the driver. It is executed, not only forked: it
 * has an address space that no other contender has been in, and the preload library is loaded by ld.so.
 */

#include "worker.h"

#include "rows.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKER_FD 3
#define ANSWER_MS 300000

struct request {
    uint32_t row;
    int32_t scale;
    int32_t service;
};

struct reply {
    int32_t error; /* 0 or a negative errno */
    char reason[sizeof(((struct task *)0)->reason)];
    struct sample sample;
};

/* ---- the driver's side ---- */

/* Beside this program. */
static int preload_library(char *path, size_t size) {
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n < 0)
        return -errno;
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    if ((size_t)snprintf(path, size, "%s/libdroppable-preload.so", self) >= size)
        return -ENAMETOOLONG;
    return access(path, R_OK) < 0 ? -errno : 0;
}

static _Noreturn void become_worker(enum contender contender, const char *preload, int fd, pid_t driver) {
    if (contender == CONTENDER_PRELOAD) {
        setenv("LD_PRELOAD", preload, 1);
        setenv("DROPPABLE_BACKEND", "daemon", 1);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != driver)
        _exit(1);
    if (fd == WORKER_FD)
        fcntl(fd, F_SETFD, 0);
    else
        dup2(fd, WORKER_FD);
    execl("/proc/self/exe", "droppable-bench", "--worker", contender_names[contender], (char *)NULL);
    _exit(127);
}

int worker_start(struct worker *worker, struct task *task) {
    char preload[PATH_MAX] = "";
    pid_t driver = getpid();
    int ends[2], r;

    r = worker->contender == CONTENDER_PRELOAD ? preload_library(preload, sizeof(preload)) : 0;
    if (r < 0)
        return task_fail(task, r, "libdroppable-preload.so is not beside this program");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return task_fail(task, -errno, "socketpair");
    fflush(NULL);
    worker->pid = fork();
    if (worker->pid == 0)
        become_worker(worker->contender, preload, ends[1], driver);
    close(ends[1]);
    if (worker->pid < 0) {
        r = -errno;
        worker->pid = 0;
        close(ends[0]);
        return task_fail(task, r, "fork");
    }
    worker->fd = ends[0];
    return 0;
}

/* The wait status, of a process that is to end now. */
static int reap(struct worker *worker) {
    int status = 0;

    close(worker->fd);
    worker->fd = -1;
    waitpid(worker->pid, &status, 0);
    worker->pid = 0;
    return status;
}

void worker_stop(struct worker *worker) {
    if (worker->pid == 0)
        return;
    kill(worker->pid, SIGKILL);
    reap(worker);
}

static int explain_death(struct worker *worker, struct task *task) {
    int status = reap(worker);

    if (WIFSIGNALED(status))
        return task_fail(task, -ECONNRESET, "the worker was ended by signal %d", WTERMSIG(status));
    return task_fail(task, -ECONNRESET, "the worker ended with status %d", WEXITSTATUS(status));
}

int worker_ask(struct worker *worker, struct task *task, struct sample *ret) {
    struct request request = {.row = (uint32_t)(task->row - rows), .scale = task->scale, .service = task->service};
    struct reply reply;
    struct pollfd polled;
    ssize_t n;
    int r;

    r = worker->pid ? 0 : worker_start(worker, task);
    if (r < 0)
        return r;
    if (send(worker->fd, &request, sizeof(request), MSG_NOSIGNAL) < 0)
        return explain_death(worker, task);
    polled = (struct pollfd){.fd = worker->fd, .events = POLLIN};
    do
        r = poll(&polled, 1, ANSWER_MS);
    while (r < 0 && errno == EINTR);
    if (r == 0) {
        worker_stop(worker);
        return task_fail(task, -ETIMEDOUT, "no answer in %d s", ANSWER_MS / 1000);
    }
    n = recv(worker->fd, &reply, sizeof(reply), 0);
    if (n != sizeof(reply))
        return explain_death(worker, task);
    if (reply.error < 0) {
        memcpy(task->reason, reply.reason, sizeof(task->reason));
        return reply.error;
    }
    *ret = reply.sample;
    return 0;
}

/* ---- the worker's side ---- */

static void answer(const struct request *request, enum contender contender, struct reply *reply) {
    struct task task = {
        .row = &rows[request->row],
        .contender = contender,
        .scale = (enum scale)request->scale,
        .service = request->service,
    };

    memset(reply, 0, sizeof(*reply));
    sample_init(&reply->sample);
    reply->error = task.row->run(&task, &reply->sample);
    if (reply->error < 0 && !*task.reason)
        task_fail(&task, reply->error, "%s", strerror(-reply->error));
    memcpy(reply->reason, task.reason, sizeof(reply->reason));
}

int worker_main(const char *name) {
    int contender = contender_find(name);
    struct request request;
    struct reply reply;

    if (contender < 0)
        return 2;
    fcntl(WORKER_FD, F_SETFD, FD_CLOEXEC);
    while (recv(WORKER_FD, &request, sizeof(request), 0) == sizeof(request) && request.row < row_count) {
        answer(&request, (enum contender)contender, &reply);
        if (send(WORKER_FD, &reply, sizeof(reply), MSG_NOSIGNAL) != sizeof(reply))
            return 1;
    }
    return 0;
}
