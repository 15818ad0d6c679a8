/* SPDX-License-Identifier: MIT */

/*
 * What one fault takes when it comes alone: the service sleeps before, as it does in a program that works mainly with what is
 * there. Each fault is at a place of its own, 64 MiB from the next: the service brings neighbours back by one call when several of
 * them are touched in a row, which makes for no fault at all.
 *
 * Times of start are absolute: a fault that took long does not make the load lower. Only who is behind by more than one interval, after
 * a drop, begins to count anew.
 */

#include "pace.h"

#include "team.h"

#include <time.h>

static uint64_t count_places(const struct memory *memory) {
    return memory->size > PACE_PLACE ? memory->size / PACE_PLACE : 1;
}

static void touch(const struct memory *memory, uint64_t place) {
    ((volatile unsigned char *)memory->address)[place * PACE_PLACE] = 1;
}

int pace_prepare(struct memory *memory, struct task *task) {
    for (uint64_t place = 0; place < count_places(memory); place++)
        touch(memory, place);
    return memory_drop(memory, task, 0, memory->size);
}

void pace_sleep_until(uint64_t ns) {
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};

    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

int pace_faults(struct memory *memory, struct task *task, const struct pace *pace, double *us) {
    uint64_t places = count_places(memory), next = pace->start_ns ? pace->start_ns : now_ns();
    int r = 0;

    for (unsigned i = 0; i < pace->faults && r == 0; i++) {
        uint64_t start = now_ns();

        if (start > next + pace->interval_ns)
            next = start;
        pace_sleep_until(next);
        start = now_ns();
        touch(memory, i % places);
        us[i] = (double)(now_ns() - start) / 1000;
        next += pace->interval_ns;
        if ((i + 1) % places == 0)
            r = memory_drop(memory, task, 0, memory->size);
    }
    return r;
}
