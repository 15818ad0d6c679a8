/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PROTOCOL_WIRE_H
#define DROPPABLE_PROTOCOL_WIRE_H

/*
 * The wire format: every message that goes over the socket, as fixed-width structs in the machine's byte order (both ends are on
 * one machine). SOCK_SEQPACKET, one message a packet, its descriptors in the same packet. PROTOCOL.md is the prose.
 */

#include <assert.h>
#include <stdint.h>

#define DRP_WIRE_MAGIC UINT32_C(0x31505244) /* "DRP1" */
#define DRP_WIRE_VERSION 1
#define DRP_WIRE_MAX_SIZE 4096
#define DRP_WIRE_MAX_FDS 4

/* Feature bits of the hello; unknown ones are ignored by both sides, the reply names those that both know. */
#define DRP_FEATURE_ADOPT (UINT64_C(1) << 0)   /* regions can be handed over after a restart of the daemon */
#define DRP_FEATURE_PIECES (UINT64_C(1) << 1)  /* MAP of nothing yet, MAP_PIECES, UNMAP_PIECES */
#define DRP_FEATURE_WATCH (UINT64_C(1) << 2)   /* WATCH; drops are counted in state pages */
#define DRP_FEATURE_SHARED (UINT64_C(1) << 4)  /* CREATE_SHARED, OPEN; tickets with MAP */
#define DRP_FEATURE_NATIVE (UINT64_C(1) << 5)  /* NATIVE, END_NATIVE */
#define DRP_FEATURE_LOCKED (UINT64_C(1) << 6)  /* the client attaches locked segments */
#define DRP_FEATURE_OPTIONS (UINT64_C(1) << 8) /* TELL_OPTIONS */
#define DRP_FEATURES_KNOWN                                                                                  \
    (DRP_FEATURE_ADOPT | DRP_FEATURE_PIECES | DRP_FEATURE_WATCH | DRP_FEATURE_SHARED | DRP_FEATURE_NATIVE | \
     DRP_FEATURE_LOCKED | DRP_FEATURE_OPTIONS)

enum drp_wire_type {
    DRP_WIRE_HELLO = 1,
    DRP_WIRE_UFFD = 2,
    DRP_WIRE_CREATE = 3,
    DRP_WIRE_ADOPT = 4,
    DRP_WIRE_MAP = 5,
    DRP_WIRE_UNMAP = 6,
    DRP_WIRE_DESTROY = 7,
    DRP_WIRE_DROP = 8,
    DRP_WIRE_POPULATE = 9,
    DRP_WIRE_STATS = 10,
    DRP_WIRE_STATUS = 11,
    DRP_WIRE_LIST = 12,
    DRP_WIRE_CONTROL_DROP = 13,
    DRP_WIRE_LIMIT = 14,
    DRP_WIRE_FREE = 15,
    DRP_WIRE_WHY = 16,
    DRP_WIRE_HISTOGRAMS = 17,
    DRP_WIRE_MAP_PIECES = 18,
    DRP_WIRE_UNMAP_PIECES = 19,
    DRP_WIRE_WATCH = 20,
    DRP_WIRE_CREATE_SHARED = 21,
    DRP_WIRE_OPEN = 22,
    DRP_WIRE_NATIVE = 23,
    DRP_WIRE_END_NATIVE = 24,
    DRP_WIRE_TELL_OPTIONS = 25,
    DRP_WIRE_SEAL_PINS = 26,
    DRP_WIRE_TYPE_MAX = 26,
    /* 0x4000 and up: events from the daemon, none in version 1 */
    DRP_WIRE_REPLY = 0x8000, /* added to the request's type */
};

/* Errors in a reply. The names are what the log and droppablectl print. */
enum drp_wire_error {
    DRP_WIRE_OK = 0,
    DRP_WIRE_ERROR_VERSION = 1,          /* no common protocol version */
    DRP_WIRE_ERROR_MALFORMED = 2,        /* message malformed (the connection ends) */
    DRP_WIRE_ERROR_STATE = 3,            /* message not allowed in this state (the connection ends) */
    DRP_WIRE_ERROR_INVALID = 4,          /* a value is out of its range */
    DRP_WIRE_ERROR_UNSUPPORTED = 5,      /* a required option cannot be given */
    DRP_WIRE_ERROR_QUOTA = 6,            /* over a quota or limit */
    DRP_WIRE_ERROR_NOT_FOUND = 7,        /* no such region, mapping or process */
    DRP_WIRE_ERROR_PERMISSION = 8,       /* not yours */
    DRP_WIRE_ERROR_DESCRIPTOR = 9,       /* a descriptor is not of the kind expected */
    DRP_WIRE_ERROR_MEMORY = 10,          /* no memory or no descriptors in the daemon */
    DRP_WIRE_ERROR_QUARANTINED = 11,     /* the session holds up the daemon's calls */
    DRP_WIRE_ERROR_NOT_INTERCEPTED = 12, /* needs interception, which this session does not have */
    DRP_WIRE_ERROR_INTERNAL = 13,
    DRP_WIRE_ERROR_EXISTS = 14, /* the name is taken */
    DRP_WIRE_ERROR_MAX = 14,
};

