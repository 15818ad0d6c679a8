/* SPDX-License-Identifier: MIT */
/*
 * The codec, from the outside: one valid message per type and direction (test-codec-samples.h), and a table of single faults put into
 * it (test-codec-faults.h). Every row starts from a message that is accepted, so a row fails for the fault it names and
 * for nothing else. The ranges are written out here as numbers on purpose: this is the second opinion on codec.c, not
 * a copy of its constants.
 */

#include "codec.h"
#include "pages.h"
#include "test-codec-faults.h"
#include "test-codec-samples.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static enum codec_verdict judge(const struct sample *sample, uint16_t type, bool reply) {
    return reply ? codec_check_reply(&sample->message, sample->size, sample->n_fds, type)
                 : codec_check_request(&sample->message, sample->size, sample->n_fds);
}

/* ---- frame: sizes, descriptors, types ---- */

/* Fewest and most descriptors: what wire.h says beside each message. */
static const struct {
    uint8_t request_min, request_max, reply_min, reply_max;
} descriptors[DRP_WIRE_TYPE_MAX + 1] = {
    [DRP_WIRE_HELLO] = {0, 0, 1, 1}, /* with the flag as in the sample */
    [DRP_WIRE_UFFD] = {1, 1, 0, 0},  /* with reason 0 */
    [DRP_WIRE_CREATE] = {0, 0, 2, 2},        [DRP_WIRE_ADOPT] = {2, 2, 1, 1}, [DRP_WIRE_MAP] = {0, 2, 0, 2},
    [DRP_WIRE_CREATE_SHARED] = {0, 0, 2, 2}, [DRP_WIRE_OPEN] = {0, 0, 2, 2},  [DRP_WIRE_WATCH] = {0, 0, 1, 1},
    [DRP_WIRE_NATIVE] = {1, 1, 0, 0},
};

START_TEST(frame) {
    bool reply = _i > DRP_WIRE_TYPE_MAX;
    uint16_t type = (uint16_t)(reply ? _i - DRP_WIRE_TYPE_MAX : _i);
    size_t min = reply ? descriptors[type].reply_min : descriptors[type].request_min;
    size_t max = reply ? descriptors[type].reply_max : descriptors[type].request_max;
    struct sample sample;
    size_t size;

    sample_make(&sample, type, reply);
    size = sample.size;
    ck_assert_uint_ge(size, sizeof(struct drp_wire_header));
    ck_assert_int_eq(judge(&sample, type, reply), CODEC_OK);

    for (sample.size = 0; sample.size < size; sample.size++)
        ck_assert_msg(judge(&sample, type, reply) == CODEC_SHORT, "type %u, size %zu", type, sample.size);
    for (sample.size = size + 1; sample.size <= DRP_WIRE_MAX_SIZE; sample.size++)
        ck_assert_msg(judge(&sample, type, reply) == CODEC_LONG, "type %u, size %zu", type, sample.size);
    sample.size = SIZE_MAX;
    ck_assert_int_eq(judge(&sample, type, reply), CODEC_LONG);
    sample.size = size;

    for (sample.n_fds = 0; sample.n_fds <= 300; sample.n_fds++)
        ck_assert_msg(judge(&sample, type, reply) ==
                          (sample.n_fds >= min && sample.n_fds <= max ? CODEC_OK : CODEC_DESCRIPTORS),
                      "type %u, %zu descriptors", type, sample.n_fds);
    sample_make(&sample, type, reply);

    sample.message.header.reserved = 1;
    ck_assert_int_eq(judge(&sample, type, reply), CODEC_RESERVED);
    sample_make(&sample, type, reply);
    sample.message.header.reserved2 = 0x80000000;
    ck_assert_int_eq(judge(&sample, type, reply), CODEC_RESERVED);
    sample_make(&sample, type, reply);
    sample.message.header.serial = 0;
    ck_assert_int_eq(judge(&sample, type, reply), CODEC_OK);
}
END_TEST

