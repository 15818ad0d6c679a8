/* SPDX-License-Identifier: MIT */
/*
 * Is no more given back than needed, and by the right ones? Real clients in memory cgroups of 256 MiB.
 *
 * A demand comes in two ways: exactly, by `droppablectl free`, and as in life, by a process that takes memory. The second may drop a slice
 * too much, so it asks for less than the cold ones have.
 */

#include "bars.h"
#include "suite.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LIMIT (256 * MIB)
#define SLICE (16 * MIB)
#define RESERVE (32 * MIB)
#define SIZE (64 * MIB)
#define SHARED_SIZE (SIZE + SPAN) /* to be found by */
#define PRIORITY_SIZE (32 * MIB)
#define CHUNK (64 * 1024)
#define AGE_US 1200000 /* so much older is another age */
#define STALL_CGROUP (32 * MIB)
#define STALL_FILE (40 * MIB)
#define STALL_MS 9000 /* less than the calm after which another stall is given its share */
#define TRIES 3

/* ---- clients ---- */

enum habit { RESTS, PINS, TOUCHES };
/* Of the last two the service does not see accesses: without a userfaultfd, and a region that others may have as well. */
enum kind { SEEN, UNSEEN, SHARED };

struct client {
    uint64_t size;
    enum drp_priority priority;
    enum habit habit;
    enum kind kind;
};

/* Each chunk is pinned, used, and let go. */
static void use_pinned(struct drp_region *region) {
    volatile unsigned char *memory = drp_region_address(region);

    for (uint64_t chunk = 0; chunk < drp_region_size(region); chunk += CHUNK) {
        child_check(drp_pin(region, chunk, CHUNK, NULL) == 0);
        for (uint64_t at = chunk; at < chunk + CHUNK; at += PAGE)
            memory[at] = 1;
        child_check(drp_unpin(region, chunk, CHUNK) == 0);
    }
}

static void use(struct drp_region *region) {
    volatile unsigned char *memory = drp_region_address(region);

    for (uint64_t at = 0; at < drp_region_size(region); at += PAGE)
        memory[at] = 1;
}

static void live(int socket, void *data) {
    const struct client *client = data;
    struct drp_region_options options = {.struct_size = sizeof(options), .priority = client->priority};
    struct pollfd told = {.fd = socket, .events = POLLIN};
    struct drp_region *region;

    if (client->kind == UNSEEN)
        child_become_nobody();
    if (client->kind == SHARED)
        options.required = DRP_REGION_SHARED;
    region = droppable_memory(client->size, &options);
    write_blocks(drp_region_address(region), client->size);
    child_check(child_say(socket, 'r'));
    while (client->habit != RESTS && poll(&told, 1, 1) == 0)
        client->habit == PINS ? use_pinned(region) : use(region);
    stay(socket);
}

static void start_client(struct child *child, const struct memcg *memcg, struct client client) {
    start_in(child, memcg, live, &client);
    child_expect(child, 'r');
}

static void end_child(struct child *child) {
    child_say(child->socket, 'q');
    child_end(child);
}

struct hog {
    uint64_t size;
    unsigned rest_us; /* after each MiB */
};

/* Takes memory, and no more than that. */
static void take(int socket, void *data) {
    const struct hog *hog = data;
    unsigned char *memory = plain_memory(hog->size, false);

    for (uint64_t at = 0; at < hog->size; at += MIB) {
        write_blocks(memory + at, at + MIB < hog->size ? MIB : hog->size - at);
        if (hog->rest_us > 0)
            usleep(hog->rest_us);
    }
    stay(socket);
}

/* Until it has what it takes and the service is done, then headroom and drops are read. false: it was killed. */
static bool run_hog(const struct memcg *memcg, struct hog hog, uint64_t *ret_dropped, uint64_t *ret_headroom) {
    struct child child;
    char word;

    start_in(&child, memcg, take, &hog);
    if (child_hear(child.socket, &word)) {
        *ret_dropped = settled_drops();
        *ret_headroom = memcg_headroom(memcg);
        child_say(child.socket, 'q');
    }
    return child_survived(&child);
}

