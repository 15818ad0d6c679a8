/* SPDX-License-Identifier: MIT */
/*
 * The one gate between bytes from a peer and a handler. It owns nothing and calls nothing: one row of a table per
 * request type says how long request and reply are, how many descriptors come with each and which bytes are reserved; a
 * function per row judges the values. A type without a row does not exist.
 *
 * What always holds: checks go from the frame inwards (size, type, reserved, descriptors, values), so that no field is
 * read before the message is known to reach it, and the first thing wrong is what gets reported. Bounds are chosen so
 * that arithmetic on accepted values cannot overflow: a region is at most 2^46 bytes and a chunk table 2^34 cells, so
 * drp_state_bytes() and drp_pin_bytes() stay below 2^38 and a chunk index times its size at most 2^55.
 *
 * What needs state is not judged here: whether a region exists, whether a range lies inside it, which options this
 * machine has.
 */

#include "codec.h"

#include <errno.h>
#include <string.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define PAGE_MASK UINT64_C(4095)
/* The lowest address that no x86-64 or arm64 process can have, 5-level page tables included. */
#define ADDRESS_END (UINT64_C(1) << 56)
#define REGION_BYTES_MAX (UINT64_C(1) << 46)
#define CHUNK_TOTAL_MAX (UINT64_C(1) << 34)
#define CHUNK_SHIFT_MIN 12
#define CHUNK_SHIFT_MAX 21
#define PRIORITY_MAX 3
#define SHARE_MAX 10000
#define BUDGET_MIN 4096
#define LIMITS_KNOWN (DRP_LIMIT_BUDGET | DRP_LIMIT_QUOTA | DRP_LIMIT_SHARE | DRP_LIMIT_PRIORITY)
/* TELL_OPTIONS: DRP_REGION_FORK_SHARED and DRP_REGION_FORK_ABSENT, of which there is one at most; DRP_REGION_DUMP. */
#define FORK_OPTIONS UINT64_C(0x18)
#define DUMP_OPTION UINT64_C(0x20)
/* Errno values end here (the kernel's MAX_ERRNO). */
#define ERRNO_MAX 4095
/* off_t, pid_t, uid_t: what does not fit would name something else after the handler's cast. */
#define FILE_OFFSET_MAX ((uint64_t)INT64_MAX)
#define PID_MAX ((uint64_t)INT32_MAX)
/* (uid_t)-1 is nobody. */
#define UID_MAX ((uint64_t)UINT32_MAX - 1)

/* Bytes of a message that have no meaning yet. */
struct gap {
    uint16_t offset;
    uint16_t size;
};

#define GAP(type, member) \
    { offsetof(struct type, member), sizeof(((struct type *)NULL)->member) }

struct shape {
    uint16_t size_min;
    uint16_t size_max; /* larger than size_min for lists */
    uint8_t fds_min;
    uint8_t fds_max;
    struct gap gap; /* size 0: none beside the header's */
    /* Judges what is left when frame, gap and fds_min..fds_max are right. NULL: every value is fine. */
    enum codec_verdict (*check)(const union drp_wire_message *message, size_t size, size_t n_fds);
};

struct rule {
    const char *name;
    struct shape request;
    struct shape reply;
};

static enum codec_verdict verdict(bool value_ok) {
    return value_ok ? CODEC_OK : CODEC_VALUE;
}

static bool sum_fits(uint64_t a, uint64_t b, uint64_t max) {
    return a <= max && b <= max - a;
}

static bool terminated(const char *text, size_t size) {
    return memchr(text, '\0', size) != NULL;
}

static bool interception_ok(uint32_t interception) {
    return interception <= DRP_WIRE_INTERCEPTION_FULL;
}

static enum codec_verdict check_hello(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_hello *m = &message->hello;

    (void)size, (void)n_fds;
    return verdict(m->magic == DRP_WIRE_MAGIC && m->version_min <= m->version_max &&
                   terminated(m->name, sizeof(m->name)));
}

