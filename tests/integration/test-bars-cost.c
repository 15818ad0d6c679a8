/* SPDX-License-Identifier: MIT */
/*
 * What the service itself costs: how long a demand takes beside the bare system calls, memory for each chunk, and the sampler's CPU time.
 *
 * Bare is PUNCH_HOLE of as many pages of a memfd that another process has mapped and filled, as the service's client has its region, by
 * pieces of 2 MiB, in turns with the service.
 */

#include "bars.h"
#include "zero-page.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GIB (1024 * MIB)
#define HELD (1536 * MIB)
#define DEMAND (1024 * MIB)
#define REACTION_LIMIT (4 * GIB)
#define REACTION_RATIO_MAX 1.3
#define CHUNK_BYTES_MAX 32.0
#define CHUNKS 262144
#define SAMPLER_MS 5000
#define SAMPLER_SIZE (64 * MIB)

/* A service that is not optimized takes half as long again. Then the bars show that nothing is broken, and no more. */
#ifdef __OPTIMIZE__
#define SLACK 1.0
#define REACTION_ROUNDS 5
#else
#define SLACK 2.0
#define REACTION_ROUNDS 3 /* writing it anew takes three times as long */
#endif

/* ---- what the machine has ---- */

/* Memory that can be had, less what others should find. */
static uint64_t room(void) {
    char line[128];
    FILE *file = fopen("/proc/meminfo", "re");
    uint64_t kib = 0;

    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file) && sscanf(line, "MemAvailable: %" SCNu64, &kib) != 1)
        ;
    fclose(file);
    return kib * 1024 / 4 * 3;
}

/* ---- reaction ---- */

/* Writes a part of it again whenever it is told to. */
static void refill(int socket, unsigned char *memory, uint64_t size) {
    char word = 'w';

    while (word == 'w') {
        write_blocks(memory, size);
        child_check(child_say(socket, 'r'));
        if (!child_hear(socket, &word))
            return;
    }
}

static void refill_region(int socket, void *data) {
    (void)data;
    refill(socket, drp_region_address(droppable_memory(HELD, NULL)), HELD);
}

static void refill_object(int socket, void *data) {
    unsigned char *memory = mmap(NULL, HELD, PROT_READ | PROT_WRITE, MAP_SHARED, *(const int *)data, 0);

    child_check(memory != MAP_FAILED && madvise(memory, HELD, MADV_NOHUGEPAGE) == 0);
    refill(socket, memory, HELD);
}

static double punch_bare(int object) {
    uint64_t start = now_ns();

    for (uint64_t at = 0; at < DEMAND; at += SPAN)
        ck_assert_int_eq(fallocate(object, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, SPAN), 0);
    return (double)(now_ns() - start) / 1e6;
}

static double free_by_hand(const struct memcg *memcg) {
    uint64_t start = now_ns(), freed = demand(memcg, DEMAND);
    double ms = (double)(now_ns() - start) / 1e6;

    ck_assert_uint_ge(freed, DEMAND);
    return ms;
}

static void set_reserve(uint64_t reserve) {
    char config[80];

    snprintf(config, sizeof(config), "[Pressure]\nCgroupReserve=%" PRIu64 "\n", reserve);
    service_reload(&service, config, "settings read again");
}

/* All of a sudden so much is to be kept free that 1 GiB misses. */
static double free_by_reserve(const struct memcg *memcg) {
    uint64_t usage = memcg_usage(memcg), start = now_ns();
    double ms;

    set_reserve(memcg_headroom(memcg) + DEMAND);
    while (memcg_usage(memcg) > usage - DEMAND)
        ck_assert_msg(now_ns() - start < UINT64_C(30000000000), "1 GiB is not free after 30 s");
    ms = (double)(now_ns() - start) / 1e6;
    set_reserve(4 * MIB);
    settled_drops();
    return ms;
}

struct figures {
    double values[REACTION_ROUNDS];
};

