/* SPDX-License-Identifier: MIT */
#ifndef BENCH_MEMORY_H
#define BENCH_MEMORY_H

/*
 * Droppable memory as each contender has it.
 */

#include "task.h"

#include <droppable/droppable.h>
#include <stdbool.h>
#include <stdint.h>

struct textbook;

struct memory {
    enum contender contender;
    unsigned char *address;
    uint64_t size; /* bytes */
    bool huge;
    int fd;                    /* memfd: the object; else -1 */
    struct drp_region *region; /* library; else NULL */
    struct textbook *textbook; /* textbook; else NULL */
};

/*
 * Uses so much memory for a moment. A virtual machine gives free memory back to its host, and getting it again costs more than
 * what is measured here: whose turn came after a pause would pay for it.
 */
void memory_warm(uint64_t size);

/*
 * Maps @size bytes, nothing of it resident. Without @huge 4 KiB pages are asked for. @return 0; a negative errno, with the
 * reason in @task: this contender has no such memory.
 */
int memory_open(struct memory *memory, struct task *task, uint64_t size, bool huge);
void memory_close(struct memory *memory);

/* Whether the memory is whose it should be. Looks into /proc: not to be timed. @return 0 or a negative errno */
int memory_check(const struct memory *memory, struct task *task);
/* Whether what is there is in huge pages, if that was asked for. Not to be timed. @return 0 or a negative errno */
int memory_check_huge(const struct memory *memory, struct task *task);

/* Drops a part. @return 0 or a negative errno */
int memory_drop(struct memory *memory, struct task *task, uint64_t offset, uint64_t length);

/* Bytes that are there: of an object, whether mapped or not. UINT64_MAX: cannot be told. */
uint64_t memory_resident(const struct memory *memory);
/* Of what is mapped, the share that is by huge pages. NAN: nothing is mapped. */
double memory_huge_share(const struct memory *memory);

/* This process's connection, made when first asked for. NULL: none, with the reason in @task. */
struct drp *memory_connection(struct task *task);

#endif