static enum codec_verdict check_hello_reply(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_hello_reply *m = &message->hello_reply;

    (void)size;
    /* A flag can change what the descriptors mean, so an unknown one makes the whole reply unreadable. */
    if ((m->flags & ~DRP_HELLO_LENT_UFFD) != 0)
        return CODEC_RESERVED;
    if (n_fds != (m->flags & DRP_HELLO_LENT_UFFD ? 2u : 1u))
        return CODEC_DESCRIPTORS;
    return verdict(m->version == DRP_WIRE_VERSION && (m->features & ~DRP_FEATURES_KNOWN) == 0);
}

static enum codec_verdict check_uffd(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_uffd *m = &message->uffd;

    (void)size;
    if (n_fds != (m->reason == 0 ? 1u : 0u))
        return CODEC_DESCRIPTORS;
    return verdict(m->reason <= ERRNO_MAX);
}

static enum codec_verdict check_uffd_reply(const union drp_wire_message *message, size_t size, size_t n_fds) {
    (void)size, (void)n_fds;
    return verdict(interception_ok(message->uffd_reply.interception));
}

/* How a region stands beside others, 0 being the default. */
static bool worth_ok(uint64_t budget, uint32_t share, uint8_t priority) {
    return (budget == 0 || budget >= BUDGET_MIN) && share <= SHARE_MAX && priority <= PRIORITY_MAX;
}

static enum codec_verdict check_options(const union drp_wire_message *message, size_t size, size_t n_fds) {
    uint64_t options = message->options.options;

    (void)size, (void)n_fds;
    return verdict((options & ~(FORK_OPTIONS | DUMP_OPTION)) == 0 && (options & FORK_OPTIONS) != FORK_OPTIONS);
}

static enum codec_verdict check_create(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_create *m = &message->create;

    (void)size, (void)n_fds;
    return verdict(m->size > 0 && m->size <= REGION_BYTES_MAX && worth_ok(m->budget, m->share, m->priority) &&
                   (m->chunk_shift == 0 || (m->chunk_shift >= CHUNK_SHIFT_MIN && m->chunk_shift <= CHUNK_SHIFT_MAX)));
}

bool codec_is_shared_name(const char *name) {
    size_t length = strnlen(name, DRP_WIRE_SHARED_NAME);

    for (size_t i = 0; i < length; i++)
        if (name[i] <= ' ' || name[i] > '~' || name[i] == '/')
            return false;
    return length < DRP_WIRE_SHARED_NAME;
}

bool codec_is_shared_mode(uint32_t mode) {
    return (mode & ~UINT32_C(0666)) == 0 && (mode & 0222) == (mode & 0444) >> 1;
}

/* In a message: nothing behind its end. */
static bool shared_name_ok(const char *name) {
    for (size_t i = strnlen(name, DRP_WIRE_SHARED_NAME); i < DRP_WIRE_SHARED_NAME; i++)
        if (name[i] != '\0')
            return false;
    return codec_is_shared_name(name);
}

static enum codec_verdict check_create_shared(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_create_shared *m = &message->create_shared;

    if (m->create.reserved[0] != 0 || m->create.reserved[1] != 0)
        return CODEC_RESERVED;
    if (!shared_name_ok(m->name) || !codec_is_shared_mode(m->mode) || (m->name[0] == '\0' && m->mode != 0))
        return CODEC_VALUE;
    return check_create(message, size, n_fds);
}

static enum codec_verdict check_open(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_open *m = &message->open;

    (void)size;
    if (n_fds != (m->name[0] == '\0' ? 1u : 0u))
        return CODEC_DESCRIPTORS;
    return verdict(shared_name_ok(m->name) && m->uid <= (n_fds == 1 ? 0 : UID_MAX));
}

/* Where a region lies in its data object and in its chunk table. */
static bool layout_ok(uint64_t size, uint64_t object_offset, uint64_t chunk_base, uint64_t chunk_total, uint8_t shift) {
    uint64_t mask;

    if (shift < CHUNK_SHIFT_MIN || shift > CHUNK_SHIFT_MAX)
        return false;
    mask = (UINT64_C(1) << shift) - 1;
    return size > 0 && size <= REGION_BYTES_MAX && (size & mask) == 0 && (object_offset & mask) == 0 &&
           sum_fits(object_offset, size, FILE_OFFSET_MAX) && chunk_total <= CHUNK_TOTAL_MAX &&
           sum_fits(chunk_base, size >> shift, chunk_total);
}