/* ---- no more than needed ---- */

static const char *const reserves[] = {"32M", "64M"};
static const uint64_t hog_sizes[] = {48 * MIB, 80 * MIB, 104 * MIB, 128 * MIB, 160 * MIB, 190 * MIB};

/* A hog that stops at so many bytes. What it makes the service drop is held against what was needed. */
static void overreact(uint64_t hog, uint64_t reserve) {
    struct memcg memcg = bars_cgroup(LIMIT);
    uint64_t before = service_status(&service, "dropped_bytes"), headroom, room = 0, need, dropped = 0;
    struct child holder;
    bool survived;

    start_client(&holder, &memcg, (struct client){.size = 2 * SIZE});
    headroom = memcg_headroom(&memcg);
    need = hog + reserve > headroom ? hog + reserve - headroom : 0;
    survived = run_hog(&memcg, (struct hog){.size = hog}, &dropped, &room);
    end_child(&holder);
    memcg_remove(&memcg);
    if (!survived) { /* a bar of its own, in bars-pressure */
        printf("a hog of %" PRIu64 " MiB, reserve %" PRIu64 " MiB: killed, no figure\n", hog / MIB, reserve / MIB);
        return;
    }
    dropped -= before;
    printf("a hog of %" PRIu64 " MiB, reserve %" PRIu64 " MiB, headroom %.1f MiB: %.1f MiB needed, %.1f MiB dropped, "
           "headroom then %.1f MiB\n",
           hog / MIB, reserve / MIB, (double)headroom / MIB, (double)need / MIB, (double)dropped / MIB,
           (double)room / MIB);
    ck_assert_uint_le(dropped, need + need / 4 + SLICE);
    ck_assert(room + MIB >= reserve || dropped >= 2 * SIZE - MIB);
}

START_TEST(hog_that_stops) {
    bars_service(reserves[_i]);
    for (size_t i = 0; i < bars_count(hog_sizes); i++)
        overreact(hog_sizes[i], strtoull(reserves[_i], NULL, 10) * MIB);
    service_stop(&service);
}
END_TEST

/* ---- a stall without a deficit ---- */

/*
 * A file's pages again and again, at random, in a cgroup that is a little too small for them. That one comes back is a stall of
 * memory for as long as the disk takes, too short to be heard with a fast one; but only if it was in use when it was taken. To one kernel
 * it was if it was read twice, so at first each is, by the MiB; to another (MGLRU) if it is mapped.
 */
static void stall(int socket, void *data) {
    static unsigned char buffer[MIB];
    int file = *(const int *)data;
    volatile unsigned char *memory = mmap(NULL, STALL_FILE, PROT_READ, MAP_SHARED, file, 0);
    struct pollfd told = {.fd = socket, .events = POLLIN};
    uint64_t random = 88172645463325252;

    child_check(memory != MAP_FAILED);
    child_check(madvise((void *)memory, STALL_FILE, MADV_RANDOM) == 0);
    for (uint64_t at = 0; at < 2 * STALL_FILE; at += MIB)
        child_check(pread(file, buffer, MIB, (off_t)(at / 2 / MIB * MIB)) == MIB);
    while (poll(&told, 1, 0) == 0) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (void)memory[random % STALL_FILE];
    }
}

/* The machine's headroom is over its reserve, and near enough to it that a stall counts. Returns the reserve. */
static uint64_t set_near(void) {
    uint64_t reserve = service_status(&service, "headroom") / 10 * 6;
    char config[80];

    snprintf(config, sizeof(config), "[Pressure]\nMachineReserve=%" PRIu64 "\n", reserve);
    service_reload(&service, config, "settings read again");
    return reserve;
}

