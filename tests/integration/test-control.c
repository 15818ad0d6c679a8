/* SPDX-License-Identifier: MIT */
/*
 * Who may have how much, and who may say so: limits set by owners and by administrators, through the library, the command and past both; what
 * a new service is told of them. Frees by hand, and what `why` says of them.
 */

#include "child.h"
#include "fixture.h"
#include "memcg.h"
#include "raw.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define CHUNK (64 * KIB)
#define NOBODY 65534

#define CTL(...) ((const char *const[]){__VA_ARGS__, NULL})

static int ctl(const char *const *arguments) {
    char out[16384];

    return service_ctl(&service, out, sizeof(out), arguments);
}

/* A key of what the command prints as JSON; UINT64_MAX for null. */
static uint64_t ctl_number(const char *const *arguments, const char *key) {
    struct json_object *object, *found = NULL;
    char out[16384];
    uint64_t number;

    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), arguments), 0);
    object = json_tokener_parse(out);
    ck_assert_msg(object && json_object_object_get_ex(object, key, &found), "no %s in:\n%s", key, out);
    number = found ? json_object_get_uint64(found) : UINT64_MAX;
    json_object_put(object);
    return number;
}

static const char *number_text(uint64_t number) {
    static char room[4][24];
    static unsigned next;
    char *text = room[next++ % 4];

    snprintf(text, sizeof(room[0]), "%llu", (unsigned long long)number);
    return text;
}

static uint64_t region_id(const struct drp_region *region) {
    struct drp_region_info info;

    drp_region_get_info(region, &info);
    return info.id;
}

static uint64_t listed(const struct drp_region *region, const char *key) {
    return listing_number("regions", "id", region_id(region), key);
}

/* ---- a program's own ---- */

START_TEST(test_region_limits) {
    struct drp_region_options options = {
        .struct_size = sizeof(options), .budget = 3 * MIB, .share = 50, .priority = DRP_PRIORITY_LOW};
    struct drp_region *region, *plain;
    char text[16];
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, MIB, &options), 0);
    ck_assert_int_eq(drp_region_new(&plain, d, MIB, NULL), 0);
    ck_assert_uint_eq(listed(region, "budget"), 3 * MIB);
    ck_assert_uint_eq(listed(region, "share"), 50);
    ck_assert_uint_eq(listed(plain, "share"), 100);
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--region", number_text(region_id(plain))), "budget"),
                      UINT64_MAX);

    ck_assert_int_eq(drp_region_set_budget(region, 2 * MIB), 0);
    ck_assert_int_eq(drp_region_set_share(region, 20), 0);
    ck_assert_int_eq(drp_region_set_priority(region, DRP_PRIORITY_HIGH), 0);
    ck_assert_int_eq(drp_set_budget(d, 5 * MIB), 0);
    ck_assert_int_eq(drp_region_set_budget(region, 4095), -EINVAL);
    ck_assert_int_eq(drp_region_set_share(region, 0), -EINVAL);
    ck_assert_int_eq(drp_region_set_share(region, 10001), -EINVAL);
    ck_assert_int_eq(drp_region_set_priority(region, (enum drp_priority)0), -EINVAL);
    ck_assert_int_eq(drp_region_set_priority(region, (enum drp_priority)4), -EINVAL);
    ck_assert_int_eq(drp_set_budget(d, 1), -EINVAL);
    for (int again = 0; again < 2; again++) { /* the same as a new service has it */
        listing_text("regions", "id", region_id(region), "priority", text, sizeof(text));
        ck_assert_str_eq(text, "high");
        ck_assert_uint_eq(listed(region, "budget"), 2 * MIB);
        ck_assert_uint_eq(listed(region, "share"), 20);
        ck_assert_uint_eq(listing_number("sessions", "pid", (uint64_t)getpid(), "budget"), 5 * MIB);
        ck_assert_uint_eq(listed(plain, "share"), 100);
        if (again == 0) {
            struct drp_stats stats = {0};

            ck_assert(service_kill(&service, 10000));
            service_restart(&service);
            for (uint64_t deadline = now_ms() + 20000; stats.reconnects == 0; drp_get_stats(d, &stats))
                ck_assert(now_ms() < deadline);
        }
    }
    ck_assert_int_eq(drp_region_set_budget(region, UINT64_MAX), 0);
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--region", number_text(region_id(region))), "budget"),
                      UINT64_MAX);
    ck_assert_int_eq(drp_set_budget(d, UINT64_MAX), 0);
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--pid", number_text((uint64_t)getpid())), "budget"),
                      UINT64_MAX);
    region = drp_region_free(region);
    plain = drp_region_free(plain);
    d = drp_free(d);
    fixture_measure();
}
END_TEST

