/* SPDX-License-Identifier: MIT */
/*
 * What those had who are gone goes back to the kernel soon: also the second time, where others kept the service from a CPU during the first. A trim
 * pauses in proportion to what the last one cost, and that is not what passed meanwhile.
 */

#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TRIMS 3
#define WAIT_MS 3000 /* 0.3 s is what it waits at least */

START_TEST(test_next_trim) {
    ck_assert_int_eq(setenv("LD_PRELOAD", SLOW_TRIM, 1), 0);
    fixture_start(NULL);
    unsetenv("LD_PRELOAD");
    for (unsigned i = 0; i < TRIMS; i++) {
        char text[32];

        snprintf(text, sizeof(text), "slow trim %u", i + 1);
        close(raw_hello("leaves"));
        ck_assert_msg(service_log_has(&service, text, WAIT_MS), "%s has not come", text);
    }
    fixture_teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("trim");
    TCase *trim = tcase_create("trim");

    if (under_sanitizer())
        skip_all("a sanitizer has an allocator of its own");
    tcase_set_timeout(trim, 60);
    tcase_add_test(trim, test_next_trim);
    suite_add_tcase(suite, trim);
    return suite_run(suite);
}
