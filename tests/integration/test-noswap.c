/* SPDX-License-Identifier: MIT */
/*
 * Regions that are never swapped: which ones are, and locked segments, which take the place of tmpfs' noswap where that is missing. For these
 * fsopen(2) is hidden from the service, so that it finds no tmpfs on any kernel; their tests run in an IPC namespace of their own. That nothing
 * reaches a swap file is shown in virtual machines (tests/vm/swap.sh).
 */

#include "child.h"
#include "filter.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define MIB ((size_t)1 << 20)
#define SIZE (16 * MIB)
#define WAIT_MS 10000

static const struct drp_region_options needed = {.struct_size = sizeof(needed), .required = DRP_REGION_NO_SWAP};

static void hide_fsopen(void) {
    static const struct filter_rule none = {.call = SYS_fsopen, .error = ENOSYS};

    ck_assert_int_eq(filter_install(&none, 1, NULL), 0);
}

static bool set_limit(const char *path, const char *value) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);

    if (fd >= 0)
        close(fd);
    return done;
}

static void setup_without_tmpfs(void) {
    hide_fsopen();
    if (geteuid() == 0)
        ck_assert_int_eq(unshare(CLONE_NEWIPC), 0);
    fixture_start(NULL);
}

static uint64_t granted(const struct drp_region *region) {
    struct drp_region_info info;

    drp_region_get_info(region, &info);
    return info.granted;
}

/* The id of the segment that is the region's object. */
static int segment_of(const struct drp_region *region) {
    uint64_t offset;
    struct stat st;
    int fd = drp_region_get_object(region, &offset);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    close(fd);
    return (int)st.st_ino;
}

/* Attachments of a locked segment; -1: it is not locked, or not there. */
static long attachments(int segment) {
    struct shmid_ds state;

    return shmctl(segment, IPC_STAT, &state) == 0 && (state.shm_perm.mode & SHM_LOCKED) ? (long)state.shm_nattch : -1;
}

static bool becomes(int segment, long wanted) {
    uint64_t deadline = now_ms() + WAIT_MS;

    while (attachments(segment) != wanted && now_ms() < deadline)
        nap_ms(2);
    return attachments(segment) == wanted;
}

/* Does the service leave its mapping of the object out of its own cores? */
static bool is_kept_from_cores(const struct drp_region *region) {
    uint64_t inode, wanted = (uint64_t)segment_of(region);
    char path[64], line[512];
    bool ours = false, kept = false;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/smaps", (int)service.pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    while (!kept && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%*x-%*x %*s %*x %*s %" SCNu64, &inode) == 1)
            ours = inode == wanted;
        kept = ours && strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " dd ");
    }
    fclose(file);
    return kept;
}

/* ---- what is given ---- */

static void check_refusal(struct drp *d) {
    struct drp_region *region;

    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &needed), -EOPNOTSUPP);
    ck_assert_ptr_nonnull(strstr(drp_detail(), "DRP_REGION_NO_SWAP"));
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, NULL), 0);
    ck_assert_uint_eq(granted(region) & DRP_REGION_NO_SWAP, 0);
    memset(drp_region_address(region), 1, SIZE);
    drp_region_free(region);
}

/* Is the object of the process's own regions a locked segment, or is none kept out of swap? */
static bool has_tmpfs(struct drp *d) {
    struct drp_region *region;
    struct shmid_ds state;
    bool has;

    if (drp_region_new(&region, d, SIZE, &needed) < 0)
        return false;
    has = shmctl(segment_of(region), IPC_STAT, &state) < 0 || !(state.shm_perm.mode & SHM_LOCKED);
    drp_region_free(region);
    return has;
}

static bool is_sealed(const struct drp_region *region) {
    int handle = drp_region_get_handle(region), seals = fcntl(handle, F_GET_SEALS);

    ck_assert_int_eq(close(handle), 0);
    return seals & F_SEAL_SHRINK;
}

