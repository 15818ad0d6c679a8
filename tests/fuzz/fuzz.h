/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_FUZZ_FUZZ_H
#define DROPPABLE_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define REQUIRE(condition)                                                          \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

/* What libFuzzer and replay.c call for each input. Returns 0. data is not aligned and not kept. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
