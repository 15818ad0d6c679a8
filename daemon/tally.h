/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_TALLY_H
#define DROPPABLE_DAEMON_TALLY_H

/* What somebody has, for quotas. In the loop. */

#include <stdint.h>
#include <sys/types.h>

struct domain;
struct manager;

struct tally {
    unsigned regions; /* in units of what one costs the service */
    unsigned locked;
    uint64_t bytes;  /* address space */
    uint64_t tables; /* what the daemon's own may grow to for it: bytes */
};

/* A shared region has a home of its own besides, with a thread and descriptors: it costs so many more. */
#define TALLY_SHARED 2

/* What all clients have, and what those of a user have. */
void tally_take(const struct manager *manager, uid_t uid, struct tally *ret_all, struct tally *ret_of_uid);
/* Bytes of the clients in a domain, and below it. */
uint64_t tally_bytes_within(const struct manager *manager, const struct domain *domain);

#endif