static int compare_doubles(const void *a, const void *b) {
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static void sort_figures(struct figures *figures, const char *what) {
    qsort(figures->values, REACTION_ROUNDS, sizeof(figures->values[0]), compare_doubles);
    printf("1 GiB free: %s: best %.0f ms, median %.0f ms, worst %.0f ms\n", what, figures->values[0],
           figures->values[REACTION_ROUNDS / 2], figures->values[REACTION_ROUNDS - 1]);
}

static void write_again(const struct child *child) {
    child_say(child->socket, 'w');
    child_expect(child, 'r');
}

static double ratio(const char *what, const struct figures *ours, const struct figures *bare) {
    double best = ours->values[0] / bare->values[0];

    printf("1 GiB free: %s: best %.2f times the bare punch, median %.2f\n", what, best,
           ours->values[REACTION_ROUNDS / 2] / bare->values[REACTION_ROUNDS / 2]);
    return best;
}

START_TEST(demand_of_a_gib) {
    int object = memfd_create("bare", MFD_CLOEXEC);
    struct figures bare, hand, reserve;
    struct child client, owner;
    struct memcg memcg, elsewhere;
    double by_hand, by_reserve;

    if (room() < 2 * HELD) {
        printf("1 GiB free: skipped: too little memory\n");
        return;
    }
    ck_assert_int_ge(object, 0);
    ck_assert_int_eq(ftruncate(object, HELD), 0);
    bars_service("4M");
    memcg = bars_cgroup(REACTION_LIMIT);
    elsewhere = bars_cgroup(REACTION_LIMIT); /* memory of a cgroup takes longer to free */
    start_in(&client, &memcg, refill_region, NULL);
    start_in(&owner, &elsewhere, refill_object, &object);
    child_expect(&client, 'r');
    child_expect(&owner, 'r');
    for (unsigned i = 0; i < REACTION_ROUNDS; i++) {
        bare.values[i] = punch_bare(object);
        write_again(&owner);
        hand.values[i] = free_by_hand(&memcg);
        write_again(&client);
        reserve.values[i] = free_by_reserve(&memcg);
        write_again(&client);
    }
    child_kill(&owner);
    child_kill(&client);
    close(object);
    memcg_remove(&elsewhere);
    memcg_remove(&memcg);
    service_stop(&service);
    sort_figures(&bare, "bare PUNCH_HOLE");
    sort_figures(&hand, "droppablectl free");
    sort_figures(&reserve, "a reserve raised by SIGHUP");
    by_hand = ratio("droppablectl free", &hand, &bare);
    by_reserve = ratio("a reserve raised by SIGHUP", &reserve, &bare);
    ck_assert(by_hand <= REACTION_RATIO_MAX * SLACK);
    ck_assert(by_reserve <= REACTION_RATIO_MAX * SLACK);
}
END_TEST

/* ---- memory for each chunk ---- */

/*
 * Resident bytes of the service, by whose they are. Its own are anonymous memory, its tables, and the state pages: shared objects, but the
 * service alone writes them. Pin pages are written by the client, which is charged for them; data is the client's, and the
 * service has no page of it mapped.
 */
struct footprint {
    uint64_t anonymous;
    uint64_t state;
    uint64_t pins;
    uint64_t other;
};

static uint64_t *kind_of(struct footprint *footprint, const char *name) {
    if (strstr(name, "state"))
        return &footprint->state;
    if (strstr(name, "pins"))
        return &footprint->pins;
    return *name == '\0' || *name == '[' ? &footprint->anonymous : &footprint->other;
}

static struct footprint footprint(void) {
    struct footprint result = {0};
    uint64_t *kind = NULL, kib;
    char path[64], line[512];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/smaps", (int)service.pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file)) {
        unsigned long start, end;
        char name[256] = "";

        if (sscanf(line, "%lx-%lx %*s %*x %*s %*u %255[^\n]", &start, &end, name) >= 2)
            kind = kind_of(&result, name);
        else if (kind && sscanf(line, "Rss: %" SCNu64, &kib) == 1)
            *kind += kib * 1024;
    }
    fclose(file);
    return result;
}