START_TEST(types) {
    struct sample sample;

    for (uint32_t type = 0; type <= UINT16_MAX; type++) {
        bool known = type >= 1 && type <= DRP_WIRE_TYPE_MAX;

        sample_request(&sample, 1);
        sample.message.header.type = (uint16_t)type;
        sample.size = sizeof(struct drp_wire_header);
        if (!known) {
            ck_assert_int_eq(judge(&sample, 0, false), CODEC_TYPE);
            ck_assert_uint_eq(codec_request_size((uint16_t)type), 0);
            ck_assert_str_eq(codec_type_name((uint16_t)type), "unknown");
            sample.message.header.type |= DRP_WIRE_REPLY;
            ck_assert_int_eq(codec_check_reply(&sample.message, sample.size, 0, (uint16_t)type), CODEC_TYPE);
        } else {
            ck_assert_uint_ge(codec_request_size((uint16_t)type), sizeof(struct drp_wire_header));
            ck_assert_uint_le(codec_request_size((uint16_t)type), DRP_WIRE_MAX_SIZE);
            ck_assert_str_ne(codec_type_name((uint16_t)type), "unknown");
        }
    }
    /* A request where a reply belongs, and the reply to another request. */
    for (uint16_t a = 1; a <= DRP_WIRE_TYPE_MAX; a++) {
        sample_request(&sample, a);
        ck_assert_int_eq(judge(&sample, a, true), CODEC_TYPE);
        for (uint16_t b = 1; b <= DRP_WIRE_TYPE_MAX; b++) {
            sample_reply(&sample, b);
            ck_assert_int_eq(judge(&sample, a, true), a == b ? CODEC_OK : CODEC_TYPE);
        }
        sample_reply(&sample, a);
        ck_assert_int_eq(judge(&sample, a, false), CODEC_TYPE);
    }
}
END_TEST

START_TEST(error_replies) {
    uint16_t type = (uint16_t)_i;
    struct sample sample;

    for (uint32_t error = 1; error <= DRP_WIRE_ERROR_MAX; error++) {
        sample_reply(&sample, type);
        sample.message.header.error = error;
        if (sample.size > sizeof(struct drp_wire_header))
            ck_assert_int_eq(judge(&sample, type, true), CODEC_LONG);
        sample.size = sizeof(struct drp_wire_header);
        sample.n_fds = 0;
        ck_assert_int_eq(judge(&sample, type, true), CODEC_OK);
        sample.size--;
        ck_assert_int_eq(judge(&sample, type, true), CODEC_SHORT);
        sample.size++;
        for (sample.n_fds = 1; sample.n_fds <= DRP_WIRE_MAX_FDS; sample.n_fds++)
            ck_assert_int_eq(judge(&sample, type, true), CODEC_DESCRIPTORS);
        sample.n_fds = 0;
        sample.message.header.reserved = 1;
        ck_assert_int_eq(judge(&sample, type, true), CODEC_RESERVED);

        sample_request(&sample, type);
        sample.message.header.error = error;
        ck_assert_int_eq(judge(&sample, type, false), CODEC_VALUE);
    }
    sample_reply(&sample, type);
    sample.size = sizeof(struct drp_wire_header);
    sample.n_fds = 0;
    sample.message.header.error = DRP_WIRE_ERROR_MAX + 1;
    ck_assert_int_eq(judge(&sample, type, true), CODEC_VALUE);
    sample.message.header.error = UINT32_MAX;
    ck_assert_int_eq(judge(&sample, type, true), CODEC_VALUE);
}
END_TEST

/* ---- one field at a time ---- */