/* Reply of CREATE and of ADOPT. */
static enum codec_verdict check_create_reply(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_create_reply *m = &message->create_reply;

    (void)size, (void)n_fds;
    return verdict(layout_ok(m->size, m->object_offset, m->chunk_base, m->chunk_total, m->chunk_shift));
}

/* Who hands a region over holds its lock already. */
static enum codec_verdict check_adopt_reply(const union drp_wire_message *message, size_t size, size_t n_fds) {
    if (message->create_reply.ipc_namespace != 0)
        return CODEC_VALUE;
    return check_create_reply(message, size, n_fds);
}

static enum codec_verdict check_adopt(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_adopt *m = &message->adopt;

    (void)size, (void)n_fds;
    return verdict(worth_ok(m->budget, m->share, m->priority) &&
                   layout_ok(m->size, m->object_offset, m->chunk_base, m->chunk_total, m->chunk_shift));
}

static bool piece_ok(uint64_t address, uint64_t length, uint64_t offset) {
    return ((address | length | offset) & PAGE_MASK) == 0 && length > 0 && sum_fits(address, length, ADDRESS_END - 1) &&
           sum_fits(offset, length, UINT64_MAX);
}

static enum codec_verdict check_native(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_native *m = &message->native;

    (void)size, (void)n_fds;
    return verdict(piece_ok(m->address, m->length, 0) && m->address > 0 && m->length <= REGION_BYTES_MAX &&
                   worth_ok(m->budget, m->share, m->priority));
}

static enum codec_verdict check_map(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_map *m = &message->map;

    (void)size, (void)n_fds;
    return verdict(piece_ok(m->address, m->length, m->offset) || (m->address | m->length | m->offset) == 0);
}

/* A list whose count says how long it is. */
static enum codec_verdict check_count(size_t size, size_t head, uint32_t count, uint32_t max, size_t entry) {
    size_t expected;

    if (count > max)
        return CODEC_VALUE;
    expected = head + count * entry;
    if (size != expected)
        return size < expected ? CODEC_SHORT : CODEC_LONG;
    return CODEC_OK;
}

static enum codec_verdict check_pieces(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_pieces *m = &message->pieces;
    enum codec_verdict found = check_count(size, offsetof(struct drp_wire_pieces, pieces), m->count,
                                           DRP_WIRE_PIECES_MAX, sizeof(m->pieces[0]));

    (void)n_fds;
    for (uint32_t i = 0; found == CODEC_OK && i < m->count; i++)
        found = verdict(piece_ok(m->pieces[i].address, m->pieces[i].length, m->pieces[i].offset) &&
                        (m->header.type == DRP_WIRE_MAP_PIECES || m->pieces[i].offset == 0));
    return found == CODEC_OK ? verdict(m->count > 0) : found;
}

static enum codec_verdict check_pieces_reply(const union drp_wire_message *message, size_t size, size_t n_fds) {
    (void)size, (void)n_fds;
    return verdict(interception_ok(message->pieces_reply.interception));
}

static enum codec_verdict check_map_reply(const union drp_wire_message *message, size_t size, size_t n_fds) {
    (void)size, (void)n_fds;
    return verdict(interception_ok(message->map_reply.interception));
}

static enum codec_verdict check_range(const union drp_wire_message *message, size_t size, size_t n_fds) {
    (void)size, (void)n_fds;
    return verdict(sum_fits(message->range.offset, message->range.length, UINT64_MAX));
}

static enum codec_verdict check_status_reply(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_status_reply *m = &message->status_reply;

    (void)size, (void)n_fds;
    return verdict(terminated(m->version, sizeof(m->version)) && terminated(m->notes, sizeof(m->notes)));
}

static enum codec_verdict check_list_reply(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_list_reply *m = &message->list_reply;
    enum codec_verdict found = check_count(size, offsetof(struct drp_wire_list_reply, entries), m->count,
                                           DRP_WIRE_LIST_MAX, sizeof(m->entries[0]));

    (void)n_fds;
    for (uint32_t i = 0; found == CODEC_OK && i < m->count; i++) {
        const struct drp_wire_entry *entry = &m->entries[i];

        found = verdict(entry->kind >= DRP_ENTRY_SESSION && entry->kind <= DRP_ENTRY_DOMAIN &&
                        interception_ok(entry->interception) && terminated(entry->name, sizeof(entry->name)));
    }
    return found;
}

