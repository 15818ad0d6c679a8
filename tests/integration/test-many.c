/* SPDX-License-Identifier: MIT */
/*
 * Two hundred client processes at once, in step: each makes a region, fills it with its own bytes, has it dropped, finds zeros, fills it
 * again. No process ever sees another one's bytes, and afterwards the service has the descriptors and threads that it had before.
 */

#include "child.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>

#define CLIENTS 200
#define SIZE ((size_t)1 << 20)
#define PAGE 4096
#define LIMIT_MS 120000

static struct child children[CLIENTS];

static void check_pages(const char *p, const uint64_t *mine) {
    for (size_t offset = 0; offset < SIZE; offset += PAGE)
        child_check(memcmp(p + offset, mine, sizeof(*mine)) == 0);
}

static void write_pages(char *p, const uint64_t *mine) {
    for (size_t offset = 0; offset < SIZE; offset += PAGE)
        memcpy(p + offset, mine, sizeof(*mine));
}

static void client(int socket, void *data) {
    uint64_t mine = UINT64_C(0x1111111111110000) + (uint64_t)(uintptr_t)data, freed = 0, pinned = 0;
    struct drp_region *region = NULL;
    struct drp *d = NULL;
    char word, *p = NULL;
    int r;

    while (child_hear(socket, &word) && word != 'e') {
        switch (word) {
        case 'r':
            child_check(drp_new(&d, NULL) == 0);
            child_check(drp_region_new(&region, d, SIZE, NULL) == 0);
            p = drp_region_address(region);
            child_check(is_zero(p, SIZE));
            break;
        case 't':
            write_pages(p, &mine);
            check_pages(p, &mine);
            break;
        case 'd':
            check_pages(p, &mine);
            r = drp_drop(region, 0, SIZE, &freed, &pinned);
            if (r != 0 || freed != SIZE)
                fprintf(stderr, "drop: %d (%s), freed %llu, pinned %llu\n", r, drp_detail(), (unsigned long long)freed,
                        (unsigned long long)pinned);
            child_check(r == 0 && freed == SIZE);
            break;
        case 'z':
            child_check(is_zero(p, SIZE));
            break;
        }
        child_check(child_say(socket, word));
    }
    if ((uintptr_t)data % 2 == 0) { /* the others just end */
        region = drp_region_free(region);
        d = drp_free(d);
    }
}

static void all(char word) {
    for (size_t i = 0; i < CLIENTS; i++)
        ck_assert(child_say(children[i].socket, word));
    for (size_t i = 0; i < CLIENTS; i++)
        child_expect(&children[i], word);
}

START_TEST(test_many_clients) {
    uint64_t started = now_ms();

    for (size_t i = 0; i < CLIENTS; i++)
        child_start(&children[i], client, (void *)i);
    all('r');
    ck_assert_uint_eq(listing_count("regions"), CLIENTS);
    for (int round = 0; round < 3; round++) {
        all('t');
        ck_assert_uint_eq(service_status(&service, "resident_bytes"), CLIENTS * SIZE);
        all('d');
        ck_assert_uint_eq(service_status(&service, "resident_bytes"), 0);
        all('z');
    }
    all('t');
    printf("%d clients: %llu ms, %zu descriptors, %zu threads\n", CLIENTS, (unsigned long long)(now_ms() - started),
           service_descriptors(&service), service_threads(&service));
    ck_assert_uint_eq(service_status(&service, "unexpected_errors"), 0);
    ck_assert_uint_eq(service_status(&service, "quarantined_sessions"), 0);
    for (size_t i = 0; i < CLIENTS; i++)
        ck_assert(child_say(children[i].socket, 'e'));
    for (size_t i = 0; i < CLIENTS; i++)
        child_end(&children[i]);
    ck_assert(status_becomes("resident_bytes", 0, 10000));
    ck_assert_uint_lt(now_ms() - started, LIMIT_MS);
}
END_TEST

/* All at once, and gone at once: SIGKILL while they touch and drop. */
START_TEST(test_many_killed) {
    for (size_t i = 0; i < CLIENTS; i++)
        child_start(&children[i], client, (void *)i);
    all('r');
    all('t');
    for (size_t i = 0; i < CLIENTS; i++)
        ck_assert(child_say(children[i].socket, i % 2 ? 'd' : 't'));
    for (size_t i = 0; i < CLIENTS; i++)
        child_kill(&children[i]);
    ck_assert(status_becomes("regions", 0, 10000));
    ck_assert(status_becomes("resident_bytes", 0, 10000));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("many");
    TCase *many = tcase_create("many");

    tcase_set_timeout(many, 240);
    tcase_add_checked_fixture(many, fixture_setup, fixture_teardown);
    tcase_add_test(many, test_many_clients);
    tcase_add_test(many, test_many_killed);
    suite_add_tcase(suite, many);
    return suite_run(suite);
}
