/* SPDX-License-Identifier: MIT */

/*
 * Fuzzes what reads the kernel's small files: the first byte says which one the rest is. The verdict must be that of the text
 * alone (it is followed by other bytes the second time), a refusal leaves the result alone, and a headroom lies within its limit.
 */

#include "cgroup.h"
#include "fuzz.h"

#include <string.h>

#define TEXT_MAX 8192

union result {
    struct cgroup_stat stat;
    struct cgroup_events events;
    struct meminfo_look meminfo;
    uint64_t value;
};

static int parse(unsigned kind, const char *text, size_t size, union result *ret) {
    switch (kind) {
    case 0:
        return cgroup_parse_stat(text, size, 1, &ret->stat);
    case 1:
        return cgroup_parse_stat(text, size, 2, &ret->stat);
    case 2:
        return cgroup_parse_events(text, size, &ret->events);
    case 3:
        return cgroup_parse_value(text, size, &ret->value);
    default:
        return meminfo_parse(text, size, &ret->meminfo);
    }
}

static void require_headroom(const struct cgroup_stat *stat, uint64_t limit, uint64_t usage) {
    uint64_t headroom = cgroup_headroom(limit, usage, stat), more;
    struct cgroup_stat fuller = *stat;

    REQUIRE(headroom <= limit);
    REQUIRE(usage > limit || headroom >= limit - usage);
    fuller.inactive_file = UINT64_MAX; /* what can be given back never takes room away */
    more = cgroup_headroom(limit, usage, &fuller);
    REQUIRE(more >= headroom && more <= limit);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char text[TEXT_MAX + 64];
    union result one, two, untouched;
    unsigned kind;
    char *exact;
    int r;

    if (size < 1 || size > TEXT_MAX)
        return 0;
    kind = data[0] % 5;
    data++;
    size--;

    /* Alone in its block: what is read beyond it is seen. */
    exact = malloc(size ? size : 1);
    REQUIRE(exact);
    memcpy(exact, data, size);
    memset(text, '7', sizeof(text));
    memcpy(text, data, size);
    memset(&one, 0xa5, sizeof(one));
    memset(&two, 0xa5, sizeof(two));
    memset(&untouched, 0xa5, sizeof(untouched));

    r = parse(kind, exact, size, &one);
    REQUIRE(r == parse(kind, text, size, &two));
    REQUIRE(r <= 0 && memcmp(&one, &two, sizeof(one)) == 0);
    REQUIRE(r == 0 || memcmp(&one, &untouched, sizeof(one)) == 0);
    if (r == 0 && kind <= 1) {
        require_headroom(&one.stat, one.stat.active_file, one.stat.inactive_file);
        require_headroom(&one.stat, CGROUP_NO_LIMIT, one.stat.inactive_file);
        require_headroom(&one.stat, 256 << 20, 255 << 20);
    }
    free(exact);
    return 0;
}