static enum codec_verdict check_control_drop(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_control_drop *m = &message->control_drop;

    (void)size, (void)n_fds;
    switch (m->scope) {
    case DRP_SCOPE_ALL:
        return verdict(m->id == 0);
    case DRP_SCOPE_REGION:
        return CODEC_OK;
    case DRP_SCOPE_PID:
        return verdict(m->id >= 1 && m->id <= PID_MAX);
    default:
        return CODEC_VALUE;
    }
}

bool codec_is_cgroup_path(const char *path) {
    const char *name = path;

    if (path[0] != '/' || path[1] == '\0')
        return path[0] == '/';
    while (*name) {
        size_t length = strcspn(++name, "/");

        if (length == 0 || (length == 1 && name[0] == '.') || (length == 2 && name[0] == '.' && name[1] == '.'))
            return false;
        name += length;
    }
    return true;
}

static bool path_ok(const char *path, size_t size) {
    return terminated(path, size) && codec_is_cgroup_path(path);
}

/* What mask does not name is 0, and so may be what it does name. */
static bool limits_ok(const struct drp_wire_limits *limits, uint32_t mask) {
    return (mask & ~LIMITS_KNOWN) == 0 && (mask & DRP_LIMIT_BUDGET || limits->budget == 0) &&
           (mask & DRP_LIMIT_QUOTA || limits->quota == 0) && limits->share <= (mask & DRP_LIMIT_SHARE ? SHARE_MAX : 0) &&
           limits->priority <= (mask & DRP_LIMIT_PRIORITY ? PRIORITY_MAX : 0);
}

static enum codec_verdict check_limit(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_limit *m = &message->limit;

    (void)size, (void)n_fds;
    if (!limits_ok(&m->values, m->mask))
        return CODEC_VALUE;
    switch (m->scope) {
    case DRP_LIMIT_REGION:
        return verdict(m->path[0] == '\0');
    case DRP_LIMIT_CLIENT:
        return verdict(m->path[0] == '\0' && m->id <= PID_MAX);
    case DRP_LIMIT_USER:
        return verdict(m->path[0] == '\0' && m->id <= UID_MAX);
    case DRP_LIMIT_CGROUP:
        return verdict(path_ok(m->path, sizeof(m->path)) && m->id == 0);
    default:
        return CODEC_VALUE;
    }
}

static enum codec_verdict check_limit_reply(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_limit_reply *m = &message->limit_reply;

    (void)size, (void)n_fds;
    return verdict(limits_ok(&m->effective, m->mask));
}

static enum codec_verdict check_free(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_free *m = &message->free;

    (void)size, (void)n_fds;
    return verdict(m->wanted > 0 && (m->path[0] == '\0' || path_ok(m->path, sizeof(m->path))));
}

static bool decision_ok(const struct drp_wire_decision *decision) {
    for (size_t i = 0; i < DRP_WIRE_VICTIMS_MAX; i++)
        if (!terminated(decision->victims[i].name, sizeof(decision->victims[i].name)))
            return false;
    return decision->number > 0 && decision->n_victims <= DRP_WIRE_VICTIMS_MAX &&
           decision->source >= DRP_SOURCE_SAMPLER && decision->source <= DRP_SOURCE_LAST &&
           decision->urgency >= DRP_URGENCY_TRIM && decision->urgency <= DRP_URGENCY_LIFE &&
           decision->budget_scope <= DRP_BUDGET_SESSION && decision->reserved == 0 &&
           (decision->budget_scope == 0 || decision->source == DRP_SOURCE_BUDGET) &&
           terminated(decision->path, sizeof(decision->path));
}

static enum codec_verdict check_why_reply(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct drp_wire_why_reply *m = &message->why_reply;
    enum codec_verdict found = check_count(size, offsetof(struct drp_wire_why_reply, entries), m->count,
                                           DRP_WIRE_WHY_MAX, sizeof(m->entries[0]));

    (void)n_fds;
    for (uint32_t i = 0; found == CODEC_OK && i < m->count; i++)
        found = verdict(decision_ok(&m->entries[i]));
    return found;
}

