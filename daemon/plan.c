/* SPDX-License-Identifier: MIT */
/*
 * From a demand to the droppers.
 *
 * A home that is still busy with an earlier slice is not asked again until that is done: what it frees then is not yet in any headroom,
 * and would be asked for twice. A slice's figures go to its decision (and to the hand that asked) when its last job is finished, which
 * may be long after the thread has stopped to wait for it: slices and jobs are there before, nothing is allocated in need. There are enough
 * of both for all homes to be stuck at once: else two clients that hold up their droppers would keep everybody from being asked.
 *
 * Always: the requests of slices that are handed out are touched by the droppers; everything else here by the pressure thread under the
 * manager's lock.
 */

#include "plan.h"

#include "budget.h"
#include "container.h"
#include "domain.h"
#include "manager.h"
#include "pressure.h"
#include "record.h"
#include "session.h"
#include "sweep.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Looks at pages of pins in one plan, 0.3 us each: somebody with 16 TiB must not hold up the others' plans. */
#define PLAN_PIN_LOOKS (1024 - SWEEP_LOOKS)
#define PLAN_REGIONS_MIN 16
/* Plans in a row that freed nothing, and only found out where nothing is: some 30 ms, a third of what anybody waits at a gate. */
#define PLAN_NOTED_MAX 64
/* Bytes a second, of one dropper's: half of what it does where nobody disturbs it. */
#define PLAN_DROP_RATE (UINT64_C(8) << 30)

void plans_init(struct plans *plans, struct manager *manager) {
    plans->manager = manager;
    plans->sample_round = 1;
    LIST_INIT(&plans->slices);
    LIST_INIT(&plans->spare);
}

static void free_slices(struct plan_slices *slices) {
    struct plan_slice *slice;

    while ((slice = LIST_FIRST(slices))) {
        LIST_REMOVE(slice, link);
        free(slice);
    }
}

void plans_deinit(struct plans *plans) {
    free(plans->regions);
    free(plans->region_of);
    plans->regions = NULL;
    plans->region_of = NULL;
    free_slices(&plans->slices);
    free_slices(&plans->spare);
}

/* One for each home and the next one, and those of a turn. */
static size_t slices_needed(const struct plans *plans) {
    return plans->manager->n_homes + 1 + PLAN_SLICES_AT_ONCE;
}

static int reserve_slices(struct plans *plans) {
    while (plans->n_slices < slices_needed(plans)) {
        struct plan_slice *slice = calloc(1, sizeof(*slice));

        if (!slice)
            return -ENOMEM;
        LIST_INSERT_HEAD(&plans->spare, slice, link);
        plans->n_slices++;
    }
    return 0;
}

/* -ENOMEM: each is as long as before, or as long as it shall be. */
static int resize_regions(struct plans *plans, size_t max) {
    struct policy_region *described = realloc(plans->regions, max * sizeof(*described));
    struct region **of;

    if (!described)
        return -ENOMEM;
    plans->regions = described;
    of = realloc(plans->region_of, max * sizeof(*of));
    if (!of)
        return -ENOMEM;
    plans->region_of = of;
    plans->regions_max = max;
    return 0;
}

int plans_reserve(struct plans *plans, size_t regions) {
    size_t max = plans->regions_max ? plans->regions_max : PLAN_REGIONS_MIN;

    if (reserve_slices(plans) < 0)
        return -ENOMEM;
    if (regions <= plans->regions_max)
        return 0;
    while (max < regions)
        max *= 2;
    return resize_regions(plans, max);
}

void plans_trim(struct plans *plans) {
    size_t max = plans->regions_max;
    struct plan_slice *slice;

    while (plans->n_slices > slices_needed(plans) && (slice = LIST_FIRST(&plans->spare))) {
        LIST_REMOVE(slice, link);
        free(slice);
        plans->n_slices--;
    }
    while (max > PLAN_REGIONS_MIN && max / 4 >= plans->manager->n_regions)
        max /= 2;
    if (max < plans->regions_max) {
        plans->regions_max = max; /* also where the allocator leaves them long */
        (void)resize_regions(plans, max);
    }
}

/* ---- who may be asked ---- */

