/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_PROTOCOL_CODEC_H
#define DROPPABLE_PROTOCOL_CODEC_H

/* Pure validation of messages: no system call, no allocation. Nothing that these reject reaches a handler. */

#include "wire.h"

#include <stdbool.h>
#include <stddef.h>

enum codec_verdict {
    CODEC_OK = 0,
    CODEC_SHORT,       /* shorter than a header, or than its type's size */
    CODEC_LONG,        /* longer than its type's size */
    CODEC_TYPE,        /* unknown type, or a reply where a request belongs and the other way round */
    CODEC_RESERVED,    /* a reserved field is not zero */
    CODEC_DESCRIPTORS, /* not as many descriptors as the message takes */
    CODEC_VALUE,       /* a field is out of its range */
    CODEC_VERDICT_MAX,
};

/* Text for a verdict, for logs ("message too short"). */
const char *codec_verdict_name(enum codec_verdict verdict);
/* "quota", "not-found", ...; "unknown-error" for what is none. */
const char *codec_error_name(uint32_t error);
/* Negative errno for a wire error, as the library returns it: QUOTA -> -EDQUOT, ... */
int codec_error_errno(uint32_t error);
/* "hello", "create", ...; "unknown" */
const char *codec_type_name(uint16_t type);

/*
 * Checks a request of size bytes that came with n_fds descriptors. message is aligned and has room for DRP_WIRE_MAX_SIZE.
 * On CODEC_OK every field that can be judged without state is in its range: reserved fields zero, magic right, version_min <=
 * version_max, error == 0, chunk_shift 0 or 12..21, priority 0..3, share 0..10000, address/length/offset page-aligned and without overflow (MAP, MAP_PIECES),
 * offset + length without overflow (DROP, POPULATE), scope and mask known, what no mask names 0, paths absolute, strings terminated.
 */
enum codec_verdict codec_check_request(const union drp_wire_message *message, size_t size, size_t n_fds);

/* Checks a reply to a request of the given type; a reply with error != 0 is a header alone without descriptors. */
enum codec_verdict codec_check_reply(const union drp_wire_message *message, size_t size, size_t n_fds,
                                     uint16_t request_type);

/* Is it a path of a cgroup as the kernel writes it? "/", or "/a/b": no empty name, no "." and no "..". */
bool codec_is_cgroup_path(const char *path);

/* May a shared region be called so? Short enough, of 0x21..0x7e without '/'; empty: it has no name. */
bool codec_is_shared_name(const char *name);
/* Who may open it by name: reading and writing go together. */
bool codec_is_shared_mode(uint32_t mode);

/* Bytes of a request type, the least for lists; 0 for an unknown type. */
size_t codec_request_size(uint16_t type);

#endif
