/* SPDX-License-Identifier: MIT */
/*
 * Nobody sees what a client without interception touches, or where the kernel fills by itself, so nobody sees either when it goes on in another cgroup. It is
 * looked at in turns: a few at a time, so that a thousand cost no more than some do, which are then found three seconds after they have moved. Reading
 * /proc/PID/cgroup takes the kernel's cgroup lock, which others may hold: in one of libuv's threads, or in the pager if there is one.
 */

#include "follow.h"

#include "container.h"
#include "manager.h"
#include "move.h"
#include "process.h"
#include "session.h"

#include <fcntl.h>
#include <unistd.h>

/* Each wakes an idle service once more. */
#define FOLLOW_MS 3000
/* All of them in so many rounds, if that takes no more than FOLLOW_AT_ONCE at a time, which cost a millisecond or two. */
#define FOLLOW_ROUNDS 4
#define FOLLOW_LEAST 16

static bool is_to_follow(struct session *session) {
    if (session->n_regions == 0)
        return false;
    return !session->intercepted || !LIST_EMPTY(&session->shares) || atomic_load(&session->committed) > 0;
}

static void ask_pager(struct session *session) {
    atomic_store(&session->move.wanted, true);
    worker_kick(&session->pager.worker);
}

/* The next ones after those of the last time; sessions are linked the newest first. */
static void choose(struct follow *follow) {
    struct session *session;
    size_t n = 0, most = follow->manager->n_sessions / FOLLOW_ROUNDS;

    most = most < FOLLOW_LEAST ? FOLLOW_LEAST : most > FOLLOW_AT_ONCE ? FOLLOW_AT_ONCE : most;
    follow->n = 0;
    LIST_FOREACH (session, &follow->manager->sessions, link) {
        struct followed *look = &follow->looks[follow->n];

        if (session->id >= follow->last || !is_to_follow(session))
            continue;
        if (n++ == most)
            return;
        follow->last = session->id;
        if (session->intercepted) {
            ask_pager(session);
            continue;
        }
        *look = (struct followed){
            .session = session->id, .pid = session->pid, .pidfd = fcntl(session->pidfd, F_DUPFD_CLOEXEC, 0)};
        follow->n += look->pidfd >= 0;
    }
    follow->last = UINT64_MAX; /* from the first on again */
}

static void look_at_all(uv_work_t *work) {
    struct follow *follow = container_of(work, struct follow, work);

    for (size_t i = 0; i < follow->n; i++)
        follow->looks[i].known = move_look(follow->looks[i].pid, follow->looks[i].pidfd, &follow->looks[i].text);
}

static struct session *find_session(const struct manager *manager, uint64_t id) {
    struct session *session;

    LIST_FOREACH (session, &manager->sessions, link)
        if (session->id == id)
            return session;
    return NULL;
}

static void looked(uv_work_t *work, int status) {
    struct follow *follow = container_of(work, struct follow, work);

    (void)status;
    follow->working = false;
    for (size_t i = 0; i < follow->n; i++) {
        struct followed *look = &follow->looks[i];
        struct session *session = find_session(follow->manager, look->session);

        close(look->pidfd);
        if (look->known && session && !session->intercepted)
            move_note(session, look->text);
    }
}

static void follow_some(uv_timer_t *timer) {
    struct follow *follow = container_of(timer, struct follow, timer);

    if (follow->manager->n_regions == 0)
        uv_timer_stop(timer);
    if (follow->working)
        return;
    choose(follow);
    if (follow->n == 0)
        return;
    follow->working = uv_queue_work(follow->loop, &follow->work, look_at_all, looked) == 0;
    for (size_t i = 0; i < follow->n && !follow->working; i++)
        close(follow->looks[i].pidfd);
}

void follow_init(struct follow *follow, uv_loop_t *loop, struct manager *manager) {
    *follow = (struct follow){.loop = loop, .manager = manager, .last = UINT64_MAX};
    uv_timer_init(loop, &follow->timer);
}

void follow_begin(struct follow *follow) {
    if (!follow->manager->to_follow || follow->ended)
        return;
    follow->manager->to_follow = false;
    if (!uv_is_active((uv_handle_t *)&follow->timer))
        uv_timer_start(&follow->timer, follow_some, FOLLOW_MS, FOLLOW_MS);
}

void follow_end(struct follow *follow) {
    follow->ended = true;
    uv_close((uv_handle_t *)&follow->timer, NULL);
}