static void connect_again(int socket, void *data) {
    struct drp_region *region;
    char word;

    child_check(drp_region_new(&region, data, MIB, NULL) == 0);
    child_say(socket, 'c');
    child_check(child_hear(socket, &word));
    drp_region_free(region);
    drp_free(data);
}

/* A child's connection is a new one, with the same budget. */
START_TEST(test_fork) {
    struct child child;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_set_budget(d, 5 * MIB), 0);
    child_start(&child, connect_again, d);
    child_expect(&child, 'c');
    ck_assert_uint_eq(listing_number("sessions", "pid", (uint64_t)child.pid, "budget"), 5 * MIB);
    child_say(child.socket, 'e');
    child_end(&child);
    drp_free(d);
}
END_TEST

START_TEST(test_wrong_options) {
    struct drp_region_options options = {.struct_size = sizeof(options), .budget = 4095};
    struct drp_region *region = NULL;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, MIB, &options), -EINVAL);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "budget"));
    options = (struct drp_region_options){.struct_size = sizeof(options), .share = 10001};
    ck_assert_int_eq(drp_region_new(&region, d, MIB, &options), -EINVAL);
    /* Of a program that was built when there was no budget. */
    options = (struct drp_region_options){.struct_size = offsetof(struct drp_region_options, budget), .budget = 1};
    ck_assert_int_eq(drp_region_new(&region, d, MIB, &options), 0);
    region = drp_region_free(region);
    drp_free(d);
}
END_TEST

/* ---- owners and administrators ---- */

