/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_DROPPER_H
#define DROPPABLE_DAEMON_DROPPER_H

#include "demand.h"
#include "pager.h"
#include "region.h"
#include "worker.h"

#include <liburing.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct home;

/* What several jobs of possibly several homes add up to. The one who asks owns it until done(). */
struct drop_request {
    _Atomic uint64_t wanted; /* bytes: what was not begun when so much is freed is left; UINT64_MAX: all goes */
    bool limited;            /* who asks may do so as often as he likes, and has it not mapped himself */
    bool needed;             /* something was short: neither for a budget nor by hand */
    _Atomic uint64_t freed;
    _Atomic uint64_t pinned;
    _Atomic uint64_t failed;
    _Atomic uint64_t unseen;                    /* bytes of those freed: when they are wanted again nobody will see */
    _Atomic uint64_t cleared;                   /* chunks newly known to be gone, freed or not */
    _Atomic uint64_t noted;                     /* what else was found out that makes the next plan another one */
    _Atomic uint32_t pending;                   /* jobs, and one for the asker while he submits */
    void (*done)(struct drop_request *request); /* in the thread that finished last */
    void *data;
};

void drop_request_init(struct drop_request *request, void (*done)(struct drop_request *request), void *data);
/* Under the home's lock: is enough freed? More was there than was planned for. */
static inline bool drop_request_is_met(const struct drop_request *request) {
    return request && atomic_load_explicit(&request->freed, memory_order_relaxed) >=
                          atomic_load_explicit(&request->wanted, memory_order_relaxed);
}
/* The asker has submitted all. done() may run inside. */
void drop_request_seal(struct drop_request *request);

struct drop_job {
    TAILQ_ENTRY(drop_job) link;
    TAILQ_ENTRY(drop_job) of_asked;
    struct region *region;
    uint64_t next; /* chunk: what is left is [next, end) */
    uint64_t end;
    uint64_t under_way; /* chunks before that, in a batch that is not settled; under the home's lock */
    bool sweep;         /* it goes over the object, where it finds something (sweep.h); of one, all up to everywhere: */
    uint64_t limit;     /* bytes still wanted; UINT64_MAX: it is none */
    uint64_t began;     /* its first chunk */
    uint32_t before;    /* what was used at this tick or later stays; UINT32_MAX: nothing */
    uint32_t tick;      /* when it was asked for */
    uint64_t skipped;   /* cells that it has read on its way */
    uint32_t passed;    /* the earliest tick of what it passed over; tick: nothing earlier */
    bool round;         /* it has come to the end, and gone on at the start */
    bool everywhere;    /* and to where it began */
    bool asked;         /* somebody waits for it who can be told that it is given up; under the home's lock */
    bool by_hand;       /* it counts in region->by_hand */
    bool destroy;       /* unmap the object and let go of its descriptor instead */
    bool adopt;         /* take generations over instead, if there is an old state page in region->handed_fd */
    bool handed;        /* there is something */
    void (*work)(struct region *region); /* what an adopt job does besides; NULL: nothing */
    bool pooled;                         /* for pressure: of the pool, not malloc'd */
    bool needed;                         /* as its request says */
    struct drop_request *request;        /* NULL once it was given up (quarantine) */
    void (*done)(void *data);            /* after a destroy or adopt job */
    void *data;
};
TAILQ_HEAD(drop_jobs, drop_job);

#define DROPPER_BATCH PAGER_ARM_MAX
/* Jobs for pressure that a home can have: a plan's victims. It is asked again when they are done. */
#define DROPPER_POOL 1024
/*
 * Drops by hand of a region that can wait: anybody can ask on many connections, and hang up, while he holds the dropper up. So many of these by its owner; and of
 * administrators and of those who have it mapped (one more for each mapping) so many that they find room beside him.
 */
#define DROPPER_BY_OWNER 4
#define DROPPER_BY_HAND 16