struct drp_wire_header {
    uint16_t type; /* enum drp_wire_type */
    uint16_t reserved;
    uint32_t serial; /* chosen by the client, repeated in the reply */
    uint32_t error;  /* enum drp_wire_error; 0 in requests. A reply with an error is this header alone. */
    uint32_t reserved2;
};
static_assert(sizeof(struct drp_wire_header) == 16, "wire header");

/* HELLO: first message of every connection. */
struct drp_wire_hello {
    struct drp_wire_header header;
    uint32_t magic;
    uint16_t version_min;
    uint16_t version_max;
    uint64_t features;
    char name[32]; /* of the program, NUL-padded; bytes outside 0x20..0x7e are shown as '?' */
};
static_assert(sizeof(struct drp_wire_hello) == 64, "hello");

#define DRP_HELLO_LENT_UFFD \
    UINT32_C(1) /* the second descriptor is the daemon's /dev/userfaultfd, for USERFAULTFD_IOC_NEW */

/* Descriptors: the clock page (read-only); with DRP_HELLO_LENT_UFFD also /dev/userfaultfd. */
struct drp_wire_hello_reply {
    struct drp_wire_header header;
    uint16_t version;
    uint16_t reserved;
    uint32_t flags; /* DRP_HELLO_* */
    uint64_t features;
    uint64_t session;
    uint64_t region_options; /* DRP_REGION_* that can be given here */
    uint64_t max_region_bytes;
    uint32_t max_regions;
    uint32_t daemon_pid;
};
static_assert(sizeof(struct drp_wire_hello_reply) == 64, "hello reply");

/* UFFD: one descriptor, a fresh userfaultfd (no UFFDIO_API yet) of the calling process; or none, and why. At most once. */
struct drp_wire_uffd {
    struct drp_wire_header header;
    uint32_t reason; /* errno of the client's attempt; 0 with a descriptor */
    uint32_t reserved;
};
static_assert(sizeof(struct drp_wire_uffd) == 24, "uffd");

enum drp_wire_interception { DRP_WIRE_INTERCEPTION_NONE = 0, DRP_WIRE_INTERCEPTION_FULL = 1 };

struct drp_wire_uffd_reply {
    struct drp_wire_header header;
    uint32_t interception; /* enum drp_wire_interception */
    uint32_t reserved;
};
static_assert(sizeof(struct drp_wire_uffd_reply) == 24, "uffd reply");

/* CREATE: a new region. Reply's descriptors: data object (read-write), state page (read-only). */
struct drp_wire_create {
    struct drp_wire_header header;
    uint64_t size;
    uint64_t required;   /* DRP_REGION_* */
    uint64_t preferred;  /* DRP_REGION_* */
    uint64_t budget;     /* bytes, 4096 or more; 0: none */
    uint32_t share;      /* 1..10000; 0: the default */
    uint8_t chunk_shift; /* 12..21; 0: the default */
    uint8_t priority;    /* 1..3; 0: normal */
    uint8_t reserved[2];
};
static_assert(sizeof(struct drp_wire_create) == 56, "create");

struct drp_wire_create_reply {
    struct drp_wire_header header;
    uint64_t region;
    uint64_t size;          /* as granted */
    uint64_t object_offset; /* the region's first byte in the data object */
    uint64_t chunk_base;    /* index of the region's first chunk in state and pin page */
    uint64_t chunk_total;   /* chunks in the state and pin page */
    uint64_t granted;       /* DRP_REGION_* */
    uint8_t chunk_shift;
    uint8_t reserved[3];
    uint32_t ipc_namespace; /* where the data object can be attached as a segment to keep it locked, see PROTOCOL.md; 0: nowhere, no need */
};
static_assert(sizeof(struct drp_wire_create_reply) == 72, "create reply");