START_TEST(fields) {
    const struct fault *fault = &faults[_i];
    struct sample sample;

    sample_make(&sample, fault->type, fault->reply);
    for (size_t i = 0; i < ARRAY_SIZE(fault->changes) && fault->changes[i].size > 0; i++) {
        const struct change *change = &fault->changes[i];

        switch (change->size) {
        case 1:
            sample.message.bytes[change->offset] = (char)change->value;
            break;
        case 2:
            memcpy(sample.message.bytes + change->offset, &(uint16_t){(uint16_t)change->value}, 2);
            break;
        case 4:
            memcpy(sample.message.bytes + change->offset, &(uint32_t){(uint32_t)change->value}, 4);
            break;
        case 8:
            memcpy(sample.message.bytes + change->offset, &change->value, 8);
            break;
        default:
            ck_abort_msg("no integer of %u bytes", change->size);
        }
    }
    if (fault->n_fds > 0)
        sample.n_fds = (size_t)fault->n_fds - 1;
    ck_assert_msg(judge(&sample, fault->type, fault->reply) == fault->verdict, "row %d (%s%s): '%s', expected '%s'", _i,
                  codec_type_name(fault->type), fault->reply ? " reply" : "",
                  codec_verdict_name(judge(&sample, fault->type, fault->reply)), codec_verdict_name(fault->verdict));
}
END_TEST

/* Each byte that wire.h calls reserved, each bit of it. */
START_TEST(reserved_bits) {
    static const struct {
        uint16_t type;
        bool reply;
        struct change where;
    } gaps[] = {
        {DRP_WIRE_HELLO, true, AT(drp_wire_hello_reply, reserved, 0)},
        {DRP_WIRE_UFFD, false, AT(drp_wire_uffd, reserved, 0)},
        {DRP_WIRE_UFFD, true, AT(drp_wire_uffd_reply, reserved, 0)},
        {DRP_WIRE_CREATE, false, AT(drp_wire_create, reserved, 0)},
        {DRP_WIRE_CREATE, true, AT(drp_wire_create_reply, reserved, 0)},
        {DRP_WIRE_ADOPT, false, AT(drp_wire_adopt, reserved, 0)},
        {DRP_WIRE_ADOPT, true, AT(drp_wire_create_reply, reserved, 0)},
        {DRP_WIRE_MAP, true, AT(drp_wire_map_reply, reserved, 0)},
        {DRP_WIRE_LIST, true, AT(drp_wire_list_reply, reserved, 0)},
        {DRP_WIRE_CONTROL_DROP, false, AT(drp_wire_control_drop, reserved, 0)},
        {DRP_WIRE_LIMIT, true, AT(drp_wire_limit_reply, reserved, 0)},
        {DRP_WIRE_WHY, true, AT(drp_wire_why_reply, reserved, 0)},
        {DRP_WIRE_MAP_PIECES, false, AT(drp_wire_pieces, reserved, 0)},
        {DRP_WIRE_MAP_PIECES, true, AT(drp_wire_pieces_reply, reserved, 0)},
        {DRP_WIRE_UNMAP_PIECES, false, AT(drp_wire_pieces, reserved, 0)},
    };
    struct sample sample;

    for (size_t i = 0; i < ARRAY_SIZE(gaps); i++)
        for (unsigned bit = 0; bit < gaps[i].where.size * 8u; bit++) {
            sample_make(&sample, gaps[i].type, gaps[i].reply);
            sample.message.bytes[gaps[i].where.offset + bit / 8] = (char)(1u << bit % 8);
            ck_assert_msg(judge(&sample, gaps[i].type, gaps[i].reply) == CODEC_RESERVED, "gap %zu, bit %u", i, bit);
        }
}
END_TEST