/* Whoever has it could truncate it for the others, so it is given to who asks; and a locked segment has no name that tells whose it is. */
static void check_shared(struct drp *d) {
    struct drp_region_options options = {.struct_size = sizeof(options), .required = DRP_REGION_SHARED};
    bool given = has_tmpfs(d);
    struct drp_region *region;

    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &options), 0);
    ck_assert_uint_eq(granted(region), DRP_REGION_SHARED);
    ck_assert(is_sealed(region));
    drp_region_free(region);
    options.preferred = DRP_REGION_NO_SWAP;
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &options), 0);
    ck_assert_uint_eq(granted(region), DRP_REGION_SHARED | (given ? DRP_REGION_NO_SWAP : 0));
    ck_assert(is_sealed(region) != given);
    drp_region_free(region);
    options.required = DRP_REGION_SHARED | DRP_REGION_NO_SWAP;
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &options), given ? 0 : -EOPNOTSUPP);
    if (given)
        drp_region_free(region);
    else
        ck_assert_ptr_nonnull(strstr(drp_detail(), "DRP_REGION_NO_SWAP"));
}

START_TEST(test_given_or_refused) {
    struct drp_region *region;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    if (status_feature("noswap")) {
        ck_assert_int_eq(drp_region_new(&region, d, SIZE, &needed), 0);
        ck_assert_uint_eq(granted(region), DRP_REGION_NO_SWAP);
        ck_assert(is_kept_from_cores(region));
        drp_region_free(region);
        ck_assert_int_eq(drp_region_new(&region, d, SIZE, NULL), 0);
        ck_assert_uint_eq(granted(region), DRP_REGION_NO_SWAP); /* as good as it can be had */
        drp_region_free(region);
    } else
        check_refusal(d);
    check_shared(d);
    drp_free(d);
}
END_TEST

/* ---- locked segments ---- */

static void check_memory(struct drp_region *region) {
    unsigned char *p = drp_region_address(region);
    uint64_t freed, deadline;
    int r;

    memset(p, 9, SIZE);
    /* The service may have it, and the library not yet have heard. */
    for (deadline = now_ms() + WAIT_MS; (r = drp_drop(region, 0, SIZE / 2, &freed, NULL)) == -ENOTCONN; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    ck_assert_int_eq(r, 0);
    ck_assert_uint_eq(freed, SIZE / 2);
    ck_assert(is_zero(p, SIZE / 2) && is_filled(p + SIZE / 2, 9, SIZE / 2));
    ck_assert_int_eq(drp_populate(region, 0, SIZE), 0);
    ck_assert_int_eq(drp_drop(region, 0, SIZE, &freed, NULL), 0);
    ck_assert_uint_eq(freed, SIZE);
    memset(p, 8, SIZE);
}

static uint64_t own_locked_kib(void) {
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    uint64_t kib = UINT64_MAX;

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmLck: %" SCNu64, &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
}

START_TEST(test_locked_region) {
    uint64_t before = own_locked_kib();
    struct drp_region *region;
    struct drp *d;
    int segment;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &needed), 0);
    ck_assert_uint_eq(granted(region), DRP_REGION_NO_SWAP);
    segment = segment_of(region);
    ck_assert_int_eq(attachments(segment), 2); /* the service, and one page here */
    check_memory(region);
    ck_assert_uint_eq(own_locked_kib(), before);
    region = drp_region_free(region);
    ck_assert(becomes(segment, -1));
    ck_assert_int_eq(shmctl(segment, IPC_STAT, &(struct shmid_ds){0}), -1); /* nothing is left */
    drp_free(d);
}
END_TEST

/* More than there is: what is locked is what was touched. */
START_TEST(test_larger_than_memory) {
    size_t size = 2 * (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    struct drp_region *region;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, size, &needed), 0);
    memset((char *)drp_region_address(region) + size - MIB, 1, MIB);
    drp_region_free(region);
    drp_free(d);
}
END_TEST

static void inherit(int socket, void *data) {
    struct drp_region *region = data;

    child_check(is_zero(drp_region_address(region), SIZE));
    child_say(socket, 'i');
    child_hear(socket, &(char){0});
    drp_region_free(region);
}

