/* SPDX-License-Identifier: MIT */
/*
 * Memory with mock time. Follows daemon/fault.c and drop-batch.c in what their tables say: see the header for what is kept of them. Left out are
 * the pages within a chunk, the variants of filling for sparse spans and crumbs, and the gate.
 */

#include "world.h"

#include "contender.h"

#include <stdlib.h>

#define TICK_US 100000
/* The clock does not begin at zero, which stands for never. */
#define FIRST_TICK 1000
/* What is dropped beyond the memory that there is, as the controller does. */
#define MARGIN (UINT64_C(2) << 20)

static void *zeroed(size_t n, size_t size) {
    void *p = calloc(n, size);

    if (!p)
        abort();
    return p;
}

uint32_t world_tick(const struct world *world) {
    return FIRST_TICK + (uint32_t)(world->us / TICK_US);
}

bool world_is_in(const struct world *world, const struct world_region *region, uint64_t domain) {
    return !region->ended && trace_within(world->trace, region->shape->domain, domain);
}

static uint64_t chunk_bytes(const struct world_region *region) {
    return UINT64_C(1) << region->shape->chunk_shift;
}

static unsigned span_shift(const struct world_region *region) {
    return POLICY_SPAN_SHIFT - region->shape->chunk_shift;
}

/* The chunks of a span: [first, end). */
static uint64_t span_end(const struct world_region *region, uint32_t span) {
    uint64_t end = (uint64_t)(span + 1) << span_shift(region);

    return end < region->shape->chunks ? end : region->shape->chunks;
}

static void region_init(struct world_region *region, const struct trace_region *shape) {
    uint32_t spans = (uint32_t)((shape->bytes + (UINT64_C(1) << POLICY_SPAN_SHIFT) - 1) >> POLICY_SPAN_SHIFT);

    *region = (struct world_region){
        .shape = shape,
        .chunks = zeroed(shape->chunks, sizeof(*region->chunks)),
        .touched = zeroed(spans, sizeof(*region->touched)),
        .was_touched = zeroed(spans, sizeof(bool)),
        .armed = zeroed(spans, sizeof(bool)),
        .faulted = zeroed(spans, sizeof(uint64_t)),
        .dropped = zeroed(spans, sizeof(bool)),
        .n_spans = spans,
        .policy =
            {
                .priority = shape->priority,
                .share = shape->share,
                .chunk_shift = shape->chunk_shift,
                .chunk_count = shape->chunks,
                .spans = zeroed(spans, sizeof(struct policy_span)),
                .chunk_flags = zeroed(shape->chunks, 1),
                .n_pins = shape->pins,
            },
    };
    region->policy.touched = region->touched;
    if (shape->pins)
        region->policy.pins[0] = zeroed(shape->chunks, sizeof(struct drp_pin_cell));
    for (uint32_t i = 0; i < spans; i++)
        region->armed[i] = true;
}

static void region_deinit(struct world_region *region) {
    free(region->chunks);
    free((void *)region->touched);
    free(region->was_touched);
    free(region->armed);
    free(region->faulted);
    free(region->dropped);
    free(region->policy.spans);
    free((void *)region->policy.chunk_flags);
    free(region->policy.pins[0]);
}

/* ---- accesses ---- */

/* All but the chunk that was missed is back for no reason of its own. */
static void clear_gone(struct world_region *region, uint32_t span, uint64_t missed) {
    _Atomic uint8_t *flags = (_Atomic uint8_t *)region->policy.chunk_flags;

    if (policy_span_gone(&region->policy.spans[span]) == 0)
        return;
    for (uint64_t chunk = (uint64_t)span << span_shift(region); chunk < span_end(region, span); chunk++) {
        uint8_t back = policy_back_flags(chunk, missed, region->shape->chunk_shift);

        if (flags[chunk] & POLICY_CHUNK_GONE)
            flags[chunk] = (uint8_t)((flags[chunk] & POLICY_CHUNK_MISSED) | back);
    }
    region->policy.spans[span].gone &= 0xf000;
}

static void become_resident(struct world *world, struct world_region *region, struct world_chunk *chunk) {
    if (chunk->resident)
        return;
    chunk->resident = true;
    chunk->since = world->us;
    chunk->back = false;
    world->resident += chunk_bytes(region);
}

