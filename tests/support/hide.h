/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_HIDE_H
#define DROPPABLE_TESTS_HIDE_H

/* From here on the kernel refuses MAP_DROPPABLE to this process and its children, as kernels before it do. 0 or negative errno. */
int hide_native(void);

#endif
