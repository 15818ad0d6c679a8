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
#include <string.h>
#include <unistd.h>

#define TRIMS 3
#define WAIT_MS 3000 /* 0.3 s is what it waits at least */

static unsigned count_trims(void) {
    unsigned n = 0;
    char line[512];
    FILE *f = fopen(service.log, "re");

    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof(line), f))
        n += strstr(line, "a slow trim") != NULL;
    fclose(f);
    return n;
}

START_TEST(test_next_trim) {
    ck_assert_int_eq(setenv("LD_PRELOAD", SLOW_TRIM, 1), 0);
    fixture_start(NULL);
    unsetenv("LD_PRELOAD");
    for (unsigned i = 0; i < TRIMS; i++) {
        uint64_t deadline = deadline_in(WAIT_MS);

        close(raw_hello("leaves"));
        while (count_trims() <= i) {
            ck_assert_msg(now_ms() < deadline, "trim %u has not come", i + 1);
            nap_ms(5);
        }
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
