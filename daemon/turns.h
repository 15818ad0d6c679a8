/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_TURNS_H
#define DROPPABLE_DAEMON_TURNS_H

/*
 * Whose turn it is to have a request served: pure, times are given.
 *
 * The loop serves one request of each connection in a round, which is fair as long as requests are cheap. One that took longer than
 * TURNS_COSTLY_NS makes its user owe a rest of TURNS_REST times that: no costly request of this user, on whatever connection, is served until
 * then. What is costly is known by experience (this connection's last request of that type was) or by nature (it is about everybody's
 * memory). Anything else is served at once, so who floods holds up himself, and of his user's other clients only those who ask for the
 * like: these wait in line, in the order in which they asked.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#define TURNS_COSTLY_NS UINT64_C(1000000)
#define TURNS_REST 10
#define TURNS_REST_MOST_NS UINT64_C(1000000000)
/* So long each user is served in a round of the loop, all connections together. */
#define TURNS_ROUND_NS UINT64_C(1000000)

/* While there are connections, or a rest is owed: who goes and comes again has not rested. */
struct turns_user {
    LIST_ENTRY(turns_user) link;
    uid_t uid;
    unsigned connections;
    uint64_t until; /* ns: nothing costly is served before, beyond what waits already */
    uint64_t rest;  /* ns, for the last costly request */
    uint64_t round; /* the last in which something was served, */
    uint64_t spent; /* and how long that took, ns */
};

struct turns {
    LIST_HEAD(turns_user_list, turns_user) users;
    uint64_t round; /* counted by the loop */
};

/* A connection's. */
struct turn {
    struct turns_user *user;
    uint32_t costly; /* bits of the types of which the last request that was not for all was */
    uint32_t asked;  /* the bit of the request that was asked about last, 0: it is for all */
    bool waiting;    /* in line, for a costly request that is not yet read: */
    uint64_t at;     /* ns: its time */
    uint64_t booked; /* ns of the user's until that are for it */
};

enum turn_answer {
    TURN_NOW,
    TURN_NEXT_ROUND, /* others first; ask again */
    TURN_LATER,      /* at turn->at */
};

/* Has the user had this round's share? Then there is nothing to ask. */
bool turns_have_ended(const struct turns *turns, const struct turn *turn);
/* -ENOMEM. */
int turns_join(struct turns *turns, struct turn *turn, uid_t uid, uint64_t now);
void turns_leave(struct turns *turns, struct turn *turn, uint64_t now);
void turns_deinit(struct turns *turns);
/* May the request that comes next be served? for_all: it is about everybody's memory. */
enum turn_answer turns_ask(const struct turns *turns, struct turn *turn, uint16_t type, bool for_all, uint64_t now);
/* So many ns of the loop went by without its being served. */
void turns_spend(const struct turns *turns, struct turn *turn, uint64_t cost);
/* The one that was asked about last was served, and took so many ns of the loop. */
void turns_charge(const struct turns *turns, struct turn *turn, uint64_t cost, uint64_t now);

#endif
