/* SPDX-License-Identifier: MIT */
/*
 * Shared regions that are never swapped: their object is a file, which nothing keeps from being made shorter and longer by whoever has it, and which tells a
 * new service what it is by the name that it had. What that costs the service, and others: nothing. Where there are none nothing is tested
 * (test-noswap tells who is refused).
 */

#include "child.h"
#include "connected.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define CHUNK ((size_t)65536)
#define CHUNKS ((size_t)32)
#define SIZE (CHUNKS * CHUNK)
#define WAIT_MS 10000
#define NAME "unsealed"
#define OPTIONS (DRP_REGION_SHARED | DRP_REGION_NO_SWAP)

static struct drp *connection;
static struct drp_region *region; /* NULL: none can be had */

static void setup(void) {
    const struct drp_region_options options = {
        .struct_size = sizeof(options), .required = OPTIONS, .name = NAME, .mode = 0666};
    int r;

    fixture_setup();
    ck_assert_int_eq(drp_new(&connection, NULL), 0);
    r = drp_region_new(&region, connection, SIZE, &options);
    ck_assert_msg(r == 0 || r == -EOPNOTSUPP, "%s", drp_detail());
    if (r < 0)
        region = NULL;
}

static void teardown(void) {
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_teardown();
}

static unsigned char *at(size_t chunk) {
    return (unsigned char *)drp_region_address(region) + chunk * CHUNK;
}

static uint64_t drop(void) {
    uint64_t freed = 0;

    ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, NULL), 0);
    return freed;
}

static uint64_t resident(void) {
    return listing_number("regions", "size", SIZE, "resident_bytes");
}

/* ---- a mapper that does what it should not ---- */

/* s: makes the object shorter, all but a chunk; l: twice as long as the region, and fills what is beyond; r: as it was. */
static void run_mapper(int socket, void *data) {
    uid_t uid = geteuid();
    struct drp_region *r;
    char *beyond;
    int handle;
    struct drp *d;
    char word = 'o';

    (void)data;
    child_become_nobody();
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_open(&r, d, NAME, uid) == 0);
    handle = drp_region_get_handle(r);
    child_check(handle >= 0);
    child_check((fcntl(handle, F_GETFL) & O_ACCMODE) == O_RDWR);
    beyond = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, handle, (off_t)SIZE);
    child_check(beyond != MAP_FAILED);
    do {
        switch (word) {
        case 's':
            child_check(ftruncate(handle, CHUNK) == 0);
            break;
        case 'l':
            child_check(ftruncate(handle, 2 * SIZE) == 0);
            memset(beyond, 3, SIZE);
            break;
        case 'r':
            child_check(ftruncate(handle, SIZE) == 0);
            break;
        default:
            break;
        }
        child_check(child_say(socket, word));
    } while (child_hear(socket, &word) && word != 'e');
}

static void start(struct child *child) {
    child_start(child, run_mapper, NULL);
    child_expect(child, 'o');
}

static void tell(const struct child *child, char word) {
    ck_assert(child_say(child->socket, word));
    child_expect(child, word);
}

static void finish(struct child *child) {
    ck_assert(child_say(child->socket, 'e'));
    child_end(child);
}

/* What is left is dropped, for all; and all of it again when it is there again. */
START_TEST(test_truncated) {
    struct child child;

    if (!region)
        return;
    start(&child);
    memset(at(0), 7, SIZE);
    tell(&child, 's');
    ck_assert_uint_eq(resident(), CHUNK);
    ck_assert_int_eq(drp_pin(region, 0, CHUNK, NULL), 0);
    ck_assert_uint_eq(drop(), 0);
    ck_assert(is_filled(at(0), 7, CHUNK));
    ck_assert_int_eq(drp_unpin(region, 0, CHUNK), 0);
    ck_assert_uint_eq(drop(), CHUNK);
    tell(&child, 'r');
    ck_assert(is_zero(at(0), SIZE));
    memset(at(0), 8, SIZE);
    ck_assert_uint_eq(drop(), SIZE);
    /* While it is dropped from. */
    for (int i = 0; i < 50; i++) {
        memset(at(0), 8, SIZE);
        ck_assert(child_say(child.socket, 's'));
        drop();
        child_expect(&child, 's');
        tell(&child, 'r');
    }
    memset(at(0), 8, SIZE);
    ck_assert_uint_eq(drop(), SIZE);
    finish(&child);
}
END_TEST

