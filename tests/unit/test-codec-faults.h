/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_UNIT_TEST_CODEC_FAULTS_H
#define DROPPABLE_TESTS_UNIT_TEST_CODEC_FAULTS_H

/*
 * The values at the edges of every field's range, for test-codec.c: what to change in a valid message, and the verdict
 * then. Both sides of each edge are here.
 */

#include "codec.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

struct change {
    uint16_t offset, size;
    uint64_t value;
};

#define AT(type, member, v) \
    { offsetof(struct type, member), sizeof(((struct type *)NULL)->member), (v) }

/* A row a line. */
/* clang-format off */
static const struct fault {
    uint16_t type;
    bool reply;
    enum codec_verdict verdict;
    struct change changes[5]; /* up to the first of size 0 */
    int n_fds;                /* plus 1; 0: as in the sample */
} faults[] = {
#define REQUEST(type, verdict, ...) \
    { DRP_WIRE_##type, false, CODEC_##verdict, {__VA_ARGS__}, 0 }
#define REPLY(type, verdict, ...) \
    { DRP_WIRE_##type, true, CODEC_##verdict, {__VA_ARGS__}, 0 }
#define REQUEST_FDS(type, verdict, fds, ...) \
    { DRP_WIRE_##type, false, CODEC_##verdict, {__VA_ARGS__}, (fds) + 1 }
#define REPLY_FDS(type, verdict, fds, ...) \
    { DRP_WIRE_##type, true, CODEC_##verdict, {__VA_ARGS__}, (fds) + 1 }
    /* HELLO */
    REQUEST(HELLO, VALUE, AT(drp_wire_hello, magic, 0)),
    REQUEST(HELLO, VALUE, AT(drp_wire_hello, magic, 0x31505245)),
    REQUEST(HELLO, VALUE, AT(drp_wire_hello, version_max, 0)),
    REQUEST(HELLO, VALUE, AT(drp_wire_hello, version_min, 2)),
    REQUEST(HELLO, OK, AT(drp_wire_hello, version_min, 0)),
    REQUEST(HELLO, OK, AT(drp_wire_hello, version_max, UINT16_MAX)),
    REQUEST(HELLO, OK, AT(drp_wire_hello, version_min, 2), AT(drp_wire_hello, version_max, 2)),
    REPLY(HELLO, RESERVED, AT(drp_wire_hello_reply, reserved, 1)),
    REPLY(HELLO, RESERVED, AT(drp_wire_hello_reply, flags, 2)),
    REPLY(HELLO, RESERVED, AT(drp_wire_hello_reply, flags, 0x80000000)),
    REPLY(HELLO, DESCRIPTORS, AT(drp_wire_hello_reply, flags, DRP_HELLO_LENT_UFFD)),
    REPLY_FDS(HELLO, OK, 2, AT(drp_wire_hello_reply, flags, DRP_HELLO_LENT_UFFD)),
    REPLY_FDS(HELLO, DESCRIPTORS, 3, AT(drp_wire_hello_reply, flags, DRP_HELLO_LENT_UFFD)),
    REPLY(HELLO, VALUE, AT(drp_wire_hello_reply, version, 0)),
    REPLY(HELLO, VALUE, AT(drp_wire_hello_reply, version, 2)),
    REPLY(HELLO, VALUE, AT(drp_wire_hello_reply, features, DRP_FEATURES_KNOWN + 1)),
    REPLY(HELLO, OK, AT(drp_wire_hello_reply, features, 0)),
    /* UFFD */
    REQUEST(UFFD, RESERVED, AT(drp_wire_uffd, reserved, 1)),
    REQUEST(UFFD, DESCRIPTORS, AT(drp_wire_uffd, reason, EPERM)),
    REQUEST_FDS(UFFD, OK, 0, AT(drp_wire_uffd, reason, EPERM)),
    REQUEST_FDS(UFFD, OK, 0, AT(drp_wire_uffd, reason, 4095)),
    REQUEST_FDS(UFFD, VALUE, 0, AT(drp_wire_uffd, reason, 4096)),
    REQUEST_FDS(UFFD, VALUE, 0, AT(drp_wire_uffd, reason, UINT32_MAX)),
    REPLY(UFFD, RESERVED, AT(drp_wire_uffd_reply, reserved, 1)),
    REPLY(UFFD, OK, AT(drp_wire_uffd_reply, interception, 0)),
    REPLY(UFFD, VALUE, AT(drp_wire_uffd_reply, interception, 2)),
    /* CREATE */
    REQUEST(CREATE, RESERVED, AT(drp_wire_create, reserved[0], 1)),
    REQUEST(CREATE, RESERVED, AT(drp_wire_create, reserved[1], 0x80)),
    REQUEST(CREATE, VALUE, AT(drp_wire_create, size, 0)),
    REQUEST(CREATE, OK, AT(drp_wire_create, size, UINT64_C(1) << 46)),
    REQUEST(CREATE, VALUE, AT(drp_wire_create, size, (UINT64_C(1) << 46) + 1)),
    REQUEST(CREATE, VALUE, AT(drp_wire_create, size, UINT64_MAX)),
    REQUEST(CREATE, VALUE, AT(drp_wire_create, chunk_shift, 1)),
    REQUEST(CREATE, VALUE, AT(drp_wire_create, chunk_shift, 11)),
    REQUEST(CREATE, OK, AT(drp_wire_create, chunk_shift, 12)),
    REQUEST(CREATE, OK, AT(drp_wire_create, chunk_shift, 21)),
    REQUEST(CREATE, VALUE, AT(drp_wire_create, chunk_shift, 22)),
    REQUEST(CREATE, VALUE, AT(drp_wire_create, chunk_shift, 255)),
    REQUEST(CREATE, OK, AT(drp_wire_create, priority, 3)),
    REQUEST(CREATE, VALUE, AT(drp_wire_create, priority, 4)),
    REQUEST(CREATE, VALUE, AT(drp_wire_create, priority, 255)),
    REQUEST(CREATE, OK, AT(drp_wire_create, share, 10000), AT(drp_wire_create, budget, UINT64_MAX)),
    REQUEST(CREATE, VALUE, AT(drp_wire_create, share, 10001)),
    REQUEST(CREATE, OK, AT(drp_wire_create, budget, 4096)),
    REQUEST(CREATE, VALUE, AT(drp_wire_create, budget, 4095)),
    REPLY(CREATE, RESERVED, AT(drp_wire_create_reply, reserved[0], 1)),
    REPLY(CREATE, RESERVED, AT(drp_wire_create_reply, reserved[2], 1)),
    REPLY(CREATE, OK, AT(drp_wire_create_reply, ipc_namespace, UINT32_MAX)),
    REPLY(CREATE, VALUE, AT(drp_wire_create_reply, size, 0)),
    REPLY(CREATE, VALUE, AT(drp_wire_create_reply, size, 1 << 20)),
    REPLY(CREATE, VALUE, AT(drp_wire_create_reply, chunk_shift, 0)),
    REPLY(CREATE, VALUE, AT(drp_wire_create_reply, object_offset, 4096)),
    REPLY(CREATE, VALUE, AT(drp_wire_create_reply, chunk_base, 32)),
    /* ADOPT */
    REQUEST(ADOPT, RESERVED, AT(drp_wire_adopt, reserved[0], 1)),
    REQUEST(ADOPT, RESERVED, AT(drp_wire_adopt, reserved[1], 1)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, size, 0)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, size, (4 << 16) - 1)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, size, (4 << 16) + 4096)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, size, 5 << 16)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, size, 1 << 16)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, object_offset, 4096)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, object_offset, (8 << 16) - 1)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, object_offset, 0)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, object_offset, UINT64_C(0x7ffffffffff0) << 16)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, object_offset, (UINT64_C(1) << 63) - (5 << 16))),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, object_offset, (UINT64_C(1) << 63) - (4 << 16))),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, object_offset, UINT64_MAX - 0xffff)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, chunk_base, 0)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_base, 9)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_base, UINT64_MAX)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_base, UINT64_MAX - 3)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_total, 11)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_total, 0)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, chunk_total, UINT64_C(1) << 34)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_total, (UINT64_C(1) << 34) + 1)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_total, UINT64_MAX)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_shift, 0)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_shift, 11)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_shift, 12)), /* a known shift, but more chunks than the table has */
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_shift, 22)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_shift, 64)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_shift, 255)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, chunk_shift, 12), AT(drp_wire_adopt, chunk_total, 8 + 64)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, chunk_shift, 21), AT(drp_wire_adopt, size, 1 << 21),
            AT(drp_wire_adopt, object_offset, 0)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, chunk_shift, 12), AT(drp_wire_adopt, size, UINT64_C(1) << 46),
            AT(drp_wire_adopt, chunk_base, 0), AT(drp_wire_adopt, chunk_total, UINT64_C(1) << 34)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, chunk_shift, 21),
            AT(drp_wire_adopt, size, (UINT64_C(1) << 46) + (1 << 21)), AT(drp_wire_adopt, object_offset, 0),
            AT(drp_wire_adopt, chunk_total, UINT64_C(1) << 34)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, priority, 0)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, priority, 3)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, priority, 4)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, share, 10000), AT(drp_wire_adopt, budget, UINT64_MAX)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, share, 10001)),
    REQUEST(ADOPT, OK, AT(drp_wire_adopt, budget, 4096)),
    REQUEST(ADOPT, VALUE, AT(drp_wire_adopt, budget, 4095)),
    REPLY(ADOPT, RESERVED, AT(drp_wire_create_reply, reserved[1], 1)),
    REPLY(ADOPT, VALUE, AT(drp_wire_create_reply, ipc_namespace, 1)),
    REPLY(ADOPT, VALUE, AT(drp_wire_create_reply, chunk_total, UINT64_MAX)),
    /* MAP */
    REQUEST(NATIVE, VALUE, AT(drp_wire_native, address, 0)),
    REQUEST(NATIVE, VALUE, AT(drp_wire_native, address, 1)),
    REQUEST(NATIVE, OK, AT(drp_wire_native, address, (UINT64_C(1) << 56) - 8192)),
    REQUEST(NATIVE, VALUE, AT(drp_wire_native, address, (UINT64_C(1) << 56) - 4096)),
    REQUEST(NATIVE, VALUE, AT(drp_wire_native, address, UINT64_MAX - 4095)),
    REQUEST(NATIVE, VALUE, AT(drp_wire_native, length, 0)),
    REQUEST(NATIVE, VALUE, AT(drp_wire_native, length, 4097)),
    REQUEST(NATIVE, OK, AT(drp_wire_native, length, UINT64_C(1) << 46), AT(drp_wire_native, address, 4096)),
    REQUEST(NATIVE, VALUE, AT(drp_wire_native, length, (UINT64_C(1) << 46) + 4096), AT(drp_wire_native, address, 4096)),
    REQUEST(NATIVE, VALUE, AT(drp_wire_native, budget, 4095)),
    REQUEST(NATIVE, OK, AT(drp_wire_native, budget, 4096)),
    REQUEST(NATIVE, OK, AT(drp_wire_native, share, 10000)),
    REQUEST(NATIVE, VALUE, AT(drp_wire_native, share, 10001)),
    REQUEST(NATIVE, OK, AT(drp_wire_native, priority, 3)),
    REQUEST(NATIVE, VALUE, AT(drp_wire_native, priority, 4)),
    REQUEST(NATIVE, RESERVED, AT(drp_wire_native, reserved[2], 1)),
    REQUEST_FDS(NATIVE, DESCRIPTORS, 0, AT(drp_wire_native, share, 1)),
    REQUEST_FDS(NATIVE, DESCRIPTORS, 2, AT(drp_wire_native, share, 1)),
    /* TELL_OPTIONS */
    REQUEST(TELL_OPTIONS, OK, AT(drp_wire_options, options, 0)),
    REQUEST(TELL_OPTIONS, OK, AT(drp_wire_options, options, 0x30)),
    REQUEST(TELL_OPTIONS, VALUE, AT(drp_wire_options, options, 0x18)),
    REQUEST(TELL_OPTIONS, VALUE, AT(drp_wire_options, options, 0x1)),
    REQUEST(TELL_OPTIONS, VALUE, AT(drp_wire_options, options, 0x40)),
    REQUEST(TELL_OPTIONS, VALUE, AT(drp_wire_options, options, UINT64_C(1) << 63)),
    REQUEST(MAP, OK, AT(drp_wire_map, address, 0)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, address, 1)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, address, UINT64_C(0x7f0000000800))),
    REQUEST(MAP, OK, AT(drp_wire_map, address, (UINT64_C(1) << 56) - 8192)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, address, (UINT64_C(1) << 56) - 4096)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, address, UINT64_C(1) << 56)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, address, UINT64_MAX - 4095)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, length, 0)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, length, 4095)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, length, 4097)),
    REQUEST(MAP, OK, AT(drp_wire_map, address, 4096), AT(drp_wire_map, length, (UINT64_C(1) << 56) - 8192)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, address, 4096), AT(drp_wire_map, length, (UINT64_C(1) << 56) - 4096)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, length, UINT64_MAX - 4095)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, offset, 1)),
    REQUEST(MAP, OK, AT(drp_wire_map, offset, UINT64_MAX - 8191)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, offset, UINT64_MAX - 4095)),
    REQUEST(MAP, OK, AT(drp_wire_map, address, 0), AT(drp_wire_map, length, 0)),
    REQUEST(MAP, VALUE, AT(drp_wire_map, address, 0), AT(drp_wire_map, length, 0), AT(drp_wire_map, offset, 4096)),
    REPLY(MAP, RESERVED, AT(drp_wire_map_reply, reserved, 1)),
    REPLY(MAP, OK, AT(drp_wire_map_reply, interception, 1)),
    REPLY(MAP, VALUE, AT(drp_wire_map_reply, interception, 2)),
    /* MAP_PIECES, UNMAP_PIECES */
    REQUEST(MAP_PIECES, RESERVED, AT(drp_wire_pieces, reserved, 1)),
    REQUEST(MAP_PIECES, LONG, AT(drp_wire_pieces, count, 0)),
    REQUEST(MAP_PIECES, LONG, AT(drp_wire_pieces, count, 1)),
    REQUEST(MAP_PIECES, SHORT, AT(drp_wire_pieces, count, 3)),
    REQUEST(MAP_PIECES, SHORT, AT(drp_wire_pieces, count, 169)),
    REQUEST(MAP_PIECES, VALUE, AT(drp_wire_pieces, count, 170)),
    REQUEST(MAP_PIECES, VALUE, AT(drp_wire_pieces, count, UINT32_MAX)),
    REQUEST(MAP_PIECES, VALUE, AT(drp_wire_pieces, pieces[0].address, 1)),
    REQUEST(MAP_PIECES, VALUE, AT(drp_wire_pieces, pieces[1].address, 4095)),
    REQUEST(MAP_PIECES, OK, AT(drp_wire_pieces, pieces[1].address, (UINT64_C(1) << 56) - 8192)),
    REQUEST(MAP_PIECES, VALUE, AT(drp_wire_pieces, pieces[1].address, (UINT64_C(1) << 56) - 4096)),
    REQUEST(MAP_PIECES, VALUE, AT(drp_wire_pieces, pieces[0].address, UINT64_MAX - 4095)),
    REQUEST(MAP_PIECES, VALUE, AT(drp_wire_pieces, pieces[1].length, 0)),
    REQUEST(MAP_PIECES, VALUE, AT(drp_wire_pieces, pieces[1].length, 4097)),
    REQUEST(MAP_PIECES, VALUE, AT(drp_wire_pieces, pieces[0].length, UINT64_MAX - 4095)),
    REQUEST(MAP_PIECES, VALUE, AT(drp_wire_pieces, pieces[1].offset, 1)),
    REQUEST(MAP_PIECES, OK, AT(drp_wire_pieces, pieces[1].offset, UINT64_MAX - 8191)),
    REQUEST(MAP_PIECES, VALUE, AT(drp_wire_pieces, pieces[1].offset, UINT64_MAX - 4095)),
    REQUEST(UNMAP_PIECES, VALUE, AT(drp_wire_pieces, pieces[1].offset, 4096)),
    REQUEST(UNMAP_PIECES, VALUE, AT(drp_wire_pieces, pieces[1].length, 0)),
    REPLY(MAP_PIECES, RESERVED, AT(drp_wire_pieces_reply, reserved, 1)),
    REPLY(MAP_PIECES, OK, AT(drp_wire_pieces_reply, interception, 1)),
    REPLY(MAP_PIECES, VALUE, AT(drp_wire_pieces_reply, interception, 2)),
    /* DROP, POPULATE */
    REQUEST(DROP, OK, AT(drp_wire_range, length, 0)),
    REQUEST(DROP, OK, AT(drp_wire_range, offset, UINT64_MAX - 4096)),
    REQUEST(DROP, VALUE, AT(drp_wire_range, offset, UINT64_MAX - 4095)),
    REQUEST(POPULATE, OK, AT(drp_wire_range, offset, 1), AT(drp_wire_range, length, UINT64_MAX - 1)),
    REQUEST(POPULATE, VALUE, AT(drp_wire_range, offset, 1), AT(drp_wire_range, length, UINT64_MAX)),
    /* CONTROL_DROP */
    REQUEST(CONTROL_DROP, RESERVED, AT(drp_wire_control_drop, reserved, 1)),
    REQUEST(CONTROL_DROP, VALUE, AT(drp_wire_control_drop, scope, 0)),
    REQUEST(CONTROL_DROP, VALUE, AT(drp_wire_control_drop, scope, 4)),
    REQUEST(CONTROL_DROP, VALUE, AT(drp_wire_control_drop, scope, DRP_SCOPE_ALL)),
    REQUEST(CONTROL_DROP, OK, AT(drp_wire_control_drop, scope, DRP_SCOPE_ALL), AT(drp_wire_control_drop, id, 0)),
    REQUEST(CONTROL_DROP, OK, AT(drp_wire_control_drop, scope, DRP_SCOPE_REGION),
            AT(drp_wire_control_drop, id, UINT64_MAX)),
    REQUEST(CONTROL_DROP, VALUE, AT(drp_wire_control_drop, id, 0)),
    REQUEST(CONTROL_DROP, OK, AT(drp_wire_control_drop, id, INT32_MAX)),
    REQUEST(CONTROL_DROP, VALUE, AT(drp_wire_control_drop, id, UINT64_C(1) << 31)),
    REQUEST(CONTROL_DROP, VALUE, AT(drp_wire_control_drop, id, (UINT64_C(1) << 32) + 1)),
    /* LIMIT */
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, scope, 0)),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, scope, 5)),
    REQUEST(LIMIT, OK, AT(drp_wire_limit, scope, DRP_LIMIT_REGION), AT(drp_wire_limit, id, UINT64_MAX)),
    REQUEST(LIMIT, OK, AT(drp_wire_limit, id, INT32_MAX)),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, id, UINT64_C(1) << 31)),
    REQUEST(LIMIT, OK, AT(drp_wire_limit, scope, DRP_LIMIT_USER), AT(drp_wire_limit, id, UINT32_MAX - 1)),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, scope, DRP_LIMIT_USER), AT(drp_wire_limit, id, UINT32_MAX)),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, scope, DRP_LIMIT_CGROUP)), /* without a path */
    REQUEST(LIMIT, OK, AT(drp_wire_limit, scope, DRP_LIMIT_CGROUP), AT(drp_wire_limit, path[0], '/')),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, scope, DRP_LIMIT_CGROUP), AT(drp_wire_limit, path[0], '/'),
            AT(drp_wire_limit, id, 1)),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, scope, DRP_LIMIT_CGROUP), AT(drp_wire_limit, path[0], '/'),
            AT(drp_wire_limit, path[1], 'a'), AT(drp_wire_limit, path[2], '/')),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, path[0], '/')),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, scope, DRP_LIMIT_REGION), AT(drp_wire_limit, path[0], '/')),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, scope, DRP_LIMIT_USER), AT(drp_wire_limit, path[0], '/')),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, mask, 16)),
    REQUEST(LIMIT, OK, AT(drp_wire_limit, mask, 15)),
    REQUEST(LIMIT, OK, AT(drp_wire_limit, mask, 1), AT(drp_wire_limit, values.budget, UINT64_MAX)),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, mask, 14), AT(drp_wire_limit, values.budget, 1)),
    REQUEST(LIMIT, OK, AT(drp_wire_limit, mask, 2), AT(drp_wire_limit, values.quota, 1)),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, mask, 13), AT(drp_wire_limit, values.quota, 1)),
    REQUEST(LIMIT, OK, AT(drp_wire_limit, mask, 4), AT(drp_wire_limit, values.share, 10000)),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, mask, 4), AT(drp_wire_limit, values.share, 10001)),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, mask, 11), AT(drp_wire_limit, values.share, 1)),
    REQUEST(LIMIT, OK, AT(drp_wire_limit, mask, 8), AT(drp_wire_limit, values.priority, 3)),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, mask, 8), AT(drp_wire_limit, values.priority, 4)),
    REQUEST(LIMIT, VALUE, AT(drp_wire_limit, mask, 7), AT(drp_wire_limit, values.priority, 1)),
    REPLY(LIMIT, RESERVED, AT(drp_wire_limit_reply, reserved, 1)),
    REPLY(LIMIT, VALUE, AT(drp_wire_limit_reply, mask, 16)),
    REPLY(LIMIT, OK, AT(drp_wire_limit_reply, effective.share, 10000)),
    REPLY(LIMIT, VALUE, AT(drp_wire_limit_reply, effective.share, 10001)),
    REPLY(LIMIT, VALUE, AT(drp_wire_limit_reply, effective.priority, 4)),
    REPLY(LIMIT, VALUE, AT(drp_wire_limit_reply, mask, 14), AT(drp_wire_limit_reply, effective.budget, 1)),
    /* FREE */
    REQUEST(FREE, VALUE, AT(drp_wire_free, wanted, 0)),
    REQUEST(FREE, OK, AT(drp_wire_free, wanted, UINT64_MAX)),
    REQUEST(FREE, OK, AT(drp_wire_free, path[0], '/')),
    REQUEST(FREE, VALUE, AT(drp_wire_free, path[0], '/'), AT(drp_wire_free, path[1], '/')),
    /* WHY */
    REQUEST(WHY, OK, AT(drp_wire_list, cursor, UINT64_MAX)),
    REPLY(WHY, RESERVED, AT(drp_wire_why_reply, reserved, 1)),
    REPLY(WHY, LONG, AT(drp_wire_why_reply, count, 1)),
    REPLY(WHY, SHORT, AT(drp_wire_why_reply, count, 3)),
    REPLY(WHY, SHORT, AT(drp_wire_why_reply, count, 5)),
    REPLY(WHY, VALUE, AT(drp_wire_why_reply, count, 6)),
    REPLY(WHY, VALUE, AT(drp_wire_why_reply, count, UINT32_MAX)),
    REPLY(WHY, VALUE, AT(drp_wire_why_reply, entries[1].number, 0)),
    REPLY(WHY, OK, AT(drp_wire_why_reply, entries[1].n_victims, 6)),
    REPLY(WHY, VALUE, AT(drp_wire_why_reply, entries[1].n_victims, 7)),
    REPLY(WHY, VALUE, AT(drp_wire_why_reply, entries[1].source, 0)),
    REPLY(WHY, OK, AT(drp_wire_why_reply, entries[1].source, 10)),
    REPLY(WHY, VALUE, AT(drp_wire_why_reply, entries[1].source, 11)),
    REPLY(WHY, VALUE, AT(drp_wire_why_reply, entries[0].urgency, 0)),
    REPLY(WHY, OK, AT(drp_wire_why_reply, entries[0].urgency, 3)),
    REPLY(WHY, VALUE, AT(drp_wire_why_reply, entries[0].urgency, 4)),
    REPLY(WHY, OK, AT(drp_wire_why_reply, entries[2].source, 77)), /* not sent */
    REPLY(WHY, VALUE, AT(drp_wire_why_reply, entries[1].budget_scope, 1)), /* of a source that is no budget */
    REPLY(WHY, OK, AT(drp_wire_why_reply, entries[1].budget_scope, 5), AT(drp_wire_why_reply, entries[1].source, 9)),
    REPLY(WHY, OK, AT(drp_wire_why_reply, entries[1].budget_scope, 0), AT(drp_wire_why_reply, entries[1].source, 9)),
    REPLY(WHY, VALUE, AT(drp_wire_why_reply, entries[1].budget_scope, 6), AT(drp_wire_why_reply, entries[1].source, 9)),
    REPLY(WHY, VALUE, AT(drp_wire_why_reply, entries[1].reserved, 1)),
    /* LIST */
    REQUEST(LIST, OK, AT(drp_wire_list, cursor, UINT64_MAX)),
    REPLY(LIST, RESERVED, AT(drp_wire_list_reply, reserved, 1)),
    REPLY(LIST, LONG, AT(drp_wire_list_reply, count, 1)),
    REPLY(LIST, SHORT, AT(drp_wire_list_reply, count, 3)),
    REPLY(LIST, SHORT, AT(drp_wire_list_reply, count, 14)),
    REPLY(LIST, VALUE, AT(drp_wire_list_reply, count, 15)),
    REPLY(LIST, VALUE, AT(drp_wire_list_reply, count, UINT32_MAX)),
    REPLY(LIST, VALUE, AT(drp_wire_list_reply, entries[0].kind, 0)),
    REPLY(LIST, OK, AT(drp_wire_list_reply, entries[0].kind, 3)),
    REPLY(LIST, VALUE, AT(drp_wire_list_reply, entries[1].kind, 4)),
    REPLY(LIST, OK, AT(drp_wire_list_reply, entries[1].interception, 1)),
    REPLY(LIST, VALUE, AT(drp_wire_list_reply, entries[1].interception, 2)),
    REPLY(LIST, OK, AT(drp_wire_list_reply, entries[2].kind, 77)), /* not sent */
};
/* clang-format on */

#endif