/* The size of a message that has only one. */
#define SIZE(type) .size_min = sizeof(struct type), .size_max = sizeof(struct type)
#define PIECES .size_min = offsetof(struct drp_wire_pieces, pieces), .size_max = sizeof(struct drp_wire_pieces)
#define FDS(min, max) .fds_min = (min), .fds_max = (max)

/* Name, request, reply: a line each. */
/* clang-format off */
static const struct rule rules[DRP_WIRE_TYPE_MAX + 1] = {
    [DRP_WIRE_HELLO] = {"hello",
                        {SIZE(drp_wire_hello), .check = check_hello},
                        {SIZE(drp_wire_hello_reply), FDS(1, 2), .gap = GAP(drp_wire_hello_reply, reserved),
                         .check = check_hello_reply}},
    [DRP_WIRE_UFFD] = {"uffd",
                       {SIZE(drp_wire_uffd), FDS(0, 1), .gap = GAP(drp_wire_uffd, reserved), .check = check_uffd},
                       {SIZE(drp_wire_uffd_reply), .gap = GAP(drp_wire_uffd_reply, reserved),
                        .check = check_uffd_reply}},
    [DRP_WIRE_CREATE] = {"create",
                         {SIZE(drp_wire_create), .gap = GAP(drp_wire_create, reserved), .check = check_create},
                         {SIZE(drp_wire_create_reply), FDS(2, 2), .gap = GAP(drp_wire_create_reply, reserved),
                          .check = check_create_reply}},
    [DRP_WIRE_ADOPT] = {"adopt",
                        {SIZE(drp_wire_adopt), FDS(2, 2), .gap = GAP(drp_wire_adopt, reserved), .check = check_adopt},
                        {SIZE(drp_wire_create_reply), FDS(1, 1), .gap = GAP(drp_wire_create_reply, reserved),
                         .check = check_adopt_reply}},
    [DRP_WIRE_MAP] = {"map",
                      {SIZE(drp_wire_map), FDS(0, 2), .check = check_map},
                      {SIZE(drp_wire_map_reply), FDS(0, 2), .gap = GAP(drp_wire_map_reply, reserved),
                       .check = check_map_reply}},
    [DRP_WIRE_UNMAP] = {"unmap", {SIZE(drp_wire_id)}, {SIZE(drp_wire_header)}},
    [DRP_WIRE_DESTROY] = {"destroy", {SIZE(drp_wire_id)}, {SIZE(drp_wire_header)}},
    [DRP_WIRE_DROP] = {"drop", {SIZE(drp_wire_range), .check = check_range}, {SIZE(drp_wire_drop_reply)}},
    [DRP_WIRE_POPULATE] = {"populate", {SIZE(drp_wire_range), .check = check_range}, {SIZE(drp_wire_populate_reply)}},
    [DRP_WIRE_STATS] = {"stats", {SIZE(drp_wire_header)}, {SIZE(drp_wire_stats_reply)}},
    [DRP_WIRE_STATUS] = {"status", {SIZE(drp_wire_header)}, {SIZE(drp_wire_status_reply), .check = check_status_reply}},
    [DRP_WIRE_LIST] = {"list",
                       {SIZE(drp_wire_list)},
                       {.size_min = offsetof(struct drp_wire_list_reply, entries),
                        .size_max = sizeof(struct drp_wire_list_reply),
                        .gap = GAP(drp_wire_list_reply, reserved),
                        .check = check_list_reply}},
    [DRP_WIRE_CONTROL_DROP] = {"control-drop",
                               {SIZE(drp_wire_control_drop), .gap = GAP(drp_wire_control_drop, reserved),
                                .check = check_control_drop},
                               {SIZE(drp_wire_drop_reply)}},
    [DRP_WIRE_LIMIT] = {"limit",
                        {SIZE(drp_wire_limit), .check = check_limit},
                        {SIZE(drp_wire_limit_reply), .gap = GAP(drp_wire_limit_reply, reserved), .check = check_limit_reply}},
    [DRP_WIRE_FREE] = {"free", {SIZE(drp_wire_free), .check = check_free}, {SIZE(drp_wire_drop_reply)}},
    [DRP_WIRE_WHY] = {"why",
                      {SIZE(drp_wire_list)},
                      {.size_min = offsetof(struct drp_wire_why_reply, entries),
                       .size_max = sizeof(struct drp_wire_why_reply),
                       .gap = GAP(drp_wire_why_reply, reserved),
                       .check = check_why_reply}},
    [DRP_WIRE_HISTOGRAMS] = {"histograms", {SIZE(drp_wire_header)}, {SIZE(drp_wire_histograms_reply)}},
    [DRP_WIRE_MAP_PIECES] = {"map-pieces",
                             {PIECES, .gap = GAP(drp_wire_pieces, reserved), .check = check_pieces},
                             {SIZE(drp_wire_pieces_reply), .gap = GAP(drp_wire_pieces_reply, reserved),
                              .check = check_pieces_reply}},
    [DRP_WIRE_UNMAP_PIECES] = {"unmap-pieces",
                               {PIECES, .gap = GAP(drp_wire_pieces, reserved), .check = check_pieces},
                               {SIZE(drp_wire_header)}},
    [DRP_WIRE_CREATE_SHARED] = {"create-shared",
                                {SIZE(drp_wire_create_shared), .gap = GAP(drp_wire_create_shared, reserved),
                                 .check = check_create_shared},
                                {SIZE(drp_wire_create_reply), FDS(2, 2), .gap = GAP(drp_wire_create_reply, reserved),
                                 .check = check_create_reply}},
    [DRP_WIRE_OPEN] = {"open",
                       {SIZE(drp_wire_open), FDS(0, 1), .gap = GAP(drp_wire_open, reserved), .check = check_open},
                       {SIZE(drp_wire_create_reply), FDS(2, 2), .gap = GAP(drp_wire_create_reply, reserved),
                        .check = check_create_reply}},
    [DRP_WIRE_NATIVE] = {"native",
                         {SIZE(drp_wire_native), FDS(1, 1), .gap = GAP(drp_wire_native, reserved), .check = check_native},
                         {SIZE(drp_wire_id)}},
    [DRP_WIRE_END_NATIVE] = {"end-native", {SIZE(drp_wire_id)}, {SIZE(drp_wire_header)}},
    [DRP_WIRE_TELL_OPTIONS] = {"tell-options", {SIZE(drp_wire_options), .check = check_options}, {SIZE(drp_wire_header)}},
    [DRP_WIRE_SEAL_PINS] = {"seal-pins", {SIZE(drp_wire_id)}, {SIZE(drp_wire_header)}},
    [DRP_WIRE_WATCH] = {"watch", {SIZE(drp_wire_header)}, {SIZE(drp_wire_header), FDS(1, 1)}},
};
/* clang-format on */

