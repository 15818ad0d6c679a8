/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_SUITE_H
#define DROPPABLE_TESTS_SUITE_H

#include <check.h>

/* Runs it as the environment says (CK_FORK, CK_RUN_CASE, ...), frees it. The exit status of the program. */
int suite_run(Suite *suite);
/* Says that a part of a test is left out here, and why. `./run test` names it at its end (DROPPABLE_TEST_SKIPS: the file for that). */
void suite_skip_part(const char *what, const char *reason);

#endif
