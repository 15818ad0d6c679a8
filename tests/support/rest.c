/* SPDX-License-Identifier: MIT */
/*
 * Threads are looked at twice. Each slept both times and was not switched to in between: so all slept at once, after the first look at the last one and
 * before the second at the first. Whoever has work for another wakes it before he sleeps; a wait of the kernel's own (for a grace period, a lock, a thread
 * to be made) is no sleep, but state D.
 */

#include "rest.h"

#include <check.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* One that waits for who answers its system calls in the kernel's place (test-inject) is in the middle of something. */
static bool waits_for_answer(pid_t pid, const char *task) {
    char path[64], where[64] = "";
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/task/%.16s/wchan", (int)pid, task);
    file = fopen(path, "re");
    if (file) {
        (void)!fgets(where, sizeof(where), file);
        fclose(file);
    }
    return strstr(where, "seccomp") != NULL;
}

/* A thread of io_uring's comes and goes by itself; it is none of the service's. */
static bool thread_sleeps(pid_t pid, const char *task, uint64_t *switches) {
    char path[64], line[256], state = '?';
    uint64_t some;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/task/%.16s/status", (int)pid, task);
    status = fopen(path, "re");
    while (status && fgets(line, sizeof(line), status)) {
        if (strncmp(line, "Name:\tiou-", strlen("Name:\tiou-")) == 0) {
            state = 'S';
            break;
        }
        (void)sscanf(line, "State: %c", &state);
        if (sscanf(line, "voluntary_ctxt_switches: %" SCNu64, &some) == 1 ||
            sscanf(line, "nonvoluntary_ctxt_switches: %" SCNu64, &some) == 1)
            *switches += some;
    }
    if (status)
        fclose(status);
    return state == 'S' && !waits_for_answer(pid, task);
}

/* Do all sleep? How often they were switched to so far. */
static bool all_sleep(const struct service *service, uint64_t *ret_switches) {
    struct dirent *entry;
    bool sleep = true;
    char path[64];
    DIR *tasks;

    *ret_switches = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)service->pid);
    tasks = opendir(path);
    ck_assert_ptr_nonnull(tasks);
    while (sleep && (entry = readdir(tasks)))
        sleep = entry->d_name[0] == '.' || thread_sleeps(service->pid, entry->d_name, ret_switches);
    closedir(tasks);
    return sleep;
}

void service_at_rest(const struct service *service, int timeout_ms, size_t *ret_descriptors, size_t *ret_threads) {
    uint64_t deadline = deadline_in((uint64_t)timeout_ms), before, after;

    for (;; nap_ms(1)) {
        if (all_sleep(service, &before)) {
            *ret_threads = service_threads(service);
            *ret_descriptors = service_descriptors(service);
            if (all_sleep(service, &after) && after == before)
                return;
        }
        ck_assert_msg(now_ms() < deadline, "the service does not come to rest");
    }
}

bool service_sleeps_for(const struct service *service, unsigned ms) {
    uint64_t before, after;
    bool sleep = all_sleep(service, &before);

    nap_ms(ms);
    return all_sleep(service, &after) && sleep && after == before;
}

long service_memory_kb(const struct service *service) {
    char path[64], line[128];
    long kb = -1;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)service->pid);
    f = fopen(path, "re");
    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "RssAnon: %ld", &kb) == 1)
            break;
    fclose(f);
    ck_assert_int_ge(kb, 0);
    return kb;
}