START_TEST(strings) {
    struct sample sample;

    sample_request(&sample, DRP_WIRE_HELLO);
    memset(sample.message.hello.name, 'x', 32);
    ck_assert_int_eq(judge(&sample, DRP_WIRE_HELLO, false), CODEC_VALUE);
    sample.message.hello.name[31] = '\0';
    ck_assert_int_eq(judge(&sample, DRP_WIRE_HELLO, false), CODEC_OK);

    sample_reply(&sample, DRP_WIRE_STATUS);
    memset(sample.message.status_reply.version, 'x', sizeof(sample.message.status_reply.version));
    ck_assert_int_eq(judge(&sample, DRP_WIRE_STATUS, true), CODEC_VALUE);
    sample_reply(&sample, DRP_WIRE_STATUS);
    memset(sample.message.status_reply.notes, 'x', sizeof(sample.message.status_reply.notes));
    ck_assert_int_eq(judge(&sample, DRP_WIRE_STATUS, true), CODEC_VALUE);

    sample_reply(&sample, DRP_WIRE_LIST);
    memset(sample.message.list_reply.entries[1].name, 'x', sizeof(sample.message.list_reply.entries[1].name));
    ck_assert_int_eq(judge(&sample, DRP_WIRE_LIST, true), CODEC_VALUE);

    sample_reply(&sample, DRP_WIRE_WHY);
    memset(sample.message.why_reply.entries[1].path, 'x', sizeof(sample.message.why_reply.entries[1].path));
    ck_assert_int_eq(judge(&sample, DRP_WIRE_WHY, true), CODEC_VALUE);
    for (size_t i = 0; i < DRP_WIRE_VICTIMS_MAX; i++) {
        sample_reply(&sample, DRP_WIRE_WHY);
        memset(sample.message.why_reply.entries[0].victims[i].name, 'x', 36);
        ck_assert_int_eq(judge(&sample, DRP_WIRE_WHY, true), CODEC_VALUE);
    }
}
END_TEST

/* Paths are absolute and end inside their field; FREE takes none for the machine. */
START_TEST(paths) {
    static const struct {
        const char *path;
        bool limit, free;
    } cases[] = {
        {"", false, true},
        {"/", true, true},
        {"/a/b", true, true},
        {"/.a/..b/...", true, true},
        {"a", false, false},
        {".", false, false},
        /* Other ways to write one: a limit for it would be kept, and never hold. */
        {"//", false, false},
        {"/a/", false, false},
        {"/a//b", false, false},
        {"/./a", false, false},
        {"/a/.", false, false},
        {"/a/../b", false, false},
        {"/..", false, false},
    };
    struct sample sample;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        sample_request(&sample, DRP_WIRE_LIMIT);
        sample.message.limit.scope = DRP_LIMIT_CGROUP;
        strcpy(sample.message.limit.path, cases[i].path);
        ck_assert_msg(judge(&sample, DRP_WIRE_LIMIT, false) == (cases[i].limit ? CODEC_OK : CODEC_VALUE), "'%s'",
                      cases[i].path);
        sample_request(&sample, DRP_WIRE_FREE);
        strcpy(sample.message.free.path, cases[i].path);
        ck_assert_msg(judge(&sample, DRP_WIRE_FREE, false) == (cases[i].free ? CODEC_OK : CODEC_VALUE), "'%s'",
                      cases[i].path);
    }
    sample_request(&sample, DRP_WIRE_LIMIT);
    sample.message.limit.scope = DRP_LIMIT_CGROUP;
    memset(sample.message.limit.path, 'a', 1024);
    sample.message.limit.path[0] = '/';
    ck_assert_int_eq(judge(&sample, DRP_WIRE_LIMIT, false), CODEC_VALUE);
    sample.message.limit.path[1023] = '\0';
    ck_assert_int_eq(judge(&sample, DRP_WIRE_LIMIT, false), CODEC_OK);
    sample_request(&sample, DRP_WIRE_FREE);
    memset(sample.message.free.path, 'a', 1024);
    sample.message.free.path[0] = '/';
    ck_assert_int_eq(judge(&sample, DRP_WIRE_FREE, false), CODEC_VALUE);
}
END_TEST

