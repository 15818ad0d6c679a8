/* SPDX-License-Identifier: MIT */

/*
 * Threads that begin together. They wait behind a mutex that the caller holds until all are made, so that a thread
 * which cannot be made ends the others without a start. One thread is the caller itself.
 */

#include "team.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>

struct member {
    struct team *team;
    pthread_t thread;
    unsigned number;
    uint64_t start, end;
};

struct team {
    pthread_mutex_t gate;
    bool cancelled; /* under the gate */
    void (*work)(void *context, unsigned number);
    void *context;
    struct member members[TEAM_MAX];
};

uint64_t now_ns(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *run_member(void *context) {
    struct member *member = context;
    struct team *team = member->team;
    bool cancelled;

    pthread_mutex_lock(&team->gate);
    cancelled = team->cancelled;
    pthread_mutex_unlock(&team->gate);
    member->start = now_ns();
    if (!cancelled)
        team->work(team->context, member->number);
    member->end = now_ns();
    return NULL;
}

int team_run(unsigned threads, void (*work)(void *context, unsigned number), void *context, uint64_t *ret_ns) {
    struct team team = {.gate = PTHREAD_MUTEX_INITIALIZER, .work = work, .context = context};
    uint64_t start = UINT64_MAX, end = 0;
    unsigned made = 0;
    int error = 0;

    if (threads < 1 || threads > TEAM_MAX)
        return -EINVAL;
    if (threads == 1) {
        start = now_ns();
        work(context, 0);
        *ret_ns = now_ns() - start;
        return 0;
    }
    pthread_mutex_lock(&team.gate);
    while (made < threads && error == 0) {
        team.members[made] = (struct member){.team = &team, .number = made};
        error = pthread_create(&team.members[made].thread, NULL, run_member, &team.members[made]);
        made += error == 0;
    }
    team.cancelled = error != 0;
    pthread_mutex_unlock(&team.gate);
    for (unsigned i = 0; i < made; i++) {
        pthread_join(team.members[i].thread, NULL);
        start = team.members[i].start < start ? team.members[i].start : start;
        end = team.members[i].end > end ? team.members[i].end : end;
    }
    if (error == 0)
        *ret_ns = end - start;
    return -error;
}
