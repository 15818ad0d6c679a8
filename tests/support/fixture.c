/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the real service begin and end with: a private service, whose descriptors and threads (and the test's own descriptors)
 * are counted before the first client and have to be back there after the last one.
 */

#include "fixture.h"

#include "rest.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux 5.11. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define IDLE_MS 20000
#define WATCH_MS 10000
#define LIST_SIZE (1 << 20)

struct service service;
static size_t idle_descriptors, idle_threads, own_before;

void fixture_measure(void) {
    ck_assert(status_becomes("sessions", 1, IDLE_MS)); /* droppablectl itself; also, whatever is made lazily is made now */
    ck_assert(status_becomes("regions", 0, IDLE_MS));
    for (uint64_t deadline = deadline_in(IDLE_MS); service_left_of_clients(&service) != 0; nap_ms(5))
        ck_assert_uint_lt(now_ms(), deadline); /* droppablectl's session ends a moment later */
    service_at_rest(&service, IDLE_MS, &idle_descriptors, &idle_threads); /* the machine is watched, its cgroup no more */
}

void fixture_start(const char *config) {
    own_before = own_descriptors();
    service_start(&service, config);
    fixture_measure();
}

void fixture_setup(void) {
    fixture_start(NULL);
}

void fixture_expect_idle(void) {
    uint64_t deadline = deadline_in(IDLE_MS);

    service_expect_descriptors(&service, idle_descriptors, IDLE_MS);
    while (service_threads(&service) != idle_threads && now_ms() < deadline)
        nap_ms(5);
    ck_assert_uint_eq(service_threads(&service), idle_threads);
}

void fixture_teardown(void) {
    fixture_expect_idle();
    service_stop(&service);
    ck_assert_uint_eq(own_descriptors(), own_before);
}

/* ---- what droppablectl says ---- */

static struct json_object *parse_ctl(const char *verb) {
    char *text = malloc(LIST_SIZE);
    struct json_object *object;

    ck_assert_ptr_nonnull(text);
    ck_assert_int_eq(service_ctl(&service, text, LIST_SIZE, (const char *const[]){"--json", verb, NULL}), 0);
    object = json_tokener_parse(text);
    ck_assert_msg(object != NULL, "not JSON:\n%s", text);
    free(text);
    return object;
}

static struct json_object *find_entry(struct json_object *list, const char *array, const char *key, uint64_t value) {
    struct json_object *entries = json_object_object_get(list, array);

    for (size_t i = 0; i < json_object_array_length(entries); i++) {
        struct json_object *entry = json_object_array_get_idx(entries, i);

        if (json_object_get_uint64(json_object_object_get(entry, key)) == value)
            return entry;
    }
    ck_abort_msg("'list' has nothing with %s %llu in %s", key, (unsigned long long)value, array);
    return NULL;
}

uint64_t listing_number(const char *array, const char *key, uint64_t value, const char *wanted) {
    struct json_object *list = parse_ctl("list");
    struct json_object *found = json_object_object_get(find_entry(list, array, key, value), wanted);
    uint64_t number;

    ck_assert_msg(found != NULL, "'list' has no %s", wanted);
    number = json_object_is_type(found, json_type_boolean) ? (uint64_t)json_object_get_boolean(found)
                                                           : json_object_get_uint64(found);
    json_object_put(list);
    return number;
}

void listing_text(const char *array, const char *key, uint64_t value, const char *wanted, char *ret, size_t size) {
    struct json_object *list = parse_ctl("list");
    struct json_object *found = json_object_object_get(find_entry(list, array, key, value), wanted);

    ck_assert_msg(found != NULL, "'list' has no %s", wanted);
    strncpy(ret, json_object_get_string(found), size - 1);
    ret[size - 1] = '\0';
    json_object_put(list);
}

size_t listing_count(const char *array) {
    struct json_object *list = parse_ctl("list");
    size_t n = json_object_array_length(json_object_object_get(list, array));

    json_object_put(list);
    return n;
}

void expect_watched(uint64_t domain, const char *source) {
    char sources[256];

    for (uint64_t deadline = deadline_in(WATCH_MS);; nap_ms(5)) {
        listing_text("domains", "id", domain, "sources", sources, sizeof(sources));
        if (strstr(sources, source))
            return;
        ck_assert_msg(now_ms() < deadline, "domain %llu is watched by %s, not %s", (unsigned long long)domain, sources,
                      source);
    }
}

bool status_becomes(const char *key, uint64_t value, int timeout_ms) {
    uint64_t deadline = deadline_in((uint64_t)timeout_ms);

    while (service_status(&service, key) != value) {
        if (now_ms() >= deadline)
            return false;
        nap_ms(5);
    }
    return true;
}

bool status_feature(const char *name) {
    struct json_object *status = parse_ctl("status");
    struct json_object *features = json_object_object_get(status, "features");
    bool yes = json_object_get_boolean(json_object_object_get(features, name));

    json_object_put(status);
    return yes;
}

/* ---- memory ---- */

uint64_t shmem_bytes(void) {
    FILE *file = fopen("/proc/meminfo", "re");
    unsigned long long kib = 0;
    char line[256];

    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file) && sscanf(line, "Shmem: %llu", &kib) != 1)
        ;
    fclose(file);
    return kib * 1024;
}

bool is_filled(const void *memory, int value, size_t size) {
    const volatile unsigned char *bytes = memory;

    for (size_t i = 0; i < size; i++)
        if (bytes[i] != (unsigned char)value)
            return false;
    return true;
}

bool is_zero(const void *memory, size_t size) {
    const volatile uint64_t *words = memory;

    for (size_t i = 0; i < size / sizeof(*words); i++)
        if (words[i] != 0)
            return false;
    return is_filled((const char *)memory + size / sizeof(*words) * sizeof(*words), 0, size % sizeof(*words));
}

static bool may_have(int flags) {
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

bool may_intercept(void) {
    return may_have(O_NONBLOCK);
}

bool anybody_may_signal(void) {
    return may_have(UFFD_USER_MODE_ONLY);
}

bool may_signal(void) {
    return anybody_may_signal() || (errno == EINVAL && may_have(0));
}