/*
 * CREATE_SHARED: as CREATE, a region that other processes can open: whoever has its data object, and by name. Reply: as for CREATE. EXISTS: the name is
 * taken.
 */
#define DRP_WIRE_SHARED_NAME 64
struct drp_wire_create_shared {
    struct drp_wire_create create;
    uint32_t mode; /* who may open it by name: 0600, 0060 and 0006, whole; 0 without a name */
    uint32_t reserved;
    char name[DRP_WIRE_SHARED_NAME]; /* one of the user's names, 1 to 63 of 0x21..0x7e without '/', NUL-padded; empty: none */
};
static_assert(sizeof(struct drp_wire_create_shared) == 128, "create shared");

/*
 * OPEN: another's shared region, or an own one again, by its data object, which is the descriptor, or by name. Reply: as for CREATE; the
 * region's id is the same for everybody. Each may be mapped once, and is given up by UNMAP and DESTROY.
 */
struct drp_wire_open {
    struct drp_wire_header header;
    uint32_t uid; /* whose name it is; with a descriptor 0 */
    uint32_t reserved;
    char name[DRP_WIRE_SHARED_NAME]; /* with a descriptor empty */
};
static_assert(sizeof(struct drp_wire_open) == 88, "open");

/*
 * ADOPT: hands over a region that another daemon made. Descriptors: its data object, its state page. The new daemon makes a new state page,
 * takes the generations over (odd ones become the next even: lost) and punches the chunks that were odd. Reply: as for CREATE, with
 * one descriptor, the new state page.
 */
struct drp_wire_adopt {
    struct drp_wire_header header;
    uint64_t size;
    uint64_t object_offset;
    uint64_t chunk_base;
    uint64_t chunk_total;
    uint64_t granted;
    uint64_t budget; /* as for CREATE, or as LIMIT set it since; so share and priority */
    uint32_t share;
    uint8_t chunk_shift;
    uint8_t priority;
    uint8_t reserved[2];
};
static_assert(sizeof(struct drp_wire_adopt) == 72, "adopt");

/*
 * MAP: the client mapped [offset, offset + length) of the region at address; all three 0: nothing yet, MAP_PIECES will tell. With a
 * descriptor: the pin page of an adopted mapping (a memfd of this daemon's predecessor, sealed SHRINK|GROW|FUTURE_WRITE|SEAL); of a shared region also
 * its ticket. Reply's descriptor: the pin page to map; none if one was handed over. The client maps and seals it, and says so (SEAL_PINS, a drp_wire_id;
 * reply: header alone). Of a shared region also a ticket: to keep as long as the region is mapped, and to give to nobody.
 */
struct drp_wire_map {
    struct drp_wire_header header;
    uint64_t region;
    uint64_t address;
    uint64_t length;
    uint64_t offset;
};
static_assert(sizeof(struct drp_wire_map) == 48, "map");

struct drp_wire_map_reply {
    struct drp_wire_header header;
    uint64_t mapping;
    uint32_t interception; /* enum drp_wire_interception */
    uint32_t reserved;
};
static_assert(sizeof(struct drp_wire_map_reply) == 32, "map reply");

/* A range of a mapping: where it is in the client's memory, and in the region. */
struct drp_wire_piece {
    uint64_t address;
    uint64_t length;
    uint64_t offset; /* UNMAP_PIECES: 0 */
};
static_assert(sizeof(struct drp_wire_piece) == 24, "piece");

/*
 * MAP_PIECES: the client mapped more of the region, for this mapping. All of them are taken, or none. UNMAP_PIECES: what of the mapping is at
 * these addresses is about to be unmapped; its pages are given up. Reply: a header.
 */
#define DRP_WIRE_PIECES_MAX 169
struct drp_wire_pieces {
    struct drp_wire_header header;
    uint64_t mapping;
    uint32_t count; /* 1 or more */
    uint32_t reserved;
    struct drp_wire_piece pieces[DRP_WIRE_PIECES_MAX]; /* only count of them are sent */
};
static_assert(sizeof(struct drp_wire_pieces) == 32 + 169 * 24, "pieces");
static_assert(sizeof(struct drp_wire_pieces) <= DRP_WIRE_MAX_SIZE, "pieces fit");

