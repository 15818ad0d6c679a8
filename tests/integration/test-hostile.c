/* SPDX-License-Identifier: MIT */
/*
 * Clients that break the protocol: every kind of malformed message, wrong descriptors in every place that takes one, hanging up in the
 * middle of everything. The connection ends (or the request fails) under a name that the log has, nothing leaks (the fixture counts),
 * and an honest client beside it notices nothing.
 */

#include "child.h"
#include "codec.h"
#include "fixture.h"
#include "honest.h"
#include "raw.h"

#include <check.h>
#include <droppable/droppable.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define END_MS 20000
#define MANY_FDS 200
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static struct honest honest;

static void setup(void) {
    fixture_setup();
    honest_start(&honest);
}

static void teardown(void) {
    honest_progress(&honest, 30);
    honest_stop(&honest);
    fixture_teardown();
}

/* ---- messages ---- */

/* sendmsg(2) of anything at all. */
static void send_any(int socket, const void *bytes, size_t size, int fd, size_t n_fds) {
    char control[CMSG_SPACE(MANY_FDS * sizeof(int))] __attribute__((aligned(__alignof__(struct cmsghdr)))) = {0};
    struct iovec iov = {.iov_base = (void *)bytes, .iov_len = size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n_fds > 0) {
        struct cmsghdr *header;

        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        for (size_t i = 0; i < n_fds; i++)
            memcpy(CMSG_DATA(header) + i * sizeof(int), &fd, sizeof(int));
    }
    ck_assert_int_eq(sendmsg(socket, &message, MSG_NOSIGNAL), (ssize_t)size);
}

struct bad_message {
    const char *what; /* and the client's name */
    const char *log;  /* behind the client's name in the log */
    uint16_t type;
    size_t size;  /* 0: as it should be */
    size_t n_fds; /* memfds */
    size_t set;   /* offset of a byte that is set to 1, 0: none */
    bool no_hello;
};

