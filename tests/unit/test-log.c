/* SPDX-License-Identifier: MIT */
/* Lines that anybody can cause: so many in a while, and the next one after it tells how many were left out. */

#include "log.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BEGIN UINT64_C(77000000000)

START_TEST(test_limit) {
    struct log_limit limit = {0};
    char text[256] = "";
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);

    ck_assert_ptr_nonnull(file);
    dup2(fileno(file), STDERR_FILENO);
    for (unsigned i = 0; i < 3 * LOG_LIMIT_LINES; i++)
        ck_assert_int_eq(log_allows(&limit, BEGIN + i), i < LOG_LIMIT_LINES);
    ck_assert(!log_allows(&limit, BEGIN + LOG_LIMIT_NS - 1));
    ck_assert_int_eq(ftell(file), 0);
    ck_assert(log_allows(&limit, BEGIN + LOG_LIMIT_NS));
    ck_assert(log_allows(&limit, BEGIN + LOG_LIMIT_NS));
    dup2(kept, STDERR_FILENO);
    rewind(file);
    ck_assert_ptr_nonnull(fgets(text, sizeof(text), file));
    ck_assert_ptr_nonnull(strstr(text, "41 lines like the next were left out"));
    ck_assert_ptr_null(fgets(text, sizeof(text), file));
    fclose(file);
    close(kept);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("log");
    TCase *tcase = tcase_create("log");

    tcase_add_test(tcase, test_limit);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