/* Reply of MAP_PIECES. */
struct drp_wire_pieces_reply {
    struct drp_wire_header header;
    uint32_t interception; /* enum drp_wire_interception, of all of them */
    uint32_t reserved;
};
static_assert(sizeof(struct drp_wire_pieces_reply) == 24, "pieces reply");

/* UNMAP (id: mapping), DESTROY (id: region; its mappings too). Send it before munmap(2), which then waits for nobody. Reply: header. */
struct drp_wire_id {
    struct drp_wire_header header;
    uint64_t id;
};
static_assert(sizeof(struct drp_wire_id) == 24, "id");

/* DROP: drop what is unpinned of a range of an own region. POPULATE: make a range resident. */
struct drp_wire_range {
    struct drp_wire_header header;
    uint64_t region;
    uint64_t offset;
    uint64_t length;
};
static_assert(sizeof(struct drp_wire_range) == 40, "range");

/* Reply of DROP, CONTROL_DROP and FREE. */
struct drp_wire_drop_reply {
    struct drp_wire_header header;
    uint64_t freed;  /* bytes */
    uint64_t pinned; /* bytes of resident chunks that were left because they are pinned */
    uint64_t failed; /* bytes that could not be freed (session quarantined, or too many drops of the region wait) */
};
static_assert(sizeof(struct drp_wire_drop_reply) == 40, "drop reply");

struct drp_wire_populate_reply {
    struct drp_wire_header header;
    uint64_t populated; /* bytes that this call filled */
};
static_assert(sizeof(struct drp_wire_populate_reply) == 24, "populate reply");

struct drp_wire_counters {
    uint64_t resident_bytes;
    uint64_t dropped_bytes; /* freed by drops, since the start */
    uint64_t intercepted_faults;
    uint64_t refaults;
    uint64_t filled_bytes;  /* by the pager */
    uint64_t pinned_skips;  /* chunks that a drop found pinned */
    uint64_t unarmed_drops; /* spans dropped without interception armed */
    uint64_t gate_waits;
    uint64_t gate_timeouts; /* fills that went ahead with nothing left to drop */
    uint64_t unexpected_errors;
};
static_assert(sizeof(struct drp_wire_counters) == 80, "counters");

/* Reply of STATS (request: header alone): the calling session. */
struct drp_wire_stats_reply {
    struct drp_wire_header header;
    struct drp_wire_counters counters;
};
static_assert(sizeof(struct drp_wire_stats_reply) == 96, "stats reply");

/* Reply of STATUS (request: header alone): the daemon. */
#define DRP_STATUS_PRIVATE_TMPFS UINT32_C(1)
#define DRP_STATUS_NOSWAP UINT32_C(2)
#define DRP_STATUS_PSI UINT32_C(4)
#define DRP_STATUS_PSI_SHORT UINT32_C(8) /* windows under 2 s */
#define DRP_STATUS_IO_URING UINT32_C(16)
#define DRP_STATUS_UFFD UINT32_C(32)
#define DRP_STATUS_UFFD_WP UINT32_C(64)
#define DRP_STATUS_UFFD_LENT UINT32_C(128)
#define DRP_STATUS_REALTIME UINT32_C(256)
#define DRP_STATUS_HUGE UINT32_C(512)

struct drp_wire_status_reply {
    struct drp_wire_header header;
    struct drp_wire_counters counters;
    uint64_t uptime_ms;
    uint32_t sessions;
    uint32_t regions;
    uint32_t quarantined;
    uint32_t features; /* DRP_STATUS_* */
    uint64_t machine_headroom;
    uint64_t machine_reserve;
    uint64_t machine_commitment;
    uint64_t machine_auto_reserve; /* what MachineReserve=auto would give */
    uint64_t machine_sources;      /* bits 1 << enum drp_wire_source: what watches it beside the sampler */
    uint64_t fill_rate;            /* bytes per second, measured, all CPUs */
    uint64_t looks;                /* samples taken */
    uint64_t pressure_drops;       /* plans made for pressure */
    char version[32];
    char notes[2560]; /* what is missing and why, one sentence a line, NUL-terminated */
    uint64_t edges[16]; /* by enum drp_wire_source: how often it said that something may run short, since the start; 0 of others */
};
static_assert(sizeof(struct drp_wire_status_reply) == 96 + 88 + 32 + 2560 + 128, "status reply");

