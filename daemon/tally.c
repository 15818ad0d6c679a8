/* SPDX-License-Identifier: MIT */
/*
 * What clients have, of those that have left, too.
 *
 * A client that hangs up takes nothing along at once: its shares of shared regions stay for a while, since it may come back, and all of it stays as
 * long as it holds up a thread of ours. Who did that again and again would have any number of regions if only connected clients
 * counted. What just takes its time to end is not counted: somebody who is started anew shall not meet the quota of his
 * predecessor.
 */

#include "tally.h"

#include "manager.h"

/* Longer than an ordinary end takes. */
#define LINGERS_NS UINT64_C(1000000000)

static void add_shares(struct tally *tally, const struct session *session) {
    const struct share *share;

    LIST_FOREACH (share, &session->shares, of_session) {
        tally->regions += share->opened;
        tally->bytes += share->opened * share->shared->region->size;
        tally->tables += share->opened * mapping_tables_most(share->shared->region->size);
    }
}

static struct tally of_session(const struct session *session, uint64_t now) {
    struct tally tally = {0};

    if (session->left == 0 || now - session->left > LINGERS_NS)
        tally = (struct tally){.regions = session->n_regions,
                               .locked = session->n_locked,
                               .bytes = session->region_bytes,
                               .tables = session->tables_most};
    else
        add_shares(&tally, session);
    return tally;
}

static void add(struct tally *sum, const struct tally *part) {
    sum->regions += part->regions;
    sum->locked += part->locked;
    sum->bytes += part->bytes;
    sum->tables += part->tables;
}

static void add_sessions(const struct session_list *sessions, uid_t uid, struct tally *all, struct tally *of_uid) {
    uint64_t now = kernel_now();
    const struct session *session;

    LIST_FOREACH (session, sessions, link) {
        struct tally tally = of_session(session, now);

        add(all, &tally);
        if (session->uid == uid)
            add(of_uid, &tally);
    }
}

static void add_homes(const struct home_list *homes, uid_t uid, struct tally *all, struct tally *of_uid) {
    const struct home *home;

    LIST_FOREACH (home, homes, link)
        if (!home->session) {
            const struct region *region = shared_of((struct home *)home)->region;
            struct tally tally = {.regions = TALLY_SHARED,
                                  .tables = region_tables_most(region->size, region->chunk_shift)};

            add(all, &tally);
            if (home_uid(home) == uid)
                add(of_uid, &tally);
        }
}

void tally_take(const struct manager *manager, uid_t uid, struct tally *ret_all, struct tally *ret_of_uid) {
    *ret_all = *ret_of_uid = (struct tally){0};
    add_sessions(&manager->sessions, uid, ret_all, ret_of_uid);
    add_sessions(&manager->leaving, uid, ret_all, ret_of_uid);
    add_homes(&manager->homes, uid, ret_all, ret_of_uid);
    add_homes(&manager->ending_homes, uid, ret_all, ret_of_uid);
}

static uint64_t bytes_within(const struct session_list *sessions, const struct domain *domain) {
    uint64_t now = kernel_now(), bytes = 0;
    const struct session *session;

    LIST_FOREACH (session, sessions, link)
        if (domain_is_within(session->domain, domain))
            bytes += of_session(session, now).bytes;
    return bytes;
}

uint64_t tally_bytes_within(const struct manager *manager, const struct domain *domain) {
    return bytes_within(&manager->sessions, domain) + bytes_within(&manager->leaving, domain);
}
