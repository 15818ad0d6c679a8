/* SPDX-License-Identifier: MIT */
/*
 * What can be done with a connection alone: messages in any order and state, too many of them, too few, costly ones, and hanging up.
 */

#include "attack.h"
#include "child.h"
#include "codec.h"
#include "raw.h"

#include <droppable/droppable.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* ---- any message in any state ---- */

#define POOL 8
#define NUMBERS 16
#define USERFAULTFDS 256

static struct {
    int socket;
    int userfaultfds[USERFAULTFDS]; /* made as root, which is not what it then is */
    unsigned next;
    uint64_t numbers[NUMBERS]; /* that the service gave, and others */
    int fds[POOL];
    char *memory;
} fuzz;

static uint64_t fuzz_number(void) {
    static const uint64_t special[] = {
        0,        1,        2,        4095,       4096,       65536,     MIB,
        2 * MIB,  16 * MIB, 1u << 31, UINT32_MAX, UINT64_MAX, INT64_MAX, UINT64_C(1) << 46,
        ~4095ull, 12};

    switch (attack_random(4)) {
    case 0:
        return special[attack_random(sizeof(special) / sizeof(special[0]))];
    case 1:
        return (uintptr_t)fuzz.memory + attack_random(1024) * 4096;
    default:
        return fuzz.numbers[attack_random(NUMBERS)];
    }
}

/* What the codec lets pass, mostly, so that what comes behind it is met too. */
static size_t fuzz_message(union drp_wire_message *message, uint16_t type) {
    uint64_t *words = (uint64_t *)message;
    size_t size = codec_request_size(type);

    memset(message, 0, sizeof(*message));
    for (size_t i = 2; i < size / sizeof(*words) && i < 8; i++)
        words[i] = fuzz_number();
    message->header.type = type;
    if (type == DRP_WIRE_HELLO)
        message->hello = (struct drp_wire_hello){.header = message->header,
                                                 .magic = DRP_WIRE_MAGIC,
                                                 .version_min = 1,
                                                 .version_max = (uint16_t)attack_random(3),
                                                 .features = fuzz_number()};
    else if (type == DRP_WIRE_CREATE || type == DRP_WIRE_CREATE_SHARED) {
        message->create = (struct drp_wire_create){.header = message->header,
                                                   .size = fuzz_number() & (16 * MIB - 1),
                                                   .required = type == DRP_WIRE_CREATE ? 0 : DRP_REGION_SHARED,
                                                   .preferred = fuzz_number(),
                                                   .chunk_shift = (uint8_t)attack_random(24)};
        message->create_shared.name[0] = (char)attack_random(2) ? 'f' : '\0';
        message->create_shared.mode = message->create_shared.name[0] ? 0666 : 0;
    } else if (type == DRP_WIRE_MAP_PIECES || type == DRP_WIRE_UNMAP_PIECES) {
        message->pieces.count = 1 + (uint32_t)attack_random(2);
        message->pieces.reserved = 0;
        size = offsetof(struct drp_wire_pieces, pieces) + message->pieces.count * sizeof(message->pieces.pieces[0]);
    } else if (type == DRP_WIRE_LIMIT || type == DRP_WIRE_FREE)
        message->limit.path[0] = '\0';
    if (attack_random(32) == 0)
        message->bytes[attack_random(64)] ^= (char)(1 << attack_random(8));
    if (attack_random(64) == 0)
        size = 1 + attack_random(DRP_WIRE_MAX_SIZE);
    return size;
}

static size_t fuzz_fds(uint16_t type, int *fds) {
    size_t n = type == DRP_WIRE_ADOPT                                                      ? 2
               : type == DRP_WIRE_UFFD || type == DRP_WIRE_OPEN || type == DRP_WIRE_NATIVE ? 1
                                                                                           : 0;

    if (attack_random(64) == 0 || (type == DRP_WIRE_MAP && attack_random(8) == 0))
        n = attack_random(DRP_WIRE_MAX_FDS + 1);
    for (size_t i = 0; i < n; i++)
        fds[i] = fuzz.fds[attack_random(POOL)];
    return n;
}

