/* SPDX-License-Identifier: MIT */
/*
 * What drp_drop() says was freed of memory that no service counts: the pages that the pagemap says are there. pread(2) is ours, to say what a test wants; what it
 * leaves alone is the kernel's.
 */

#include "client.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)75) /* more pages than are looked at at once, twice, and not a multiple */
#define SIZE (CHUNKS * CHUNK)
#define PAGES (SIZE / PAGE)

static struct drp *connection;
static struct drp_region *region;
static char *memory;

static enum { KERNEL, WORDS, REFUSED, SHORT } answer;
static uint64_t words[PAGES]; /* of the region's pages */

ssize_t pread(int fd, void *buffer, size_t size, off_t offset) {
    size_t first = (size_t)offset / sizeof(words[0]) - (uintptr_t)memory / PAGE;

    if (answer == REFUSED) {
        errno = EPERM;
        return -1;
    }
    if (answer == KERNEL)
        return (ssize_t)syscall(SYS_pread64, fd, buffer, size, offset);
    ck_assert_uint_le(first + size / sizeof(words[0]), PAGES);
    memcpy(buffer, words + first, size);
    return (ssize_t)size - (answer == SHORT ? (ssize_t)sizeof(words[0]) : 0);
}

static bool begin(enum drp_backend backend) {
    const struct drp_config config = {
        .struct_size = sizeof(config), .backend = backend, .socket_path = "/nowhere/socket"};
    const struct drp_region_options options = {.struct_size = sizeof(options), .required = DRP_REGION_NO_PINS};

    ck_assert_int_eq(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0); /* a page is a page */
    if (drp_new(&connection, &config) < 0)
        return false; /* no MAP_DROPPABLE */
    ck_assert_int_eq(drp_region_new(&region, connection, SIZE, backend == DRP_BACKEND_NATIVE ? &options : NULL), 0);
    memory = drp_region_address(region);
    return true;
}

static void teardown(void) {
    region = drp_region_free(region);
    connection = drp_free(connection);
}

static void expect_freed(size_t offset, size_t length, size_t pages) {
    uint64_t freed = 0;

    ck_assert_int_eq(drp_drop(region, offset, length, &freed, NULL), 0);
    ck_assert_uint_eq(freed, pages * PAGE);
}

static const enum drp_backend backends[] = {DRP_BACKEND_NONE, DRP_BACKEND_NATIVE};

START_TEST(what_is_there) {
    static const size_t at[] = {0, 15, 511, 512, 1023, 1024, PAGES - 1};

    if (!begin(backends[_i]))
        return;
    expect_freed(0, SIZE, 0);
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++)
        memory[at[i] * PAGE] = 1;
    expect_freed(CHUNK, SIZE - 2 * CHUNK, 4);
    expect_freed(0, SIZE, 3);
    expect_freed(0, SIZE, 0);
}
END_TEST

/* Present, and swapped; not who had it, and whether it was written. */
START_TEST(words_of_it) {
    if (!begin(backends[_i]))
        return;
    answer = WORDS;
    for (size_t i = 0; i < PAGES; i++)
        words[i] = (UINT64_C(1) << 62) - 1;
    expect_freed(0, SIZE, 0);
    words[1] |= UINT64_C(1) << 63;
    words[511] |= UINT64_C(1) << 62;
    words[512] |= UINT64_C(3) << 62;
    words[PAGES - 1] = UINT64_C(1) << 62;
    expect_freed(0, SIZE, 4);
}
END_TEST

/* Without /proc, or if it does not tell all: then all counts, and is dropped. */
START_TEST(nobody_tells) {
    if (!begin(backends[_i / 2]))
        return;
    answer = _i % 2 ? SHORT : REFUSED;
    memory[0] = 1;
    expect_freed(0, SIZE, PAGES);
    ck_assert_int_eq(memory[0], 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("local");
    TCase *tcase = tcase_create("local");

    tcase_add_checked_fixture(tcase, NULL, teardown);
    tcase_add_loop_test(tcase, what_is_there, 0, 2);
    tcase_add_loop_test(tcase, words_of_it, 0, 2);
    tcase_add_loop_test(tcase, nobody_tells, 0, 4);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