/* The pager sees it. */
static void fault(struct world *world, struct world_region *region, uint64_t chunk) {
    uint32_t span = (uint32_t)(chunk >> span_shift(region)), age;

    if (region->policy.chunk_flags[chunk] & POLICY_CHUNK_GONE)
        policy_note_refault(region->policy.spans, region->n_spans, span, &region->policy.chunk_flags[chunk],
                            world_tick(world), &age);
    region->policy.spans[span].last_fault = world_tick(world);
    region->policy.spans[span].coldest = 0;
    if (!region->was_touched[span]) {
        region->was_touched[span] = true;
        region->touched[region->policy.touched_count++] = span;
    }
    for (uint64_t i = (uint64_t)span << span_shift(region); i < span_end(region, span); i++)
        if (region->chunks[i].back)
            become_resident(world, region, &region->chunks[i]);
    clear_gone(region, span, chunk);
    region->policy.spans[span].resident = 0;
    region->armed[span] = false;
    region->faulted[span] = world->us;
    region->chunks[chunk].seen = world->us;
}

static void access_chunk(struct world *world, struct world_region *region, uint64_t index, bool pinned) {
    struct world_chunk *chunk = &region->chunks[index];
    uint32_t span = (uint32_t)(index >> span_shift(region));

    if (chunk->lost) {
        world->refaults++;
        world->refaulted_bytes += chunk_bytes(region);
        world->span_refaults += region->dropped[span];
        region->dropped[span] = false;
        chunk->lost = false;
    }
    if (pinned)
        region->policy.pins[0][index].tick = world_tick(world);
    if (!chunk->resident && region->armed[span])
        fault(world, region, index);
    if (!chunk->resident) /* by the kernel: not before the span's fault is all that is known */
        chunk->seen = region->faulted[span];
    become_resident(world, region, chunk);
    chunk->valid = true;
    chunk->used = world->us;
    chunk->next = world->next[world->accesses++];
    if (pinned)
        chunk->seen = world->us;
}

/* ---- drops ---- */

/* Nothing of it is there any more, whoever wanted that. */
static uint64_t let_go(struct world *world, struct world_region *region, struct world_chunk *chunk) {
    uint64_t bytes = chunk->resident ? chunk_bytes(region) : 0;

    chunk->resident = false;
    chunk->valid = false;
    world->resident -= bytes;
    return bytes;
}

uint64_t world_drop(struct world *world, struct world_region *region, uint64_t index) {
    uint32_t span = (uint32_t)(index >> span_shift(region)), pages = 0;
    struct policy_span *policy = &region->policy.spans[span];
    struct world_chunk *chunk = &region->chunks[index];
    _Atomic uint8_t *flags = (_Atomic uint8_t *)region->policy.chunk_flags;
    bool lost = chunk->valid, there = chunk->resident;
    uint64_t bytes = let_go(world, region, chunk);

    region->armed[span] = true;
    if (!(flags[index] & POLICY_CHUNK_GONE)) {
        flags[index] = (uint8_t)((flags[index] & POLICY_CHUNK_MISSED) | POLICY_CHUNK_GONE);
        policy->gone++;
        world->cleared++;
    }
    for (uint64_t i = (uint64_t)span << span_shift(region); i < span_end(region, span); i++)
        pages += region->chunks[i].resident ? (uint32_t)(chunk_bytes(region) >> 12) : 0;
    policy->resident = (uint16_t)(POLICY_SPAN_KNOWN | pages);
    if (there) {
        chunk->back = true;
        region->dropped[span] |= lost;
        chunk->lost |= lost;
        policy_note_drop(policy, world_tick(world));
    }
    world->freed += bytes;
    region->freed += bytes;
    return bytes;
}

/* ---- the future ---- */

static bool is_access(const struct trace_event *event) {
    return event->kind == TRACE_TOUCH || event->kind == TRACE_PIN;
}

