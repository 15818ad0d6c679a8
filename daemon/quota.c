/* SPDX-License-Identifier: MIT */

#include "quota.h"

#include "budget.h"
#include "log.h"
#include "server.h"
#include "tally.h"

#include <inttypes.h>
#include <unistd.h>

/* Address space of all regions: half of what a process has. */
#define BYTES_MAX (UINT64_C(64) << 40)
/* Tables of one user: an eighth of the machine's memory, unless TablesPerUser= says otherwise. */
#define TABLES_SHARE 8

/* Of one user: bytes. */
static uint64_t tables_of_user(const struct config *config) {
    if (config->max_tables_per_uid != CONFIG_AUTO)
        return config->max_tables_per_uid;
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / TABLES_SHARE;
}

/* What is in the way of one more region of that size, with tables of so many bytes at most: the name of a limit, or NULL. */
static const char *limit_in_the_way(const struct connection *connection, uint64_t size, uint64_t tables) {
    struct manager *manager = connection->server->manager;
    const struct config *config = connection->server->config;
    const struct session *own = connection->session;
    struct tally all, of_uid;

    tally_take(manager, own->uid, &all, &of_uid);
    if (size > config->max_region_bytes)
        return "RegionBytes";
    if (own->n_regions >= config->max_regions)
        return "RegionsPerClient";
    if (of_uid.regions >= manager->max_regions / 2 || all.regions >= manager->max_regions)
        return "regions that LimitNOFILE= and vm.max_map_count leave room for";
    if (all.bytes + size > BYTES_MAX)
        return "address space";
    if (of_uid.tables + tables > tables_of_user(config))
        return "TablesPerUser";
    return budget_check_bytes(manager, own, of_uid.bytes, size);
}

uint32_t quota_check(const struct connection *connection, uint64_t size, uint64_t tables) {
    struct session *session = connection->session;
    const char *limit;

    if (atomic_load(&session->home.quarantined))
        return DRP_WIRE_ERROR_QUARANTINED;
    limit = limit_in_the_way(connection, size, tables);
    if (!limit)
        return DRP_WIRE_OK;
    if (!session->quota_logged && log_allows(&connection->server->quotas, kernel_now())) {
        session->quota_logged = true;
        log_about(LOG_LEVEL_NOTICE, &(struct log_about){SESSION_ABOUT(session), .id = LOG_ID_OVER_QUOTA},
                  "client %s (pid %d, uid %u): a region of %" PRIu64 " bytes is over the quota: %s", session->name,
                  (int)session->pid, session->uid, size, limit);
    }
    return DRP_WIRE_ERROR_QUOTA;
}
