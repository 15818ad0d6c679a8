/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_CONFIG_H
#define DROPPABLE_DAEMON_CONFIG_H

/*
 * The daemon's settings: defaults, then the file (ini, as systemd's), then its drop-ins, then the command line. Validated whole before use.
 * systemd/droppabled.conf documents every key with its default.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CONFIG_AUTO UINT64_MAX
#define CONFIG_INFINITY UINT64_MAX

/* [User NAME] or [Cgroup PATH]: what one alone may have, in the place of what [Budgets] and [Limits] say. */
struct config_group {
    char *section;    /* as it was written; owned */
    const char *path; /* in it, as in /proc/PID/cgroup; NULL: it is a user */
    uid_t uid;
    uint64_t budget; /* Budget=: resident bytes, or CONFIG_INFINITY; 0: not set */
    uint64_t quota;  /* Quota=: address space, likewise */
};

struct config {
    /* [Daemon] */
    char *socket_path;  /* Socket=; owned */
    mode_t socket_mode; /* SocketMode=, octal: what a client may do is decided by limits, not by reaching us */
    char *socket_group; /* SocketGroup=: of the socket; NULL: the daemon's. Owned */
    gid_t socket_gid;   /* resolved; (gid_t)-1: unchanged */
    char *lend_group;   /* LendUserfaultfd=GROUP: members get /dev/userfaultfd; NULL: nobody. Owned */
    gid_t lend_gid;     /* resolved; (gid_t)-1: nobody */
    char *control_group; /* ControlGroup=GROUP: members are administrators; NULL: none besides root and the daemon's user. Owned */
    gid_t control_gid;      /* resolved; (gid_t)-1: nobody */
    bool kill_stuck;        /* KillStuckClients=: SIGKILL by pidfd after quarantine */
    bool system_huge_pages; /* SystemHugePages=: regions that ask for nothing get huge pages where everybody does */

    /* [Pressure], bytes or CONFIG_AUTO */
    uint64_t machine_reserve; /* MachineReserve= */
    uint64_t cgroup_reserve;  /* CgroupReserve= */

    /* [Budgets], resident bytes or CONFIG_INFINITY. Read by the pressure thread: they change under the manager's lock, as all of this */
    uint64_t region_budget; /* Region= */
    uint64_t client_budget; /* Client= */
    uint64_t user_budget;   /* User= */
    uint64_t cgroup_budget; /* Cgroup=: of one that holds clients itself, with those below it */

    /* [Limits]: over them is EDQUOT */
    uint32_t max_connections;         /* Connections= in all */
    uint32_t max_connections_per_uid; /* ConnectionsPerUser= */
    uint32_t max_regions;             /* RegionsPerClient= */
    uint64_t max_region_bytes;        /* RegionBytes= */
    uint64_t max_bytes_per_client; /* BytesPerClient=: address space of all its regions, or CONFIG_INFINITY; so the next two */
    uint64_t max_bytes_per_uid;    /* BytesPerUser= */
    uint64_t max_bytes_per_cgroup; /* BytesPerCgroup= */
    uint64_t max_tables_per_uid; /* TablesPerUser=: bytes that the tables of all its regions may grow to, or CONFIG_AUTO */
    uint64_t max_pinned_per_client; /* PinnedPerClient=: bytes of pinned chunks, or CONFIG_INFINITY */
    uint64_t max_pinned_per_uid;    /* PinnedPerUser= */

    struct config_group *groups; /* owned */
    size_t n_groups;
};

/* Where the settings are. */
struct config_source {
    const char *path;        /* the file; PATH.d/ has its drop-ins */
    bool optional;           /* the file need not be there */
    const char *socket_path; /* of the command line, or of the socket that was passed, over the files'; NULL: none */
    bool passed;             /* the socket is the service manager's */
};

/* Fills in the defaults. */
void config_init(struct config *config);
void config_deinit(struct config *config);
/*
 * Reads a file over the current values. On failure config is as before and *ret_error (malloc'd, for the caller to free) names file, line, value and
 * range: "/etc/droppable/droppabled.conf:12: MachineReserve=: 'x' is not a size (4K..1T, ...)". Unknown sections and keys are errors.
 */
int config_read_file(struct config *config, const char *path, char **ret_error);
/*
 * All of it: defaults, the file, its *.conf in PATH.d/ by name, later ones over earlier ones; then the socket's path, which is always there then. On
 * failure *ret is as before; *ret_error as above, or NULL where memory ran out.
 */
int config_load(struct config *ret, const struct config_source *source, char **ret_error);
/*
 * The key number i, and its value as it would be in a file (of groups of the system: what was). At last those of sections of one user or cgroup, each in the order
 * in which it came first. false: there are no more.
 */
bool config_value(const struct config *config, size_t i, const char **ret_section, const char **ret_name, char *ret,
                  size_t size);
/* The number of the same key of another one's; SIZE_MAX: that has no such section. */
size_t config_same(const struct config *config, size_t i, const struct config *other);
/* The socket to listen on if none is given: $XDG_RUNTIME_DIR/droppabled.sock for an ordinary user, else /run/droppabled.sock. malloc'd. */
int config_default_socket(char **ret);
/* "64M", "1G", "4096" -> bytes; -EINVAL, -ERANGE. */
int config_parse_size(const char *text, uint64_t *ret);

#endif
