/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the codec: the first byte is the number of descriptors, the rest is the message. It is judged as a request and
 * as the reply to every type; what is accepted must have the properties that PROTOCOL.md promises to handlers, computed
 * here another way than in codec.c. The bytes behind the message differ between two runs, so that a verdict that
 * depends on them shows.
 */

#include "codec.h"
#include "fuzz.h"
#include "pages.h"

#include <stdbool.h>
#include <string.h>

static unsigned __int128 sum(uint64_t a, uint64_t b) {
    return (unsigned __int128)a + b;
}

static void require_layout(uint64_t size, uint64_t offset, uint64_t base, uint64_t total, unsigned shift) {
    uint64_t chunk;

    REQUIRE(shift >= 12 && shift <= 21);
    chunk = UINT64_C(1) << shift;
    REQUIRE(size >= chunk && size <= UINT64_C(1) << 46);
    REQUIRE(size % chunk == 0 && offset % chunk == 0);
    REQUIRE(sum(offset, size) <= INT64_MAX);
    REQUIRE(total <= UINT64_C(1) << 34);
    REQUIRE(sum(base, size / chunk) <= total);
    REQUIRE(drp_state_bytes(total) >= DRP_PAGES_ARRAY_OFFSET + total * sizeof(uint32_t));
    REQUIRE(drp_pin_bytes(total) >= DRP_PAGES_ARRAY_OFFSET + total * sizeof(struct drp_pin_cell));
    REQUIRE(drp_pin_bytes(total) < UINT64_C(1) << 38);
}

static void require_limits(const struct drp_wire_limits *m, uint32_t mask) {
    REQUIRE(mask < 16 && m->share <= 10000 && m->priority <= 3);
    REQUIRE((mask & DRP_LIMIT_BUDGET) != 0 || m->budget == 0);
    REQUIRE((mask & DRP_LIMIT_QUOTA) != 0 || m->quota == 0);
    REQUIRE((mask & DRP_LIMIT_SHARE) != 0 || m->share == 0);
    REQUIRE((mask & DRP_LIMIT_PRIORITY) != 0 || m->priority == 0);
}

static void require_limit(const struct drp_wire_limit *m) {
    bool cgroup = m->scope == DRP_LIMIT_CGROUP;

    REQUIRE(m->scope >= DRP_LIMIT_REGION && m->scope <= DRP_LIMIT_CGROUP);
    REQUIRE(m->path[0] == (cgroup ? '/' : '\0') && memchr(m->path, 0, sizeof(m->path)));
    REQUIRE(!cgroup || m->id == 0);
    REQUIRE(m->scope != DRP_LIMIT_CLIENT || m->id <= INT32_MAX);
    REQUIRE(m->scope != DRP_LIMIT_USER || m->id < UINT32_MAX);
    require_limits(&m->values, m->mask);
}

static void require_why_reply(const struct drp_wire_why_reply *m, const char *end) {
    REQUIRE(m->count <= DRP_WIRE_WHY_MAX && (const char *)&m->entries[m->count] == end);
    for (uint32_t i = 0; i < m->count; i++) {
        REQUIRE(memchr(m->entries[i].path, 0, sizeof(m->entries[i].path)));
        REQUIRE(m->entries[i].n_victims <= DRP_WIRE_VICTIMS_MAX);
        REQUIRE(m->entries[i].number > 0 && m->entries[i].source - 1 < 10 && m->entries[i].urgency - 1 < 3);
        REQUIRE(m->entries[i].budget_scope < 6 && m->entries[i].reserved == 0);
        REQUIRE(m->entries[i].budget_scope == 0 || m->entries[i].source == 9);
        for (size_t k = 0; k < DRP_WIRE_VICTIMS_MAX; k++)
            REQUIRE(memchr(m->entries[i].victims[k].name, 0, sizeof(m->entries[i].victims[k].name)));
    }
}

static void require_pieces(const struct drp_wire_pieces *m, const char *end) {
    REQUIRE(m->count > 0 && m->count <= DRP_WIRE_PIECES_MAX && (const char *)&m->pieces[m->count] == end);
    for (uint32_t i = 0; i < m->count; i++) {
        const struct drp_wire_piece *piece = &m->pieces[i];

        REQUIRE((piece->address | piece->length | piece->offset) % 4096 == 0 && piece->length > 0);
        REQUIRE(sum(piece->address, piece->length) < (unsigned __int128)1 << 56);
        REQUIRE(sum(piece->offset, piece->length) <= UINT64_MAX);
    }
}

static size_t request_descriptors(uint16_t type) {
    switch (type) {
    case DRP_WIRE_ADOPT:
    case DRP_WIRE_MAP:
        return 2;
    case DRP_WIRE_UFFD:
    case DRP_WIRE_OPEN:
    case DRP_WIRE_NATIVE:
        return 1;
    default:
        return 0;
    }
}

