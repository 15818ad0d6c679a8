/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_SUITE_H
#define DROPPABLE_TESTS_SUITE_H

#include <check.h>

/* Runs it as the environment says (CK_FORK, CK_RUN_CASE, ...), frees it. The exit status of the program. */
int suite_run(Suite *suite);

#endif
