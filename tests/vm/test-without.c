/* SPDX-License-Identifier: MIT */
/*
 * The installed service where something is missing that it would use: PSI (the kernel's argument psi=0), io_uring, a userfaultfd for its client. It
 * says so, and all goes on: an ordinary user's memory makes room for a hog in the same cgroup, pins hold, what is dropped reads zeros.
 * In a guest, as root, with a user `member` who may connect.
 */

#include "child.h"
#include "fixture.h"
#include "installed.h"
#include "memcg.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define LIMIT (256 * MIB)
#define SIZE (128 * MIB)
#define PINNED (16 * MIB)
#define HOG (190 * MIB)
#define STEP (64 * 1024)

static void become_member(void) {
    const struct passwd *member = getpwnam("member");

    child_check(member);
    child_check(initgroups(member->pw_name, member->pw_gid) == 0);
    child_check(setgid(member->pw_gid) == 0 && setuid(member->pw_uid) == 0);
    /* A change of uid takes these away. */
    child_check(prctl(PR_SET_DUMPABLE, 1) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
}

static void have_memory(int socket, void *data) {
    bool intercepted = *(bool *)data;
    struct drp_region_info info;
    struct drp_region *region;
    uint64_t generation, freed;
    unsigned char *p;
    struct drp *d;
    char word;

    become_member();
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, SIZE, NULL) == 0);
    drp_region_get_info(region, &info);
    child_check(info.interception == (intercepted ? DRP_INTERCEPTION_FULL : DRP_INTERCEPTION_NONE));
    p = drp_region_address(region);
    child_check(drp_pin(region, 0, PINNED, &generation) == 0);
    memset(p, 7, SIZE);
    child_check(child_say(socket, 'f') && child_hear(socket, &word));
    child_check(is_filled(p, 7, PINNED) && drp_generation(region, 0, PINNED) == generation);
    child_check(drp_generation(region, PINNED, SIZE - PINNED) != 0);
    child_check(drp_drop(region, 0, SIZE, &freed, NULL) == 0);
    child_check(is_filled(p, 7, PINNED) && is_zero(p + PINNED, SIZE - PINNED));
    drp_unpin(region, 0, PINNED);
    drp_region_free(region);
    drp_free(d);
}

static void take_memory(int socket, void *data) {
    unsigned char *p = mmap(NULL, HOG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char word;

    (void)data;
    child_check(p != MAP_FAILED && madvise(p, HOG, MADV_NOHUGEPAGE) == 0);
    for (size_t at = 0; at < HOG; at += STEP) {
        memset(p + at, 1, STEP);
        if (at % MIB == 0)
            usleep(5000); /* 0.2 GB/s at most: not about speed */
    }
    child_check(child_say(socket, 'f') && child_hear(socket, &word));
}

static void check_life(bool intercepted) {
    struct child holder, hog;
    struct memcg memcg;
    const char *reason;
    uint64_t before = service_status(&service, "dropped_bytes");

    ck_assert_msg(memcg_make(&memcg, LIMIT, &reason), "%s", reason);
    child_start(&holder, have_memory, &intercepted);
    memcg_take(&memcg, holder.pid);
    child_expect(&holder, 'f');
    child_start(&hog, take_memory, NULL);
    memcg_take(&memcg, hog.pid);
    child_expect(&hog, 'f');
    printf("dropped for a hog: %ju MiB; OOM kills: %ju\n",
           (uintmax_t)(service_status(&service, "dropped_bytes") - before) / MIB, (uintmax_t)memcg_oom_kills(&memcg));
    ck_assert_uint_eq(memcg_oom_kills(&memcg), 0);
    ck_assert_uint_gt(service_status(&service, "dropped_bytes"), before);
    child_say(hog.socket, 'e');
    child_end(&hog);
    child_say(holder.socket, 'e');
    child_end(&holder);
    memcg_remove(&memcg);
}

static void check_note(const char *text) {
    char line[512];

    ck_assert_int_eq(shell(line, sizeof(line), "droppablectl status | grep -e '%s'", text), 0);
    printf("%s\n", line);
}

START_TEST(test_psi) {
    ck_assert_int_ne(access("/proc/pressure/memory", F_OK), 0);
    run("systemctl restart droppabled");
    ck_assert(!status_feature("psi"));
    check_note("no PSI triggers");
    check_life(false);
}
END_TEST

/* Before Linux 6.6 there is no setting for it: a filter of the unit's does. */
START_TEST(test_io_uring) {
    bool by_setting = access("/proc/sys/kernel/io_uring_disabled", F_OK) == 0;

    if (by_setting)
        run("sysctl -q kernel.io_uring_disabled=2");
    else
        run("mkdir -p /run/systemd/system/droppabled.service.d && printf '[Service]\\nSystemCallFilter=~io_uring_setup\\n' "
            ">/run/systemd/system/droppabled.service.d/uring.conf && systemctl daemon-reload");
    run("systemctl restart droppabled");
    ck_assert(!status_feature("io_uring"));
    check_note("no io_uring");
    check_life(false);
    if (by_setting)
        run("sysctl -q kernel.io_uring_disabled=0");
    else
        run("rm /run/systemd/system/droppabled.service.d/uring.conf && systemctl daemon-reload");
    run("systemctl restart droppabled");
    ck_assert(status_feature("io_uring"));
}
END_TEST

/* Not lent, and lent by the service as it is installed: with its udev rule, and the device in its sandbox. */
START_TEST(test_userfaultfd) {
    char line[64];

    ck_assert_int_eq(shell(line, sizeof(line), "sysctl -n vm.unprivileged_userfaultfd"), 0);
    ck_assert_str_eq(line, "0");
    run("systemctl restart droppabled");
    ck_assert(!status_feature("userfaultfd_lent"));
    check_life(false);
    run("mkdir -p /etc/droppable && printf '[Daemon]\\nLendUserfaultfd=droppable\\n' >/etc/droppable/droppabled.conf && "
        "systemctl restart droppabled");
    ck_assert(status_feature("userfaultfd_lent"));
    check_life(true);
    run("rm /etc/droppable/droppabled.conf && systemctl restart droppabled");
}
END_TEST

int main(void) {
    const struct {
        const char *name;
        const TTest *test;
    } cases[] = {{"psi", test_psi}, {"io_uring", test_io_uring}, {"userfaultfd", test_userfaultfd}};
    Suite *suite = suite_create("without");

    snprintf(service.socket, sizeof(service.socket), "/run/droppabled.sock");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        TCase *tcase = tcase_create(cases[i].name);

        tcase_set_timeout(tcase, 60);
        tcase_add_test(tcase, cases[i].test);
        suite_add_tcase(suite, tcase);
    }
    return suite_run(suite);
}