/*
 * NATIVE: a range of the client's own memory of the kernel's droppable kind (MAP_DROPPABLE), so that it is dropped from in the policy's order and down to
 * budgets. With the client's /proc/self/pagemap, by which it is counted. Reply: drp_wire_id. END_NATIVE, a drp_wire_id, takes it back.
 */
struct drp_wire_native {
    struct drp_wire_header header;
    uint64_t address;
    uint64_t length;  /* whole pages */
    uint64_t budget;  /* bytes, 4096 or more; 0: none */
    uint32_t share;   /* 1..10000; 0: the default */
    uint8_t priority; /* 1..3; 0: normal */
    uint8_t reserved[3];
};
static_assert(sizeof(struct drp_wire_native) == 48, "native");

/* TELL_OPTIONS: how a region is mapped in the client, for LIST and its end. Reply: header alone. */
struct drp_wire_options {
    struct drp_wire_header header;
    uint64_t region;
    uint64_t options; /* DRP_REGION_FORK_SHARED or DRP_REGION_FORK_ABSENT, DRP_REGION_DUMP */
};
static_assert(sizeof(struct drp_wire_options) == 32, "options");

/* LIST: sessions, regions and domains, in pages. Request: cursor 0, then what the reply's next says until that is 0. WHY: the same. */
struct drp_wire_list {
    struct drp_wire_header header;
    uint64_t cursor;
};
static_assert(sizeof(struct drp_wire_list) == 24, "list");

enum drp_wire_entry_kind { DRP_ENTRY_SESSION = 1, DRP_ENTRY_REGION = 2, DRP_ENTRY_DOMAIN = 3 };

/* drp_wire_entry.flags. Unknown ones are to be ignored. */
#define DRP_ENTRY_QUARANTINED UINT32_C(1) /* session */
#define DRP_ENTRY_PINS_CLOSED UINT32_C(2) /* session, region: a quota of pins is used up, pins are EDQUOT */
#define DRP_ENTRY_HELD UINT32_C(4)        /* shared region: not dropped from until all are back after a restart */

struct drp_wire_entry {
    uint32_t kind;
    uint32_t flags;        /* DRP_ENTRY_* below */
    uint64_t id;           /* session, region or domain */
    uint64_t parent;       /* region: its session; session: its domain; domain: its parent, 0 for the machine */
    uint64_t size;         /* region: bytes; domain: limit */
    uint64_t resident;     /* region, session: bytes; domain: usage */
    uint64_t dropped;      /* region, session: bytes; domain: reserve */
    uint64_t refaults;     /* region, session; domain: headroom */
    uint64_t faults;       /* region, session: intercepted; domain: commitment */
    uint32_t pid;          /* session; shared region, which is told of everybody who has it: how many these are */
    uint32_t uid;          /* session */
    uint32_t interception; /* session: enum drp_wire_interception */
    uint32_t reason;       /* session: errno why not intercepted */
    uint32_t chunk_shift;  /* region */
    uint32_t priority;     /* region; session: of all its regions; 0: of each its own */
    uint64_t options;      /* region: DRP_REGION_* */
    uint64_t budget;       /* bytes; UINT64_MAX: none */
    uint64_t pinned;       /* region, session: bytes, 0 if not known; domain: the reserve that `auto` would give */
    uint64_t high;         /* domain: headroom until memory.high; UINT64_MAX: none */
    uint32_t share;        /* region, session */
    uint32_t sources;      /* domain: bits 1 << enum drp_wire_source: what watches it beside the sampler */
    char name[144]; /* session: program; region: its name if it is shared; domain: path of the cgroup, its end if it is longer */
};
static_assert(sizeof(struct drp_wire_entry) == 272, "entry");

#define DRP_WIRE_LIST_MAX 14
struct drp_wire_list_reply {
    struct drp_wire_header header;
    uint64_t next;
    uint32_t count;
    uint32_t reserved;
    struct drp_wire_entry entries[DRP_WIRE_LIST_MAX]; /* only count of them are sent */
};
static_assert(sizeof(struct drp_wire_list_reply) == 32 + 14 * 272, "list reply");
static_assert(sizeof(struct drp_wire_list_reply) <= DRP_WIRE_MAX_SIZE, "list reply fits");

enum drp_wire_scope { DRP_SCOPE_ALL = 1, DRP_SCOPE_REGION = 2, DRP_SCOPE_PID = 3 };

