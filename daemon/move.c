/* SPDX-License-Identifier: MIT */
/*
 * Follows a client from cgroup to cgroup: what it touches is charged where it is at that moment, so that is where its fills have to ask.
 *
 * The kernel tells nobody of a move, and a watch of every client's file would be polling. But a client matters to a domain only by what it
 * touches: so whoever answers its faults looks, once a second at most, and a client that touches nothing costs nothing. What a session
 * without a pager touches nobody sees, nor what the kernel fills by itself; there the loop looks when it makes or maps a region, and follow.c now and then.
 *
 * The look compares a hash of /proc/PID/cgroup. (A text made to have the same hash takes the right to make cgroups and to move
 * between them, and leads to nothing but the client's own memory being counted in the wrong one of these.) Only a change
 * concerns the loop, which finds the domain and moves the session there. The first look always does: since the hello found a
 * domain, the client may have moved.
 */

#include "move.h"

#include "container.h"
#include "domain.h"
#include "kernel.h"
#include "log.h"
#include "manager.h"
#include "process.h"
#include "session.h"

#include <unistd.h>

#define MOVE_CHECK_NS UINT64_C(1000000000)

void move_init(struct move *move) {
    move->fd = -1;
}

void move_deinit(struct move *move) {
    if (move->fd >= 0)
        close(move->fd);
    move->fd = -1;
}

/* FNV-1a of the file's text. false: the process is gone. Takes the kernel's cgroup lock. */
static bool hash_text(int fd, uint64_t *ret) {
    uint64_t hash = UINT64_C(14695981039346656037);
    unsigned char buffer[1024];
    off_t at = 0;
    ssize_t n;

    while ((n = pread(fd, buffer, sizeof(buffer), at)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            hash = (hash ^ buffer[i]) * UINT64_C(1099511628211);
        at += n;
    }
    *ret = hash;
    return n == 0 && at > 0;
}

/* In the loop. */
static void move_run(struct completion *completion) {
    struct session *session = container_of(completion, struct session, move.completion);
    struct domain *domain;

    atomic_store(&session->move.pending, false);
    if (session_find_domain(session, &domain) < 0)
        atomic_store(&session->move.again, true);
    else if (session_enter(session, domain))
        log_about(LOG_LEVEL_DEBUG, &(struct log_about){SESSION_ABOUT(session)},
                  "client %s (pid %d): moved to domain '%s'", session->name, (int)session->pid, domain->path);
}

void move_check(struct session *session) {
    struct move *move = &session->move;
    uint64_t now = kernel_now(), text;
    bool known;

    if (now - move->checked < MOVE_CHECK_NS || atomic_load(&move->pending))
        return;
    move->checked = now;
    worker_call_begin(&session->pager.worker);
    if (move->fd < 0)
        move->fd = process_open(session->pid, session->pager.pidfd, "cgroup");
    known = move->fd >= 0 && hash_text(move->fd, &text);
    worker_call_end(&session->pager.worker);
    if (!known || (!atomic_exchange(&move->again, false) && text == move->text))
        return;
    move->text = text;
    atomic_store(&move->pending, true);
    move->completion.run = move_run;
    manager_complete(session->manager, &move->completion);
}

bool move_look(pid_t pid, int pidfd, uint64_t *ret_text) {
    int fd = process_open(pid, pidfd, "cgroup");
    bool known = fd >= 0 && hash_text(fd, ret_text);

    if (fd >= 0)
        close(fd);
    return known;
}

void move_note(struct session *session, uint64_t text) {
    struct move *move = &session->move;

    if (!atomic_exchange(&move->again, false) && text == move->text)
        return;
    move->text = text;
    move_run(&move->completion);
}

void move_check_now(struct session *session) {
    uint64_t text;

    session->manager->to_follow = true;
    if (!session->intercepted && move_look(session->pid, session->pidfd, &text))
        move_note(session, text);
}
