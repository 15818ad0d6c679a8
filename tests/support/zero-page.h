/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_ZERO_PAGE_H
#define DROPPABLE_TESTS_ZERO_PAGE_H

#include <stdbool.h>

/* Does memory that was only read cost nothing, as the kernel has one page of zeros for all of it? Some virtual machines' kernels have none. */
bool kernel_has_zero_page(void);

#endif
