/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_FOLLOW_H
#define DROPPABLE_DAEMON_FOLLOW_H

/* Follows clients from cgroup to cgroup whose accesses no pager sees (move.h). Of the loop. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

struct manager;

#define FOLLOW_AT_ONCE 64

struct follow {
    uv_loop_t *loop;
    struct manager *manager;
    uv_timer_t timer; /* runs only while there is somebody to follow */
    uv_work_t work;
    bool working, ended;
    uint64_t last; /* id of the session that was looked at last */
    /* While working: of the thread that does it. */
    struct followed {
        uint64_t session; /* id */
        pid_t pid;
        int pidfd;
        bool known;
        uint64_t text; /* hash */
    } looks[FOLLOW_AT_ONCE];
    size_t n;
};

void follow_init(struct follow *follow, uv_loop_t *loop, struct manager *manager);
/* If manager.to_follow says so: looks at some each second from here on, until there is nobody left. */
void follow_begin(struct follow *follow);
void follow_end(struct follow *follow);

#endif