/* What the machine has stalled so far, in us. */
static uint64_t stalled_us(void) {
    FILE *file = fopen("/proc/pressure/memory", "re");
    uint64_t us = 0;

    if (file && fscanf(file, "some avg10=%*f avg60=%*f avg300=%*f total=%" SCNu64, &us) != 1)
        us = 0;
    if (file)
        fclose(file);
    return us;
}

START_TEST(stall_takes_a_share) {
    uint64_t reserve, deadline, stalled, dropped, most = 0, lowest = UINT64_MAX;
    struct memcg memcg = bars_cgroup(STALL_CGROUP);
    struct child holder, staller;
    int file = bars_file(STALL_FILE);

    service_start(&service, NULL);
    if (!status_feature("psi") || file < 0) {
        suite_skip_part("a stall without a deficit", file < 0 ? "no file on a disk" : "no PSI triggers");
        service_stop(&service);
        return;
    }
    start_client(&holder, NULL, (struct client){.size = 2 * SIZE});
    reserve = set_near();
    stalled = stalled_us();
    start_in(&staller, &memcg, stall, &file);
    for (deadline = now_ms() + STALL_MS, dropped = 0; now_ms() < deadline; usleep(20000)) {
        uint64_t now = service_status(&service, "dropped_bytes"), headroom = service_status(&service, "headroom");

        most = now - dropped > most ? now - dropped : most;
        lowest = headroom < lowest ? headroom : lowest;
        dropped = now;
    }
    stalled = (stalled_us() - stalled) / 1000;
    print_why();
    child_kill(&staller);
    end_child(&holder);
    memcg_remove(&memcg);
    close(file);
    service_stop(&service);
    printf("a stall without a deficit: %" PRIu64 " of %u ms, %.1f MiB beyond the reserve, dropped %.2f of %" PRIu64
           " MiB, %.2f at most at once\n",
           stalled, STALL_MS, ((double)lowest - (double)reserve) / MIB, (double)dropped / MIB, 2 * SIZE / MIB,
           (double)most / MIB);
    if (dropped == 0 && stalled < STALL_MS / 4) {
        printf("a stall without a deficit: skipped: none long enough could be made\n");
        return;
    }
    ck_assert_uint_ge(lowest, reserve);
    ck_assert_uint_gt(dropped, 0);
    ck_assert_uint_le(dropped, 2 * SIZE / 20);
}
END_TEST

/* ---- the cold one first ---- */

enum demander { FREE, HOG, FAST_HOG };

struct pair_row {
    const char *what;
    enum habit habit;
    enum demander by;
    enum kind hot, cold;
};

/*
 * A hog at full speed is no bar: where the cold one's drops are late, as on a loaded machine, the hot one is asked in its place, before
 * somebody is killed.
 */
static const struct pair_row pairs[] = {
    {"hot: pins all the time; free", PINS, FREE, SEEN, SEEN},
    {"hot: pins all the time; a hog of 0.4 GB/s", PINS, HOG, SEEN, SEEN},
    {"hot: pins all the time; a hog at full speed", PINS, FAST_HOG, SEEN, SEEN},
    {"hot: touches, lost all once; free", TOUCHES, FREE, SEEN, SEEN},
    {"hot: touches, lost all once; a hog of 0.4 GB/s", TOUCHES, HOG, SEEN, SEEN},
    {"hot: touches, lost all once; a hog at full speed", TOUCHES, FAST_HOG, SEEN, SEEN},
    {"hot: pins all the time, without userfaultfd, as the other; free", PINS, FREE, UNSEEN, UNSEEN},
    {"hot: pins all the time, without userfaultfd; free", PINS, FREE, UNSEEN, SEEN},
    {"hot: pins all the time, and may be shared; free", PINS, FREE, SHARED, SEEN},
    {"hot: pins all the time; free; cold: without userfaultfd", PINS, FREE, SEEN, UNSEEN},
};

/*
 * The one that touches is seen only when it comes back after a drop, and only in spans that were armed before it: on a machine that is busy
 * with others some may be late. So it is seen in all of them, or the third time in most.
 */