static void be_owner(int socket, void *data) {
    struct drp_wire_limit limit = {.header.type = DRP_WIRE_LIMIT, .scope = DRP_LIMIT_REGION, .mask = DRP_LIMIT_BUDGET};
    struct drp_wire_free request = {.header.type = DRP_WIRE_FREE, .wanted = 1};
    struct drp_region_options options = {.struct_size = sizeof(options), .share = 10000};
    struct drp_region_limits limits = {.struct_size = sizeof(limits)};
    struct drp_region *region;
    struct drp *d;
    char word;
    int raw;

    options.budget = 64 * KIB;
    child_become_nobody();
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, MIB, &options) == 0);
    child_check(drp_set_budget(d, 8 * MIB) == 0 && drp_set_budget(d, 4 * MIB) == 0);
    child_check(drp_region_get_limits(region, &limits) == 0 && limits.struct_size == sizeof(limits));
    child_check(limits.share == 100 && limits.budget == 64 * KIB && limits.priority == DRP_PRIORITY_NORMAL);
    *(char *)drp_region_address(region) = 1;
    child_check(drp_region_get_limits(region, &limits) == 0 && limits.resident > 0);
    limits.struct_size = sizeof(limits) - 1;
    child_check(drp_region_get_limits(region, &limits) == -EINVAL);
    limits.struct_size = sizeof(limits);
    child_check(drp_region_set_share(region, 101) == -EPERM && strstr(drp_detail(), "share"));
    child_check(drp_region_set_share(region, 30) == 0 && drp_region_set_share(region, 100) == 0);
    raw = raw_hello("raw");
    limit.id = *(uint64_t *)data; /* another one's */
    limit.values.budget = MIB;
    child_check(raw_call(raw, &limit, sizeof(limit), NULL, 0, NULL) == DRP_WIRE_ERROR_PERMISSION);
    limit.mask = 0;
    limit.values.budget = 0;
    child_check(raw_call(raw, &limit, sizeof(limit), NULL, 0, NULL) == DRP_WIRE_OK);
    limit.id = 1 << 30;
    child_check(raw_call(raw, &limit, sizeof(limit), NULL, 0, NULL) == DRP_WIRE_ERROR_NOT_FOUND);
    limit.scope = DRP_LIMIT_CGROUP;
    limit.id = 0;
    limit.path[0] = '/';
    child_check(raw_call(raw, &limit, sizeof(limit), NULL, 0, NULL) == DRP_WIRE_OK);
    limit.mask = DRP_LIMIT_BUDGET;
    child_check(raw_call(raw, &limit, sizeof(limit), NULL, 0, NULL) == DRP_WIRE_ERROR_PERMISSION);
    limit.mask = DRP_LIMIT_SHARE; /* which a cgroup has not */
    child_check(raw_call(raw, &limit, sizeof(limit), NULL, 0, NULL) == DRP_WIRE_ERROR_INVALID);
    child_check(raw_call(raw, &request, sizeof(request), NULL, 0, NULL) == DRP_WIRE_ERROR_PERMISSION);
    close(raw);
    child_say(socket, 'l');
    child_check(child_hear(socket, &word)); /* the administrator has set 2 MiB and a share of 200 */
    child_check(drp_set_budget(d, 3 * MIB) == -EPERM && strstr(drp_detail(), "budget"));
    child_check(drp_set_budget(d, MIB) == 0 && drp_set_budget(d, 2 * MIB) == 0);
    child_check(drp_region_get_limits(region, &limits) == 0 && limits.share == 200);
    child_check(drp_region_set_share(region, 200) == 0 && drp_region_set_share(region, 201) == -EPERM);
    region = drp_region_free(region);
    d = drp_free(d);
}

START_TEST(test_owner) {
    struct drp_region *region;
    uint64_t id, foreign;
    struct child child;
    const char *pid;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, MIB, NULL), 0);
    foreign = region_id(region);
    child_start(&child, be_owner, &foreign);
    child_expect(&child, 'l');
    pid = number_text((uint64_t)child.pid);
    ck_assert_uint_eq(listing_number("sessions", "pid", (uint64_t)child.pid, "budget"), 4 * MIB);
    id = listing_number("sessions", "pid", (uint64_t)child.pid, "id");
    id = listing_number("regions", "session", id, "id");
    ck_assert_uint_eq(listing_number("regions", "id", id, "share"), 100); /* it asked for more than it may have */
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--pid", pid, "--budget", "2M"), "budget"), 2 * MIB);
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--region", number_text(id), "--share", "200"), "share"), 200);
    child_say(child.socket, 'a');
    child_end(&child);

    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--user", "65534", "--quota", "1M"), "quota"), MIB);
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--user", "65534", "--quota", "infinity"), "quota"), UINT64_MAX);
    ck_assert_uint_ne(ctl_number(CTL("--json", "limit", "--user", "65534", "--quota", "default"), "quota"), UINT64_MAX);
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--cgroup", "/x/y", "--budget", "1G"), "budget"), 1024 * MIB);
    ck_assert_int_eq(ctl(CTL("limit", "--region", number_text(id), "--quota", "1G")), 1); /* it has none */
    ck_assert_int_eq(ctl(CTL("limit", "--region", number_text(id))), 1);                  /* it is gone */
    ck_assert_int_eq(ctl(CTL("free", "1M", "--cgroup", "/nobody/is/here")), 1);
    region = drp_region_free(region);
    drp_free(d);
}
END_TEST