/* A child's copy of the page would keep the memory of a parent that has ended. */
START_TEST(test_fork) {
    struct drp_region *region;
    struct child child;
    struct drp *d;
    int segment;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &needed), 0);
    segment = segment_of(region);
    memset(drp_region_address(region), 1, SIZE);
    child_start(&child, inherit, region);
    child_expect(&child, 'i');
    ck_assert_int_eq(attachments(segment), 2);
    drp_region_free(region);
    ck_assert(becomes(segment, -1));
    child_say(child.socket, 'e');
    child_end(&child);
    drp_free(d);
}
END_TEST

static void end_service(bool killed) {
    int status;

    if (killed) {
        ck_assert(service_kill(&service, WAIT_MS));
        return;
    }
    ck_assert_int_eq(kill(service.pid, SIGTERM), 0);
    ck_assert(service_wait(&service, WAIT_MS, &status));
    ck_assert_int_eq(status, 0);
}

/* The lock holds while there is no service, killed or ended, and with the next one, and ends with the region. */
START_TEST(test_next_service) {
    struct drp_region *region;
    struct drp *d;
    void *kept;
    int segment;

    hide_fsopen();
    ck_assert_int_eq(unshare(CLONE_NEWIPC), 0);
    service_start(&service, NULL);
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &needed), 0);
    segment = segment_of(region);
    memset(drp_region_address(region), 3, SIZE);
    end_service(_i == 0);
    ck_assert(becomes(segment, 1));
    ck_assert(is_filled(drp_region_address(region), 3, SIZE));
    service_restart(&service);
    ck_assert(status_becomes("regions", 1, WAIT_MS));
    ck_assert_int_eq(attachments(segment), 2);
    ck_assert_uint_eq(granted(region), DRP_REGION_NO_SWAP);
    ck_assert(is_kept_from_cores(region));
    ck_assert(is_filled(drp_region_address(region), 3, SIZE));
    check_memory(region);
    kept = shmat(segment, NULL, 0);
    ck_assert_ptr_ne(kept, (void *)-1);
    drp_region_free(region);
    drp_free(d);
    ck_assert(becomes(segment, -1));
    ck_assert_int_eq(shmdt(kept), 0);
    service_stop(&service);
}
END_TEST

static bool kill_before_attach;

/* The library's: linked into this program, it finds this one first. */
void *shmat(int id, const void *address, int flags) {
    if (kill_before_attach) {
        kill_before_attach = false;
        ck_assert(service_kill(&service, WAIT_MS));
    }
    return (void *)syscall(SYS_shmat, id, address, flags);
}

/* It dies between its reply and the library's hold: nobody is there, which is not to say that what was asked for cannot be had. */
START_TEST(test_killed_before_hold) {
    struct drp_region *region;
    struct drp *d;
    int r;

    hide_fsopen();
    ck_assert_int_eq(unshare(CLONE_NEWIPC), 0);
    service_start(&service, NULL);
    ck_assert_int_eq(drp_new(&d, NULL), 0);
    kill_before_attach = true;
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, _i == 0 ? &needed : NULL), -ENOTCONN);
    ck_assert(!kill_before_attach);
    service_restart(&service);
    for (uint64_t deadline = now_ms() + WAIT_MS;
         (r = drp_region_new(&region, d, SIZE, &needed)) == -ENOTCONN && now_ms() < deadline;)
        nap_ms(2);
    ck_assert_int_eq(r, 0);
    ck_assert_int_eq(attachments(segment_of(region)), 2);
    drp_region_free(region);
    drp_free(d);
    service_stop(&service);
}
END_TEST

/* Who keeps the segment beyond its region keeps ordinary memory. */
START_TEST(test_lock_ends_with_region) {
    struct shmid_ds state;
    struct drp_region *region;
    struct drp *d;
    void *kept;
    int segment;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &needed), 0);
    segment = segment_of(region);
    kept = shmat(segment, NULL, 0);
    ck_assert_ptr_ne(kept, (void *)-1);
    drp_region_free(region);
    drp_free(d);
    ck_assert(becomes(segment, -1));
    ck_assert_int_eq(shmctl(segment, IPC_STAT, &state), 0);
    ck_assert_uint_eq(state.shm_nattch, 1);
    ck_assert_int_eq(shmdt(kept), 0);
}
END_TEST