static void lose_all_once(struct child *hot, const struct memcg *memcg) {
    uint64_t deadline = deadline_in(CHILD_WAIT_MS), unseen = 1;

    for (unsigned i = 0; i < TRIES && unseen > 0; i++) {
        uint64_t freed;

        unseen = service_status(&service, "unarmed_drops");
        /* It would come back during the demand, and lose some twice and some never: what came back with its span is the coldest. */
        kill(hot->pid, SIGSTOP);
        freed = demand(memcg, SIZE);
        kill(hot->pid, SIGCONT);
        ck_assert_msg(i > 0 || freed >= SIZE - MIB, "%" PRIu64 " MiB freed", freed / MIB);
        while (listing_number("sessions", "pid", (uint64_t)hot->pid, "resident_bytes") < SIZE) {
            ck_assert_msg(now_ms() < deadline, "the hot one does not come back");
            usleep(5000);
        }
        unseen = service_status(&service, "unarmed_drops") - unseen;
        printf("hot: touches: %" PRIu64 " spans of it were dropped unseen\n", unseen);
    }
}

/* Half of all (by a hog: a quarter, and it may be a slice more). */
static bool make_demand(const struct memcg *memcg, enum demander by) {
    struct hog hog = {.size = memcg_headroom(memcg) - RESERVE + SIZE / 2, .rest_us = by == HOG ? 2000 : 0};
    uint64_t dropped, headroom;

    if (by != FREE)
        return run_hog(memcg, hog, &dropped, &headroom);
    demand(memcg, SIZE);
    return true;
}

struct lost {
    uint64_t hot;
    uint64_t cold;
    uint64_t other;
};

/* A region that may be shared is no session's. */
static uint64_t dropped_of_hot(const struct child *hot, const struct pair_row *row) {
    return row->hot == SHARED ? listing_number("regions", "size", SHARED_SIZE, "dropped_bytes") : dropped_of(hot);
}

static struct lost try_pair(const struct pair_row *row) {
    struct memcg memcg = bars_cgroup(LIMIT), elsewhere = bars_cgroup(LIMIT);
    uint64_t hot_size = row->hot == SHARED ? SHARED_SIZE : SIZE;
    struct child hot, cold, other;
    struct lost lost;
    bool survived;

    start_client(&other, &elsewhere, (struct client){.size = SIZE});
    start_client(&hot, &memcg, (struct client){.size = hot_size, .habit = row->habit, .kind = row->hot});
    if (row->habit == TOUCHES)
        lose_all_once(&hot, &memcg);
    lost.hot = dropped_of_hot(&hot, row);
    start_client(&cold, &memcg, (struct client){.size = SIZE, .kind = row->cold});
    usleep(AGE_US);
    survived = make_demand(&memcg, row->by);
    lost.hot = dropped_of_hot(&hot, row) - lost.hot;
    lost.cold = dropped_of(&cold);
    lost.other = dropped_of(&other);
    printf(
        "%s: dropped %.1f MiB of the cold one, %.1f of the hot one, %.1f in another cgroup: %.1f %% of the cold one%s%s\n",
        row->what, (double)lost.cold / MIB, (double)lost.hot / MIB, (double)lost.other / MIB,
        100.0 * (double)lost.cold / (double)(lost.cold + lost.hot), survived ? "" : ": the hog was killed",
        row->by == FAST_HOG ? " (information)" : "");
    end_child(&hot);
    end_child(&cold);
    end_child(&other);
    memcg_remove(&memcg);
    memcg_remove(&elsewhere);
    return lost;
}

