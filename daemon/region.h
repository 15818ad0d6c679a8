/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_REGION_H
#define DROPPABLE_DAEMON_REGION_H

#include "limit.h"
#include "page-set.h"
#include "policy.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct home;
struct kernel;
struct mapping;
struct drp_pin_cell;
struct worker;

#define SPAN_SHIFT POLICY_SPAN_SHIFT
#define SPAN_SIZE (UINT64_C(1) << SPAN_SHIFT)
#define PAGE_SHIFT 12
#define SPAN_PAGES (SPAN_SIZE >> PAGE_SHIFT)
#define REGION_MAPPINGS_OWN 4   /* of a session's own region */
#define REGION_MAPPINGS_MAX 128 /* of a shared one */
#define REGION_UNFINISHED_MAX 64

/* What is known of a span of a region, under the home's lock. */
struct span {
    uint16_t fills;       /* counts the pager's fills and disarms, so that the dropper sees one that came in between */
    uint8_t in_flight;    /* drops under way */
    uint8_t drops;        /* counts those that are over, so that the pager sees one that came in between */
    bool touched;         /* is in region.touched */
    bool has_history : 1; /* region.history[] of it is not empty */
    bool needed : 1;      /* since it was touched last something of it was dropped because a domain was short */
    bool strayed : 1; /* a piece of it was not where it had been mapped: it may be at an address that nobody told us */
};

/* Of all native regions of a home: they are counted one after the other, and not too often. */
struct native_counting {
    const struct worker *worker; /* which counts */
    _Atomic bool asked;          /* it was woken for that */
    _Atomic bool all;            /* somebody wants to know the sum */
    _Atomic uint64_t not_before; /* ns: none is counted again until then */
    _Atomic uint64_t resident;   /* bytes, the sum of the last counts */
};

/* Of a region that is the client's own memory (native.h). */
struct native {
    uint64_t address; /* in the client; 0: it is not */
    struct native_counting *counting;
    int pagemap; /* of the memory that was looked at, whatever the process runs later; of the dropper's table, -1: none */
    _Atomic bool valid;          /* it was droppable memory when it was looked at */
    bool refused;                /* it could not be looked at: maybe another time */
    _Atomic bool ending;         /* its end is asked for: drops stop */
    _Atomic uint64_t resident;   /* bytes, as of the last count */
    _Atomic bool asked;          /* somebody wants to know */
    _Atomic uint64_t not_before; /* ns: it is not counted again until then */
    uint64_t at, sum, spent;     /* of a count that is under way: address, bytes, ns */
};

struct region {
    LIST_ENTRY(region) link; /* home.regions */
    struct home *home;
    uint64_t id;
    uint64_t size;
    uint64_t options; /* DRP_REGION_* granted */
    uint64_t told; /* those of the client's mapping, as it says, for LIST. Of the loop. Of a shared one: share.told */
    _Atomic bool inherited; /* children may have the memory from their parent (DRP_REGION_FORK_SHARED), whatever it says since. Set by the loop */
    uint32_t chunk_shift;
    uint32_t priority;
    uint64_t chunk_count;
    uint32_t span_count;

    int data_fd;    /* of the main table */
    bool data_sent; /* the dropper has it */
    int dropper_fd; /* of the dropper's table */
    uint64_t inode; /* of the object */
    uint64_t device;
    bool cachestat;                /* cachestat(2) works on the object */
    bool adopted;                  /* what was resident at the start is not known */
    bool strayed;                  /* as of a span, of all of them. Under the home's lock */
    uint64_t object_offset;        /* the region's first byte in the object */
    void *object_map;              /* PROT_NONE, for mincore(2) only */
    bool locked;                   /* it is our attachment of a locked segment (locked.h) */
    uint64_t chunk_base;           /* the region's first chunk in state and pin page */
    uint64_t chunk_total;          /* chunks in the state and pin page */
    void *state;                   /* the state page, writable by us alone */
    _Atomic uint32_t *generations; /* of the region's first chunk */

    /* Tables by span or chunk: one sparse table. */
    void *tables;
    size_t tables_size;
    struct span *spans;
    struct page_set *history; /* pages that were resident when they were dropped, and have not been brought back */
    struct policy_span *ticks;
    _Atomic uint32_t *touched;
    _Atomic uint32_t touched_count;
    _Atomic uint8_t *chunk_flags;

