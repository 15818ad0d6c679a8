/* SPDX-License-Identifier: MIT */
/*
 * The quota of pins. A pin is an increment in a page of the client's, which nobody tells us of: so what is pinned is counted, in passes over the
 * pin pages of all regions, and whoever has reached the quota finds the pins closed in the state pages. What was pinned before stays
 * pinned, also what went beyond the quota between two passes.
 *
 * A pass takes as long as there are pages, and holds up the manager's lock for a slice of it only; between slices and between passes it rests
 * so long that it takes a hundredth of a CPU. Pages that no client wrote are never read: that would fill them.
 */

#include "budget.h"

#include "manager.h"
#include "mapping.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLICE_NS UINT64_C(500000)
#define PASS_LEAST_NS UINT64_C(20000000)
#define COST_FACTOR 100
#define BATCH_PAGES 64
#define PIN_PAGE UINT64_C(4096)

/* ---- counting ---- */

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

struct batch {
    unsigned char present[REGION_MAPPINGS_MAX][BATCH_PAGES];
    uint64_t first, pages; /* of the pin page */
};

static void look_at_batch(const struct region *region, struct batch *batch) {
    for (unsigned i = 0; i < region->n_mappings; i++)
        if (!region->mappings[i]->sealed || mincore((char *)region->mappings[i]->pins + batch->first * PIN_PAGE,
                                                    batch->pages * PIN_PAGE, batch->present[i]) < 0)
            memset(batch->present[i], 0, batch->pages);
}

/* Pinned chunks of those whose cells lie in one page, of all mappings and of each; a chunk counts once, whatever the number of pins. */
static uint64_t count_page(const struct region *region, const struct batch *batch, uint64_t i, uint64_t first,
                           uint64_t end) {
    uint64_t pinned = 0;

    for (uint64_t chunk = first; chunk < end; chunk++) {
        bool any = false;

        for (unsigned m = 0; m < region->n_mappings; m++)
            if ((batch->present[m][i] & 1) &&
                atomic_load_explicit(&region->mappings[m]->cells[chunk].count, memory_order_relaxed) != 0) {
                region->mappings[m]->pinning++;
                any = true;
            }
        pinned += any;
    }
    return pinned;
}

/* Goes on with a region until the deadline. Under its home's lock. false: there is more of it. */
static bool count_region(struct budget_pins *pins, const struct region *region, uint64_t deadline) {
    uint64_t start = PIN_PAGE + region->chunk_base * sizeof(struct drp_pin_cell);
    uint64_t end = start + region->chunk_count * sizeof(struct drp_pin_cell);
    uint64_t last = (end + PIN_PAGE - 1) / PIN_PAGE;
    struct batch batch;

    if (pins->region != region->id) {
        pins->region = region->id;
        pins->page = start / PIN_PAGE;
        pins->chunks = 0;
        for (unsigned i = 0; i < region->n_mappings; i++)
            region->mappings[i]->pinning = 0;
    }
    for (; pins->page < last && region->n_mappings > 0; pins->page += batch.pages) {
        if (kernel_now() >= deadline)
            return false;
        batch.first = pins->page;
        batch.pages = last - pins->page < BATCH_PAGES ? last - pins->page : BATCH_PAGES;
        look_at_batch(region, &batch);
        for (uint64_t i = 0; i < batch.pages; i++) {
            uint64_t from = (batch.first + i) * PIN_PAGE, to = from + PIN_PAGE;

            from = from < start ? start : from;
            to = to > end ? end : to;
            pins->chunks += count_page(region, &batch, i, (from - start) / sizeof(struct drp_pin_cell),
                                       (to - start) / sizeof(struct drp_pin_cell));
        }
    }
    for (unsigned i = 0; i < region->n_mappings; i++)
        region->mappings[i]->pinned = region->mappings[i]->pinning << region->chunk_shift;
    return true;
}

/* false: the slice is over. */
static bool count_home(struct budget_pins *pins, struct home *home, uint64_t deadline) {
    struct region *region;
    bool more = false;

    LIST_FOREACH (region, &home->regions, link) {
        if (region->pins_pass == pins->pass)
            continue;
        home_lock(home);
        more = !count_region(pins, region, deadline);
        home_unlock(home);
        if (more)
            return false;
        region->pinned = pins->chunks << region->chunk_shift;
        region->pins_pass = pins->pass;
        pins->region = 0;
    }
    return true;
}

/* ---- the verdict ---- */

/* Closed at the quota, open again when an eighth of it is free: else a client at its quota had every other pin refused. */
static bool is_closed(bool closed, uint64_t pinned, uint64_t quota) {
    return quota != CONFIG_INFINITY && (pinned >= quota || (closed && pinned >= quota - quota / 8));
}

bool budget_pins_are_closed(const struct session *session) {
    return atomic_load(&session->pins_closed) || (session->user && atomic_load(&session->user->pins_closed));
}

static void set_flag(struct drp_state_header *header, uint32_t flag, bool set) {
    if (set == ((atomic_load(&header->flags) & flag) != 0))
        return;
    if (set)
        atomic_fetch_or(&header->flags, flag);
    else
        atomic_fetch_and(&header->flags, ~flag);
}