#define AT(type, field) offsetof(struct drp_wire_##type, field)
static const struct bad_message bad_messages[] = {
    {"one byte", "malformed: no header: message too short", DRP_WIRE_STATS, 1, 0, 0, false},
    {"half a header", "malformed: no header: message too short", DRP_WIRE_STATS, 15, 0, 0, false},
    {"short create", "malformed: create: message too short", DRP_WIRE_CREATE, 55, 0, 0, false},
    {"bare drop", "malformed: drop: message too short", DRP_WIRE_DROP, 16, 0, 0, false},
    {"long create", "malformed: create: message too long", DRP_WIRE_CREATE, 57, 0, 0, false},
    {"long stats", "malformed: stats: message too long", DRP_WIRE_STATS, 4096, 0, 0, false},
    {"too long", "malformed: packet or descriptors truncated", DRP_WIRE_STATS, 6000, 0, 0, false},
    {"type 0", "malformed: unknown: message type unknown", 0, 16, 0, 0, false},
    {"short seal", "malformed: seal-pins: message too short", DRP_WIRE_SEAL_PINS, 23, 0, 0, false},
    {"seal with fd", "malformed: seal-pins: wrong number of descriptors", DRP_WIRE_SEAL_PINS, 0, 1, 0, false},
    {"type 18", "malformed: unknown: message type unknown", DRP_WIRE_TYPE_MAX + 1, 16, 0, 0, false},
    {"event", "malformed: unknown: message type unknown", 0x4000, 16, 0, 0, false},
    {"a reply", "malformed: unknown: message type unknown", DRP_WIRE_STATS | DRP_WIRE_REPLY, 96, 0, 0, false},
    {"reserved", "malformed: stats: reserved field", DRP_WIRE_STATS, 0, 0, AT(header, reserved), false},
    {"reserved2", "malformed: stats: reserved field", DRP_WIRE_STATS, 0, 0, AT(header, reserved2), false},
    {"create reserved", "malformed: create: reserved field", DRP_WIRE_CREATE, 0, 0, AT(create, reserved[1]), false},
    {"uffd reserved", "malformed: uffd: reserved field", DRP_WIRE_UFFD, 0, 1, AT(uffd, reserved), false},
    {"stats with fd", "malformed: stats: wrong number of descriptors", DRP_WIRE_STATS, 0, 1, 0, false},
    {"create with 4 fds", "malformed: create: wrong number of descriptors", DRP_WIRE_CREATE, 0, 4, 0, false},
    {"create with 200 fds", "malformed: create: wrong number of descriptors", DRP_WIRE_CREATE, 0, MANY_FDS, 0, false},
    {"uffd with 2 fds", "malformed: uffd: wrong number of descriptors", DRP_WIRE_UFFD, 0, 2, 0, false},
    {"uffd with 200 fds", "uffd: malformed: packet or descriptors truncated", DRP_WIRE_UFFD, 0, MANY_FDS, 0, false},
    {"adopt with 1 fd", "malformed: adopt: wrong number of descriptors", DRP_WIRE_ADOPT, 0, 1, 0, false},
    {"adopt with none", "malformed: adopt: wrong number of descriptors", DRP_WIRE_ADOPT, 0, 0, 0, false},
    {"map with 3 fds", "malformed: map: wrong number of descriptors", DRP_WIRE_MAP, 0, 3, 0, false},
    {"shared reserved", "malformed: create-shared: reserved field", DRP_WIRE_CREATE_SHARED, 0, 0,
     AT(create_shared, reserved), false},
    {"shared reserved2", "malformed: create-shared: reserved field", DRP_WIRE_CREATE_SHARED, 0, 0,
     AT(create_shared, create.reserved[1]), false},
    {"short shared", "malformed: create-shared: message too short", DRP_WIRE_CREATE_SHARED, 127, 0, 0, false},
    {"shared with fd", "malformed: create-shared: wrong number of descriptors", DRP_WIRE_CREATE_SHARED, 0, 1, 0, false},
    {"open reserved", "malformed: open: reserved field", DRP_WIRE_OPEN, 0, 1, AT(open, reserved), false},
    {"long open", "malformed: open: message too long", DRP_WIRE_OPEN, 89, 0, 0, false},
    {"open with none", "malformed: open: wrong number of descriptors", DRP_WIRE_OPEN, 0, 0, 0, false},
    {"open with 2 fds", "malformed: open: wrong number of descriptors", DRP_WIRE_OPEN, 0, 2, 0, false},
    {"open with both", "malformed: open: wrong number of descriptors", DRP_WIRE_OPEN, 0, 1, AT(open, name), false},
    {"no hello, open", "state: no hello yet", DRP_WIRE_OPEN, 0, 1, 0, true},
    {"no hello, shared", "state: no hello yet", DRP_WIRE_CREATE_SHARED, 0, 0, 0, true},
    {"short native", "malformed: native: message too short", DRP_WIRE_NATIVE, 47, 0, 0, false},
    {"native with none", "malformed: native: wrong number of descriptors", DRP_WIRE_NATIVE, 0, 0, 0, false},
    {"native with 2 fds", "malformed: native: wrong number of descriptors", DRP_WIRE_NATIVE, 0, 2, 0, false},
    {"native reserved", "malformed: native: reserved field", DRP_WIRE_NATIVE, 0, 1, AT(native, reserved), false},
    {"second hello", "state: a second hello", DRP_WIRE_HELLO, 0, 0, 0, false},
    {"no hello 1", "state: no hello yet", DRP_WIRE_STATUS, 0, 0, 0, true},
    {"no hello 2", "state: no hello yet", DRP_WIRE_LIST, 0, 0, 0, true},
    {"no hello 3", "state: no hello yet", DRP_WIRE_WHY, 0, 0, 0, true},
    {"no hello 4", "state: no hello yet", DRP_WIRE_HISTOGRAMS, 0, 0, 0, true},
    {"no hello, uffd", "", DRP_WIRE_UFFD, 0, 1, 0, true},
    {"no hello, short", "malformed: no header: message too short", DRP_WIRE_HELLO, 3, 0, 0, true},
    {"no hello, 200 fds", "malformed: hello: wrong number of descriptors", DRP_WIRE_HELLO, 0, MANY_FDS, 0, true},
};