/* Keeps what comes: numbers and descriptors are used in later messages. */
static void fuzz_keep(void) {
    struct channel_packet packet;

    while (channel_receive(fuzz.socket, &packet, MSG_DONTWAIT) == CHANNEL_OK) {
        if (packet.message.header.error == DRP_WIRE_OK && packet.size >= 24)
            fuzz.numbers[attack_random(NUMBERS)] = packet.message.id.id;
        for (size_t i = 0; i < packet.n_fds; i++) {
            size_t place = 2 + attack_random(POOL - 2);

            close(fuzz.fds[place]);
            fuzz.fds[place] = channel_packet_take(&packet, i);
        }
    }
}

static void fuzz_connect(void) {
    close(fuzz.socket);
    fuzz.fds[0] = fuzz.userfaultfds[fuzz.next++ % USERFAULTFDS];
    fuzz.socket = attack_random(8) == 0 ? raw_connect() : raw_hello("fuzz");
}

static void run_fuzz(void) {
    for (size_t i = 0; i < USERFAULTFDS; i++)
        fuzz.userfaultfds[i] = raw_userfaultfd();
    child_become_nobody(); /* root may drop what is others' */
    fuzz.memory = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 1; i < POOL; i++) {
        fuzz.fds[i] = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        child_check(ftruncate(fuzz.fds[i], (off_t)MIB) == 0 && fcntl(fuzz.fds[i], F_ADD_SEALS, SEALS) == 0);
    }
    close(fuzz.fds[1]);
    fuzz.fds[1] = open("/dev/null", O_RDWR | O_CLOEXEC);
    fuzz.socket = -1;
    fuzz_connect();
    attack_begun();
    for (;;) {
        attack_did();
        uint16_t type = (uint16_t)(attack_random(64) == 0 ? attack_random(65536) : 1 + attack_random(DRP_WIRE_TYPE_MAX));
        struct pollfd readable = {.fd = fuzz.socket, .events = POLLIN};
        union drp_wire_message message;
        int fds[DRP_WIRE_MAX_FDS], r;
        size_t size;

        if (type == DRP_WIRE_HELLO && attack_random(16) != 0)
            continue; /* it ends the connection */
        size = fuzz_message(&message, type);
        r = channel_send(fuzz.socket, &message, size, fds, fuzz_fds(type, fds), MSG_DONTWAIT);
        if (r == CHANNEL_OK && attack_random(4) != 0)
            (void)poll(&readable, 1, 20);
        fuzz_keep();
        if (r == CHANNEL_CLOSED || (readable.revents & POLLHUP))
            fuzz_connect();
    }
}

/* ---- too many ---- */