START_TEST(list_sizes) {
    struct sample sample;

    for (uint32_t count = 0; count <= DRP_WIRE_LIST_MAX; count++) {
        sample_reply(&sample, DRP_WIRE_LIST);
        for (uint32_t i = 0; i < count; i++)
            sample.message.list_reply.entries[i].kind = DRP_ENTRY_REGION;
        sample.message.list_reply.count = count;
        sample.size = offsetof(struct drp_wire_list_reply, entries) + count * sizeof(struct drp_wire_entry);
        ck_assert_int_eq(judge(&sample, DRP_WIRE_LIST, true), CODEC_OK);
        sample.size--;
        ck_assert_int_eq(judge(&sample, DRP_WIRE_LIST, true), CODEC_SHORT);
        sample.size += 2;
        ck_assert_int_eq(judge(&sample, DRP_WIRE_LIST, true), CODEC_LONG);
    }
}
END_TEST

START_TEST(why_sizes) {
    struct sample sample;

    for (uint32_t count = 0; count <= DRP_WIRE_WHY_MAX; count++) {
        sample_reply(&sample, DRP_WIRE_WHY);
        for (uint32_t i = 0; i < count; i++)
            sample.message.why_reply.entries[i] = sample.message.why_reply.entries[0];
        sample.message.why_reply.count = count;
        sample.size = offsetof(struct drp_wire_why_reply, entries) + count * sizeof(struct drp_wire_decision);
        ck_assert_int_eq(judge(&sample, DRP_WIRE_WHY, true), CODEC_OK);
        sample.size--;
        ck_assert_int_eq(judge(&sample, DRP_WIRE_WHY, true), CODEC_SHORT);
        sample.size += 2;
        ck_assert_int_eq(judge(&sample, DRP_WIRE_WHY, true), CODEC_LONG);
    }
}
END_TEST

/* ---- names and errnos ---- */

START_TEST(error_names) {
    static const struct {
        uint32_t error;
        const char *name;
        int number;
    } expected[] = {
        {DRP_WIRE_OK, "ok", 0},
        {DRP_WIRE_ERROR_VERSION, "version", -EPROTO},
        {DRP_WIRE_ERROR_MALFORMED, "malformed", -EPROTO},
        {DRP_WIRE_ERROR_STATE, "state", -EPROTO},
        {DRP_WIRE_ERROR_INVALID, "invalid", -EINVAL},
        {DRP_WIRE_ERROR_UNSUPPORTED, "unsupported", -EOPNOTSUPP},
        {DRP_WIRE_ERROR_QUOTA, "quota", -EDQUOT},
        {DRP_WIRE_ERROR_NOT_FOUND, "not-found", -ENOENT},
        {DRP_WIRE_ERROR_PERMISSION, "permission", -EPERM},
        {DRP_WIRE_ERROR_DESCRIPTOR, "descriptor", -EBADF},
        {DRP_WIRE_ERROR_MEMORY, "memory", -ENOMEM},
        {DRP_WIRE_ERROR_QUARANTINED, "quarantined", -ETIMEDOUT},
        {DRP_WIRE_ERROR_NOT_INTERCEPTED, "not-intercepted", -EOPNOTSUPP},
        {DRP_WIRE_ERROR_INTERNAL, "internal", -EIO},
        {DRP_WIRE_ERROR_EXISTS, "exists", -EEXIST},
    };

    ck_assert_uint_eq(ARRAY_SIZE(expected), DRP_WIRE_ERROR_MAX + 1);
    for (uint32_t i = 0; i < ARRAY_SIZE(expected); i++) {
        ck_assert_uint_eq(expected[i].error, i);
        ck_assert_str_eq(codec_error_name(i), expected[i].name);
        ck_assert_int_eq(codec_error_errno(i), expected[i].number);
    }
    ck_assert_str_eq(codec_error_name(DRP_WIRE_ERROR_MAX + 1), "unknown-error");
    ck_assert_str_eq(codec_error_name(UINT32_MAX), "unknown-error");
    ck_assert_int_eq(codec_error_errno(DRP_WIRE_ERROR_MAX + 1), -EPROTO);
    ck_assert_int_eq(codec_error_errno(UINT32_MAX), -EPROTO);
}
END_TEST

static const char *type_name(unsigned i) {
    return codec_type_name((uint16_t)(i + 1));
}