static_assert(DRP_STATE_CLOSED_MAX >= REGION_MAPPINGS_MAX, "room for all mappings");

/* One who has a shared region and pins too much is no reason for the others to stop. Returns the number of mappings. */
static unsigned list_closed(struct region *region) {
    _Atomic uint64_t *closed = drp_state_closed(region->state);
    unsigned n = 0;

    home_lock(region->home);
    for (unsigned i = 0; i < region->n_mappings; i++)
        if (budget_pins_are_closed(region->mappings[i]->session))
            atomic_store_explicit(&closed[n++], region->mappings[i]->id, memory_order_relaxed);
    home_unlock(region->home);
    for (unsigned i = n; i < DRP_STATE_CLOSED_MAX && atomic_load_explicit(&closed[i], memory_order_relaxed) != 0; i++)
        atomic_store_explicit(&closed[i], 0, memory_order_relaxed);
    return n;
}

void budget_mark_pins(struct region *region) {
    struct drp_state_header *header = region->state;
    const struct session *session = region->home->session;

    if (!header) /* no pins at all */
        return;
    if (session)
        set_flag(header, DRP_STATE_PINS_CLOSED, budget_pins_are_closed(session));
    else
        set_flag(header, DRP_STATE_SOME_CLOSED, list_closed(region) > 0);
}

/* Did it change? */
static bool close_pins(_Atomic bool *closed, uint64_t pinned, uint64_t quota) {
    bool was = atomic_load(closed), is = is_closed(was, pinned, quota);

    atomic_store(closed, is);
    return was != is;
}

/*
 * Of a shared region each who has it pays what he pins himself. A chunk counts once: for a session, for a user, or both, whatever
 * the number of mappings. Who has hung up does not pay: his pins are about to go.
 */
static void add_shared(struct region *region) {
    unsigned n = region->n_mappings;

    for (unsigned i = 0; i < n; i++) {
        struct session *session = region->mappings[i]->session;

        session->pinning += region->mappings[i]->pinned;
        if (session->user)
            session->user->pinning += region->mappings[i]->pinned;
    }
    for (unsigned i = 0; i < n; i++) {
        struct session *session = region->mappings[i]->session;

        session->pinned += least(session->pinning, region->pinned);
        session->pinning = 0;
        if (!session->user)
            continue;
        session->user->pinned += least(session->user->pinning, region->pinned);
        session->user->pinning = 0;
    }
}

static void add_all(struct manager *manager) {
    struct budget_user *user;
    struct session *session;
    struct region *region;
    struct home *home;

    LIST_FOREACH (user, &manager->budgets.users, link) {
        user->pinned = 0;
    }
    LIST_FOREACH (session, &manager->sessions, link) {
        session->pinned = 0;
        LIST_FOREACH (region, &session->home.regions, link) {
            session->pinned += region->pinned;
        }
        session->user->pinned += session->pinned;
    }
    LIST_FOREACH (home, &manager->homes, link)
        if (!home->session) {
            home_lock(home);
            add_shared(shared_of(home)->region);
            home_unlock(home);
        }
}

/* After a pass, or when the config has changed. */
static void judge(struct manager *manager) {
    const struct config *config = manager->config;
    struct budget_user *user;
    struct session *session;
    struct region *region;
    struct home *home;
    bool changed = false;

    add_all(manager);
    LIST_FOREACH (session, &manager->sessions, link) {
        changed |= close_pins(&session->pins_closed, session->pinned, config->max_pinned_per_client);
    }
    LIST_FOREACH (user, &manager->budgets.users, link)
        changed |= close_pins(&user->pins_closed, user->pinned, config->max_pinned_per_uid);
    LIST_FOREACH (home, &manager->homes, link) {
        LIST_FOREACH (region, &home->regions, link) {
            budget_mark_pins(region);
        }
    }
    if (!changed)
        return;
    atomic_store(&manager->budgets.pins_changed, true);
    (void)!write(manager->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

uint64_t budget_count_pins(struct manager *manager, uint64_t now) {
    struct budget_pins *pins = &manager->budgets.pins;
    bool wanted = manager->config->max_pinned_per_client != CONFIG_INFINITY ||
                  manager->config->max_pinned_per_uid != CONFIG_INFINITY;
    struct home *home;
    uint64_t began, spent;
    bool all = true;

    if (!wanted) {
        if (pins->pass > 0)
            judge(manager); /* opens all */
        *pins = (struct budget_pins){0};
        return UINT64_MAX;
    }
    if (now < pins->due)
        return pins->due - now;
    began = kernel_now();
    if (pins->pass == 0)
        pins->pass = 1;
    LIST_FOREACH (home, &manager->homes, link)
        if (!(all = count_home(pins, home, began + SLICE_NS)))
            break;
    if (all) {
        judge(manager);
        pins->pass = pins->pass == UINT32_MAX ? 1 : pins->pass + 1;
    }
    spent = kernel_now() - began;
    pins->due = now + (spent * COST_FACTOR > PASS_LEAST_NS ? spent * COST_FACTOR : PASS_LEAST_NS);
    return pins->due - now;
}