static const struct rule *find_rule(uint16_t type) {
    return type <= DRP_WIRE_TYPE_MAX && rules[type].name ? &rules[type] : NULL;
}

static bool gap_is_zero(const union drp_wire_message *message, struct gap gap) {
    for (size_t i = 0; i < gap.size; i++)
        if (message->bytes[gap.offset + i] != 0)
            return false;
    return true;
}

static enum codec_verdict check_shape(const struct shape *shape, const union drp_wire_message *message, size_t size,
                                      size_t n_fds) {
    if (size < shape->size_min)
        return CODEC_SHORT;
    if (size > shape->size_max)
        return CODEC_LONG;
    if (message->header.reserved != 0 || message->header.reserved2 != 0 || !gap_is_zero(message, shape->gap))
        return CODEC_RESERVED;
    if (n_fds < shape->fds_min || n_fds > shape->fds_max)
        return CODEC_DESCRIPTORS;
    return shape->check ? shape->check(message, size, n_fds) : CODEC_OK;
}

enum codec_verdict codec_check_request(const union drp_wire_message *message, size_t size, size_t n_fds) {
    const struct rule *rule;
    enum codec_verdict found;

    if (size < sizeof(message->header))
        return CODEC_SHORT;
    rule = find_rule(message->header.type);
    if (!rule)
        return CODEC_TYPE;
    found = check_shape(&rule->request, message, size, n_fds);
    return found == CODEC_OK ? verdict(message->header.error == DRP_WIRE_OK) : found;
}