/* Over which limit is told by the call that fails. */
START_TEST(test_quota_detail) {
    struct drp_region *region;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(ctl(CTL("limit", "--pid", number_text((uint64_t)getpid()), "--quota", "3M")), 0);
    ck_assert_int_eq(drp_region_new(&region, d, 4 * MIB, NULL), -EDQUOT);
    ck_assert_msg(strstr(drp_detail(), "3145728 bytes for this process"), "%s", drp_detail());
    ck_assert_int_eq(drp_region_new(&region, d, 3 * MIB, NULL), 0);
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--pid", number_text((uint64_t)getpid())), "resident_bytes"), 0);
    memset(drp_region_address(region), 1, MIB);
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--pid", number_text((uint64_t)getpid())), "resident_bytes"),
                      MIB);
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--user", number_text(geteuid())), "resident_bytes"), MIB);
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--cgroup", "/"), "resident_bytes"), MIB);
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--region", number_text(region_id(region))), "resident_bytes"),
                      MIB);
    ck_assert_int_eq(ctl(CTL("limit", "--pid", number_text((uint64_t)getpid()), "--quota", "default")),
                     0); /* else it is kept */
    region = drp_region_free(region);
    drp_free(d);
}
END_TEST

/* ---- FREE, WHY ---- */

static struct drp_region *make(struct drp *d, size_t size, enum drp_priority priority) {
    struct drp_region_options options = {.struct_size = sizeof(options), .chunk_size = CHUNK, .priority = priority};
    struct drp_region *region = NULL;

    ck_assert_int_eq(drp_region_new(&region, d, size, &options), 0);
    memset(drp_region_address(region), 1, size);
    return region;
}

/* Of the newest decision that `why` tells of: a number, or the first victim's. */
static uint64_t why(const char *key, const char *victims_key) {
    struct json_object *object, *decision, *found;
    char out[16384];
    uint64_t number;

    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), CTL("--json", "why", "-n", "1")), 0);
    object = json_tokener_parse(out);
    decision = json_object_array_get_idx(json_object_object_get(object, "decisions"), 0);
    ck_assert_msg(decision != NULL, "%s", out);
    found = json_object_object_get(decision, key);
    if (victims_key)
        found = json_object_object_get(json_object_array_get_idx(found, 0), victims_key);
    ck_assert_msg(found != NULL, "no %s in:\n%s", key, out);
    number = json_object_get_uint64(found);
    json_object_put(object);
    return number;
}

/* Low priority first; and what was done is told. */
START_TEST(test_free) {
    struct drp_region *low, *normal;
    char out[16384];
    struct drp *d;

    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), CTL("why")), 0);
    ck_assert_str_eq(out, "Nothing was dropped for want of memory.\n");
    ck_assert_uint_eq(ctl_number(CTL("--json", "free", "2M"), "freed_bytes"), 0); /* nobody ever had a region */
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    low = make(d, 8 * MIB, DRP_PRIORITY_LOW);
    normal = make(d, 8 * MIB, DRP_PRIORITY_NORMAL);
    ck_assert_uint_eq(ctl_number(CTL("--json", "free", "2M"), "freed_bytes"), 2 * MIB);
    ck_assert_uint_eq(listed(low, "resident_bytes"), 6 * MIB);
    ck_assert_uint_eq(why("victims", "region"), region_id(low));
    ck_assert_uint_eq(why("victims", "pid"), (uint64_t)getpid());
    ck_assert_uint_eq(why("freed_bytes", NULL), 2 * MIB);
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), CTL("--json", "why")), 0);
    ck_assert_ptr_nonnull(strstr(out, "\"source\":\"hand\""));
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), CTL("why")), 0);
    ck_assert_msg(strstr(out, "the machine\n    because     somebody asked for it"), "%s", out);
    ck_assert_ptr_nonnull(strstr(out, "dropped     2.0 MiB of 2.0 MiB planned"));

    ck_assert_uint_eq(ctl_number(CTL("--json", "free", "10M"), "freed_bytes"), 10 * MIB);
    ck_assert_uint_eq(listed(low, "resident_bytes"), 0);
    ck_assert_uint_eq(listed(normal, "resident_bytes"), 4 * MIB);
    ck_assert_int_eq(drp_pin(normal, 0, 8 * MIB, NULL), 0);
    ck_assert_uint_eq(ctl_number(CTL("--json", "free", "1G"), "freed_bytes"), 0); /* ends with nothing left to drop */
    ck_assert_int_eq(drp_unpin(normal, 0, 8 * MIB), 0);
    ck_assert_uint_eq(ctl_number(CTL("--json", "free", "1G"), "freed_bytes"), 4 * MIB);
    low = drp_region_free(low);
    normal = drp_region_free(normal);
    drp_free(d);
}
END_TEST