    struct mapping **mappings;   /* under the home's lock, as all of these */
    struct drp_pin_cell **cells; /* theirs, in the same order; NULL of one whose pin page is not sealed */
    unsigned n_mappings;
    unsigned mappings_max; /* for which there is room */
    unsigned by_hand;      /* drops that were asked for by hand and are not done */
    bool held; /* its home ends; shared: somebody has it mapped who has not said so yet: nothing is dropped. Changed by the loop */
    bool holding;  /* for good */
    bool adopting; /* of the loop: the generations are not there yet */

    _Atomic bool sweep; /* the tables missed something: sweep over the object in the next plan. Written by the pressure thread */
    struct {
        uint64_t at;                  /* chunk at which the next sweep begins */
        uint32_t round, round_before; /* ticks: when this round over the region began, and the one before */
        uint32_t floor;               /* tick: nothing that is there and was ever pinned was used last before it */
        bool stayed;                  /* a sweep that passed over nothing was everywhere, and did not find enough */
        uint32_t stayed_at;           /* its tick */
        uint64_t stuck;               /* bytes that were there after it; UINT64_MAX: not read yet */
    } hand;
    struct policy_sample sample; /* of the pins, of a region that is swept */
    uint32_t sample_offset;      /* where the next one is taken */
    uint32_t sampled_at;         /* tick */
    uint64_t sampled_round;      /* of the plans' */
    struct {
        uint64_t first, count;           /* chunks */
    } unfinished[REGION_UNFINISHED_MAX]; /* drops that the old daemon began, of an adopted region */
    unsigned n_unfinished;
    int handed_fd; /* of the dropper's table, while it adopts: the old state page; or a native region's pagemap, until it is looked at */
    int adopt_error;
    bool dead; /* being destroyed: no new drops */
    struct native native;

    struct limits budget; /* under the manager's lock, as all of these */
    uint64_t pinned;      /* bytes, of the last count */
    uint32_t pins_pass;

    _Atomic uint64_t dropped_bytes;
    _Atomic uint64_t faults;
    _Atomic uint64_t refaults;
};
LIST_HEAD(region_list, region);

struct region_shape {
    uint64_t id, size, options;
    uint64_t required; /* DRP_REGION_*: without these none is made; of the others, see region.options */
    uint32_t chunk_shift, priority;
    uint64_t object_offset, chunk_base, chunk_total;
};

/*
 * What the daemon's tables of a region, its state page and one mapping come to when all of it has been touched and dropped, which they stay at as long as it is
 * there: bytes. Whose memory that is, is the daemon's; hence a quota.
 */
uint64_t region_tables_most(uint64_t size, unsigned chunk_shift);
/*
 * Makes a region. data_fd < 0: a new data object; else that one is taken over (adopted; checked by the caller). The state page is new and all even zeros.
 * *ret_state_fd is a read-only descriptor of it for the client.
 */
int region_new(struct region **ret, const struct kernel *kernel, const struct region_shape *shape, int data_fd,
               int *ret_state_fd);
/* One of the client's own memory: it has neither an object nor a state page. pidfd: of the client, duplicated. */
int region_new_native(struct region **ret, const struct region_shape *shape, uint64_t address, int pidfd);
/* What regions can be here. */
struct region_means {
    bool huge;
    bool huge_by_default;
    bool no_swap;      /* memory that is never swapped, in small pages */
    bool no_swap_huge; /* the same in huge ones */
};
/*
 * What is given of the DRP_REGION_* asked for. Who asks for neither huge pages nor a chunk gets huge ones if that is the default. No region can be
 * swapped where that can be had, but for those that ask for huge pages where it cannot be had with these. chunk_shift: 0 if not asked for; the
 * one given is returned.
 */
uint64_t region_choose_options(const struct region_means *means, uint64_t required, uint64_t preferred, uint64_t size,
                               uint32_t *chunk_shift);
/* Frees tables, state page and our descriptor. The PROT_NONE mapping must be gone (region_release_object()). NULL is fine. */
struct region *region_free(struct region *region);
/* The region is at its end, or its client is: who still holds the object has ordinary memory. Before region_release_object(), not in the loop. */
void region_unlock(struct region *region);
/* Unmaps the object: may free its pages, so not in the loop. */
void region_release_object(struct region *region);
/*
 * Takes the generations of an older state page over (read-only descriptor). An odd one, whose drop the old daemon did not
 * finish, becomes the next even, which is what the client's library took it for; its chunk is noted in unfinished[] (where those are full, the last run
 * grows over what lies between). Takes the lock of the client's object: in the dropper.
 */
int region_adopt_generations(struct region *region, int state_fd);