static void be_elsewhere(int socket, void *data) {
    struct drp_region *region;
    struct drp *d;

    (void)data;
    child_check(unshare(CLONE_NEWIPC) == 0);
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, SIZE, &needed) == -EOPNOTSUPP);
    child_check(strstr(drp_detail(), "namespace"));
    child_check(drp_region_new(&region, d, SIZE, NULL) == 0);
    child_check((granted(region) & DRP_REGION_NO_SWAP) == 0);
    memset(drp_region_address(region), 1, SIZE);
    child_say(socket, 'd');
    drp_region_free(region);
    drp_free(d);
}

static void be_nobody(int socket, void *data) {
    struct drp_region *region;
    struct drp *d;

    (void)data;
    child_become_nobody();
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, SIZE, &needed) == 0);
    child_check(attachments(segment_of(region)) == 2);
    memset(drp_region_address(region), 1, SIZE);
    child_say(socket, 'd');
    drp_region_free(region);
    drp_free(d);
}

START_TEST(test_others) {
    struct child child;

    child_start(&child, _i == 0 ? be_elsewhere : be_nobody, NULL);
    child_expect(&child, 'd');
    child_end(&child);
}
END_TEST

/* Of 16 segments in this namespace half are for regions, and half of these for one user. */
START_TEST(test_few_segments) {
    struct drp_region *regions[5];
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(drp_region_new(&regions[i], d, SIZE, NULL), 0);
        ck_assert_uint_eq(granted(regions[i]) & DRP_REGION_NO_SWAP, i < 4 ? DRP_REGION_NO_SWAP : 0);
        memset(drp_region_address(regions[i]), 1, SIZE);
    }
    check_refusal(d);
    drp_region_free(regions[0]);
    ck_assert_int_eq(drp_region_new(&regions[0], d, SIZE, &needed), 0);
    for (int i = 0; i < 5; i++)
        drp_region_free(regions[i]);
    drp_free(d);
}
END_TEST

/* What was made by the service before counts, too. */
START_TEST(test_few_handed_over) {
    struct drp_region *regions[4];
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(drp_region_new(&regions[i], d, SIZE, &needed), 0);
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    ck_assert(status_becomes("regions", 4, WAIT_MS));
    check_refusal(d);
    for (int i = 0; i < 4; i++)
        drp_region_free(regions[i]);
    drp_free(d);
    fixture_measure();
}
END_TEST

/* ---- another's ---- */

/* A locked segment of the number of another, which is the next in a namespace of its own. -1: it does not come to that. */
static int make_namesake(int number, void **ret_map) {
    for (int i = 0; i < 65536; i++) {
        int id = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | SHM_NORESERVE | 0600);

        if (id == number) {
            *ret_map = shmat(id, NULL, 0);
            return shmctl(id, SHM_LOCK, NULL) == 0 && *ret_map != (void *)-1 ? id : -1;
        }
        if (id < 0 || shmctl(id, IPC_RMID, NULL) < 0)
            return -1;
    }
    return -1;
}

static int open_map(const void *map) {
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)map, (unsigned long)map + SIZE);
    return open(path, O_RDWR | O_CLOEXEC);
}

