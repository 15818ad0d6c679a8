/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_CONFIG_H
#define DROPPABLE_DAEMON_CONFIG_H

/* The daemon's settings: defaults, then the file (ini, as systemd's), then the command line. Validated whole before use. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CONFIG_AUTO UINT64_MAX
#define CONFIG_INFINITY UINT64_MAX

struct config {
    char *socket_path;  /* owned */
    char *lend_group;   /* [Daemon] LendUserfaultfd=GROUP: members get /dev/userfaultfd; NULL: nobody. Owned */
    gid_t lend_gid;     /* resolved; (gid_t)-1: nobody */
    char *socket_group; /* [Daemon] SocketGroup=: group of the socket; NULL: the daemon's. Owned */
    gid_t socket_gid;   /* resolved; (gid_t)-1: unchanged */
    mode_t socket_mode; /* [Daemon] SocketMode=, octal, default 0666: what a client may do is decided by limits, not by reaching us */
    bool system_huge_pages; /* [Daemon] SystemHugePages=yes|no (yes): regions that ask for nothing get huge pages where everybody does */
    uint64_t machine_reserve;         /* [Pressure] MachineReserve= bytes (K, M, G, T suffixes), or auto */
    uint64_t cgroup_reserve;          /* [Pressure] CgroupReserve= bytes, or auto */
    bool kill_stuck;                  /* [Daemon] KillStuckClients=yes|no (no): SIGKILL by pidfd after quarantine */
    uint32_t max_connections;         /* [Limits] Connections= in all (4096), 1..65536 */
    uint32_t max_connections_per_uid; /* [Limits] ConnectionsPerUser= (1024) */
    uint32_t max_regions;             /* [Limits] RegionsPerClient= (1024), 1..65536 */
    uint64_t max_region_bytes;        /* [Limits] RegionBytes= (16T), 4K..16T */
    uint64_t max_bytes_per_uid;       /* [Limits] BytesPerUser= address space of all regions of a uid (32T) */
    uint64_t max_bytes_per_client;    /* [Limits] BytesPerClient= (infinity) */
    uint64_t max_bytes_per_cgroup;    /* [Limits] BytesPerCgroup= of a cgroup that holds clients, with those below it (infinity) */
    uint64_t max_pinned_per_client;   /* [Limits] PinnedPerClient= bytes of pinned chunks (infinity) */
    uint64_t max_pinned_per_uid;      /* [Limits] PinnedPerUser= (infinity) */
    uint64_t region_budget;           /* [Budgets] Region= resident bytes, or infinity (which is the default of all four) */
    uint64_t client_budget;           /* [Budgets] Client= */
    uint64_t user_budget;             /* [Budgets] User= */
    uint64_t cgroup_budget;           /* [Budgets] Cgroup= */
};

/* Fills in the defaults. */
void config_init(struct config *config);
void config_deinit(struct config *config);
/*
 * Reads a file over the current values. On failure config is as before and *ret_error (malloc'd, for the caller to free) names file, line, value and
 * range: "/etc/droppable/droppabled.conf:12: MachineReserve=: 'x' is not a size (4K..1T, or 'auto')". Unknown sections and keys are errors.
 */
int config_read_file(struct config *config, const char *path, char **ret_error);
/* The socket to listen on if none is given: $XDG_RUNTIME_DIR/droppabled.sock for an ordinary user, else /run/droppabled.sock. malloc'd. */
int config_default_socket(char **ret);
/* "64M", "1G", "4096" -> bytes; -EINVAL, -ERANGE. */
int config_parse_size(const char *text, uint64_t *ret);

#endif