/* Bytes of a span that belong to the region (the last one may be shorter). */
uint64_t region_span_bytes(const struct region *region, uint32_t span);
/* Which pages of a span are resident (mincore(2)). Returns their number, or a negative errno. */
int region_resident(const struct region *region, uint32_t span, struct page_set *ret);
/*
 * The same number, with a descriptor of the object; but of the pages only so many, from first on, are told. A third of the time where these are all or none
 * of them there, a thirtieth for an empty span.
 */
int region_look(const struct region *region, int fd, uint32_t span, unsigned first, unsigned n, struct page_set *ret);
/* Are the last pages of a span resident? Says no eight times as fast as region_resident(). */
bool region_has_tail(const struct region *region, uint32_t span);
/* Resident bytes of the whole region (st_blocks), of a shared one no more than it has. From a thread of the main table. */
uint64_t region_resident_bytes(const struct region *region);
/*
 * Links a mapping in / out, under the home's lock. With a pager only the pager's thread does this.
 */
void region_add_mapping(struct region *region, struct mapping *mapping);
/* In the loop: room for one more, where others may be reading under the lock. -ENOMEM; -EDQUOT */
int region_reserve_mapping(struct region *region, pthread_mutex_t *lock);
void region_remove_mapping(struct region *region, const struct mapping *mapping);
/* Does somebody bring pages back unseen? Then only a sweep over the object finds what is resident. */
bool region_is_opaque(const struct region *region);
/* Notes the first touch of a span. Under the home's lock. */
void region_touch(struct region *region, uint32_t span, uint32_t tick);

/* Under the home's lock, both: whether a chunk is known to be gone, and the number of those in its span. Return whether that is new. */
static inline bool region_set_gone(struct region *region, uint64_t chunk) {
    uint8_t flags = atomic_load_explicit(&region->chunk_flags[chunk], memory_order_relaxed);

    if (flags & POLICY_CHUNK_GONE)
        return false;
    atomic_store_explicit(&region->chunk_flags[chunk], (uint8_t)((flags & POLICY_CHUNK_MISSED) | POLICY_CHUNK_GONE),
                          memory_order_relaxed);
    atomic_fetch_add_explicit(&region->ticks[chunk >> (SPAN_SHIFT - region->chunk_shift)].gone, 1, memory_order_relaxed);
    return true;
}
/* missed: the chunk for whose sake it comes back. Looks first: flags that were never set cost no memory. */
static inline bool region_clear_gone(struct region *region, uint64_t chunk, uint64_t missed) {
    uint8_t flags = atomic_load_explicit(&region->chunk_flags[chunk], memory_order_relaxed);

    if (!(flags & POLICY_CHUNK_GONE))
        return false;
    flags = (uint8_t)((flags & POLICY_CHUNK_MISSED) | policy_back_flags(chunk, missed, region->chunk_shift));
    atomic_store_explicit(&region->chunk_flags[chunk], flags, memory_order_relaxed);
    atomic_fetch_sub_explicit(&region->ticks[chunk >> (SPAN_SHIFT - region->chunk_shift)].gone, 1, memory_order_relaxed);
    return true;
}
/* Under the home's lock: what is resident in a span, POLICY_SPAN_KNOWN and the pages or 0. */
static inline uint16_t region_known(const struct region *region, uint32_t span) {
    return atomic_load_explicit(&region->ticks[span].resident, memory_order_relaxed);
}
/* The same: about so many pages are there, as far as is not known better. */
static inline void region_expect(struct region *region, uint32_t span, unsigned pages) {
    _Atomic uint16_t *resident = &region->ticks[span].resident;

    if (!(atomic_load_explicit(resident, memory_order_relaxed) & POLICY_SPAN_KNOWN))
        atomic_store_explicit(resident, (uint16_t)(pages > 0 ? pages : 1), memory_order_relaxed);
}
static inline void region_set_known(struct region *region, uint32_t span, uint16_t known) {
    atomic_store_explicit(&region->ticks[span].resident, known, memory_order_relaxed);
}

static inline uint64_t region_chunk_size(const struct region *region) {
    return UINT64_C(1) << region->chunk_shift;
}
static inline uint32_t region_span_of_chunk(const struct region *region, uint64_t chunk) {
    return (uint32_t)(chunk >> (SPAN_SHIFT - region->chunk_shift));
}
static inline uint64_t region_chunks_per_span(const struct region *region) {
    return UINT64_C(1) << (SPAN_SHIFT - region->chunk_shift);
}

#endif
