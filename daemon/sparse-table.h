/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_SPARSE_TABLE_H
#define DROPPABLE_DAEMON_SPARSE_TABLE_H

/* Zeroed memory of which only the parts that are written cost any, so that a sparse terabyte costs little. */

#include <stddef.h>

/* NULL: no memory. */
void *sparse_table_new(size_t size);
/* The size that it was made with. NULL is fine. */
void sparse_table_free(void *table, size_t size);

#endif