struct touch_row {
    const char *what;
    uint64_t chunk;
    uint64_t stride; /* bytes from one page to the next */
    bool bar;        /* also when all of it was dropped once */
};

/* Tables and state pages go by the chunk's place: with one page in each span all 32 chunks of it have their entries. */
static const struct touch_row touches[] = {
    {"64 KiB chunks, a page in each", 64 * 1024, 64 * 1024, true},
    {"4 KiB chunks, all of them", 4096, 4096, true},
    {"64 KiB chunks, a page in each 2 MiB", 64 * 1024, SPAN, false},
};

/* Touches, pins for a moment, and once more after all was dropped. */
static void touch_chunks(int socket, void *data) {
    const struct touch_row *row = data;
    struct drp_region_options options = {.struct_size = sizeof(options), .chunk_size = row->chunk};
    struct drp_region *region = droppable_memory(CHUNKS * row->stride, &options);
    volatile unsigned char *memory = drp_region_address(region);
    uint64_t start;
    char word;

    do {
        for (uint64_t at = 0; at < CHUNKS * row->stride; at += row->stride)
            memory[at] = 1;
        child_check(child_say(socket, 'r') && child_hear(socket, &word));
        start = now_ns();
        child_check(drp_drop(region, 0, CHUNKS * row->stride, NULL, NULL) == 0);
        printf("%s: dropped in %.1f s\n", row->what, (double)(now_ns() - start) / 1e9);
    } while (word == 't');
}

static double per_chunk(const char *what, const char *when, const struct footprint *before) {
    struct footprint now = footprint();
    double anonymous = ((double)now.anonymous - (double)before->anonymous) / CHUNKS;
    double state = ((double)now.state - (double)before->state) / CHUNKS;

    printf("%s, %s: %.1f bytes each: %.1f of tables, %.1f of state pages; beside that %.1f of pin pages, %.1f of other "
           "mappings\n",
           what, when, anonymous + state, anonymous, state, ((double)now.pins - (double)before->pins) / CHUNKS,
           ((double)now.other - (double)before->other) / CHUNKS);
    return anonymous + state;
}

START_TEST(memory_of_a_chunk) {
    struct touch_row row = touches[_i];
    struct footprint before;
    double touched, dropped;
    uint64_t start, freed;
    struct memcg memcg;
    struct child child;

    if (room() < 3 * CHUNKS * (uint64_t)PAGE / 2) {
        printf("%s: skipped: too little memory\n", row.what);
        return;
    }
    bars_service("4M");
    memcg = bars_cgroup(REACTION_LIMIT);
    before = footprint();
    start_in(&child, &memcg, touch_chunks, &row);
    child_expect(&child, 'r');
    touched = per_chunk(row.what, "touched", &before);
    start = now_ns();
    freed = demand(&memcg, 16 * MIB);
    printf("%s: 'free 16M' took %.0f ms for %.1f MiB\n", row.what, (double)(now_ns() - start) / 1e6,
           (double)freed / MIB);
    child_say(child.socket, 't');
    child_expect(&child, 'r');
    dropped = per_chunk(row.what, "touched, dropped, touched again", &before);
    child_kill(&child);
    memcg_remove(&memcg);
    service_stop(&service);
    /* Where each page has one that was only read, so have those of the sparse tables. */
    ck_assert(touched <= CHUNK_BYTES_MAX || (!row.bar && !kernel_has_zero_page()));
    ck_assert(dropped <= CHUNK_BYTES_MAX || !row.bar);
}
END_TEST

/* ---- the sampler ---- */