/* What may be looked at for one plan. */
struct plan_looks {
    unsigned pins; /* pages */
    struct sweep_budget sweep;
    uint32_t tick;
};

static void describe_pins(const struct region *region, struct policy_region *ret, unsigned *looks) {
    ret->n_pins = region->n_mappings;
    for (unsigned i = 0; i < ret->n_pins; i++) {
        struct mapping *mapping = region->mappings[i];

        mapping_look_at_pins(mapping, looks);
        ret->pins[i] = mapping->cells;
        ret->pins_present[i] = mapping->pins_present;
        ret->pins_offset[i] = (uint64_t)((char *)mapping->cells - (char *)mapping->pins);
    }
}

static void describe_region(const struct plans *plans, struct region *region, struct policy_region *ret,
                            struct plan_looks *looks) {
    uint64_t resident;

    *ret = (struct policy_region){
        .priority = budget_priority(region),
        .share = budget_share(region),
        .chunk_shift = region->chunk_shift,
        .chunk_count = region->chunk_count,
        .touched = region->touched,
        .touched_count = atomic_load_explicit(&region->touched_count, memory_order_acquire),
        .spans = region->ticks,
        .chunk_flags = region->chunk_flags,
        .opaque = region_is_opaque(region),
    };
    if (!ret->opaque) {
        describe_pins(region, ret, &looks->pins);
        return;
    }
    sweep_sample(region, plans->sample_round, looks->tick, &looks->sweep);
    resident = region_resident_bytes(region);
    policy_describe_opaque(ret, &region->sample, resident, sweep_stuck(region, resident, looks->tick),
                           region->hand.round_before, region->hand.floor, looks->tick);
}

static bool may_give(const struct region *region) {
    bool there = region->native.address ? atomic_load(&region->native.valid) : region->n_mappings > 0;

    return there && !region->dead && !region->held;
}

static bool is_meant(const struct plan_demand *demand, struct region *region) {
    return demand->excess ? budget_covers(demand->excess, region) : !demand->over || budget_over(region) > 0;
}

static void describe_home(struct plans *plans, struct home *home, const struct plan_demand *demand,
                          struct plan_looks *looks, size_t *n) {
    struct region *region;

    home_lock(home);
    if (dropper_hurry(home, demand->urgency))
        plans->busy = true;
    else
        LIST_FOREACH (region, &home->regions, link) {
            if (!may_give(region) || *n == plans->regions_max || !is_meant(demand, region))
                continue;
            plans->region_of[*n] = region;
            describe_region(plans, region, &plans->regions[*n], looks);
            if (demand->over) /* what others have comes before that */
                policy_leave_pinned(&plans->regions[*n]);
            (*n)++;
        }
    home_unlock(home);
}

/* Every region that can be dropped from. Takes each home's lock. */
static size_t describe(struct plans *plans, const struct plan_demand *demand, uint32_t tick) {
    struct plan_looks looks = {PLAN_PIN_LOOKS, {SWEEP_CELLS, SWEEP_LOOKS, false}, tick};
    struct home *home;
    size_t n = 0;

    plans->busy = false;
    LIST_FOREACH (home, &plans->manager->homes, link)
        if (!atomic_load(&home->quarantined) && home_is_in(home, demand->domain))
            describe_home(plans, home, demand, &looks, &n);
    plans->sample_round += !looks.sweep.short_of;
    return n;
}

uint64_t plan_droppable(struct plans *plans, const struct domain *domain, uint64_t *ret_chunk) {
    struct home *home;
    uint64_t bytes = 0;

    *ret_chunk = 1;
    LIST_FOREACH (home, &plans->manager->homes, link) {
        const struct region *region;

        if (!home_is_in(home, domain))
            continue;
        LIST_FOREACH (region, &home->regions, link) {
            uint64_t resident = region_resident_bytes(region);

            bytes += resident;
            if (resident > 0 && region_chunk_size(region) > *ret_chunk)
                *ret_chunk = region_chunk_size(region);
        }
    }
    return bytes;
}