/* What lies beyond the region counts for nobody who has it: neither as resident, nor as over a budget, which would have the user's other memory dropped. */
START_TEST(test_longer) {
    struct drp_region_limits limits = {.struct_size = sizeof(limits)};
    struct drp_region *own;
    struct child child;

    if (!region)
        return;
    ck_assert_int_eq(drp_region_new(&own, connection, 4 * SIZE, NULL), 0);
    memset(drp_region_address(own), 9, 4 * SIZE);
    start(&child);
    memset(at(0), 7, SIZE);
    tell(&child, 'l');
    ck_assert_uint_eq(resident(), SIZE);
    ck_assert_int_eq(drp_region_get_limits(region, &limits), 0);
    ck_assert_uint_eq(limits.resident, SIZE);
    ck_assert_int_eq(drp_set_budget(connection, 5 * SIZE + CHUNK), 0);
    ck_assert(is_filled(at(0), 7, SIZE));
    ck_assert_uint_eq(drop(), SIZE);
    ck_assert(is_filled(drp_region_address(own), 9, 4 * SIZE));
    tell(&child, 'r');
    ck_assert_uint_eq(resident(), 0);
    finish(&child);
    drp_region_free(own);
}
END_TEST

static void replace_service(void) {
    ck_assert(service_kill(&service, WAIT_MS));
    ck_assert(connected_becomes(region, false, WAIT_MS));
    service_restart(&service);
    ck_assert(connected_becomes(region, true, WAIT_MS));
}

/* The next service takes it at its true size, and what it was made with. */
START_TEST(test_handed_over) {
    static const char states[] = {'s', 'l', 'r'};
    struct drp_region_info info;
    struct child child;

    if (!region)
        return;
    start(&child);
    for (size_t i = 0; i < sizeof(states); i++) {
        memset(at(0), 7, SIZE);
        tell(&child, states[i]);
        replace_service();
        drp_region_get_info(region, &info);
        ck_assert_uint_eq(info.granted, OPTIONS);
        ck_assert_uint_eq(info.size, SIZE);
        ck_assert_uint_le(resident(), SIZE);
        tell(&child, 'r');
        memset(at(0), 8, SIZE);
        for (uint64_t deadline = now_ms() + WAIT_MS; drop() == 0; nap_ms(5)) /* until both are back */
            ck_assert_uint_lt(now_ms(), deadline);
        ck_assert(is_zero(at(0), SIZE));
    }
    finish(&child);
    region = drp_region_free(region);
    connection = drp_free(connection);
    fixture_measure();
}
END_TEST

/* ---- forged ---- */

struct forgery {
    const char *name;
    mode_t mode;
    bool linked;
    uint64_t size; /* as ADOPT says */
    uint64_t granted;
    int error; /* of the service's own user */
};

/* What says that the region is this user's, and is a file of that user's, is one of ours; whose user it is not cannot make such a file. */
static const struct forgery forgeries[] = {
    {"droppable:2097152:0:0:666:forged", 0600, false, SIZE, OPTIONS, DRP_WIRE_OK},
    {"droppable-signal:2097152:0:0:666:forged", 0600, false, SIZE, OPTIONS | DRP_REGION_SIGNAL, DRP_WIRE_OK},
    {"droppable:2097152:0:0:666:forged", 0600, false, SIZE, OPTIONS | DRP_REGION_SIGNAL, DRP_WIRE_ERROR_INVALID},
    {"droppable:2097152:0:0:666:forged", 0600, false, SIZE, DRP_REGION_SHARED, DRP_WIRE_ERROR_INVALID},
    {"droppable:2097152:0:0:666:forged", 0600, false, SIZE, 0, DRP_WIRE_ERROR_DESCRIPTOR}, /* as its own */
    {"droppable:2097152:0:0:666:forged", 0600, false, SIZE / 2, OPTIONS, DRP_WIRE_ERROR_DESCRIPTOR},
    {"droppable:2097152:0:0:666:forged", 0600, false, 2 * SIZE, OPTIONS, DRP_WIRE_ERROR_DESCRIPTOR},
    {"droppable:2097152:0:0:666:forged", 0666, false, SIZE, OPTIONS, DRP_WIRE_ERROR_DESCRIPTOR},
    {"droppable:2097152:0:0:666:forged (deleted)", 0600, true, SIZE, OPTIONS, DRP_WIRE_ERROR_DESCRIPTOR},
    {"droppable:2097152:0:0:666:for ged", 0600, false, SIZE, OPTIONS, DRP_WIRE_ERROR_DESCRIPTOR},
    {"droppable:0:0:666:forged", 0600, false, SIZE, OPTIONS, DRP_WIRE_ERROR_DESCRIPTOR},
    {"droppable:2097152:forged", 0600, false, SIZE, OPTIONS, DRP_WIRE_ERROR_DESCRIPTOR},
    {"memfd:droppable:0:0:666:forged", 0600, false, SIZE, DRP_REGION_SHARED, DRP_WIRE_ERROR_DESCRIPTOR},
};
#define N_FORGERIES (sizeof(forgeries) / sizeof(forgeries[0]))