/* CPU time of the service's thread of that name so far, ns. */
static uint64_t thread_ns(const char *name) {
    char path[128], text[64];
    struct dirent *entry;
    uint64_t ns = 0;
    DIR *tasks;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)service.pid);
    tasks = opendir(path);
    ck_assert_ptr_nonnull(tasks);
    while ((entry = readdir(tasks))) {
        FILE *file;

        snprintf(path, sizeof(path), "/proc/%d/task/%.16s/comm", (int)service.pid, entry->d_name);
        file = fopen(path, "re");
        if (!file)
            continue;
        if (fgets(text, sizeof(text), file) && strncmp(text, name, strlen(name)) == 0) {
            FILE *stat;

            snprintf(path, sizeof(path), "/proc/%d/task/%.16s/schedstat", (int)service.pid, entry->d_name);
            stat = fopen(path, "re");
            ck_assert_msg(stat != NULL, "no schedstat");
            ck_assert_int_eq(fscanf(stat, "%" SCNu64, &ns), 1);
            fclose(stat);
        }
        fclose(file);
    }
    closedir(tasks);
    ck_assert_uint_gt(ns, 0);
    return ns;
}

struct sampler_row {
    const char *reserve;
    uint64_t limit;
    uint64_t headroom; /* 0: whatever is left */
    double percent_max;
};

/* The last is no bar: 16 MiB can be filled in a millisecond here, the shortest time between two looks. */
static const struct sampler_row samplers[] = {
    {"64M", 8 * GIB, 0, 0.1},
    {"64M", 256 * MIB, 128 * MIB, 2.0},
    {"32M", 256 * MIB, 64 * MIB, 2.0},
    {"16M", 256 * MIB, 32 * MIB, 100.0},
};

struct fill {
    uint64_t droppable;
    uint64_t plain;
};

static void fill_up(int socket, void *data) {
    const struct fill *fill = data;

    write_blocks(drp_region_address(droppable_memory(fill->droppable, NULL)), fill->droppable);
    write_blocks(plain_memory(fill->plain, false), fill->plain);
    stay(socket);
}

START_TEST(sampler_costs_little) {
    const struct sampler_row *row = &samplers[_i];
    struct fill fill = {.droppable = SAMPLER_SIZE, .plain = MIB};
    struct memcg memcg = bars_cgroup(row->limit);
    uint64_t ns, looks, ms, headroom, dropped;
    struct child child;
    double percent;

    if (row->headroom > 0)
        fill.plain = row->limit - row->headroom - SAMPLER_SIZE - MIB; /* page tables and the like */
    bars_service(row->reserve);
    start_in(&child, &memcg, fill_up, &fill);
    child_expect(&child, 'r');
    dropped = settled_drops();
    headroom = memcg_headroom(&memcg);
    looks = service_status(&service, "looks");
    ns = thread_ns("drp-pressure");
    ms = now_ms();
    usleep(SAMPLER_MS * 1000);
    ns = thread_ns("drp-pressure") - ns;
    ms = now_ms() - ms;
    looks = service_status(&service, "looks") - looks;
    percent = (double)ns / 1e4 / (double)ms;
    printf("sampler: limit %" PRIu64 " MiB, reserve %s, headroom %.0f MiB, %" PRIu64
           " MB/s can be filled: %.3f %% of a CPU, "
           "%.0f looks a second, %.1f us each\n",
           row->limit / MIB, row->reserve, (double)headroom / MIB, service_status(&service, "fill_rate") / 1000000,
           percent, (double)looks * 1000 / (double)ms, looks ? (double)ns / 1000 / (double)looks : 0);
    child_say(child.socket, 'q');
    child_end(&child);
    memcg_remove(&memcg);
    ck_assert_uint_eq(dropped, 0);
    service_stop(&service);
    ck_assert(percent <= row->percent_max * SLACK);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("bars-cost");

    bars_case(suite, "reaction", demand_of_a_gib, 1, 150);
    bars_case(suite, "memory", memory_of_a_chunk, bars_count(touches), 120);
    bars_case(suite, "sampler", sampler_costs_little, bars_count(samplers), 60);
    return bars_main(suite);
}
