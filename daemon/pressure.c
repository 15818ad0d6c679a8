/* SPDX-License-Identifier: MIT */
/*
 * The pressure thread: looks at every domain at the latest moment at which the fastest allocation could not yet have used up its
 * headroom, and has the coldest chunks of the one that suffers most dropped, slice by slice, looking again after each.
 *
 * It sleeps while there is no region. It runs SCHED_FIFO where it may, since it has to run just when others keep the CPUs busy; so it never
 * waits for a client: it reads files of /proc and /sys, takes the manager's and sessions' locks, and leaves punches to the droppers.
 * Also the watchdog of the workers, and the hand of the clock page.
 */

#include "pressure.h"

#include "budget.h"
#include "crash-point.h"
#include "gate.h"
#include "manager.h"
#include "need.h"
#include "record-sample.h"
#include "waiters.h"
#include "watchdog.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PRESSURE_IDLE_NS UINT64_C(1000000000)
/* A slice takes 3 ms. Who is slower is left alone with it, while the others are looked at again. */
#define PRESSURE_SLICE_WAIT_NS UINT64_C(8000000)
/* So long a slice is counted on. */
#define PRESSURE_COMING_NS UINT64_C(30000000)
/* Glances at one cgroup take the place of turns for so long: a turn also looks after the workers' clocks. */
#define PRESSURE_GLANCES_NS WATCHDOG_NS
#define PRESSURE_HAND_BARREN 3
/* Until somebody who is busy with a slice is asked again. */
#define PRESSURE_BUSY_NS UINT64_C(1000000)
/* Looks at a domain with nothing to drop come every 500 us << so many fruitless plans in a row; where somebody waits at its gate, and at last. */
#define PRESSURE_BARREN_WAITERS 1
#define PRESSURE_BARREN_MAX 5
/* So many of them in a row, and who waits at its gate goes ahead, and so does who comes within this time. */
#define PRESSURE_BARREN_HOPELESS 2
#define PRESSURE_HOPELESS_NS UINT64_C(2000000)

/* Sleeps until the word is no longer the value, or ns are over. */
static void futex_sleep(_Atomic uint32_t *word, uint32_t value, uint64_t ns) {
    struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};

    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, ns == UINT64_MAX ? NULL : &timeout, NULL, 0);
}

