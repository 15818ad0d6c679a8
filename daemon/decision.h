/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_DECISION_H
#define DROPPABLE_DAEMON_DECISION_H

/*
 * The memory of what was decided, for `droppablectl why`: a ring of the last decisions, and histograms.
 *
 * A decision is one episode: from the first slice that a source made a domain drop until that source has been quiet for a moment. Slices of
 * one episode add up. Written by the pressure thread under the manager's lock and read under it, but for what pagers look at and
 * count in: the marks.
 */

#include "demand.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DECISIONS_MAX 128
#define DECISION_VICTIMS 6
#define HISTOGRAM_BUCKETS 32

struct decision_victim {
    uint64_t session;
    uint64_t region;    /* the one of which most was planned */
    uint64_t of_region; /* bytes of it */
    pid_t pid;
    char name[33];
    uint64_t planned; /* bytes */
};

/* Of a decision, and outlives it in its place of the ring: a pager may be at it when the next takes the place. */
struct decision_marks {
    _Atomic uint32_t first_tick, last_tick; /* of its drops */
    _Atomic uint64_t domain;                /* id: of whose need, */
    _Atomic bool needed;                    /* or of somebody's hand, or who was over a budget there */
    _Atomic uint64_t refaults; /* since: faults in spans that it dropped from, within the window of protection */
};

/* Whose budget it was for; scope (enum budget_scope) 0: for none, or for those of more groups at once than have an episode each. */
struct decision_budget {
    uint32_t scope;
    uint64_t id;               /* of the region, session or domain; the pid or the uid */
    uint64_t budget, resident; /* when it began */
};

struct decision {
    uint64_t number; /* 1, 2, ...; 0: empty */
    uint64_t began;  /* ns, CLOCK_MONOTONIC */
    uint64_t ended;  /* of its last slice so far */
    enum demand_source source;
    enum demand_urgency urgency;
    uint64_t domain;
    char path[144];                    /* of the domain's cgroup, its end if it is longer; "" for the machine */
    uint64_t limit, headroom, reserve; /* of the domain when it began */
    struct decision_budget budget;
    uint64_t demand; /* bytes: the largest that was asked for at once */
    uint64_t planned, freed, pinned, failed;
    uint64_t reaction_ns; /* from the first look that found it to the end of the first slice; 0: none ended yet */
    uint32_t slices;
    uint64_t others; /* bytes planned of more victims than there is room for */
    uint32_t n_victims;
    struct decision_victim victims[DECISION_VICTIMS];
    uint64_t unseen; /* bytes freed of which nobody can see when they are wanted again */
};

/* counts[i]: values from 2^(i-1) up to 2^i - 1 microseconds (or bytes); counts[0]: zero. */
struct histogram {
    _Atomic uint64_t counts[HISTOGRAM_BUCKETS];
};
void histogram_add(struct histogram *histogram, uint64_t value);

struct decisions {
    struct decision ring[DECISIONS_MAX];
    struct decision_marks marks[DECISIONS_MAX]; /* by the same index */
    _Atomic uint64_t newest;                    /* number of the newest; 0: none yet */
    struct histogram reaction_us;               /* a deficit was seen -> its first slice was free */
    struct histogram gate_us;                   /* a fill was put aside -> it was let in */
    struct histogram refault_ms;                /* drop -> the fault that found it gone, of drops for pressure */
    _Atomic uint64_t dropped_spans;   /* spans from which pressure dropped something, and whose accesses are seen */
    _Atomic uint64_t refaulted_spans; /* of them, touched again within the window of protection */
};

/*
 * Begins a decision; unless it shall be a new one, takes up the newest of this source, domain and budget (NULL: none) if that was not long ago. Of budgets so many
 * are under way at once, the others share one: a client can have thousands, and would have all the memory that there is for decisions. Never NULL.
 */
struct decision *decisions_begin(struct decisions *decisions, enum demand_source source, uint64_t domain,
                                 const struct decision_budget *budget, bool anew, uint64_t now, uint32_t tick);
#define DECISIONS_OF_BUDGETS 8
/* There is another slice of it. */
void decisions_go_on(struct decisions *decisions, struct decision *decision, uint64_t now, uint32_t tick);
/* Adds bytes that are to go to a victim, or makes one of it while there is room. */
void decision_add_victim(struct decision *decision, uint64_t session, pid_t pid, const char *name, uint64_t region,
                         uint64_t planned);
/* From any thread: something is touched again, so many ticks after its drop. */
void decisions_note_refault(struct decisions *decisions, uint32_t age, bool mistake);
/* From any thread: that was a mistake, of what was dropped at this tick. false: no episode of that domain was at it then. */
bool decisions_regret(struct decisions *decisions, uint64_t domain, bool needed, uint32_t dropped);
/* The decision with this number; NULL if it was overwritten or is yet to come. */
const struct decision *decisions_get(const struct decisions *decisions, uint64_t number);
/* Mistakes of a decision that is in the ring, so far. */
uint64_t decisions_refaults(const struct decisions *decisions, const struct decision *decision);
struct decision *decisions_edit(struct decisions *decisions, uint64_t number);

#endif