/* CONTROL_DROP: drop what is unpinned of anybody's. For root, the daemon's own user, and owners of what is named. */
struct drp_wire_control_drop {
    struct drp_wire_header header;
    uint32_t scope; /* enum drp_wire_scope */
    uint32_t reserved;
    uint64_t id; /* region or pid */
};
static_assert(sizeof(struct drp_wire_control_drop) == 32, "control drop");

#define DRP_WIRE_PATH_MAX 1024 /* of a cgroup's path, with its NUL */

enum drp_wire_limit_scope { DRP_LIMIT_REGION = 1, DRP_LIMIT_CLIENT = 2, DRP_LIMIT_USER = 3, DRP_LIMIT_CGROUP = 4 };

/* drp_wire_limit.mask */
#define DRP_LIMIT_BUDGET UINT32_C(1)
#define DRP_LIMIT_QUOTA UINT32_C(2)
#define DRP_LIMIT_SHARE UINT32_C(4)
#define DRP_LIMIT_PRIORITY UINT32_C(8)

/* To set: 0 takes back what was set. */
struct drp_wire_limits {
    uint64_t budget;   /* bytes; UINT64_MAX: none */
    uint64_t quota;    /* bytes; UINT64_MAX: none */
    uint32_t share;    /* 1..10000 */
    uint32_t priority; /* 1..3 */
};
static_assert(sizeof(struct drp_wire_limits) == 24, "limits");

/* LIMIT: sets those limits that mask names, of somebody, and tells all of them. Mask 0 tells only. */
struct drp_wire_limit {
    struct drp_wire_header header;
    uint32_t scope;                /* enum drp_wire_limit_scope */
    uint32_t mask;                 /* DRP_LIMIT_* */
    uint64_t id;                   /* region; pid, 0: the calling session; user; cgroup: 0 */
    struct drp_wire_limits values; /* what mask does not name is 0 */
    char path[DRP_WIRE_PATH_MAX];  /* cgroup: from the root of its hierarchy, "/a/b"; else empty */
};
static_assert(sizeof(struct drp_wire_limit) == 56 + DRP_WIRE_PATH_MAX, "limit");

struct drp_wire_limit_reply {
    struct drp_wire_header header;
    struct drp_wire_limits effective; /* 0 where mask does not name it */
    uint64_t resident;                /* bytes of all that the limits are about */
    uint32_t mask;                    /* DRP_LIMIT_* that the scope has */
    uint32_t reserved;
};
static_assert(sizeof(struct drp_wire_limit_reply) == 56, "limit reply");

/* FREE: so many bytes of a cgroup shall go, in the policy's order. Reply: drop_reply. For root and the daemon's own user. */
struct drp_wire_free {
    struct drp_wire_header header;
    uint64_t wanted;              /* bytes, > 0 */
    char path[DRP_WIRE_PATH_MAX]; /* as in LIMIT; "": the machine */
};
static_assert(sizeof(struct drp_wire_free) == 24 + DRP_WIRE_PATH_MAX, "free");

/* WHY: what was dropped for pressure, and for whom; newest first, in pages. Request: drp_wire_list. */

/* Who states that memory is wanted. PROTOCOL.md tells what each means. */
enum drp_wire_source {
    DRP_SOURCE_SAMPLER = 1,
    DRP_SOURCE_GATE = 2,
    DRP_SOURCE_PSI_SOME = 3,
    DRP_SOURCE_PSI_FULL = 4,
    DRP_SOURCE_HIGH = 5,
    DRP_SOURCE_MAX_MET = 6,
    DRP_SOURCE_THRESHOLD = 7,
    DRP_SOURCE_LEVEL = 8,
    DRP_SOURCE_BUDGET = 9,
    DRP_SOURCE_HAND = 10,
    DRP_SOURCE_LAST = 10,
};

enum drp_wire_urgency { DRP_URGENCY_TRIM = 1, DRP_URGENCY_STALL = 2, DRP_URGENCY_LIFE = 3 };

struct drp_wire_victim {
    uint64_t session;
    uint64_t region; /* the one of which most was planned */
    uint64_t planned;
    uint32_t pid;
    char name[36];
};
static_assert(sizeof(struct drp_wire_victim) == 64, "victim");