enum codec_verdict codec_check_reply(const union drp_wire_message *message, size_t size, size_t n_fds,
                                     uint16_t request_type) {
    static const struct shape error_shape = {SIZE(drp_wire_header)};
    const struct rule *rule = find_rule(request_type);
    enum codec_verdict found;

    if (size < sizeof(message->header))
        return CODEC_SHORT;
    if (!rule || message->header.type != (DRP_WIRE_REPLY | request_type))
        return CODEC_TYPE;
    if (message->header.error == DRP_WIRE_OK)
        return check_shape(&rule->reply, message, size, n_fds);
    found = check_shape(&error_shape, message, size, n_fds);
    return found == CODEC_OK ? verdict(message->header.error <= DRP_WIRE_ERROR_MAX) : found;
}

size_t codec_request_size(uint16_t type) {
    const struct rule *rule = find_rule(type);

    return rule ? rule->request.size_min : 0;
}

const char *codec_type_name(uint16_t type) {
    const struct rule *rule = find_rule(type);

    return rule ? rule->name : "unknown";
}

const char *codec_verdict_name(enum codec_verdict verdict) {
    static const char *const names[CODEC_VERDICT_MAX] = {
        [CODEC_OK] = "message fine",
        [CODEC_SHORT] = "message too short",
        [CODEC_LONG] = "message too long",
        [CODEC_TYPE] = "message type unknown or not expected here",
        [CODEC_RESERVED] = "reserved field not zero",
        [CODEC_DESCRIPTORS] = "wrong number of descriptors",
        [CODEC_VALUE] = "field out of range",
    };

    return (size_t)verdict < ARRAY_SIZE(names) ? names[verdict] : "unknown verdict";
}

/*
 * The errno of each error is what droppable.h promises for the call that meets it. VERSION, MALFORMED and STATE say
 * that the two ends do not speak the same protocol, which a caller can't mend: one errno. A quarantined session is one
 * whose calls do not end in time. NOT_INTERCEPTED is a feature that is not to be had here, as UNSUPPORTED is.
 */
static const struct {
    const char *name;
    int error;
} errors[DRP_WIRE_ERROR_MAX + 1] = {
    [DRP_WIRE_OK] = {"ok", 0},
    [DRP_WIRE_ERROR_VERSION] = {"version", -EPROTO},
    [DRP_WIRE_ERROR_MALFORMED] = {"malformed", -EPROTO},
    [DRP_WIRE_ERROR_STATE] = {"state", -EPROTO},
    [DRP_WIRE_ERROR_INVALID] = {"invalid", -EINVAL},
    [DRP_WIRE_ERROR_UNSUPPORTED] = {"unsupported", -EOPNOTSUPP},
    [DRP_WIRE_ERROR_QUOTA] = {"quota", -EDQUOT},
    [DRP_WIRE_ERROR_NOT_FOUND] = {"not-found", -ENOENT},
    [DRP_WIRE_ERROR_PERMISSION] = {"permission", -EPERM},
    [DRP_WIRE_ERROR_DESCRIPTOR] = {"descriptor", -EBADF},
    [DRP_WIRE_ERROR_MEMORY] = {"memory", -ENOMEM},
    [DRP_WIRE_ERROR_QUARANTINED] = {"quarantined", -ETIMEDOUT},
    [DRP_WIRE_ERROR_NOT_INTERCEPTED] = {"not-intercepted", -EOPNOTSUPP},
    [DRP_WIRE_ERROR_INTERNAL] = {"internal", -EIO},
    [DRP_WIRE_ERROR_EXISTS] = {"exists", -EEXIST},
};

const char *codec_error_name(uint32_t error) {
    return error < ARRAY_SIZE(errors) && errors[error].name ? errors[error].name : "unknown-error";
}

int codec_error_errno(uint32_t error) {
    return error < ARRAY_SIZE(errors) && errors[error].name ? errors[error].error : -EPROTO;
}
