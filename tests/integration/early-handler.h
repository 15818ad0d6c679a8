/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_EARLY_HANDLER_H
#define DROPPABLE_TESTS_EARLY_HANDLER_H

/* Two pages, which the handlers look at; NULL: none. To be found by dlsym(3). */
extern volatile char *early_memory;

#endif