void pressure_wake(struct pressure *pressure) {
    atomic_fetch_add(&pressure->wakes, 1);
    syscall(SYS_futex, &pressure->wakes, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void pressure_kick(struct pressure *pressure) {
    atomic_store(&pressure->kicked, true);
    pressure_wake(pressure);
}

void pressure_edge(struct pressure *pressure, struct domain *domain, enum demand_source source) {
    atomic_fetch_or(&domain->edges, DEMAND_EDGE(source));
    pressure_kick(pressure);
}

void pressure_ask(struct pressure *pressure, struct pressure_hand *hand) {
    LIST_INSERT_HEAD(&pressure->hands, hand, link);
    pressure_kick(pressure);
}

/* ---- looking ---- */

/* Spans that the kernel fills are armed again, so that what they may still take is free for others. */
static void take_back_commitments(struct manager *manager, const struct domain *domain, uint64_t bytes) {
    struct session *session;

    LIST_FOREACH (session, &manager->sessions, link)
        if (atomic_load(&session->committed) > 0 && domain_is_within(session->domain, domain)) {
            atomic_store(&session->pager.rearm_bytes, bytes);
            worker_kick(&session->pager.worker);
        }
}

/*
 * The kernel counts native regions with the files, as what it can take back itself; but whose turn it is is for us to say. limit: what is free of that in any
 * case is not counted so.
 */
static uint64_t without_native(const struct domain *domain, uint64_t headroom, uint64_t limit, uint64_t native) {
    uint64_t usage = domain->look.usage, least = domain->cgroup && usage < limit ? limit - usage : 0;

    if (headroom == UINT64_MAX || headroom <= least)
        return headroom;
    return headroom - least > native ? headroom - native : least;
}

/* One look at a domain. */
static struct controller_answer look_at(struct pressure *pressure, struct domain *domain) {
    struct controller_view view = {.now = pressure->now};
    struct controller_answer answer;
    uint64_t native = plan_native(&pressure->plans, domain), droppable, chunk;

    view.edges = atomic_exchange(&domain->edges, 0);
    domain_take_look(&pressure->manager->domains, domain);
    atomic_fetch_add(&pressure->looks, 1);
    view.headroom =
        domain_until_commit(domain, without_native(domain, domain->look.headroom, domain->look.limit, native));
    view.headroom_high = without_native(domain, domain->look.headroom_high, domain->look.high, native);
    view.commitment = atomic_load(&domain->commitment);
    view.credit = atomic_load(&domain->credit);
    view.wanted = atomic_exchange(&domain->wanted, 0);
    if (domain->waiters && view.wanted < GATE_STEP) /* who waits said so once only */
        view.wanted = GATE_STEP;
    view.refaults = atomic_load(&domain->refaults);
    answer = controller_look(&domain->controller, &view);
    if (answer.take_back > 0)
        take_back_commitments(pressure->manager, domain, answer.take_back + GATE_SPAN);
    if (answer.share > 0) {
        droppable = plan_droppable(&pressure->plans, domain, &chunk);
        answer.demand = answer.total = controller_due(&domain->controller, answer.share, droppable, chunk);
    }
    return answer;
}

/* ---- a turn: one look at everything ---- */

struct turn {
    struct pressure *pressure;
    uint32_t tick;
    bool kicked;            /* something asks for a look at everything */
    uint64_t next;          /* ns until the next turn, but for the look that is due first */
    uint64_t look;          /* ns until that one */
    uint64_t others;        /* ns until the first look at a domain that was not in need */
    struct domain *nearest; /* whose it is; NULL: there is none */
    struct budget_excess excesses[BUDGET_AT_ONCE];
    size_t n_excesses;
    size_t n; /* slices handed out */
    struct plan_slice *slices[PLAN_SLICES_AT_ONCE];
    struct domain *of[PLAN_SLICES_AT_ONCE]; /* whose need it was; NULL: somebody's hand, or a budget */
};

static void turn_sleep(struct turn *turn, uint64_t ns) {
    if (ns < turn->next)
        turn->next = ns;
}

static void turn_look_in(struct turn *turn, struct domain *domain, uint64_t ns) {
    if (ns < turn->look) {
        turn_sleep(turn, turn->look);
        turn->look = ns;
        turn->nearest = domain;
    } else
        turn_sleep(turn, ns);
}

static uint64_t turn_next(const struct turn *turn) {
    return turn->look < turn->next ? turn->look : turn->next;
}

static void turn_add(struct turn *turn, struct plan_slice *slice, struct domain *domain) {
    turn->of[turn->n] = domain;
    turn->slices[turn->n++] = slice;
}

/* A domain is in need, and the last plan got nothing done. */
static void note_barren(struct turn *turn, struct domain *domain) {
    domain->fruitless = false;
    if (domain->barren < PRESSURE_BARREN_MAX)
        domain->barren++;
    domain->barren_at = kernel_now();
    if (domain->barren < PRESSURE_BARREN_HOPELESS ||
        plan_under_way(&turn->pressure->plans, domain, true, domain->barren_at, PRESSURE_COMING_NS) > 0)
        return;
    atomic_store(&domain->hopeless_until, domain->barren_at + PRESSURE_HOPELESS_NS);
    waiters_give_up(turn->pressure->manager, domain);
}

/* ns until it is looked at again: 1 ms to 16 ms after that, the others as ever. */
static uint64_t barren_wait(const struct domain *domain, uint64_t now) {
    unsigned most = domain->waiters ? PRESSURE_BARREN_WAITERS : PRESSURE_BARREN_MAX;
    uint64_t until = domain->barren_at + (UINT64_C(500000) << (domain->barren < most ? domain->barren : most));

    return domain->barren > 0 && until > now ? until - now : 0;
}

/* Was anything handed out? */
static bool turn_need(struct turn *turn, const struct plan_demand *demand) {
    struct plan_slice *slices[NEED_SLICES];
    size_t room = PLAN_SLICES_AT_ONCE - turn->n;
    size_t n =
        need_hand_out(&turn->pressure->plans, demand, turn->tick, slices, room < NEED_SLICES ? room : NEED_SLICES);

    for (size_t i = 0; i < n; i++)
        turn_add(turn, slices[i], demand->domain);
    return n > 0;
}

/*
 * A domain near its limit has a turn every millisecond or two, and is looked at alone then: /proc/meminfo takes five times as long to read
 * as a cgroup's usage. What is due within half its interval is looked at along with what is due now, so that two of a second each wake once.
 */
static bool domain_can_wait(const struct turn *turn, struct domain *domain) {
    return !turn->kicked && turn->pressure->now + domain->interval / 2 < domain->due && !domain->waiters &&
           atomic_load(&domain->edges) == 0 && atomic_load(&domain->wanted) == 0;
}

/* While a great slice is punched nobody else is looked at. */
static bool is_alone(const struct turn *turn, const struct domain *domain) {
    const struct domain *other;

    LIST_FOREACH (other, &turn->pressure->manager->domains.list, link)
        if (other->waiters ||
            (other != domain && !other->gone && other->due < turn->pressure->now + PRESSURE_SLICE_WAIT_NS))
            return false;
    return true;
}

/*
 * What is being dropped already is not asked for twice: the next coldest would give for the coldest, who is busy giving. Before somebody is killed they
 * do, if that takes too long, and whoever is to give for less urgent reasons is asked, which has him hurry.
 */
static uint64_t is_coming(struct pressure *pressure, const struct domain *domain, enum demand_urgency urgency) {
    bool life = urgency == URGENCY_LIFE;

    return plan_under_way(&pressure->plans, domain, !life, pressure->now,
                          life ? PRESSURE_SLICE_WAIT_NS : PRESSURE_COMING_NS);
}

/* Looks at one domain, and hands a slice out if it is in need. Returns the ns until its next look. */
static uint64_t turn_domain(struct turn *turn, struct domain *domain) {
    struct pressure *pressure = turn->pressure;
    struct plan_demand demand = {.domain = domain, .seen = pressure->now};
    struct controller_answer answer;
    uint64_t wait, coming;

    if (domain->fruitless)
        note_barren(turn, domain);
    wait = barren_wait(domain, pressure->now);
    if (wait > 0)
        return wait;
    if (domain_can_wait(turn, domain))
        return domain->due - pressure->now;
    answer = look_at(pressure, domain);
    plan_trim(&pressure->plans, domain, answer.enough);
    domain->interval = answer.demand > 0 ? 0 : answer.next;
    domain->due = pressure->now + domain->interval;
    if (answer.demand == 0) {
        if (!domain->waiters || atomic_load(&domain->credit) >= GATE_STEP) /* else it only takes promises back first */
            domain->barren = 0;
        return answer.next;
    }
    coming = is_coming(pressure, domain, answer.urgency);
    if (answer.total <= coming || (answer.missing > 0 && answer.missing <= coming))
        return answer.next;
    demand.bytes = answer.demand < answer.total - coming ? answer.demand : answer.total - coming;
    if (demand.bytes > domain->controller.limits.slice && !is_alone(turn, domain))
        demand.bytes = domain->controller.limits.slice;
    demand.total = answer.total;
    demand.shared_out = answer.share > 0;
    demand.source = answer.source;
    demand.urgency = answer.urgency;
    if (turn_need(turn, &demand))
        return answer.next;
    if (pressure->plans.busy)
        turn_sleep(turn, PRESSURE_BUSY_NS);
    else
        note_barren(turn, domain);
    return answer.next;
}

/* Under the manager's lock. Where there are more than one turn can serve, the next one comes at once. */
static void turn_domains(struct turn *turn) {
    struct pressure *pressure = turn->pressure;
    struct domain *domain;
    size_t position = 0, n;
    uint64_t ns;

    /* Children come before their parents: what they free, their parents need not take from others. */
    LIST_FOREACH (domain, &pressure->manager->domains.list, link) {
        if (position++ < pressure->first)
            continue;
        if (turn->n == PLAN_SLICES_AT_ONCE) { /* the rest has its turn right after these */
            pressure->first = position - 1;
            turn->next = turn->others = 0;
            return;
        }
        n = turn->n;
        ns = turn_domain(turn, domain);
        turn_look_in(turn, domain, ns);
        if (turn->n == n && ns < turn->others)
            turn->others = ns;
    }
    if (pressure->first > 0)
        turn->next = turn->others = 0;
    pressure->first = 0;
}

/* Somebody over a budget, without need: what is left of it by now. */
static void turn_excess(struct turn *turn, const struct budget_excess *excess) {
    struct manager *manager = turn->pressure->manager;
    struct plan_demand demand = {
        .domain = excess->domain ? excess->domain : manager->domains.machine,
        .source = DEMAND_BUDGET,
        .urgency = URGENCY_TRIM,
        .total = excess->standing->over,
        .excess = excess,
        .seen = turn->pressure->now,
    };
    uint64_t most = demand.domain->controller.limits.slice, began = kernel_now();
    struct plan_slice *slice;

    demand.bytes = demand.total < most ? demand.total : most;
    slice = plan_hand_out(&turn->pressure->plans, &demand, turn->tick);
    if (slice)
        turn_add(turn, slice, NULL);
    budget_note_plan(manager, kernel_now() - began);
    budget_note_asked(excess, turn->pressure->now, !slice && turn->pressure->plans.busy);
}

/* As long as plans have not cost too much. */
static void turn_budgets(struct turn *turn) {
    for (size_t i = 0; i < turn->n_excesses && turn->n < PLAN_SLICES_AT_ONCE; i++)
        if (turn->excesses[i].standing->over > 0 && budget_may_plan(turn->pressure->manager, kernel_now()))
            turn_excess(turn, &turn->excesses[i]);
}

/* One slice for each hand that has none under way. What has nothing left to drop is done. */
static void turn_hands(struct turn *turn) {
    struct pressure_hand *hand, *next;

    for (hand = LIST_FIRST(&turn->pressure->hands); hand && turn->n < PLAN_SLICES_AT_ONCE; hand = next) {
        struct plan_demand demand = {
            .domain = hand->domain,
            .source = DEMAND_HAND,
            .urgency = URGENCY_TRIM,
            .hand = hand,
            .total = hand->wanted,
            .seen = turn->pressure->now,
        };
        struct plan_slice *slice = NULL;

        next = LIST_NEXT(hand, link);
        if (hand->pending > 0)
            continue;
        if (hand->freed < hand->wanted && hand->barren < PRESSURE_HAND_BARREN) {
            uint64_t missing = hand->wanted - hand->freed;
            uint64_t most = controller_slice(&hand->domain->controller.limits, missing);

            demand.bytes = missing < most ? missing : most;
            slice = plan_hand_out(&turn->pressure->plans, &demand, turn->tick);
        }
        if (slice) {
            hand->pending++;
            turn_add(turn, slice, NULL);
        } else if (hand->freed >= hand->wanted ||
                   (!turn->pressure->plans.busy && hand->barren++ >= PRESSURE_HAND_BARREN)) {
            LIST_REMOVE(hand, link);
            hand->done(hand);
        } else
            turn_sleep(turn, PRESSURE_BUSY_NS); /* all are busy, or a sweep comes next */
    }
}

/*
 * The end of the wait for slices, ns of the clock. Only while every domain that had one waits for it, is no other's look the earlier. What nobody needs,
 * of a hand or a budget, is no reason to look later than is due.
 */
static uint64_t turn_deadline(const struct turn *turn) {
    uint64_t ns = turn->others < PRESSURE_SLICE_WAIT_NS ? turn->others : PRESSURE_SLICE_WAIT_NS;
    bool needed = false, served = false;

    for (size_t i = 0; i < turn->n; i++)
        if (turn->of[i]) {
            needed |= !plan_finished(turn->slices[i]);
            served |= plan_finished(turn->slices[i]);
        }
    if ((!needed || served) && turn->look < ns)
        ns = turn->look;
    return turn->pressure->now + ns;
}

/* Waits until the slices are done, or somebody in them is too slow, or somebody else is due. */
static void turn_wait(const struct turn *turn) {
    struct plans *plans = &turn->pressure->plans;
    uint64_t now, deadline;

    for (;;) {
        uint32_t finished = atomic_load(&plans->finished);
        size_t i = 0;

        while (i < turn->n && plan_finished(turn->slices[i]))
            i++;
        now = kernel_now();
        deadline = turn_deadline(turn);
        if (i == turn->n || now >= deadline || atomic_load(&turn->pressure->stop))
            break;
        futex_sleep(&plans->finished, finished, deadline - now);
    }
}

/* Under the manager's lock, after the wait. Did anything get done? */
static bool turn_end(struct turn *turn) {
    bool progress = false;

    for (size_t i = 0; i < turn->n; i++) {
        plan_leave(turn->slices[i]);
        if (!plan_progressed(turn->slices[i]))
            continue;
        progress = true;
        if (turn->of[i] && atomic_load(&turn->slices[i]->request.freed) > 0)
            turn->of[i]->barren = 0;
    }
    plan_settle(&turn->pressure->plans);
    return progress;
}

/* ---- glances ---- */

static bool can_glance(const struct domain *domain) {
    /* More than half of the room is promised: a turn takes some of it back. */
    return !domain->gone && !domain->look.stat_read && domain->credit_seen >= atomic_load(&domain->commitment);
}

/*
 * A cgroup that is near its limit, and does nothing, is looked at every few milliseconds. What a turn does beside that costs as much as the look,
 * whose code alone is warm by then; so between two turns for something else there are only looks at this one, as long as it has
 * no less room than at the turn. Not where the room lies in caches: these can go while usage stays.
 */
static void glance_from(const struct turn *turn) {
    struct pressure *pressure = turn->pressure;
    struct domains *domains = &pressure->manager->domains;
    struct domain *domain = domains->nearest;

    if (!domain || turn->n > 0 || !domain->parent || domain->interval == 0 ||
        domain->interval > PRESSURE_GLANCES_NS / 4 || domain->barren > 0 || domain->waiters || !can_glance(domain)) {
        domains->nearest = NULL;
        return;
    }
    pressure->glance_credit = domain->credit_seen;
    pressure->glances_until = pressure->now + (turn->next < PRESSURE_GLANCES_NS ? turn->next : PRESSURE_GLANCES_NS);
}

/* Returns the ns to sleep; 0: it needs a turn. */
static uint64_t pressure_glance(struct pressure *pressure) {
    struct domains *domains = &pressure->manager->domains;
    uint64_t now = kernel_now(), ns = 0;
    struct domain *domain;

    if (now >= pressure->glances_until)
        return 0;
    pthread_mutex_lock(&pressure->manager->lock);
    domain = domains->nearest;
    if (domain) {
        domain_take_look(domains, domain);
        atomic_fetch_add(&pressure->looks, 1);
        if (can_glance(domain) && domain->credit_seen >= pressure->glance_credit) {
            ns = pressure->glances_until - now;
            ns = domain->interval < ns ? domain->interval : ns;
            domain->due = now + domain->interval;
        }
    }
    pthread_mutex_unlock(&pressure->manager->lock);
    return ns;
}

/* One look at everything that is due. Returns the ns to sleep; 0: look again at once. */
static uint64_t pressure_turn(struct pressure *pressure, bool kicked) {
    struct turn turn = {.pressure = pressure,
                        .kicked = kicked || pressure->first > 0,
                        .next = PRESSURE_IDLE_NS,
                        .look = PRESSURE_IDLE_NS,
                        .others = PRESSURE_IDLE_NS};
    struct manager *manager = pressure->manager;
    unsigned under_way;
    bool progress;
    uint64_t took;

    pressure->now = kernel_now();
    pthread_mutex_lock(&manager->lock);
    turn.tick = manager_advance_clock(manager);
    watchdog_look(manager);
    if (pressure->quarantined) /* so that whoever goes on is soon asked again */
        turn_sleep(&turn, WATCHDOG_NS);
    under_way = plan_settle(&pressure->plans); /* what was finished after its turn */
    if (manager->n_regions > 0 ||
        !LIST_EMPTY(&manager->leaving)) { /* how urgent it is to free what these had is seen by the look */
        waiters_find(manager);
        turn_sleep(&turn, budget_look(manager, pressure->now, turn.excesses, &turn.n_excesses));
        turn_domains(&turn);
        turn_budgets(&turn);
        turn_sleep(&turn, budget_count_pins(manager, pressure->now));
        turn_sleep(&turn, record_sample(manager, pressure->now));
        waiters_let_in(manager);
    } else if (manager->n_sessions == 0 && LIST_EMPTY(&pressure->hands))
        turn.next = turn.look = UINT64_MAX;
    manager->domains.nearest = turn.nearest; /* unless it goes with a hand */
    turn_hands(&turn);
    if (under_way > 0) /* they hold domains, and somebody's hand may wait for them */
        turn_sleep(&turn, PRESSURE_BUSY_NS);
    glance_from(&turn);
    pthread_mutex_unlock(&manager->lock);
    if (turn.n == 0)
        return turn_next(&turn);

    CRASH_POINT("pressure-planned");
    turn_wait(&turn);
    pthread_mutex_lock(&manager->lock);
    progress = turn_end(&turn);
    CRASH_POINT("pressure-settled");
    pthread_mutex_unlock(&manager->lock);
    turn_sleep(&turn, PRESSURE_BUSY_NS);
    took = kernel_now() - pressure->now;
    return progress || turn_next(&turn) < took ? 0 : turn_next(&turn) - took;
}

/* ---- the thread ---- */

static void *pressure_main(void *data) {
    struct pressure *pressure = data;
    uint32_t before = atomic_load(&pressure->wakes) - 1;

    while (!atomic_load(&pressure->stop)) {
        uint32_t wakes = atomic_load(&pressure->wakes);
        uint64_t sleep_ns = wakes == before ? pressure_glance(pressure) : 0;

        before = wakes;
        if (sleep_ns == 0)
            sleep_ns = pressure_turn(pressure, atomic_exchange(&pressure->kicked, false));
        atomic_fetch_add(&pressure->turns, 1);
        if (sleep_ns > 0)
            futex_sleep(&pressure->wakes, wakes, sleep_ns);
    }
    return NULL;
}

int pressure_start(struct pressure *pressure, struct manager *manager) {
    struct sched_param param = {.sched_priority = 1};
    int r;

    pressure->manager = manager;
    plans_init(&pressure->plans, manager);
    LIST_INIT(&pressure->hands);
    r = pthread_create(&pressure->thread, NULL, pressure_main, pressure);
    if (r != 0)
        return -r;
    pthread_setname_np(pressure->thread, "drp-pressure");
    /* Threads that it starts are ordinary ones. */
    pressure->realtime = pthread_setschedparam(pressure->thread, SCHED_FIFO | SCHED_RESET_ON_FORK, &param) == 0;
    pressure->started = true;
    return 0;
}

void pressure_stop(struct pressure *pressure) {
    struct pressure_hand *hand;

    if (pressure->started) {
        atomic_store(&pressure->stop, true);
        pressure_kick(pressure);
        pthread_join(pressure->thread, NULL);
        pressure->started = false;
    }
    while ((hand = LIST_FIRST(&pressure->hands))) {
        LIST_REMOVE(hand, link);
        hand->done(hand);
    }
    plans_deinit(&pressure->plans);
}