/* Everything right but for what the case says. */
static void make_message(const struct bad_message *bad, union drp_wire_message *message) {
    memset(message, 0, sizeof(*message));
    message->header.type = bad->type;
    message->header.serial = 1;
    if (bad->type == DRP_WIRE_HELLO) {
        message->hello.magic = DRP_WIRE_MAGIC;
        message->hello.version_min = message->hello.version_max = DRP_WIRE_VERSION;
    } else if (bad->type == DRP_WIRE_CREATE)
        message->create.size = MIB;
    else if (bad->type == DRP_WIRE_ADOPT)
        message->adopt =
            (struct drp_wire_adopt){.header = message->header, .size = MIB, .chunk_total = 16, .chunk_shift = 16};
    else if (bad->type == DRP_WIRE_CREATE_SHARED)
        message->create_shared.create.size = MIB;
    else if (bad->type == DRP_WIRE_MAP)
        message->map.length = MIB;
    if (bad->set)
        message->bytes[bad->set] = 1;
}

static void send_bad_message(const struct bad_message *bad) {
    size_t right_size = codec_request_size(bad->type);
    union {
        union drp_wire_message message;
        char room[8192];
    } bytes = {0};
    int fd = memfd_create("any", MFD_CLOEXEC), socket;
    char name[40], text[200];

    snprintf(name, sizeof(name), "%s", bad->what);
    socket = bad->no_hello ? raw_connect() : raw_hello(name);
    make_message(bad, &bytes.message);
    send_any(socket, &bytes, bad->size ? bad->size : right_size, fd, bad->n_fds);
    ck_assert_msg(raw_wait_end(socket, END_MS), "%s: the connection does not end", bad->what);
    snprintf(text, sizeof(text), "client %s (pid %d, uid %u): %s", bad->no_hello ? "without hello" : name,
             (int)getpid(), getuid(), bad->log);
    ck_assert_msg(service_log_has(&service, text, 5000), "%s: not in the log: %s", bad->what, text);
    close(socket);
    close(fd);
}

#define BAD_MESSAGES (sizeof(bad_messages) / sizeof(bad_messages[0]))
/* More of them, and the log would leave some out. */
#define BAD_AT_ONCE 18
START_TEST(test_bad_message) {
    for (size_t i = (size_t)_i * BAD_AT_ONCE; i < BAD_MESSAGES && i < ((size_t)_i + 1) * BAD_AT_ONCE; i++)
        send_bad_message(&bad_messages[i]);
}
END_TEST

START_TEST(test_bad_hello) {
    struct drp_wire_hello hello = {
        .header.type = DRP_WIRE_HELLO, .magic = DRP_WIRE_MAGIC, .version_min = 2, .version_max = 7};
    int socket = raw_connect(), r;

    ck_assert_int_eq(raw_call(socket, &hello, sizeof(hello), NULL, 0, NULL), DRP_WIRE_ERROR_VERSION);
    ck_assert(raw_wait_end(socket, END_MS));
    close(socket);
    hello = (struct drp_wire_hello){.header.type = DRP_WIRE_HELLO, .magic = 1, .version_min = 1, .version_max = 1};
    socket = raw_connect();
    r = raw_call(socket, &hello, sizeof(hello), NULL, 0, NULL);
    ck_assert(r == DRP_WIRE_ERROR_INVALID || r == DRP_WIRE_ERROR_MALFORMED || r == RAW_ENDED);
    ck_assert(r == RAW_ENDED || raw_wait_end(socket, END_MS));
    close(socket);
}
END_TEST

START_TEST(test_uffd_twice) {
    int socket = raw_session("twice"), fd = raw_userfaultfd();

    raw_uffd(socket, fd, fd < 0 ? EPERM : 0, NULL);
    ck_assert(raw_wait_end(socket, END_MS));
    ck_assert(service_log_has(&service, "client twice", 5000));
    ck_assert(service_log_has(&service, "uffd sent twice", 5000));
    close(socket);
    if (fd >= 0)
        close(fd);
}
END_TEST

