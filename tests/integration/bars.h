/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_BARS_H
#define DROPPABLE_TESTS_BARS_H

/*
 * What the bars have in common: memory cgroups with processes in them, which the test watches from outside, as the service does. Figures
 * are printed, whether they pass or not.
 */

#include "child.h"
#include "fixture.h"
#include "memcg.h"

#include <droppable/droppable.h>

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

#define MIB (UINT64_C(1) << 20)
#define PAGE 4096
#define SPAN (2 * MIB)

#define bars_count(array) (sizeof(array) / sizeof((array)[0]))

/* ---- the test program ---- */

/* How often: few times in the ordinary tests, $DROPPABLE_BAR_RUNS times where somebody wants to be sure. */
unsigned bars_runs(unsigned few);
/* A case of its own, so that CK_RUN_CASE= can choose. seconds: for so many runs as bars_runs() says, all in all. */
void bars_case(Suite *suite, const char *name, const TTest *test, size_t count, unsigned seconds);
/* Runs it; where no memory cgroup can be made the whole program is skipped. @return main()'s */
int bars_main(Suite *suite);

/* The fixture's service, with a reserve for cgroups: a size, or "auto". */
void bars_service(const char *reserve);
/* A cgroup of a run's own, so that its counters begin at zero. */
struct memcg bars_cgroup(uint64_t limit);
/*
 * A file on disk, in the build directory, of which nothing is in the page cache: what a reader brings in is charged to the reader. -1:
 * that directory is in memory.
 */
int bars_file(uint64_t size);

/* ---- in a child: what fails ends the child ---- */

/* In 4 KiB pages, unless huge ones are asked for: with those an allocation is over before anybody could react. */
unsigned char *plain_memory(uint64_t size, bool huge);
/* By blocks of 4 KiB. */
void write_blocks(unsigned char *memory, uint64_t size);
struct drp_region *droppable_memory(uint64_t size, const struct drp_region_options *options);
/* Says that it is ready, and waits for the end. */
void stay(int socket);

/* ---- from outside ---- */

/* child_start(), in the cgroup (NULL: where the test is). */
void start_in(struct child *child, const struct memcg *memcg, void (*run)(int socket, void *data), void *data);

/* What came of a run. */
struct bars_run {
    uint64_t began;   /* ms */
    uint64_t dropped; /* bytes, by the service's own counters: also of a client that was killed */
    uint64_t lowest;  /* headroom */
    uint64_t kills;
    uint64_t failures;
    uint64_t ms;
    uint64_t stolen; /* ms that the host gave our CPUs to others, all together; in steps of 10 */
    bool ended_well;
};

void bars_begin(struct bars_run *run);
/* Looks at the cgroup every half millisecond until the child says something (true) or is gone. */
bool bars_wait(const struct child *child, const struct memcg *memcg, struct bars_run *run);
/* Takes the figures. */
void bars_end(struct bars_run *run, const struct memcg *memcg);
void bars_print(const char *what, unsigned number, const struct bars_run *run);
/* Nobody was killed. */
bool bars_good(const struct bars_run *run);

/* What the service dropped of a client, so far. */
uint64_t dropped_of(const struct child *child);
/* Has the service drop bytes in a cgroup, the least valuable first (`droppablectl free`). @return what it freed */
uint64_t demand(const struct memcg *memcg, uint64_t bytes);
/* What the service says that it decided, for a test that is about to fail. */
void print_why(void);
/* Waits until the service has dropped nothing more for a while. @return dropped_bytes of all */
uint64_t settled_drops(void);

#endif