/* What was touched or pinned later is younger, though all of it came in at the same time. */
START_TEST(test_touched_stays) {
    uint32_t before[64], after[64];
    struct drp_region *region;
    struct drp *d;

    if (!may_intercept())
        return; /* only how much is resident is known, so it is dropped by whole spans */
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    region = make(d, 64 * CHUNK, DRP_PRIORITY_NORMAL);
    ck_assert_int_eq(drp_copy_generations(region, 0, 64 * CHUNK, before), 64);
    nanosleep(&(struct timespec){.tv_sec = 2}, NULL); /* for it to grow old: buckets of age are coarse */
    for (size_t i = 0; i < 64; i += 2)
        ck_assert_int_eq(i % 4 == 0 ? drp_touch(region, i * CHUNK, CHUNK) : drp_pin(region, i * CHUNK, CHUNK, NULL), 0);
    for (size_t i = 2; i < 64; i += 4)
        ck_assert_int_eq(drp_unpin(region, i * CHUNK, CHUNK), 0);
    ck_assert_uint_eq(ctl_number(CTL("--json", "free", "2M"), "freed_bytes"), 32 * CHUNK);
    ck_assert_int_eq(drp_copy_generations(region, 0, 64 * CHUNK, after), 64);
    for (size_t i = 0; i < 64; i++)
        ck_assert_msg((after[i] != before[i]) == (i % 2 == 1), "chunk %zu", i);
    region = drp_region_free(region);
    drp_free(d);
}
END_TEST

/* Whoever asked is gone before the answer. */
START_TEST(test_free_abandoned) {
    struct drp_wire_free request = {.header.type = DRP_WIRE_FREE, .wanted = UINT64_MAX};
    struct drp_region *region;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    region = make(d, 32 * MIB, DRP_PRIORITY_NORMAL);
    for (int i = 0; i < 20; i++) {
        int raw = raw_hello("gone");

        memset(drp_region_address(region), 1, 32 * MIB);
        ck_assert_int_eq(channel_send(raw, &request, sizeof(request), NULL, 0, 0), CHANNEL_OK);
        close(raw);
        ck_assert(status_becomes("resident_bytes", 0, 10000));
    }
    region = drp_region_free(region);
    drp_free(d);
}
END_TEST

/* The service ends while it is at it. A sanitizer tells what is left. */
START_TEST(test_free_at_the_end) {
    struct drp_wire_free request = {.header.type = DRP_WIRE_FREE, .wanted = UINT64_MAX};

    for (int i = 0; i < 10; i++) {
        struct drp_region *region;
        struct drp *d;
        int raw;

        service_start(&service, NULL);
        ck_assert_int_eq(drp_new(&d, NULL), 0);
        region = make(d, 32 * MIB, DRP_PRIORITY_NORMAL);
        raw = raw_hello("late");
        ck_assert_int_eq(channel_send(raw, &request, sizeof(request), NULL, 0, 0), CHANNEL_OK);
        service_stop(&service);
        close(raw);
        region = drp_region_free(region);
        drp_free(d);
    }
}
END_TEST