/* ---- descriptors ---- */

enum { AS_UFFD = 1, AS_DATA = 2, AS_STATE = 4, AS_PINS = 8, EVERYWHERE = 15 };

static int make_memfd(size_t size, unsigned seals) {
    int fd = memfd_create("client", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static int make_pipe_end(bool writing) {
    int ends[2];

    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    close(ends[!writing]);
    return ends[writing];
}

static int make_used_uffd(void) {
    struct uffdio_api api = {.api = UFFD_API};
    int fd = raw_userfaultfd();

    if (fd >= 0)
        ck_assert_int_eq(ioctl(fd, UFFDIO_API, &api), 0);
    return fd;
}

static int make_disk_file(void) {
    int fd;

    /* The working directory is the build's; what it is on does not matter as long as it is no tmpfs. */
    fd = open("hostile.tmp", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    unlink("hostile.tmp");
    ck_assert_int_eq(ftruncate(fd, (off_t)MIB), 0);
    return fd;
}

static int make_readonly_memfd(void) {
    int fd = make_memfd(MIB, SEALS), again;
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    again = open(path, O_RDONLY | O_CLOEXEC);
    close(fd);
    return again;
}

#define DESCRIPTOR_KINDS 15
static int make_descriptor(int kind, const char **ret_what, int *ret_where) {
    static const char *const what[DESCRIPTOR_KINDS] = {
        "pipe read end", "pipe write end",    "socket",       "disk file", "/dev/null",
        "eventfd",       "memfd, not sealed", "memfd, small", "read-only", "epoll",
        "used uffd",     "directory",         "O_PATH",       "/dev/zero", "/proc/self/mem"};
    static const int where[DESCRIPTOR_KINDS] = {[6] = EVERYWHERE, [8] = AS_UFFD | AS_DATA | AS_PINS};

    *ret_what = what[kind];
    *ret_where = where[kind] ? where[kind] : EVERYWHERE;
    switch (kind) {
    case 0:
        return make_pipe_end(false);
    case 1:
        return make_pipe_end(true);
    case 2:
        return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    case 3:
        return make_disk_file();
    case 4:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    case 5:
        return eventfd(0, EFD_CLOEXEC);
    case 6:
        return make_memfd(MIB, 0);
    case 7:
        return make_memfd(4096, SEALS);
    case 8:
        return make_readonly_memfd();
    case 9:
        return epoll_create1(EPOLL_CLOEXEC);
    case 10:
        return make_used_uffd();
    case 11:
        return open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    case 12:
        return open("/proc/self/exe", O_PATH | O_CLOEXEC);
    case 13:
        return open("/dev/zero", O_RDWR | O_CLOEXEC);
    default:
        return open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    }
}

static int send_wrong(int socket, const struct raw_region *region, int where, int fd) {
    struct drp_wire_adopt adopt = {.header.type = DRP_WIRE_ADOPT,
                                   .size = region->size,
                                   .object_offset = region->object_offset,
                                   .chunk_base = region->chunk_base,
                                   .chunk_total = region->chunk_total,
                                   .chunk_shift = region->chunk_shift};
    struct drp_wire_map map = {
        .header.type = DRP_WIRE_MAP, .region = region->id, .address = (uintptr_t)region->address, .length = region->size};

    switch (where) {
    case AS_UFFD:
        return raw_uffd(socket, fd, 0, NULL);
    case AS_DATA:
        return raw_call(socket, &adopt, sizeof(adopt), (const int[]){fd, region->state_fd}, 2, NULL);
    case AS_STATE:
        return raw_call(socket, &adopt, sizeof(adopt), (const int[]){region->data_fd, fd}, 2, NULL);
    default:
        return raw_call(socket, &map, sizeof(map), &fd, 1, NULL);
    }
}

/* Refused by name, or the connection ends by name. */
static void send_wrong_descriptor(int kind) {
    const char *what;
    int where, fd = make_descriptor(kind, &what, &where);

    ck_assert_msg(fd >= 0 || kind == 10, "%s: %s", what, strerror(errno));
    for (int place = AS_UFFD; fd >= 0 && place <= AS_PINS; place *= 2) {
        struct raw_region region = {.data_fd = -1, .state_fd = -1, .pin_fd = -1};
        char name[32], text[64];
        int socket, r;

        if (!(place & where))
            continue;
        snprintf(name, sizeof(name), "wrong-%d-%d", kind, place);
        socket = raw_hello(name);
        if (place != AS_UFFD)
            raw_region_new(socket, MIB, &region);
        r = send_wrong(socket, &region, place, fd);
        ck_assert_msg(r == DRP_WIRE_ERROR_DESCRIPTOR || r == RAW_ENDED, "%s as %d: %d", what, place, r);
        snprintf(text, sizeof(text), "client %s (pid %d", name, (int)getpid());
        ck_assert_msg(service_log_has(&service, text, 5000), "%s as %d: not in the log", what, place);
        if (r == DRP_WIRE_ERROR_DESCRIPTOR)
            ck_assert_int_eq(raw_stats(socket, NULL), DRP_WIRE_OK);
        if (place != AS_UFFD)
            raw_region_end(r == RAW_ENDED ? -1 : socket, &region);
        close(socket);
    }
    if (fd >= 0)
        close(fd);
}

START_TEST(test_wrong_descriptor) {
    for (int kind = 0; kind < DESCRIPTOR_KINDS; kind++)
        send_wrong_descriptor(kind);
}
END_TEST

/* What is asked of a value, not of a message: refused by name, and the connection goes on. */
START_TEST(test_bad_shared) {
    static const struct {
        const char *name;
        uint32_t mode;
        uint64_t size;
        int error;
    } bad[] = {
        {"a/b", 0600, MIB, DRP_WIRE_ERROR_INVALID},
        {"a b", 0600, MIB, DRP_WIRE_ERROR_INVALID},
        {"a\x7f", 0600, MIB, DRP_WIRE_ERROR_INVALID},
        {"\xc3\xa4", 0600, MIB, DRP_WIRE_ERROR_INVALID},
        {"mode", 0640, MIB, DRP_WIRE_ERROR_INVALID},
        {"mode", 01600, MIB, DRP_WIRE_ERROR_INVALID},
        {"", 0600, MIB, DRP_WIRE_ERROR_INVALID},
        {"size", 0600, 0, DRP_WIRE_ERROR_INVALID},
        {"size", 0600, UINT64_MAX, DRP_WIRE_ERROR_INVALID},
        {"size", 0600, UINT64_C(1) << 63, DRP_WIRE_ERROR_INVALID},
        {"size", 0600, UINT64_C(1) << 46, DRP_WIRE_ERROR_QUOTA},
        {"good", 0, 1, DRP_WIRE_OK},
    };
    int socket = raw_hello("shared");

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct drp_wire_create_shared request = {
            .create = {.header.type = DRP_WIRE_CREATE_SHARED, .size = bad[i].size, .required = DRP_REGION_SHARED},
            .mode = bad[i].mode};

        strcpy(request.name, bad[i].name);
        ck_assert_msg(raw_call(socket, &request, sizeof(request), NULL, 0, NULL) == bad[i].error, "%zu", i);
        memset(request.name, 'n', sizeof(request.name)); /* no end */
        ck_assert_int_eq(raw_call(socket, &request, sizeof(request), NULL, 0, NULL), DRP_WIRE_ERROR_INVALID);
        strcpy(request.name, "a");
        request.name[DRP_WIRE_SHARED_NAME - 1] = 'b'; /* behind its end */
        ck_assert_int_eq(raw_call(socket, &request, sizeof(request), NULL, 0, NULL), DRP_WIRE_ERROR_INVALID);
    }
    close(socket);
}
END_TEST

/* Options that exclude each other, or that only the library gives. */
START_TEST(test_bad_options) {
    static const uint64_t bad[] = {DRP_REGION_SHARED, DRP_REGION_SIGNAL | DRP_REGION_HUGE, DRP_REGION_FORK_SHARED,
                                   DRP_REGION_MERGEABLE, UINT64_C(1) << 63};
    static const uint64_t bad_shared[] = {DRP_REGION_HUGE, DRP_REGION_SIGNAL | DRP_REGION_HUGE,
                                          DRP_REGION_NO_SWAP | DRP_REGION_HUGE, UINT64_C(1) << 63};
    struct drp_wire_create_shared request = {.create = {.size = MIB}};
    int socket = raw_hello("options");

    request.create.header.type = DRP_WIRE_CREATE;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        request.create.required = bad[i];
        ck_assert_int_eq(raw_call(socket, &request, sizeof(request.create), NULL, 0, NULL), DRP_WIRE_ERROR_UNSUPPORTED);
    }
    request.create.header.type = DRP_WIRE_CREATE_SHARED;
    for (size_t i = 0; i < sizeof(bad_shared) / sizeof(bad_shared[0]); i++) {
        request.create.required = bad_shared[i];
        ck_assert_int_eq(raw_call(socket, &request, sizeof(request), NULL, 0, NULL), DRP_WIRE_ERROR_UNSUPPORTED);
    }
    close(socket);
}
END_TEST

/* As if it had been made so. */
START_TEST(test_bad_adoption) {
    static const struct {
        uint64_t granted;
        uint8_t chunk_shift;
        int error;
    } cases[] = {
        {DRP_REGION_SIGNAL | DRP_REGION_HUGE, 21, DRP_WIRE_ERROR_INVALID},
        {DRP_REGION_HUGE, 16, DRP_WIRE_ERROR_INVALID},
        {DRP_REGION_SHARED | DRP_REGION_HUGE, 21, DRP_WIRE_ERROR_INVALID},
        {DRP_REGION_FORK_SHARED, 16, DRP_WIRE_ERROR_INVALID},
        {UINT64_C(1) << 63, 16, DRP_WIRE_ERROR_INVALID},
        {DRP_REGION_SHARED, 16, DRP_WIRE_ERROR_DESCRIPTOR}, /* it is no shared one's object */
        {DRP_REGION_SIGNAL | DRP_REGION_SHARED, 16, DRP_WIRE_ERROR_DESCRIPTOR},
        {DRP_REGION_NO_SWAP | DRP_REGION_SHARED, 16, DRP_WIRE_ERROR_DESCRIPTOR},
        {DRP_REGION_SIGNAL, 16, DRP_WIRE_OK},
    };
    int socket = raw_session("adopter");
    struct raw_region region;

    raw_region_new(socket, 2 * MIB, &region);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t total = region.size >> cases[i].chunk_shift;
        int state = make_memfd(drp_state_bytes(total), SEALS), r;
        struct drp_wire_adopt adopt = {.header.type = DRP_WIRE_ADOPT,
                                       .size = region.size,
                                       .chunk_total = total,
                                       .granted = cases[i].granted,
                                       .chunk_shift = cases[i].chunk_shift};

        r = raw_call(socket, &adopt, sizeof(adopt), (const int[]){region.data_fd, state}, 2, NULL);
        ck_assert_msg(r == cases[i].error, "case %zu: %d", i, r);
        close(state);
    }
    raw_region_end(socket, &region);
    close(socket);
}
END_TEST

