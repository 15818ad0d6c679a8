/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_PAGER_H
#define DROPPABLE_DAEMON_PAGER_H

#include "worker.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct extent;
struct mapping;
struct region;
struct session;

enum pager_command_type {
    PAGER_MAP,          /* register a mapping and its pieces */
    PAGER_UNMAP,        /* unregister a mapping and forget its extents; NULL: only be the last to hear of a region */
    PAGER_MAP_PIECES,   /* register more of a mapping: all of it (result < 0: none of it) */
    PAGER_UNMAP_PIECES, /* unregister what of a mapping is at these addresses, and forget its pages */
    PAGER_POPULATE,     /* make [offset, end) of a region resident */
};

/* Something the loop wants. Owned by the one who submits; done() is called in the pager's thread when it is finished. */
struct pager_command {
    TAILQ_ENTRY(pager_command) link;
    enum pager_command_type type;
    struct mapping *mapping;
    struct extent *pieces; /* the pager's while it has the command */
    size_t n_pieces;
    size_t n_blind; /* map pieces: so many are not intercepted */
    struct region *region;
    uint64_t offset, end; /* populate; offset advances */
    uint64_t filled;      /* populate: bytes that this filled */
    uint64_t deadline;    /* populate: of the present wait at the gate; 0: not waiting */
    int result;
    void (*done)(struct pager_command *command);
};
TAILQ_HEAD(pager_commands, pager_command);

#define PAGER_DEFERRED_MAX 256

struct pager_deferred {
    uint64_t address;
    uint64_t deadline;
    bool at_gate;
    bool waited, passed; /* was at the gate at any time; and went ahead without room: each is counted once */
};

/* Spans that the dropper wants armed before it punches. One request at a time, all under the session's lock. */
#define PAGER_ARM_MAX 32
struct pager_arm {
    struct region *regions[PAGER_ARM_MAX];
    uint32_t spans[PAGER_ARM_MAX];
    unsigned n;
    bool realtime; /* the thread runs before all ordinary ones until it is done */
};

struct pager {
    struct worker worker;
    int uffd;             /* of the pager's table, */
    int pidfd;            /* so is the client's */
    int maps_fd;          /* /proc/PID/maps, to look before an unregistered range is armed; -1: not open */
    uint64_t looks_until; /* ns; 0: without end */
    bool use_wp;          /* disarm by write-protect mode; else by unregistering */
    bool kernel_fills;    /* several NUMA nodes: what we fill would come from ours */
    uint32_t runs_max;    /* runs of disarmed spans that max_map_count allows */

    struct pager_commands commands; /* under the session's lock */
    struct pager_arm arm;
    _Atomic uint32_t arm_sequence; /* futex: odd while a request stands, even when it is done */
    _Atomic uint64_t rearm_bytes;  /* commitments that the pressure thread wants back */

    uint64_t last_refresh; /* ns: commitments are measured at most once a millisecond while the gate is tight */
    struct pager_deferred deferred[PAGER_DEFERRED_MAX];
    unsigned n_deferred;
    bool hopeless;    /* gate_hopeless, of this turn */
    bool passed_gate; /* the last answer was forced, and there was no room */
    bool overflow;    /* a fault was not put aside for want of room: it has to be woken */
    bool gated;       /* something waits at the gate, as of this turn */
    bool again;       /* do not sleep before the next turn: our own control socket's other end is not in our table */
    _Atomic bool waits_for_drop; /* a fault is deferred until a drop is over: the dropper shall kick */
    _Atomic bool gate_hopeless;  /* nothing is left to drop: who waits at the gate need not wait any longer */
    _Atomic bool waits_at_gate;  /* a fault or populate is deferred until there is credit */
};

/* Does UFFDIO_API on a client's fresh userfaultfd. 0, or negative errno. */
int pager_handshake(int uffd, bool wp_shmem, bool *ret_use_wp);
/* Starts the thread, with a copy of uffd. */
int pager_start(struct session *session, int uffd, bool use_wp, struct worker_pool *pool);

/*
 * In the pager's thread: is this piece still a mapping of the region's object, at that offset? For pieces that sent no events. 1: yes; 0: no; negative
 * errno: cannot tell.
 */
int pager_still_mapped(struct session *session, const struct mapping *mapping, uint64_t address, uint64_t length,
                       uint64_t offset);

/* From any thread of the main table. */
void pager_submit(struct session *session, struct pager_command *command);

/*
 * From the dropper: asks for spans to be armed, waits at most wait_ns (0: not at all). When this returns, a span is armed where its mappings'
 * span_state says so: a fault in between may have disarmed it again.
 */
void pager_arm_spans(struct session *session, struct region *const *regions, const uint32_t *spans, unsigned n,
                     uint64_t wait_ns, bool realtime);

#endif
