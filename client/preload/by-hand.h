/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PRELOAD_BY_HAND_H
#define DROPPABLE_PRELOAD_BY_HAND_H

/* With any of these clone(2) is the kernel's alone (see clone() in preload.c). */
#define BY_HAND_LEAVES (CLONE_VM | CLONE_FILES | CLONE_VFORK | CLONE_SETTLS)

/* A call of syscall(2) that may concern us: of preload.c, as which function it stands for. -1 with errno. */
long by_hand_serve(long number, long a, long b, long c, long d, long e, long f) __attribute__((visibility("hidden")));

#endif