/* Of another owner than the service: he can have mincore(2) tell lies, which fill pages of pins and free what never was. */
static void run_owner(int socket, void *data) {
    struct raw_region region;
    int connection, fds[2];

    (void)socket, (void)data;
    child_become_nobody();
    connection = raw_hello("owner");
    raw_region_new(connection, MIB, &region);
    fds[0] = make_memfd(drp_pin_bytes(region.chunk_total), SEALS);
    child_check(send_wrong(connection, &region, AS_PINS, fds[0]) == DRP_WIRE_ERROR_DESCRIPTOR);
    fds[1] = make_memfd(MIB, SEALS);
    child_check(send_wrong(connection, &region, AS_DATA, fds[1]) == DRP_WIRE_ERROR_DESCRIPTOR);
    child_check(send_wrong(connection, &region, AS_PINS, region.pin_fd) == DRP_WIRE_OK);
}

START_TEST(test_other_owner) {
    struct child child;

    if (geteuid() != 0)
        return;
    child_start(&child, run_owner, NULL);
    child_end(&child);
}
END_TEST

/* Tables of pages that have nothing to do with the size that is counted: 256 GiB of addresses for a region of 64 KiB. */
START_TEST(test_large_tables) {
    uint64_t total = UINT64_C(1) << 34;
    int socket = raw_hello("tables"), fd = make_memfd(drp_state_bytes(total), SEALS);
    struct raw_region region;
    struct drp_wire_adopt adopt = {.header.type = DRP_WIRE_ADOPT, .size = 65536, .chunk_total = total, .chunk_shift = 16};

    raw_region_new(socket, 65536, &region);
    ck_assert_int_eq(raw_call(socket, &adopt, sizeof(adopt), (const int[]){region.data_fd, fd}, 2, NULL),
                     DRP_WIRE_ERROR_INVALID);
    raw_region_end(socket, &region);
    close(fd);
    close(socket);
}
END_TEST