static void require_create(const struct drp_wire_create *m) {
    REQUIRE(m->size >= 1 && m->size <= UINT64_C(1) << 46 && m->priority <= 3);
    REQUIRE(m->share <= 10000 && (m->budget == 0 || m->budget >= 4096));
    REQUIRE(m->chunk_shift == 0 || (m->chunk_shift >= 12 && m->chunk_shift <= 21));
}

/* A word, ended, and with nothing hidden behind its end. */
static void require_shared_name(const char *name, size_t size) {
    size_t length = strnlen(name, size);

    REQUIRE(length < size && !strchr(name, '/'));
    for (size_t i = 0; i < size; i++)
        REQUIRE(i < length ? name[i] > 0x20 && name[i] < 0x7f : name[i] == '\0');
}

static void require_create_shared(const struct drp_wire_create_shared *m) {
    require_create(&m->create);
    require_shared_name(m->name, sizeof(m->name));
    REQUIRE(m->mode <= 0666 && (m->mode & 0111) == 0);
}

static void require_hello(const struct drp_wire_hello *m) {
    REQUIRE(m->magic == DRP_WIRE_MAGIC && m->version_min <= m->version_max);
    REQUIRE(strnlen(m->name, sizeof(m->name)) < sizeof(m->name));
}

static void require_open(const struct drp_wire_open *m, size_t n_fds) {
    require_shared_name(m->name, sizeof(m->name));
    REQUIRE((n_fds == 1) == (m->name[0] == '\0') && (n_fds == 0 || m->uid == 0));
}

static void require_free(const struct drp_wire_free *m) {
    REQUIRE(m->wanted > 0 && memchr(m->path, 0, sizeof(m->path)));
    REQUIRE(m->path[0] == '\0' || m->path[0] == '/');
}

static void require_map(const struct drp_wire_map *m) {
    REQUIRE(m->address % 4096 == 0 && m->length % 4096 == 0 && m->offset % 4096 == 0);
    REQUIRE(m->length > 0 || (m->address == 0 && m->offset == 0));
    REQUIRE(sum(m->address, m->length) < (unsigned __int128)1 << 56);
    REQUIRE(sum(m->offset, m->length) <= UINT64_MAX);
}

static void require_native(const struct drp_wire_native *m) {
    REQUIRE(m->address > 0 && (m->address | m->length) % 4096 == 0 && m->length > 0);
    REQUIRE(m->length <= UINT64_C(1) << 46 && sum(m->address, m->length) < (unsigned __int128)1 << 56);
    REQUIRE(m->share <= 10000 && m->priority <= 3 && (m->budget == 0 || m->budget >= 4096));
}

static void require_control_drop(const struct drp_wire_control_drop *m) {
    REQUIRE(m->scope >= DRP_SCOPE_ALL && m->scope <= DRP_SCOPE_PID);
    REQUIRE(m->scope != DRP_SCOPE_ALL || m->id == 0);
    REQUIRE(m->scope != DRP_SCOPE_PID || (m->id - 1) < INT32_MAX);
}

static void require_request(const union drp_wire_message *m, size_t size, size_t n_fds) {
    uint16_t type = m->header.type;

    REQUIRE(type >= 1 && type <= DRP_WIRE_TYPE_MAX);
    REQUIRE(size >= codec_request_size(type) && size >= sizeof(m->header) && size <= DRP_WIRE_MAX_SIZE);
    REQUIRE(size == codec_request_size(type) || type == DRP_WIRE_MAP_PIECES || type == DRP_WIRE_UNMAP_PIECES);
    REQUIRE(m->header.reserved == 0 && m->header.reserved2 == 0 && m->header.error == 0);
    REQUIRE(n_fds <= request_descriptors(type));
    switch (type) {
    case DRP_WIRE_HELLO:
        require_hello(&m->hello);
        break;
    case DRP_WIRE_UFFD:
        REQUIRE((n_fds == 1) == (m->uffd.reason == 0) && m->uffd.reason < 4096);
        break;
    case DRP_WIRE_CREATE:
        require_create(&m->create);
        break;
    case DRP_WIRE_CREATE_SHARED:
        require_create_shared(&m->create_shared);
        break;
    case DRP_WIRE_OPEN:
        require_open(&m->open, n_fds);
        break;
    case DRP_WIRE_ADOPT:
        REQUIRE(n_fds == 2 && m->adopt.priority <= 3 && m->adopt.share <= 10000);
        REQUIRE(m->adopt.budget == 0 || m->adopt.budget >= 4096);
        require_layout(m->adopt.size, m->adopt.object_offset, m->adopt.chunk_base, m->adopt.chunk_total,
                       m->adopt.chunk_shift);
        break;
    case DRP_WIRE_MAP:
        require_map(&m->map);
        break;
    case DRP_WIRE_NATIVE:
        require_native(&m->native);
        break;
    case DRP_WIRE_TELL_OPTIONS:
        REQUIRE((m->options.options & ~UINT64_C(0x38)) == 0 && (m->options.options & 0x18) != 0x18);
        break;
    case DRP_WIRE_MAP_PIECES:
    case DRP_WIRE_UNMAP_PIECES:
        require_pieces(&m->pieces, m->bytes + size);
        break;
    case DRP_WIRE_DROP:
    case DRP_WIRE_POPULATE:
        REQUIRE(sum(m->range.offset, m->range.length) <= UINT64_MAX);
        break;
    case DRP_WIRE_CONTROL_DROP:
        require_control_drop(&m->control_drop);
        break;
    case DRP_WIRE_LIMIT:
        require_limit(&m->limit);
        break;
    case DRP_WIRE_FREE:
        require_free(&m->free);
        break;
    default:
        break;
    }
}

