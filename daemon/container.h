/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_CONTAINER_H
#define DROPPABLE_DAEMON_CONTAINER_H

#include <stddef.h>

/* The struct that holds the member that the pointer points to. */
#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#endif