/* Beside a hog once more where the machine was too busy for it: who else runs here decides when the cold one's dropper does. */
START_TEST(cold_before_hot) {
    const struct pair_row *row = &pairs[_i];
    unsigned tries = row->by == FREE ? 1 : TRIES;
    bool fair = false;

    bars_service("32M");
    for (unsigned i = 0; i < tries && !fair; i++) {
        struct lost lost = try_pair(row);

        ck_assert(lost.cold + lost.hot >= SIZE / 4 || row->by == FAST_HOG);
        ck_assert_uint_eq(lost.other, 0);
        fair = lost.cold * 10 >= (lost.cold + lost.hot) * 9;
        if (!fair)
            print_why();
    }
    service_stop(&service);
    ck_assert(fair || row->by == FAST_HOG);
}
END_TEST

/* Who is not seen has not grown young by what he gave: the rest of it is as old as before. */
START_TEST(slice_by_slice) {
    struct memcg memcg = bars_cgroup(LIMIT);
    struct child older, younger;
    char why[65536];
    uint64_t lost[2];

    bars_service("32M");
    start_client(&older, &memcg, (struct client){.size = SIZE, .kind = UNSEEN});
    usleep(AGE_US);
    start_client(&younger, &memcg, (struct client){.size = SIZE});
    for (unsigned i = 0; i < 6; i++) {
        demand(&memcg, SIZE / 8);
        usleep(AGE_US / 6);
    }
    lost[0] = dropped_of(&older);
    lost[1] = dropped_of(&younger);
    ck_assert_int_eq(service_ctl(&service, why, sizeof(why), (const char *const[]){"why", NULL}), 0);
    printf("six times 8 MiB: dropped %.1f MiB of the older one, which is not seen, %.1f of the younger one\n",
           (double)lost[0] / MIB, (double)lost[1] / MIB);
    end_child(&older);
    end_child(&younger);
    memcg_remove(&memcg);
    service_stop(&service);
    ck_assert_ptr_nonnull(strstr(why, "regretted   unknown: accesses to it are not seen"));
    ck_assert_uint_ge(lost[0], SIZE / 8 * 6 / 10 * 9);
    ck_assert_uint_le(lost[1], SIZE / 8 * 6 / 10);
}
END_TEST

/* ---- priorities ---- */

/* The less it is worth, the younger it is: priority goes before age. */
START_TEST(low_before_high) {
    static const enum drp_priority priorities[] = {DRP_PRIORITY_HIGH, DRP_PRIORITY_NORMAL, DRP_PRIORITY_LOW};
    struct memcg memcg = bars_cgroup(LIMIT);
    struct child clients[3];
    uint64_t lost[3][3];

    bars_service("32M");
    for (unsigned i = 0; i < 3; i++) {
        start_client(&clients[i], &memcg, (struct client){.size = PRIORITY_SIZE, .priority = priorities[i]});
        usleep(AGE_US / 2);
    }
    for (unsigned step = 0; step < 3; step++) {
        demand(&memcg, PRIORITY_SIZE);
        for (unsigned i = 0; i < 3; i++)
            lost[step][i] = dropped_of(&clients[i]);
        printf("32 MiB each, %u MiB demanded: low lost %.1f MiB, normal %.1f, high %.1f\n", (step + 1) * 32,
               (double)lost[step][2] / MIB, (double)lost[step][1] / MIB, (double)lost[step][0] / MIB);
    }
    for (unsigned i = 0; i < 3; i++)
        end_child(&clients[i]);
    memcg_remove(&memcg);
    service_stop(&service);
    for (unsigned step = 0; step < 3; step++)
        for (unsigned i = 0; i < 3; i++)
            ck_assert_uint_eq(lost[step][i], 2 - i <= step ? PRIORITY_SIZE : 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("bars-fairness");

    bars_case(suite, "overreaction", hog_that_stops, bars_count(reserves), 60);
    bars_case(suite, "stall", stall_takes_a_share, 1, 60);
    bars_case(suite, "cold", cold_before_hot, bars_count(pairs), 60);
    bars_case(suite, "slices", slice_by_slice, 1, 60);
    bars_case(suite, "priority", low_before_high, 1, 60);
    return bars_main(suite);
}