/* Of each access the next one of its chunk, unless its owner drops it before. From the end, with what is next in chunk.next. */
static void foresee(struct world *world) {
    const struct trace *trace = world->trace;
    uint64_t n = 0;

    for (size_t i = 0; i < trace->n_events; i++)
        n += is_access(&trace->events[i]) ? trace->events[i].count : 0;
    world->next = zeroed(n + 1, sizeof(*world->next));
    for (size_t i = 0; i < trace->n_regions; i++)
        for (uint64_t k = 0; k < trace->regions[i].chunks; k++)
            world->regions[i].chunks[k].next = UINT64_MAX;
    for (size_t i = trace->n_events; i-- > 0;) {
        const struct trace_event *event = &trace->events[i];
        struct world_chunk *chunks = world->regions[event->region].chunks + event->first;

        for (uint64_t k = event->count; k-- > 0;)
            if (is_access(event)) {
                world->next[--n] = chunks[k].next;
                chunks[k].next = n;
            } else if (event->kind == TRACE_OWNER_DROP)
                chunks[k].next = UINT64_MAX;
    }
}

/* ---- the run ---- */

static void ask(struct world *world, const struct contender *contender, uint64_t domain, uint64_t bytes) {
    uint64_t before = world->freed, freed;

    if (bytes == 0)
        return;
    contender->drop(world, domain, bytes);
    freed = world->freed - before;
    world->asked += bytes;
    if (freed < bytes) {
        world->unmet += bytes - freed;
        if (world->resident > world->unmet_resident)
            world->unmet_resident = world->resident;
    }
}

static uint64_t resident_in(const struct world *world, uint64_t domain) {
    uint64_t bytes = 0;

    for (size_t i = 0; i < world->trace->n_regions; i++) {
        const struct world_region *region = &world->regions[i];

        if (!world_is_in(world, region, domain))
            continue;
        for (uint64_t k = 0; k < region->shape->chunks; k++)
            bytes += region->chunks[k].resident ? chunk_bytes(region) : 0;
    }
    return bytes;
}

/* Chunk by chunk, as the client comes to them: it has no more memory than there is at any time. */
static void play_accesses(struct world *world, const struct contender *contender, const struct trace_event *event,
                          const struct trace_event *memory) {
    for (uint64_t i = 0; i < event->count; i++) {
        access_chunk(world, &world->regions[event->region], event->first + i, event->kind == TRACE_PIN);
        if (memory && world->resident > memory->bytes)
            ask(world, contender, memory->domain, resident_in(world, memory->domain) - memory->bytes + MARGIN);
    }
}

static void play(struct world *world, const struct contender *contender, const struct trace_event *event,
                 const struct trace_event **memory) {
    struct world_region *region = &world->regions[event->region];

    switch (event->kind) {
    case TRACE_TOUCH:
    case TRACE_PIN:
        play_accesses(world, contender, event, *memory);
        break;
    case TRACE_OWNER_DROP:
    case TRACE_END:
        region->ended |= event->kind == TRACE_END;
        for (uint64_t i = 0; i < region->shape->chunks; i++)
            if (event->kind == TRACE_END || (i >= event->first && i < event->first + event->count)) {
                let_go(world, region, &region->chunks[i]);
                region->chunks[i].lost = false;
            }
        break;
    case TRACE_ASK:
        ask(world, contender, event->domain, event->bytes);
        break;
    case TRACE_MEMORY:
        *memory = event->bytes == UINT64_MAX ? NULL : event;
        if (*memory && resident_in(world, event->domain) > event->bytes)
            ask(world, contender, event->domain, resident_in(world, event->domain) - event->bytes + MARGIN);
        break;
    }
}

void world_run(struct world *world, const struct trace *trace, const struct contender *contender, uint64_t seed) {
    const struct trace_event *memory = NULL;

    *world = (struct world){.trace = trace, .regions = zeroed(trace->n_regions + 1, sizeof(*world->regions))};
    for (size_t i = 0; i < trace->n_regions; i++)
        region_init(&world->regions[i], &trace->regions[i]);
    foresee(world);
    contender_seed(seed);
    for (size_t i = 0; i < trace->n_events; i++) {
        world->us = trace->events[i].us;
        if (!world->regions[trace->events[i].region].ended || trace->events[i].kind >= TRACE_ASK)
            play(world, contender, &trace->events[i], &memory);
    }
}

void world_deinit(struct world *world) {
    for (size_t i = 0; i < world->trace->n_regions; i++)
        region_deinit(&world->regions[i]);
    free(world->regions);
    free(world->next);
}