uint64_t plan_native(struct plans *plans, const struct domain *domain) {
    struct home *home;
    uint64_t bytes = 0;

    if (plans->manager->n_native == 0)
        return 0;
    LIST_FOREACH (home, &plans->manager->homes, link)
        if (home->n_native > 0 && home_is_in(home, domain))
            bytes += home_native_bytes(home);
    return bytes;
}

/* ---- handing out ---- */

static void submit_victim(const struct plans *plans, const struct policy_victim *victim, struct drop_request *request,
                          enum demand_urgency urgency, uint32_t tick) {
    struct region *region = plans->region_of[victim->region];

    if (victim->limit != UINT64_MAX)
        dropper_submit_sweep(region->home, region, victim->limit, victim->before, tick, urgency, request);
    else
        dropper_submit(region->home, region, victim->first_chunk, victim->first_chunk + victim->chunk_count, urgency,
                       request, true);
}

/* In the thread that finished last. */
static void slice_done(struct drop_request *request) {
    struct plans *plans = request->data;
    struct plan_slice *slice = container_of(request, struct plan_slice, request);

    bool progressed = plan_progressed(slice), left;

    atomic_store(&slice->ended, kernel_now());
    left = atomic_exchange(&slice->state, PLAN_FINISHED) == PLAN_LEFT; /* from here on it may be another's */
    /* Not always: that would keep the thread from sleeping after slices that freed nothing. */
    if (left && progressed)
        pressure_wake(&plans->manager->pressure);
    atomic_fetch_add(&plans->finished, 1);
    syscall(SYS_futex, &plans->finished, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Tables that know of nothing, though memory is there (a client wrote through its descriptor): sweep next time. */
static void sweep(struct plans *plans, size_t n) {
    for (size_t i = 0; i < n; i++)
        atomic_store(&plans->region_of[i]->sweep, region_resident_bytes(plans->region_of[i]) > 0);
}

static void describe_decision(struct decision *decision, const struct plan_demand *demand) {
    const struct domain *domain = demand->domain;
    size_t length = strlen(domain->path);

    decision->urgency = demand->urgency;
    decision->limit = domain->look.high < domain->look.limit ? domain->look.high : domain->look.limit;
    decision->headroom = domain_headroom(domain);
    decision->reserve = domain->controller.limits.reserve;
    length = length >= sizeof(decision->path) ? length - sizeof(decision->path) + 1 : 0;
    strncpy(decision->path, domain->path + length, sizeof(decision->path) - 1);
}

/* One for each hand; a domain's, while it is in need. */
static struct decision *open_decision(struct decisions *decisions, const struct plan_demand *demand, uint32_t tick) {
    struct decision *decision = demand->hand ? decisions_edit(decisions, demand->hand->decision) : NULL;
    const struct budget_excess *excess = demand->excess;
    struct decision_budget budget = {0};

    if (excess)
        budget = (struct decision_budget){excess->scope, excess->id, excess->budget, excess->resident};
    if (!decision)
        decision = decisions_begin(decisions, demand->source, demand->domain->id, &budget, demand->hand != NULL,
                                   demand->seen, tick);
    else
        decisions_go_on(decisions, decision, demand->seen, tick);
    if (demand->hand)
        demand->hand->decision = decision->number;
    return decision;
}

/*
 * Who is over a budget gives no more than he is over: the coldest of all that are might be one's alone. What is named here, as well as anywhere, is not to
 * be given a second time.
 */
static size_t keep_to_budgets(struct plans *plans, size_t victims, bool over, uint64_t *planned) {
    size_t n = 0;

    *planned = 0;
    for (size_t i = 0; i < victims; i++) {
        struct policy_victim victim = plans->victims[i];
        struct region *region = plans->region_of[victim.region];
        uint64_t most = over ? budget_over(region) : victim.bytes;

        if (most == 0)
            continue;
        if (victim.bytes > most) {
            victim.chunk_count -=
                victim.limit == UINT64_MAX ? victim.chunk_count * (victim.bytes - most) / victim.bytes : 0;
            victim.limit = victim.limit == UINT64_MAX ? UINT64_MAX : most;
            victim.bytes = most;
        }
        budget_note_planned(region, victim.bytes);
        *planned += victim.bytes;
        plans->victims[n++] = victim;
    }
    return n;
}

/* Notes what was decided. Returns its number. */
static uint64_t note_decision(struct plans *plans, const struct plan_demand *demand, size_t victims, uint64_t planned,
                              uint32_t tick) {
    struct decision *decision = open_decision(&plans->manager->decisions, demand, tick);

    if (decision->slices++ == 0)
        describe_decision(decision, demand);
    if (demand->total > decision->demand)
        decision->demand = demand->total;
    decision->planned += planned;
    for (size_t i = 0; i < victims; i++) {
        const struct region *region = plans->region_of[plans->victims[i].region];
        const struct session *session = region->home->session;

        decision_add_victim(decision, region->home->id, session ? session->pid : 0,
                            session ? session->name : shared_of(region->home)->name, region->id,
                            plans->victims[i].bytes);
    }
    return decision->number;
}

struct plan_slice *plan_hand_out(struct plans *plans, const struct plan_demand *demand, uint32_t tick) {
    size_t n = describe(plans, demand, tick), victims;
    struct plan_slice *slice = LIST_FIRST(&plans->spare);
    uint64_t planned = 0;

    if (!slice) { /* there are none either where there never was a region */
        plans->busy |= n > 0;
        return NULL;
    }
    victims = policy_plan(plans->regions, n, demand->bytes, tick, plans->victims, PLAN_VICTIMS, &planned);
    if (plans->manager->budgets.over)
        victims = keep_to_budgets(plans, victims, demand->over, &planned);
    if (!demand->excess)
        record_demand(demand->domain->id, demand->source, demand->bytes);
    if (victims == 0) {
        if (!demand->over) /* else the next plan is for others, too */
            sweep(plans, n);
        return NULL;
    }
    atomic_fetch_add(&plans->made, 1);
    drop_request_init(&slice->request, slice_done, plans);
    slice->planned = planned < demand->bytes ? planned : demand->bytes;
    slice->request.wanted = demand->over ? slice->planned : demand->bytes;
    atomic_store(&slice->state, PLAN_UNDER_WAY);
    LIST_REMOVE(slice, link);
    LIST_INSERT_HEAD(&plans->slices, slice, link);
    slice->domain = demand->domain;
    slice->domain->refs++; /* it may lose its last session meanwhile */
    slice->hand = demand->hand;
    slice->needed = slice->request.needed = !demand->hand && demand->source != DEMAND_BUDGET;
    slice->over = demand->over;
    slice->scope = demand->excess ? demand->excess->scope : 0;
    slice->seen = demand->seen;
    if (demand->shared_out)
        controller_note_given(&demand->domain->controller, planned);
    slice->handed_out = kernel_now();
    slice->decision = note_decision(plans, demand, victims, planned, tick);
    for (size_t i = 0; i < victims; i++)
        submit_victim(plans, &plans->victims[i], &slice->request, demand->urgency, tick);
    drop_request_seal(&slice->request);
    return slice;
}

/* ---- the account ---- */

void plan_trim(struct plans *plans, const struct domain *domain, uint64_t enough) {
    struct plan_slice *slice;

    LIST_FOREACH (slice, &plans->slices, link) {
        uint64_t freed = atomic_load(&slice->request.freed), wanted = atomic_load(&slice->request.wanted);

        if (!slice->needed || slice->domain != domain || wanted <= domain->controller.limits.slice ||
            plan_finished(slice) || freed >= wanted || wanted - freed <= enough)
            continue;
        atomic_store(&slice->request.wanted, freed + enough);
        slice->planned = freed + enough < slice->planned ? freed + enough : slice->planned;
    }
}

/* Who frees as fast as somebody could fill is in time, or as fast as one thread can: on many CPUs these fill more. */
static bool is_late(const struct plan_slice *slice, uint64_t freed, uint64_t now, uint64_t within) {
    uint64_t fill_rate = slice->domain->controller.limits.fill_rate;
    unsigned __int128 time = (unsigned __int128)freed * 1000000000;

    if (fill_rate > 0)
        within += (uint64_t)(time / (fill_rate < PLAN_DROP_RATE ? fill_rate : PLAN_DROP_RATE));
    return now >= slice->handed_out + within;
}

uint64_t plan_under_way(const struct plans *plans, const struct domain *domain, bool all, uint64_t now, uint64_t within) {
    const struct plan_slice *slice;
    uint64_t bytes = 0;

    LIST_FOREACH (slice, &plans->slices, link) {
        uint64_t freed = atomic_load(&slice->request.freed);

        if (slice->needed && !plan_finished(slice) && !is_late(slice, freed, now, within) && freed < slice->planned &&
            (slice->domain == domain || (all && domain_is_within(slice->domain, domain))))
            bytes += slice->planned - freed;
    }
    return bytes;
}

bool plan_finished(const struct plan_slice *slice) {
    return atomic_load(&slice->state) == PLAN_FINISHED;
}

void plan_leave(struct plan_slice *slice) {
    enum plan_slice_state under_way = PLAN_UNDER_WAY;

    (void)atomic_compare_exchange_strong(&slice->state, &under_way, PLAN_LEFT);
}

static bool found_something(const struct plan_slice *slice) {
    return atomic_load(&slice->request.freed) > 0 || atomic_load(&slice->request.cleared) > 0;
}

bool plan_progressed(const struct plan_slice *slice) {
    return found_something(slice) || atomic_load(&slice->request.noted) > 0;
}

/* Of a slice that its domain needed. So often in a row it is enough that others are named next: a client may have many that hold nothing. */
static void note_outcome(const struct plan_slice *slice) {
    struct domain *domain = slice->domain;

    /* What those over a budget cannot give others may; and what is not needed any more says nothing. */
    if (!found_something(slice) && (slice->over || slice->planned == 0))
        return;
    if (found_something(slice))
        domain->noted = 0;
    else if (plan_progressed(slice) && domain->noted < PLAN_NOTED_MAX)
        domain->noted++;
    else {
        domain->fruitless = true;
        return;
    }
    domain->barren = 0;
    domain->fruitless = false;
}

/* The same of a hand's. */
static void note_hand(const struct plan_slice *slice) {
    struct pressure_hand *hand = slice->hand;

    if (found_something(slice))
        hand->barren = hand->noted = 0;
    else if (!plan_progressed(slice) || hand->noted++ >= PLAN_NOTED_MAX)
        hand->barren++;
}

static void report_slice(struct plans *plans, struct plan_slice *slice) {
    struct decision *decision = decisions_edit(&plans->manager->decisions, slice->decision);
    uint64_t freed = atomic_load(&slice->request.freed), pinned = atomic_load(&slice->request.pinned);
    uint64_t failed = atomic_load(&slice->request.failed), ended = atomic_load(&slice->ended);

    if (freed > 0)
        histogram_add(&plans->manager->decisions.reaction_us, (ended - slice->seen) / 1000);
    if (slice->scope)
        record_budget(slice->scope, freed);
    else
        record_freed(slice->domain->id, freed);
    if (decision) { /* not yet overwritten */
        decision->freed += freed;
        decision->pinned += pinned;
        decision->failed += failed;
        decision->unseen += atomic_load(&slice->request.unseen);
        if (decision->reaction_ns == 0 && freed > 0)
            decision->reaction_ns = ended - slice->seen;
        if (ended > decision->ended)
            decision->ended = ended;
    }
    if (slice->needed)
        note_outcome(slice);
    if (slice->hand) {
        slice->hand->freed += freed;
        slice->hand->pinned += pinned;
        slice->hand->failed += failed;
        slice->hand->pending--;
        note_hand(slice);
    }
}

unsigned plan_settle(struct plans *plans) {
    struct plan_slice *slice, *next;
    unsigned under_way = 0;

    for (slice = LIST_FIRST(&plans->slices); slice; slice = next) {
        next = LIST_NEXT(slice, link);
        if (!plan_finished(slice)) {
            under_way++;
            continue;
        }
        report_slice(plans, slice);
        domain_unref(slice->domain);
        slice->domain = NULL;
        slice->hand = NULL;
        LIST_REMOVE(slice, link);
        LIST_INSERT_HEAD(&plans->spare, slice, link);
    }
    return under_way;
}
