/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CTL_TEXT_H
#define DROPPABLE_CTL_TEXT_H

/* Others' texts made fit to be shown: pure. Names of cgroups may hold any byte but NUL, newline and slash. */

#include <stddef.h>

/* For a terminal: whatever is not printable ASCII becomes '?'. In place. */
void ctl_clean_text(char *text);
/* For JSON, which is UTF-8: a byte that is part of no character becomes U+FFFD. Three bytes of room for each of the text, and one. */
void ctl_make_utf8(const char *text, size_t size, char *ret);

#endif
