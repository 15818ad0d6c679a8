/* SPDX-License-Identifier: MIT */
#ifndef BENCH_TEXTBOOK_H
#define BENCH_TEXTBOOK_H

/*
 * A userfaultfd server after userfaultfd(2): one thread, which polls, reads one event, and fills one page with zeros.
 */

#include <stdbool.h>
#include <stdint.h>

struct textbook;

/* Serves missing pages of the range, still untouched, from now on: by a thread, or by a process. @return 0 or a negative errno */
int textbook_new(struct textbook **ret, void *address, uint64_t size, bool process);
/* After the range was unmapped. NULL is fine. @return NULL */
struct textbook *textbook_free(struct textbook *textbook);

#endif