/* One span of a job, from claim to settle. */
struct drop_op {
    struct drop_job *job;
    struct region *region;
    uint32_t span;
    unsigned turn;                   /* of its job's spans in the batch, it is this one */
    uint64_t first_chunk, end_chunk; /* of the region */
    uint64_t claimed[8];             /* bit per chunk from the span's first chunk */
    struct page_set resident;        /* of its chunks, at the look; maybe of others, too */
    unsigned n_resident;             /* of the span */
    uint16_t fills;
    uint8_t drops; /* of the span, when it was looked at */
    bool armed;    /* from before the look on */
    bool any;
    int error;
};

struct dropper {
    struct worker worker;
    int pager_handle; /* of the pager's worker, in the dropper's table */
    struct io_uring ring;
    bool have_ring;
    unsigned n_objects;                 /* that it ever got */
    struct drop_jobs jobs;              /* under the home's lock */
    struct drop_jobs asked;             /* the same: of these, those that somebody waits for */
    struct drop_job *pool;              /* the home's own: who is stuck with his jobs leaves the others theirs */
    size_t n_pool;                      /* of it, that were ever used; under the home's lock */
    struct drop_jobs pool_free;         /* of these; the same */
    unsigned n_pooled;                  /* of jobs; the same */
    enum demand_urgency pooled_urgency; /* the same: the greatest of those */
    enum demand_urgency urgency;        /* the same: it runs as that says */
    enum demand_urgency urgency_wanted; /* the same: it is to, */
    bool asleep;                        /* the same: it has found the queue empty, and nobody has woken it since */
    bool reading;                      /* the same: but not while it reads something of the client's that may be long */
    struct drop_op ops[DROPPER_BATCH]; /* of the thread */
};

int dropper_start(struct home *home, struct worker_pool *pool);
/* After its end. */
void dropper_deinit(struct dropper *dropper);
/*
 * A drop of chunks [first, end) of a region. -ESHUTDOWN: the home ends; -EBUSY: too many by hand wait; -EAGAIN; -ENOMEM. pressure: allocates nothing, and
 * does not mind who else waits.
 */
int dropper_submit(struct home *home, struct region *region, uint64_t first, uint64_t end, enum demand_urgency urgency,
                   struct drop_request *request, bool pressure);
/* For pressure: a sweep for so many bytes, which passes over what was pinned or touched at a tick or later (sweep.h). Errors as above. */
int dropper_submit_sweep(struct home *home, struct region *region, uint64_t limit, uint32_t before, uint32_t now,
                         enum demand_urgency urgency, struct drop_request *request);
/* Lets the dropper take the region's object down; destroyed() is called in its thread. */
int dropper_submit_destroy(struct home *home, struct region *region, void (*destroyed)(void *data), void *data);
/*
 * Lets the dropper take the generations of an old state page over (copy of the descriptor; -1: only be through with what was asked before), or have a
 * native region's pagemap, and then do some work with the object (region->dropper_fd), NULL: none; adopted() is called in its thread,
 * region->adopt_error is set.
 */
int dropper_submit_adopt(struct home *home, struct region *region, int handed_fd, void (*work)(struct region *region),
                         void (*adopted)(void *data), void *data);
/*
 * Under the home's lock: how the thread runs until the queue is empty. Before all ordinary threads while tasks wait for what it does; as anybody
 * for what its client asks for, and for budgets, which he may set himself, or stay over: he could keep it busy for ever.
 */
void dropper_set_urgency(struct home *home, enum demand_urgency urgency);
/* Under the home's lock: is it busy with a slice for pressure? Then that is so urgent from now on, at least: who asks has to wait for it. */
bool dropper_hurry(struct home *home, enum demand_urgency urgency);
/* In its thread: something long begins, or is over. */
void dropper_set_reading(struct home *home, bool reading);
/*
 * Gives up every waiting job: their requests see them as failed. What the stuck call still frees is not counted. Costs nothing where nobody has come
 * to wait since the last time.
 */
void dropper_give_up(struct home *home);

#endif
