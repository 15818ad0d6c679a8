/* SPDX-License-Identifier: MIT */
/*
 * What a process used of the CPUs, and a process that uses as much.
 *
 * Of the service's threads the kernel tells the time of each that is there, and of all together also what those had who have ended: as most of
 * these are clients' own, what is missing is counted there.
 */

#include "attack-use.h"

#include "child.h"
#include "clock.h"
#include "service.h"

#include <check.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define BURN_SIZE ((size_t)256 << 10)
#define BURST_MIN_US 20
#define BURST_MAX_US 20000

struct cpu_use cpu_use_of(const struct used *used, uint64_t wall_us, unsigned n) {
    uint64_t us = used->us ? used->us : 1, share = us * 1000 / wall_us / n, burst = used->seen_us / (used->sleeps + 1);

    return (struct cpu_use){
        .thousandths = share < 1      ? 1
                       : share < 1000 ? (unsigned)share
                                      : 1000,
        .kernel_thousandths = (unsigned)(used->kernel_us * 1000 / us),
        .burst_us = burst < BURST_MIN_US   ? BURST_MIN_US
                    : burst < BURST_MAX_US ? (unsigned)burst
                                           : BURST_MAX_US,
    };
}

/* The kernel clears pages. */
static void burn_in_kernel(char *memory, uint64_t until) {
    while (now_ns() < until) {
        (void)madvise(memory, BURN_SIZE, MADV_POPULATE_WRITE);
        (void)madvise(memory, BURN_SIZE, MADV_DONTNEED);
    }
}

void burn(const struct cpu_use *use) {
    uint64_t burst = use->burst_us * UINT64_C(1000), in_kernel = burst * use->kernel_thousandths / 1000;
    uint64_t nap = burst * 1000 / use->thousandths - burst;
    char *memory = mmap(NULL, BURN_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    child_check(memory != MAP_FAILED);
    prctl(PR_SET_TIMERSLACK, 1);
    for (;;) {
        uint64_t start = now_ns();

        while (now_ns() < start + burst - in_kernel)
            ;
        burn_in_kernel(memory, start + burst);
        if (nap > 0)
            nanosleep(&(struct timespec){.tv_sec = (time_t)(nap / 1000000000), .tv_nsec = (long)(nap % 1000000000)},
                      NULL);
    }
}

/* ---- the service's ---- */

static bool read_file(pid_t pid, const char *thread, const char *name, char *text, size_t size) {
    char path[64];
    size_t n = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/task/%s/%s", (int)pid, thread, name);
    f = fopen(path, "re");
    if (f) {
        n = fread(text, 1, size - 1, f);
        fclose(f);
    }
    text[n] = 0;
    return n > 0;
}

/* false: it has ended. */
static bool thread_used(pid_t pid, const char *thread, struct used *ret, bool *ret_worker) {
    char text[4096];
    const char *at;
    unsigned long long user, system;

    if (!read_file(pid, thread, "stat", text, sizeof(text)) || !(at = strrchr(text, ')')))
        return false;
    *ret_worker = strstr(text, "(drp-pager)") || strstr(text, "(drp-dropper)");
    if (sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2 ||
        !read_file(pid, thread, "schedstat", text, sizeof(text)))
        return false;
    ret->us = ret->seen_us = strtoull(text, NULL, 10) / 1000;
    ret->kernel_us = user + system > 0 ? ret->us * system / (user + system) : 0;
    if (!read_file(pid, thread, "status", text, sizeof(text)) || !(at = strstr(text, "\nvoluntary_ctxt_switches:")))
        return false;
    ret->sleeps = strtoull(strchr(at, ':') + 1, NULL, 10);
    return true;
}

static void used_add(struct used *used, const struct used *more) {
    used->us += more->us;
    used->kernel_us += more->kernel_us;
    used->seen_us += more->seen_us;
    used->sleeps += more->sleeps;
}

void service_use_read(pid_t pid, struct service_use *ret) {
    uint64_t all = process_cpu_ns(pid) / 1000, told;
    struct dirent *entry;
    char path[64];
    DIR *folder;

    *ret = (struct service_use){0};
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    while ((entry = readdir(folder))) {
        struct used used;
        bool worker;

        if (entry->d_name[0] != '.' && thread_used(pid, entry->d_name, &used, &worker))
            used_add(worker ? &ret->workers : &ret->others, &used);
    }
    closedir(folder);
    told = ret->workers.us + ret->others.us;
    if (all > told) {
        ret->workers.us += all - told;
        ret->workers.kernel_us += all - told;
    }
}

static uint64_t difference(uint64_t a, uint64_t b) {
    return a > b ? a - b : 0;
}

static void used_subtract(struct used *used, const struct used *less) {
    used->us = difference(used->us, less->us);
    used->kernel_us = difference(used->kernel_us, less->kernel_us);
    used->kernel_us = used->kernel_us < used->us ? used->kernel_us : used->us;
    used->seen_us = difference(used->seen_us, less->seen_us);
    used->sleeps = difference(used->sleeps, less->sleeps);
}

void service_use_subtract(struct service_use *use, const struct service_use *less) {
    used_subtract(&use->workers, &less->workers);
    used_subtract(&use->others, &less->others);
}

static void used_scale(struct used *used, uint64_t times, uint64_t of) {
    used->us = used->us * times / of;
    used->kernel_us = used->kernel_us * times / of;
    used->seen_us = used->seen_us * times / of;
    used->sleeps = used->sleeps * times / of;
}

void service_use_scale(struct service_use *use, uint64_t times, uint64_t of) {
    used_scale(&use->workers, times, of);
    used_scale(&use->others, times, of);
}