static void live_in_cgroup(int socket, void *data) {
    struct drp_region *region;
    struct drp *d;
    char word;

    memcg_enter(data);
    child_check(drp_new(&d, NULL) == 0 && drp_region_new(&region, d, 8 * MIB, NULL) == 0);
    memset(drp_region_address(region), 1, 8 * MIB);
    child_say(socket, 'f');
    child_check(child_hear(socket, &word));
    region = drp_region_free(region);
    d = drp_free(d);
}

/* Of a cgroup, and of nobody else; it is forgotten when nobody is in it. */
START_TEST(test_free_in_cgroup) {
    struct drp_region *region;
    uint64_t domain, domains = listing_count("domains"), freed = (may_intercept() ? 3 : 4) * MIB; /* or by spans */
    struct memcg memcg;
    struct child child;
    const char *reason;
    char path[160];
    struct drp *d;

    if (!memcg_make(&memcg, 256 * MIB, &reason)) {
        printf("not tried: a cgroup's free: %s\n", reason);
        return;
    }
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    region = make(d, 8 * MIB, DRP_PRIORITY_LOW);
    child_start(&child, live_in_cgroup, &memcg);
    child_expect(&child, 'f');
    domain = listing_number("sessions", "pid", (uint64_t)child.pid, "domain");
    listing_text("domains", "id", domain, "path", path, sizeof(path));
    ck_assert_uint_eq(ctl_number(CTL("--json", "limit", "--cgroup", path), "resident_bytes"), 8 * MIB);
    ck_assert_uint_eq(ctl_number(CTL("--json", "free", "3M", "--cgroup", path), "freed_bytes"), freed);
    ck_assert_uint_eq(listed(region, "resident_bytes"), 8 * MIB);
    expect_watched(domain, memcg.version == 1 ? "usage_threshold" : "memory_max");
    ck_assert_uint_eq(why("domain", NULL), domain);
    ck_assert_uint_eq(why("limit", NULL), 256 * MIB);
    ck_assert_uint_eq(why("victims", "pid"), (uint64_t)child.pid);
    ck_assert_uint_eq(ctl_number(CTL("--json", "free", "1G", "--cgroup", path), "freed_bytes"), 8 * MIB - freed);
    child_say(child.socket, 'e');
    child_end(&child);
    region = drp_region_free(region);
    drp_free(d);
    memcg_remove(&memcg);
    for (uint64_t deadline = now_ms() + 10000; listing_count("domains") != domains;)
        ck_assert(now_ms() < deadline);
}
END_TEST

/* ---- the command ---- */

static const struct {
    const char *arguments[8];
    int status;
} lines[] = {
    {{"limit"}, 2},
    {{"limit", "--region", "1", "--pid", "1"}, 2},
    {{"limit", "--all"}, 2},
    {{"limit", "--pid", "0"}, 2},
    {{"limit", "--pid", "1", "--budget", "much"}, 2},
    {{"limit", "--pid", "1", "--budget", "0"}, 2},
    {{"limit", "--pid", "1", "--share", "0"}, 2},
    {{"limit", "--pid", "1", "--share", "10001"}, 2},
    {{"limit", "--pid", "1", "--priority", "urgent"}, 2},
    {{"limit", "--user", "nobody-is-called-this"}, 2},
    {{"limit", "--cgroup", "a/b"}, 2},
    {{"limit", "--cgroup", "/a/b/", "--budget", "1G"}, 2},
    {{"free", "1M", "--cgroup", "/a//b"}, 2},
    {{"limit", "--pid", "1"}, 1},
    {{"limit", "--user", "root", "--budget", "infinity"}, 0},
    {{"limit", "--user", "root", "--share", "7"}, 1}, /* a user has none */
    {{"free"}, 2},
    {{"free", "1M", "2M"}, 2},
    {{"free", "0"}, 2},
    {{"free", "1M", "--pid", "1"}, 2},
    {{"why", "-n", "0"}, 2},
    {{"why", "--all"}, 2},
    {{"why", "-n", "3"}, 0},
    {{"status", "-n", "3"}, 2},
    {{"drop"}, 2},
    {{"drop", "--user", "0"}, 2},
    {{"frobnicate"}, 2},
};