/* ---- hanging up ---- */

/* The last request is on its way, or under way, when the connection ends; the client lives on. */
START_TEST(test_hang_up) {
    static const uint16_t types[] = {DRP_WIRE_CREATE,  DRP_WIRE_MAP,  DRP_WIRE_UNMAP,
                                     DRP_WIRE_DESTROY, DRP_WIRE_DROP, DRP_WIRE_POPULATE};

    for (int round = 0; round < 120; round++) {
        uint16_t type = types[round % 6];
        int socket = raw_session("hasty");
        union drp_wire_message message = {.header = {.type = type, .serial = 1}};
        struct raw_region region;
        size_t size = sizeof(struct drp_wire_range);

        raw_region_new(socket, 4 * MIB, &region);
        memset(region.address, 1, 4 * MIB);
        if (type == DRP_WIRE_CREATE) {
            message.create.size = MIB;
            size = sizeof(message.create);
        } else if (type == DRP_WIRE_MAP) {
            message.map = (struct drp_wire_map){.header = message.header, .region = region.id, .length = MIB};
            message.map.address = (uintptr_t)region.address & ~UINT64_C(0xfff);
            size = sizeof(message.map);
        } else if (type == DRP_WIRE_UNMAP || type == DRP_WIRE_DESTROY) {
            message.id.id = type == DRP_WIRE_UNMAP ? region.mapping : region.id;
            size = sizeof(message.id);
        } else {
            message.range = (struct drp_wire_range){.header = message.header, .region = region.id, .length = 4 * MIB};
        }
        send_any(socket, &message, size, -1, 0);
        if (round % 3 == 0)
            send_any(socket, &message, size, -1, 0);
        if (round % 4 == 0)
            usleep((useconds_t)(round * 7 % 900));
        close(socket);
        raw_region_end(-1, &region);
    }
    honest_progress(&honest, 10);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("hostile");
    TCase *hostile = tcase_create("hostile");
    SRunner *runner;
    int failed;

    tcase_set_timeout(hostile, 120);
    tcase_add_checked_fixture(hostile, setup, teardown);
    tcase_add_loop_test(hostile, test_bad_message, 0, (int)((BAD_MESSAGES + BAD_AT_ONCE - 1) / BAD_AT_ONCE));
    tcase_add_test(hostile, test_bad_hello);
    tcase_add_test(hostile, test_uffd_twice);
    tcase_add_test(hostile, test_wrong_descriptor);
    tcase_add_test(hostile, test_bad_shared);
    tcase_add_test(hostile, test_bad_options);
    tcase_add_test(hostile, test_bad_adoption);
    tcase_add_test(hostile, test_other_owner);
    tcase_add_test(hostile, test_large_tables);
    tcase_add_test(hostile, test_hang_up);
    suite_add_tcase(suite, hostile);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