/* The root of a tmpfs that has no place anywhere; -1: may not be made. */
static int make_mount(void) {
    int context = fsopen("tmpfs", FSOPEN_CLOEXEC), root = -1;

    if (context >= 0 && fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        root = fsmount(context, FSMOUNT_CLOEXEC, 0);
    close(context);
    return root;
}

static int forge(int socket, int root, const struct forgery *forgery) {
    struct drp_wire_adopt adopt = {.header.type = DRP_WIRE_ADOPT,
                                   .size = forgery->size,
                                   .chunk_total = forgery->size / CHUNK,
                                   .granted = forgery->granted,
                                   .chunk_shift = 16};
    int state = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING), r;
    int fd = openat(root, forgery->name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, forgery->mode);
    struct channel_packet packet;

    child_check(fd >= 0 && fchmod(fd, forgery->mode) == 0 && ftruncate(fd, SIZE) == 0);
    child_check(ftruncate(state, (off_t)drp_state_bytes(forgery->size / CHUNK)) == 0);
    child_check(fcntl(state, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
    if (!forgery->linked)
        child_check(unlinkat(root, forgery->name, 0) == 0);
    r = raw_call(socket, &adopt, sizeof(adopt), (const int[]){fd, state}, 2, &packet);
    if (r == DRP_WIRE_OK) {
        child_check(raw_id(socket, DRP_WIRE_DESTROY, packet.message.create_reply.region) == DRP_WIRE_OK);
        channel_packet_close(&packet);
    }
    if (forgery->linked)
        child_check(unlinkat(root, forgery->name, 0) == 0);
    close(fd);
    close(state);
    return r;
}

static bool write_map(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    close(fd);
    return done;
}

/* Root of a namespace of its own, as who may mount a tmpfs there. false: the system does not let anybody. */
static bool become_root_elsewhere(void) {
    char uids[32], gids[32];

    snprintf(uids, sizeof(uids), "0 %u 1", geteuid());
    snprintf(gids, sizeof(gids), "0 %u 1", getegid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return false;
    return write_map("/proc/self/uid_map", uids) && write_map("/proc/self/setgroups", "deny") &&
           write_map("/proc/self/gid_map", gids);
}

/* stranger: not the service's user, with a tmpfs of a namespace of his own. */
static void run_forger(int socket, void *data) {
    bool *stranger = data;
    int connection_fd, root, r;

    if (*stranger) {
        child_become_nobody();
        if (!become_root_elsewhere())
            return;
    }
    root = make_mount();
    child_check(root >= 0 || *stranger);
    connection_fd = raw_hello("forger");
    for (size_t i = 0; root >= 0 && i < N_FORGERIES; i++) {
        int wanted = forgeries[i].error;

        if (*stranger && wanted == DRP_WIRE_OK)
            wanted = DRP_WIRE_ERROR_DESCRIPTOR;
        r = forge(connection_fd, root, &forgeries[i]);
        if (r != wanted && !(*stranger && r == DRP_WIRE_ERROR_DESCRIPTOR)) {
            fprintf(stderr, "forgery %zu: %d\n", i, r);
            _exit(2);
        }
    }
    close(connection_fd);
    (void)socket;
}

START_TEST(test_forged) {
    struct child child;
    bool stranger = false;

    if (!region || geteuid() != 0)
        return;
    child_start(&child, run_forger, &stranger);
    child_end(&child);
    stranger = true;
    child_start(&child, run_forger, &stranger);
    child_end(&child);
    memset(at(0), 1, SIZE);
    ck_assert_uint_eq(drop(), SIZE);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("shared-unsealed");
    TCase *tcase = tcase_create("unsealed");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_truncated);
    tcase_add_test(tcase, test_longer);
    tcase_add_test(tcase, test_handed_over);
    tcase_add_test(tcase, test_forged);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
