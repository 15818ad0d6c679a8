/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_UNIT_TEST_CODEC_SAMPLES_H
#define DROPPABLE_TESTS_UNIT_TEST_CODEC_SAMPLES_H

/* A valid message of each type, for test-codec.c. */

#include "codec.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct sample {
    union drp_wire_message message;
    size_t size;
    size_t n_fds;
};

static void sample_native(struct sample *sample) {
    sample->message.native =
        (struct drp_wire_native){sample->message.header, UINT64_C(0x7f0000000000), 4096, 0, 0, 0, {0}};
    sample->n_fds = 1;
}

static void sample_pieces(struct sample *sample) {
    struct drp_wire_pieces *m = &sample->message.pieces;

    m->mapping = 7;
    m->count = 2;
    for (size_t i = 0; i < 2; i++)
        m->pieces[i] = (struct drp_wire_piece){UINT64_C(0x7f0000000000) + i * 8192, 4096, 0};
    sample->size += 2 * sizeof(m->pieces[0]);
}

static void sample_hello(struct drp_wire_hello *m) {
    m->magic = DRP_WIRE_MAGIC;
    m->version_min = m->version_max = DRP_WIRE_VERSION;
    m->features = UINT64_MAX;
    strcpy(m->name, "test");
}

static void sample_shared(union drp_wire_message *m, uint16_t type) {
    if (type == DRP_WIRE_OPEN) {
        m->open.uid = 1000;
        strcpy(m->open.name, "cache");
        return;
    }
    m->create_shared.create.size = 1;
    m->create_shared.mode = 0660;
    strcpy(m->create_shared.name, "cache");
}

static void sample_request(struct sample *sample, uint16_t type) {
    union drp_wire_message *m = &sample->message;

    memset(sample, 0, sizeof(*sample));
    m->header.type = type;
    m->header.serial = 0xfeedbeef;
    sample->size = codec_request_size(type);
    switch (type) {
    case DRP_WIRE_HELLO:
        sample_hello(&m->hello);
        break;
    case DRP_WIRE_UFFD:
        sample->n_fds = 1;
        break;
    case DRP_WIRE_CREATE:
        m->create.size = 1;
        m->create.required = m->create.preferred = UINT64_MAX;
        break;
    case DRP_WIRE_CREATE_SHARED:
    case DRP_WIRE_OPEN:
        sample_shared(m, type);
        break;
    case DRP_WIRE_ADOPT:
        m->adopt.size = 4 << 16;
        m->adopt.object_offset = 8 << 16;
        m->adopt.chunk_base = 8;
        m->adopt.chunk_total = 12;
        m->adopt.granted = UINT64_MAX;
        m->adopt.chunk_shift = 16;
        m->adopt.priority = 2;
        sample->n_fds = 2;
        break;
    case DRP_WIRE_MAP:
        m->map = (struct drp_wire_map){m->header, 7, UINT64_C(0x7f0000000000), 4096, 0};
        break;
    case DRP_WIRE_MAP_PIECES:
    case DRP_WIRE_UNMAP_PIECES:
        sample_pieces(sample);
        break;
    case DRP_WIRE_NATIVE:
        sample_native(sample);
        break;
    case DRP_WIRE_DROP:
    case DRP_WIRE_POPULATE:
        m->range.length = 4096;
        break;
    case DRP_WIRE_CONTROL_DROP:
        m->control_drop.scope = DRP_SCOPE_PID;
        m->control_drop.id = 1;
        break;
    case DRP_WIRE_LIMIT:
        m->limit.scope = DRP_LIMIT_CLIENT;
        break;
    case DRP_WIRE_FREE:
        m->free.wanted = 1;
        break;
    default:
        break;
    }
}

