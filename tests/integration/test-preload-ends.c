/* SPDX-License-Identifier: MIT */
/* Programs under the preload library whose children or whose own ends are made in a way of their own (program-ends.c). */

#include "fixture.h"
#include "preloaded.h"
#include "program.h"

#include <check.h>

#define PAGE UINT64_C(4096)

/* Children that are made past the library lose what is theirs, and nothing of their parent's. */
START_TEST(test_unhandled) {
    struct child child = preloaded_start("unhandled");

    child_expect(&child, 'u');
    ck_assert(status_becomes("sessions", 2, 10000)); /* the program's, droppablectl's */
    ck_assert_uint_eq(preloaded_resident(&child), 16 * PAGE);
    preloaded_drop_all();
    ck_assert_uint_eq(preloaded_resident(&child), 0);
    preloaded_go_on(&child);
    child_end(&child);
}
END_TEST

/* A library's handlers of fork(2), that it had before the preload library began, find memory and locks as later ones do. */
START_TEST(test_early) {
    struct child child;

    program_preload_also(EARLY_HANDLER);
    child = preloaded_start("early");
    program_preload_also("");
    child_end(&child);
}
END_TEST

/* A program whose main() ends before the others ends with the last of these. */
START_TEST(test_last) {
    struct child child = preloaded_start("last-alone");

    child_end(&child);
    child = preloaded_start("last");
    child_expect(&child, 'w');
    preloaded_go_on(&child);
    child_end(&child);
}
END_TEST

int main(int argc, char **argv) {
    SRunner *runner;
    TCase *tcase;
    Suite *suite;
    int failed;

    program_main(argc, argv);
    suite = suite_create("preload-ends");
    tcase = tcase_create("preload-ends");
    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_unhandled);
    tcase_add_test(tcase, test_early);
    tcase_add_test(tcase, test_last);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