#define DRP_WIRE_VICTIMS_MAX 6
#define DRP_BUDGET_SESSION 5 /* what the program of a session has said of itself */
struct drp_wire_decision {
    uint64_t number;
    uint64_t began_ms;     /* ago */
    uint64_t ended_ms;     /* ago, of its last slice so far */
    uint32_t source;       /* enum drp_wire_source */
    uint32_t urgency;      /* enum drp_wire_urgency */
    uint64_t domain;       /* as in LIST */
    uint32_t budget_scope; /* 0: no budget, or those of several; enum drp_wire_limit_scope, or DRP_BUDGET_SESSION */
    uint32_t reserved;
    uint64_t budget_id; /* of the region, session or domain; the pid or the uid */
    uint64_t budget;    /* bytes, when it began; and so the next four */
    uint64_t budget_resident;
    uint64_t limit; /* of the domain; UINT64_MAX: none */
    uint64_t headroom, reserve;
    uint64_t demand; /* bytes, the largest that was asked for at once */
    uint64_t planned;
    uint64_t freed;
    uint64_t pinned;
    uint64_t failed;
    uint64_t reaction_ns; /* from the first look that found it to the end of the first slice; 0: not yet */
    uint64_t refaults;    /* accesses to what it dropped that came soon */
    uint32_t slices;
    uint32_t n_victims; /* that are named */
    uint64_t others;    /* bytes planned of victims that are not */
    struct drp_wire_victim victims[DRP_WIRE_VICTIMS_MAX];
    char path[144];  /* of the domain's cgroup, its end if it is longer; "": the machine */
    uint64_t unseen; /* bytes freed of which nobody can see when they are wanted again */
};
static_assert(sizeof(struct drp_wire_decision) == 168 + 6 * 64 + 144 + 8, "decision");

#define DRP_WIRE_WHY_MAX 5
struct drp_wire_why_reply {
    struct drp_wire_header header;
    uint64_t next;   /* 0: no more */
    uint64_t now_ms; /* the daemon's CLOCK_REALTIME */
    uint32_t count;
    uint32_t reserved;
    struct drp_wire_decision entries[DRP_WIRE_WHY_MAX]; /* only count of them are sent */
};
static_assert(sizeof(struct drp_wire_why_reply) == 40 + 5 * 704, "why reply");
static_assert(sizeof(struct drp_wire_why_reply) <= DRP_WIRE_MAX_SIZE, "why reply fits");

/* Reply of HISTOGRAMS (request: header alone). Bucket 0 counts zeros, bucket i values from 2^(i-1) up to 2^i - 1. */
#define DRP_WIRE_BUCKETS 32
struct drp_wire_histograms_reply {
    struct drp_wire_header header;
    uint64_t reaction_us[DRP_WIRE_BUCKETS]; /* something ran short -> the first of it was freed */
    uint64_t gate_us[DRP_WIRE_BUCKETS];     /* a fill was put aside -> it was let in */
    uint64_t refault_ms[DRP_WIRE_BUCKETS];  /* a drop for pressure -> the access that found it gone */
    uint64_t dropped_spans;                 /* from which something was dropped for pressure */
    uint64_t refaulted_spans;               /* of them, touched again soon */
};
static_assert(sizeof(struct drp_wire_histograms_reply) == 16 + 3 * 32 * 8 + 16, "histograms reply");

union drp_wire_message {
    struct drp_wire_header header;
    struct drp_wire_hello hello;
    struct drp_wire_hello_reply hello_reply;
    struct drp_wire_uffd uffd;
    struct drp_wire_uffd_reply uffd_reply;
    struct drp_wire_create create;
    struct drp_wire_create_reply create_reply;
    struct drp_wire_create_shared create_shared;
    struct drp_wire_open open;
    struct drp_wire_adopt adopt;
    struct drp_wire_map map;
    struct drp_wire_map_reply map_reply;
    struct drp_wire_pieces pieces;
    struct drp_wire_pieces_reply pieces_reply;
    struct drp_wire_id id;
    struct drp_wire_native native;
    struct drp_wire_options options;
    struct drp_wire_range range;
    struct drp_wire_drop_reply drop_reply;
    struct drp_wire_populate_reply populate_reply;
    struct drp_wire_stats_reply stats_reply;
    struct drp_wire_status_reply status_reply;
    struct drp_wire_list list;
    struct drp_wire_list_reply list_reply;
    struct drp_wire_control_drop control_drop;
    struct drp_wire_limit limit;
    struct drp_wire_limit_reply limit_reply;
    struct drp_wire_free free;
    struct drp_wire_why_reply why_reply;
    struct drp_wire_histograms_reply histograms_reply;
    char bytes[DRP_WIRE_MAX_SIZE];
};

#endif