static int state_page(uint64_t chunks) {
    int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    child_check(fd >= 0 && ftruncate(fd, (off_t)drp_state_bytes(chunks)) == 0 &&
                fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
    return fd;
}

static void hand_over_namesake(int socket, void *data) {
    struct drp_wire_adopt adopt = {.header.type = DRP_WIRE_ADOPT,
                                   .size = SIZE,
                                   .chunk_total = SIZE >> 16,
                                   .chunk_shift = 16,
                                   .granted = DRP_REGION_NO_SWAP};
    struct channel_packet packet;
    void *map;
    int connection, fds[2];

    child_check(unshare(CLONE_NEWIPC) == 0);
    child_check(make_namesake(*(int *)data, &map) >= 0);
    fds[0] = open_map(map);
    fds[1] = state_page(adopt.chunk_total);
    child_check(fds[0] >= 0);
    connection = raw_session("namesake");
    child_check(raw_call(connection, &adopt, sizeof(adopt), fds, 2, &packet) == DRP_WIRE_OK);
    channel_packet_close(&packet);
    child_check(raw_id(connection, DRP_WIRE_DESTROY, packet.message.create_reply.region) == DRP_WIRE_OK);
    child_say(socket, 'd');
}

/* A segment's number is not all that it is: of an object that only has the same one nobody's lock ends. */
START_TEST(test_namesake) {
    struct drp_region *region;
    struct child child;
    struct drp *d;
    int segment;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    ck_assert_int_eq(drp_region_new(&region, d, SIZE, &needed), 0);
    segment = segment_of(region);
    child_start(&child, hand_over_namesake, &segment);
    child_expect(&child, 'd');
    child_end(&child);
    ck_assert_int_eq(attachments(segment), 2);
    drp_region_free(region);
    drp_free(d);
}
END_TEST

static void setup_few(void) {
    hide_fsopen();
    ck_assert_int_eq(unshare(CLONE_NEWIPC), 0);
    ck_assert(set_limit("/proc/sys/kernel/shmmni", "16"));
    fixture_start(NULL);
}

/* Can root here do what the service needs for locking? */
static bool can_lock(void) {
    FILE *file = fopen("/proc/self/status", "re");
    uint64_t needed_caps =
        UINT64_C(1) << 40 | UINT64_C(1) << 14 | UINT64_C(1) << 21; /* checkpoint_restore, ipc_lock, sys_admin */
    uint64_t effective = 0;
    char line[256];

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "CapEff: %" SCNx64, &effective) == 1)
            break;
    if (file)
        fclose(file);
    return (effective & needed_caps) == needed_caps;
}

int main(void) {
    Suite *suite = suite_create("noswap");
    TCase *given = tcase_create("given"), *hidden = tcase_create("without tmpfs"), *segments = tcase_create("locked"),
          *next = tcase_create("next"), *few = tcase_create("few");

    tcase_set_timeout(given, 60);
    tcase_set_timeout(hidden, 60);
    tcase_set_timeout(few, 60);
    tcase_add_checked_fixture(given, fixture_setup, fixture_teardown);
    tcase_set_timeout(given, 30);
    tcase_add_test(given, test_given_or_refused);
    suite_add_tcase(suite, given);
    tcase_add_checked_fixture(hidden, setup_without_tmpfs, fixture_teardown);
    tcase_set_timeout(hidden, 30);
    tcase_add_test(hidden, test_given_or_refused);
    suite_add_tcase(suite, hidden);
    if (can_lock()) {
        tcase_add_checked_fixture(segments, setup_without_tmpfs, fixture_teardown);
        tcase_set_timeout(segments, 30);
        tcase_add_test(segments, test_locked_region);
        tcase_add_test(segments, test_larger_than_memory);
        tcase_add_test(segments, test_fork);
        tcase_add_test(segments, test_lock_ends_with_region);
        tcase_add_loop_test(segments, test_others, 0, 2);
        tcase_add_test(segments, test_namesake);
        suite_add_tcase(suite, segments);
        tcase_set_timeout(next, 30);
        tcase_add_loop_test(next, test_next_service, 0, 2);
        tcase_add_loop_test(next, test_killed_before_hold, 0, 2);
        suite_add_tcase(suite, next);
        tcase_add_checked_fixture(few, setup_few, fixture_teardown);
        tcase_set_timeout(few, 30);
        tcase_add_test(few, test_few_segments);
        tcase_add_test(few, test_few_handed_over);
        suite_add_tcase(suite, few);
    } else
        printf("noswap: segments cannot be locked by this user, only who is refused is tested\n");
    return suite_run(suite);
}