static const char *verdict_name(unsigned i) {
    return codec_verdict_name((enum codec_verdict)i);
}

START_TEST(unique_names) {
    static const struct {
        const char *(*name)(unsigned i);
        unsigned count;
    } families[] = {{codec_error_name, DRP_WIRE_ERROR_MAX + 2}, /* with the unknown one */
                    {type_name, DRP_WIRE_TYPE_MAX + 1},
                    {verdict_name, CODEC_VERDICT_MAX + 1}};

    for (size_t f = 0; f < ARRAY_SIZE(families); f++)
        for (unsigned a = 0; a < families[f].count; a++) {
            ck_assert_ptr_nonnull(families[f].name(a));
            ck_assert_uint_gt(strlen(families[f].name(a)), 0);
            for (unsigned b = a + 1; b < families[f].count; b++)
                ck_assert_str_ne(families[f].name(a), families[f].name(b));
        }
    ck_assert_str_eq(codec_verdict_name(CODEC_SHORT), "message too short");
    ck_assert_str_eq(codec_verdict_name((enum codec_verdict) - 1), "unknown verdict");
    ck_assert_str_eq(codec_type_name(DRP_WIRE_HELLO), "hello");
    ck_assert_str_eq(codec_type_name(DRP_WIRE_CONTROL_DROP), "control-drop");
}
END_TEST

/* ---- random bytes ---- */

static uint64_t random_state;

/* xorshift64*: the same sequence everywhere, so that a failure can be repeated. */
static uint64_t random_next(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(0x2545f4914f6cdd1d);
}

/* What a handler relies on, in other words than codec.c's: wide arithmetic and remainders. */
static void check_accepted(const union drp_wire_message *m, size_t size, size_t n_fds) {
    if (m->header.type != DRP_WIRE_MAP_PIECES && m->header.type != DRP_WIRE_UNMAP_PIECES)
        ck_assert_uint_eq(size, codec_request_size(m->header.type));
    ck_assert_uint_le(n_fds, DRP_WIRE_MAX_FDS);
    ck_assert_uint_eq(m->header.error, 0);
    switch (m->header.type) {
    case DRP_WIRE_UFFD:
        ck_assert_int_eq(n_fds == 1, m->uffd.reason == 0);
        break;
    case DRP_WIRE_ADOPT: {
        uint64_t chunk = UINT64_C(1) << m->adopt.chunk_shift;

        ck_assert(m->adopt.chunk_shift >= 12 && m->adopt.chunk_shift <= 21);
        ck_assert(m->adopt.size % chunk == 0 && m->adopt.object_offset % chunk == 0);
        ck_assert((unsigned __int128)m->adopt.object_offset + m->adopt.size <= INT64_MAX);
        ck_assert((unsigned __int128)m->adopt.chunk_base + m->adopt.size / chunk <= m->adopt.chunk_total);
        ck_assert_uint_lt(drp_pin_bytes(m->adopt.chunk_total), UINT64_C(1) << 38);
        ck_assert_uint_gt(drp_pin_bytes(m->adopt.chunk_total), m->adopt.chunk_total * sizeof(struct drp_pin_cell));
        ck_assert_uint_gt(drp_state_bytes(m->adopt.chunk_total), m->adopt.chunk_total * sizeof(uint32_t));
        break;
    }
    case DRP_WIRE_CREATE:
        ck_assert(m->create.size > 0 && m->create.size <= UINT64_C(1) << 46);
        ck_assert(m->create.share <= 10000 && m->create.budget - 1 >= 4095);
        break;
    case DRP_WIRE_LIMIT:
        ck_assert(m->limit.scope >= 1 && m->limit.scope <= 4 && m->limit.mask < 16);
        ck_assert(m->limit.scope == DRP_LIMIT_REGION || m->limit.id < UINT32_MAX);
        break;
    case DRP_WIRE_MAP:
        ck_assert((unsigned __int128)m->map.address + m->map.length < (unsigned __int128)1 << 56);
        ck_assert((unsigned __int128)m->map.offset + m->map.length <= UINT64_MAX);
        ck_assert((m->map.address | m->map.length | m->map.offset) % 4096 == 0);
        ck_assert(m->map.length > 0 || (m->map.address == 0 && m->map.offset == 0));
        break;
    case DRP_WIRE_MAP_PIECES:
    case DRP_WIRE_UNMAP_PIECES:
        ck_assert(m->pieces.count > 0 && m->pieces.count <= DRP_WIRE_PIECES_MAX);
        ck_assert_ptr_eq(&m->pieces.pieces[m->pieces.count], m->bytes + size);
        for (uint32_t i = 0; i < m->pieces.count; i++) {
            const struct drp_wire_piece *piece = &m->pieces.pieces[i];

            ck_assert((unsigned __int128)piece->address + piece->length < (unsigned __int128)1 << 56);
            ck_assert((unsigned __int128)piece->offset + piece->length <= UINT64_MAX);
            ck_assert((piece->address | piece->length | piece->offset) % 4096 == 0 && piece->length > 0);
        }
        break;
    case DRP_WIRE_DROP:
    case DRP_WIRE_POPULATE:
        ck_assert((unsigned __int128)m->range.offset + m->range.length <= UINT64_MAX);
        break;
    default:
        break;
    }
}