START_TEST(test_lines) {
    ck_assert_int_eq(ctl(lines[_i].arguments), lines[_i].status);
}
END_TEST

/* The service counts pins where there is a quota of them. */
START_TEST(test_pinned) {
    struct drp_region *region;
    struct drp *d;

    fixture_start("[Limits]\nPinnedPerClient=64M\n");
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    region = make(d, 8 * MIB, DRP_PRIORITY_NORMAL);
    ck_assert_int_eq(drp_pin(region, 0, 3 * CHUNK, NULL), 0);
    for (uint64_t deadline = now_ms() + 10000; listed(region, "pinned_bytes") != 3 * CHUNK;)
        ck_assert(now_ms() < deadline);
    ck_assert_uint_eq(listing_number("sessions", "pid", (uint64_t)getpid(), "pinned_bytes"), 3 * CHUNK);
    region = drp_region_free(region);
    drp_free(d);
    fixture_teardown();
}
END_TEST

START_TEST(test_low_reserve) {
    char out[16384];

    fixture_start("[Pressure]\nMachineReserve=4K\n");
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), CTL("status")), 0);
    ck_assert_msg(strstr(out, "the reserve of the machine is configured as 0.0 MiB"), "%s", out);
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), CTL("list")), 0);
    ck_assert_msg(strstr(out, "\n! domain 1: a reserve of 0.0 MiB is configured"), "%s", out);
    ck_assert_uint_eq(listing_number("domains", "id", 1, "reserve"), 4096);
    ck_assert_uint_ge(listing_number("domains", "id", 1, "auto_reserve"), 4 * MIB);
    fixture_teardown();
    fixture_setup();
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), CTL("status")), 0);
    ck_assert_ptr_null(strstr(out, "is configured as"));
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), CTL("list")), 0);
    ck_assert_ptr_null(strstr(out, "is configured"));
    fixture_teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("control");
    TCase *own = tcase_create("own"), *administrator = tcase_create("administrator"), *command = tcase_create("command");
    TCase *ends = tcase_create("ends");
    SRunner *runner;
    int failed;

    tcase_set_timeout(own, 60);
    tcase_add_checked_fixture(own, fixture_setup, fixture_teardown);
    tcase_add_test(own, test_region_limits);
    tcase_add_test(own, test_fork);
    tcase_add_test(own, test_wrong_options);
    suite_add_tcase(suite, own);
    tcase_set_timeout(administrator, 60);
    tcase_add_checked_fixture(administrator, fixture_setup, fixture_teardown);
    if (geteuid() == 0)
        tcase_add_test(administrator, test_owner);
    tcase_add_test(administrator, test_quota_detail);
    tcase_add_test(administrator, test_free);
    tcase_add_test(administrator, test_touched_stays);
    tcase_add_test(administrator, test_free_abandoned);
    tcase_add_test(administrator, test_free_in_cgroup);
    suite_add_tcase(suite, administrator);
    tcase_set_timeout(command, 60);
    tcase_add_unchecked_fixture(command, fixture_setup, fixture_teardown);
    tcase_add_loop_test(command, test_lines, 0, (int)(sizeof(lines) / sizeof(lines[0])));
    suite_add_tcase(suite, command);
    tcase_set_timeout(ends, 60);
    tcase_add_test(ends, test_pinned);
    tcase_add_test(ends, test_low_reserve);
    tcase_add_test(ends, test_free_at_the_end);
    suite_add_tcase(suite, ends);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