/* Of what is more than a header; lists with two entries. Requests likewise. */
static const size_t reply_sizes[DRP_WIRE_TYPE_MAX + 1] = {
    [DRP_WIRE_HELLO] = sizeof(struct drp_wire_hello_reply),
    [DRP_WIRE_UFFD] = sizeof(struct drp_wire_uffd_reply),
    [DRP_WIRE_CREATE] = sizeof(struct drp_wire_create_reply),
    [DRP_WIRE_ADOPT] = sizeof(struct drp_wire_create_reply),
    [DRP_WIRE_CREATE_SHARED] = sizeof(struct drp_wire_create_reply),
    [DRP_WIRE_OPEN] = sizeof(struct drp_wire_create_reply),
    [DRP_WIRE_MAP] = sizeof(struct drp_wire_map_reply),
    [DRP_WIRE_DROP] = sizeof(struct drp_wire_drop_reply),
    [DRP_WIRE_POPULATE] = sizeof(struct drp_wire_populate_reply),
    [DRP_WIRE_STATS] = sizeof(struct drp_wire_stats_reply),
    [DRP_WIRE_STATUS] = sizeof(struct drp_wire_status_reply),
    [DRP_WIRE_LIST] = offsetof(struct drp_wire_list_reply, entries) + 2 * sizeof(struct drp_wire_entry),
    [DRP_WIRE_CONTROL_DROP] = sizeof(struct drp_wire_drop_reply),
    [DRP_WIRE_LIMIT] = sizeof(struct drp_wire_limit_reply),
    [DRP_WIRE_FREE] = sizeof(struct drp_wire_drop_reply),
    [DRP_WIRE_WHY] = offsetof(struct drp_wire_why_reply, entries) + 2 * sizeof(struct drp_wire_decision),
    [DRP_WIRE_HISTOGRAMS] = sizeof(struct drp_wire_histograms_reply),
    [DRP_WIRE_MAP_PIECES] = sizeof(struct drp_wire_pieces_reply),
    [DRP_WIRE_NATIVE] = sizeof(struct drp_wire_id),
};

static void sample_reply(struct sample *sample, uint16_t request_type) {
    union drp_wire_message *m = &sample->message;

    memset(sample, 0, sizeof(*sample));
    m->header.type = request_type | DRP_WIRE_REPLY;
    m->header.serial = 0xfeedbeef;
    sample->size = reply_sizes[request_type] ? reply_sizes[request_type] : sizeof(m->header);
    switch (request_type) {
    case DRP_WIRE_WATCH:
        sample->n_fds = 1;
        break;
    case DRP_WIRE_HELLO:
        sample->n_fds = 1;
        m->hello_reply.version = DRP_WIRE_VERSION;
        m->hello_reply.features = DRP_FEATURES_KNOWN;
        break;
    case DRP_WIRE_UFFD:
        m->uffd_reply.interception = DRP_WIRE_INTERCEPTION_FULL;
        break;
    case DRP_WIRE_CREATE:
    case DRP_WIRE_CREATE_SHARED:
    case DRP_WIRE_OPEN:
    case DRP_WIRE_ADOPT:
        sample->n_fds = request_type == DRP_WIRE_ADOPT ? 1 : 2;
        m->create_reply.size = 1 << 21;
        m->create_reply.chunk_base = 31;
        m->create_reply.chunk_total = 32;
        m->create_reply.chunk_shift = 21;
        break;
    case DRP_WIRE_MAP:
        sample->n_fds = 1;
        break;
    case DRP_WIRE_LIST:
        m->list_reply.count = 2;
        m->list_reply.entries[0].kind = DRP_ENTRY_SESSION;
        m->list_reply.entries[1].kind = DRP_ENTRY_DOMAIN;
        break;
    case DRP_WIRE_LIMIT:
        m->limit_reply.mask = 15;
        break;
    case DRP_WIRE_WHY:
        m->why_reply.count = 2;
        for (size_t i = 0; i < 2; i++)
            m->why_reply.entries[i].number = m->why_reply.entries[i].source = m->why_reply.entries[i].urgency = 1;
        break;
    default:
        break;
    }
}

static void sample_make(struct sample *sample, uint16_t type, bool reply) {
    if (reply)
        sample_reply(sample, type);
    else
        sample_request(sample, type);
}

#endif
