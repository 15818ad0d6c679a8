/* SPDX-License-Identifier: MIT */
/*
 * Turns. A user's until is the end of the line: who has to wait gets that as its time, and adds what its request will cost by the last
 * one's measure; once it was served, that is put right. So costly requests of a user are served at a distance, a tenth of the time at most,
 * on however many connections they come.
 */

#include "turns.h"

#include <errno.h>
#include <stdlib.h>

static void free_rested(struct turns *turns, uint64_t now) {
    struct turns_user *user, *next;

    for (user = LIST_FIRST(&turns->users); user; user = next) {
        next = LIST_NEXT(user, link);
        if (user->connections > 0 || user->until > now)
            continue;
        LIST_REMOVE(user, link);
        free(user);
    }
}

static struct turns_user *find_user(const struct turns *turns, uid_t uid) {
    struct turns_user *user;

    LIST_FOREACH (user, &turns->users, link)
        if (user->uid == uid)
            return user;
    return NULL;
}

int turns_join(struct turns *turns, struct turn *turn, uid_t uid, uint64_t now) {
    struct turns_user *user;

    free_rested(turns, now);
    user = find_user(turns, uid);
    if (!user) {
        user = calloc(1, sizeof(*user));
        if (!user)
            return -ENOMEM;
        user->uid = uid;
        LIST_INSERT_HEAD(&turns->users, user, link);
    }
    user->connections++;
    *turn = (struct turn){.user = user};
    return 0;
}

static void end_waiting(struct turn *turn) {
    turn->user->until -= turn->booked;
    turn->booked = 0;
    turn->waiting = false;
}

void turns_leave(struct turns *turns, struct turn *turn, uint64_t now) {
    end_waiting(turn);
    turn->user->connections--;
    turn->user = NULL;
    free_rested(turns, now);
}

void turns_deinit(struct turns *turns) {
    struct turns_user *user;

    while ((user = LIST_FIRST(&turns->users))) {
        LIST_REMOVE(user, link);
        free(user);
    }
}

/* What is no type, the codec refuses in a moment. */
static uint32_t bit_of(uint16_t type) {
    return type < 32 ? UINT32_C(1) << type : 0;
}

bool turns_have_ended(const struct turns *turns, const struct turn *turn) {
    return turn->user->round == turns->round && turn->user->spent >= TURNS_ROUND_NS;
}

enum turn_answer turns_ask(const struct turns *turns, struct turn *turn, uint16_t type, bool for_all, uint64_t now) {
    struct turns_user *user = turn->user;

    turn->asked = for_all ? 0 : bit_of(type);
    if (!turn->waiting && user->until > now && (for_all || turn->costly & turn->asked)) {
        turn->waiting = true;
        turn->at = user->until;
        turn->booked = user->rest;
        user->until += user->rest;
    }
    if (turn->waiting && turn->at > now)
        return TURN_LATER;
    return turns_have_ended(turns, turn) ? TURN_NEXT_ROUND : TURN_NOW;
}

void turns_spend(const struct turns *turns, struct turn *turn, uint64_t cost) {
    struct turns_user *user = turn->user;

    if (user->round != turns->round)
        user->spent = 0;
    user->round = turns->round;
    user->spent += cost;
}

void turns_charge(const struct turns *turns, struct turn *turn, uint64_t cost, uint64_t now) {
    struct turns_user *user = turn->user;
    uint64_t rest = cost < TURNS_REST_MOST_NS / TURNS_REST ? cost * TURNS_REST : TURNS_REST_MOST_NS;

    turns_spend(turns, turn, cost);
    end_waiting(turn);
    turn->costly &= ~turn->asked;
    if (cost < TURNS_COSTLY_NS)
        return;
    turn->costly |= turn->asked;
    user->rest = rest;
    user->until = (user->until > now ? user->until : now) + rest;
}