static void require_reply(const union drp_wire_message *m, size_t size, size_t n_fds, uint16_t type) {
    REQUIRE(m->header.type == type + DRP_WIRE_REPLY && m->header.reserved == 0 && m->header.reserved2 == 0);
    REQUIRE(size >= sizeof(m->header) && size <= DRP_WIRE_MAX_SIZE && n_fds <= DRP_WIRE_MAX_FDS);
    if (m->header.error != 0) {
        REQUIRE(size == sizeof(m->header) && n_fds == 0 && m->header.error <= DRP_WIRE_ERROR_MAX);
        REQUIRE(strcmp(codec_error_name(m->header.error), "unknown-error") != 0);
        REQUIRE(codec_error_errno(m->header.error) < 0);
        return;
    }
    switch (type) {
    case DRP_WIRE_HELLO:
        REQUIRE(m->hello_reply.flags <= DRP_HELLO_LENT_UFFD && n_fds == 1 + m->hello_reply.flags);
        REQUIRE(m->hello_reply.version == DRP_WIRE_VERSION);
        break;
    case DRP_WIRE_CREATE:
    case DRP_WIRE_ADOPT:
    case DRP_WIRE_CREATE_SHARED:
    case DRP_WIRE_OPEN:
        REQUIRE(n_fds == (type == DRP_WIRE_ADOPT ? 1u : 2u));
        require_layout(m->create_reply.size, m->create_reply.object_offset, m->create_reply.chunk_base,
                       m->create_reply.chunk_total, m->create_reply.chunk_shift);
        break;
    case DRP_WIRE_STATUS:
        REQUIRE(memchr(m->status_reply.version, 0, sizeof(m->status_reply.version)));
        REQUIRE(memchr(m->status_reply.notes, 0, sizeof(m->status_reply.notes)));
        break;
    case DRP_WIRE_LIST:
        REQUIRE(m->list_reply.count <= DRP_WIRE_LIST_MAX);
        REQUIRE((const char *)&m->list_reply.entries[m->list_reply.count] == m->bytes + size);
        for (uint32_t i = 0; i < m->list_reply.count; i++)
            REQUIRE(memchr(m->list_reply.entries[i].name, 0, sizeof(m->list_reply.entries[i].name)));
        break;
    case DRP_WIRE_WHY:
        require_why_reply(&m->why_reply, m->bytes + size);
        break;
    case DRP_WIRE_LIMIT:
        require_limits(&m->limit_reply.effective, m->limit_reply.mask);
        break;
    default:
        REQUIRE(n_fds <= (type == DRP_WIRE_MAP ? 2u : type == DRP_WIRE_WATCH ? 1u : 0u));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static union drp_wire_message message, other;
    enum codec_verdict verdict;
    size_t n_fds;

    /* channel_receive() lets neither a longer message nor an empty one through. */
    if (size < 2 || size - 1 > DRP_WIRE_MAX_SIZE)
        return 0;
    n_fds = *data++;
    size--;
    memset(&message, 0x00, sizeof(message));
    memset(&other, 0xa5, sizeof(other));
    memcpy(&message, data, size);
    memcpy(&other, data, size);

    verdict = codec_check_request(&message, size, n_fds);
    REQUIRE(verdict == codec_check_request(&other, size, n_fds));
    REQUIRE(codec_verdict_name(verdict));
    if (verdict == CODEC_OK)
        require_request(&message, size, n_fds);
    for (uint16_t type = 0; type <= DRP_WIRE_TYPE_MAX + 1; type++) {
        verdict = codec_check_reply(&message, size, n_fds, type);
        REQUIRE(verdict == codec_check_reply(&other, size, n_fds, type));
        if (verdict == CODEC_OK)
            require_reply(&message, size, n_fds, type);
    }
    return 0;
}