/* Values that lie where bugs do. */
static uint64_t random_value(void) {
    uint64_t edge = UINT64_C(1) << (random_next() % 64);

    switch (random_next() % 4) {
    case 0:
        return edge;
    case 1:
        return edge - 1;
    case 2:
        return 0 - edge;
    default:
        return random_next();
    }
}

START_TEST(random_bytes) {
    static struct sample sample;
    unsigned accepted = 0;

    random_state = UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)_i;
    for (unsigned round = 0; round < 50000; round++) {
        uint16_t type = (uint16_t)(1 + random_next() % DRP_WIRE_TYPE_MAX);

        sample_request(&sample, type);
        for (unsigned n = (unsigned)(random_next() % 4); n > 0 && sample.size > 16; n--) {
            size_t at = 16 + 4 * (random_next() % ((sample.size - 16) / 4));
            uint64_t value = random_value();

            memcpy(sample.message.bytes + at, &value, sample.size - at >= 8 && random_next() % 2 ? 8 : 4);
        }
        if (random_next() % 8 == 0)
            sample.n_fds = random_next() % (DRP_WIRE_MAX_FDS + 2);
        if (random_next() % 8 == 0)
            sample.size = random_next() % (DRP_WIRE_MAX_SIZE + 1);
        if (judge(&sample, type, false) == CODEC_OK) {
            check_accepted(&sample.message, sample.size, sample.n_fds);
            accepted++;
        }
    }
    /* Otherwise the loop has shown nothing. */
    ck_assert_uint_gt(accepted, 5000);
    ck_assert_uint_lt(accepted, 45000);
}
END_TEST

static Suite *make_suite(void) {
    Suite *suite = suite_create("codec");
    TCase *tcase = tcase_create("codec");

    tcase_add_loop_test(tcase, frame, 1, 2 * DRP_WIRE_TYPE_MAX + 1);
    tcase_add_test(tcase, types);
    tcase_add_loop_test(tcase, error_replies, 1, DRP_WIRE_TYPE_MAX + 1);
    tcase_add_loop_test(tcase, fields, 0, (int)ARRAY_SIZE(faults));
    tcase_add_test(tcase, reserved_bits);
    tcase_add_test(tcase, strings);
    tcase_add_test(tcase, paths);
    tcase_add_test(tcase, list_sizes);
    tcase_add_test(tcase, why_sizes);
    tcase_add_test(tcase, error_names);
    tcase_add_test(tcase, unique_names);
    tcase_add_loop_test(tcase, random_bytes, 0, 3);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    SRunner *runner = srunner_create(make_suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