/* Requests, and no reply is read. */
static void run_flood(void) {
    struct drp_wire_header status = {.type = DRP_WIRE_STATUS};
    int connection = raw_hello("flood");

    attack_begun();
    for (;;) {
        attack_did();
        struct pollfd writable = {.fd = connection, .events = POLLOUT};

        if (send(connection, &status, sizeof(status), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            (void)poll(&writable, 1, 10);
    }
}

/* All that cost the loop something for each region, session or decision, as fast as the replies come. */
static void run_costly(void) {
    static const uint16_t types[] = {DRP_WIRE_LIST, DRP_WIRE_WHY, DRP_WIRE_HISTOGRAMS, DRP_WIRE_STATUS, DRP_WIRE_STATS};
    int connection = raw_hello("costly");

    for (int i = 0; i < 100; i++) {
        struct drp_wire_create create = {.header.type = DRP_WIRE_CREATE, .size = MIB};

        child_check(raw_call(connection, &create, sizeof(create), NULL, 0, NULL) == DRP_WIRE_OK);
    }
    attack_begun();
    for (size_t i = 0;; i++) {
        attack_did();
        struct drp_wire_list list = {.header.type = types[i % (sizeof(types) / sizeof(types[0]))]};

        raw_call(connection, &list, codec_request_size(list.header.type), NULL, 0, NULL);
    }
}

/* ---- too few ---- */

#define SILENT 200

/* Connections that say nothing, or nothing more; and one whose request is never complete. */
static void run_silent(void) {
    struct drp_wire_header status = {.type = DRP_WIRE_STATUS};
    int sockets[SILENT];

    for (int i = 0; i < SILENT; i++) {
        sockets[i] = i % 2 ? raw_connect() : raw_hello("silent");
        if (i % 4 == 0)
            (void)!send(sockets[i], &status, sizeof(status), MSG_NOSIGNAL);
    }
    attack_begun();
    for (;;)
        pause();
}

/* ---- and hanging up ---- */

static void run_connect(void) {
    attack_begun();
    for (unsigned i = 0;; i++) {
        attack_did();
        int socket = i % 2 ? raw_connect() : raw_hello("connects");

        close(socket);
    }
}

/* With a session, a region and memory each time. */
static void run_register(void) {
    attack_begun();
    for (;;) {
        attack_did();
        struct raw_region region;
        int socket = attack_region("registers", 4 * MIB, &region);

        close(socket);
        raw_region_end(-1, &region);
    }
}

/* ---- work that a request makes ---- */

static void run_drops(void) {
    struct raw_region region;
    int socket = attack_region("drops", 16 * MIB, &region);

    attack_begun();
    for (;;) {
        attack_did();
        raw_drop(socket, &region, 0, region.size, NULL);
        memset(region.address, 1, region.size);
    }
}

/* Drops of what is not there. */
static void run_empty_drops(void) {
    struct raw_region region;
    int socket = attack_region("empty", 16 * MIB, &region);

    attack_begun();
    for (;;) {
        attack_did();
        raw_drop(socket, &region, 0, region.size, NULL);
    }
}

static void run_populate(void) {
    struct drp_wire_range populate = {.header.type = DRP_WIRE_POPULATE, .length = 16 * MIB};
    struct raw_region region;
    int socket = attack_region("populates", 16 * MIB, &region);

    populate.region = region.id;
    attack_begun();
    for (;;) {
        attack_did();
        raw_call(socket, &populate, sizeof(populate), NULL, 0, NULL);
        raw_drop(socket, &region, 0, region.size, NULL);
    }
}

static void run_budget(void) {
    struct drp_wire_limit limit = {.header.type = DRP_WIRE_LIMIT, .scope = DRP_LIMIT_CLIENT, .mask = DRP_LIMIT_BUDGET};
    struct raw_region region;
    int socket = attack_region("budget", 16 * MIB, &region);

    attack_begun();
    for (uint64_t i = 0;; i++) {
        attack_did();
        limit.values.budget = i % 2 ? 4096 : 16 * MIB;
        raw_call(socket, &limit, sizeof(limit), NULL, 0, NULL);
        memset(region.address, 1, region.size);
    }
}

const struct attack attacks_by_messages[] = {
    {"any message in any state", 2, 1, run_fuzz, NULL},
    {"reads no reply", 4, 1, run_flood, NULL},
    {"costly requests", 4, 1, run_costly, NULL},
    {"says nothing, never answers", 1, 1, run_silent, NULL},
    {"connects and hangs up", 2, 1, run_connect, NULL},
    {"registers and hangs up", 2, 1, run_register, NULL},
    {"drops its own", 2, 1, run_drops, NULL},
    {"drops nothing", 2, 1, run_empty_drops, NULL},
    {"populates", 2, 1, run_populate, NULL},
    {"moves its budget", 2, 1, run_budget, NULL},
    {0},
};
