/* SPDX-License-Identifier: MIT */
/*
 * LendUserfaultfd=: an ordinary user of the group gets /dev/userfaultfd from the service, and with it full interception: also the
 * kernel's own accesses to dropped memory, for read(2), are answered. Without lending the same user has none, `list` tells why, and
 * all that worked works. Needs root, to be both that user and the service.
 */

#include "child.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/mman.h>

#define PAGE 4096
#define NOBODY 65534
#define SIZE ((size_t)1 << 20)

/* The kernel itself touches dropped memory, on behalf of read(2): from a pipe and from a file. */
static void read_into_dropped(struct drp_region *region) {
    char *p = drp_region_address(region), page[PAGE];
    int fd = memfd_create("file", MFD_CLOEXEC), ends[2];
    uint64_t freed = 0;

    memset(page, 5, PAGE);
    child_check(pipe2(ends, O_CLOEXEC) == 0 && write(ends[1], page, PAGE) == PAGE);
    child_check(fd >= 0 && write(fd, page, PAGE) == PAGE);
    memset(p, 7, SIZE);
    child_check(drp_drop(region, 0, SIZE, &freed, NULL) == 0);
    child_check(freed == SIZE);
    child_check(read(ends[0], p, PAGE) == PAGE);
    child_check(pread(fd, p + SIZE / 2, PAGE, 0) == PAGE);
    child_check(is_filled(p, 5, PAGE) && is_filled(p + SIZE / 2, 5, PAGE));
    child_check(is_zero(p + PAGE, SIZE / 2 - PAGE));
}

static void borrow(int socket, void *data) {
    bool full = *(bool *)data;
    struct drp_region_info info = {0};
    struct drp_region *region;
    struct drp *d;
    char word;

    child_become_nobody();
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, SIZE, NULL) == 0);
    drp_region_get_info(region, &info);
    child_check(info.interception == (full ? DRP_INTERCEPTION_FULL : DRP_INTERCEPTION_NONE));
    read_into_dropped(region);
    child_say(socket, 'd');
    child_check(child_hear(socket, &word));
    region = drp_region_free(region);
    d = drp_free(d);
}

/* vm.unprivileged_userfaultfd */
static bool userfaultfd_for_all(void) {
    int fd = open("/proc/sys/vm/unprivileged_userfaultfd", O_RDONLY | O_CLOEXEC);
    char digit = '0';

    if (fd >= 0) {
        (void)!read(fd, &digit, 1);
        close(fd);
    }
    return digit == '1';
}

START_TEST(test_lending) {
    const struct group *group = getgrgid(NOBODY);
    bool lent = _i == 0, full = lent || userfaultfd_for_all();
    char config[128] = "", text[64];
    struct child child;

    if (lent)
        snprintf(config, sizeof(config), "[Daemon]\nLendUserfaultfd=%s\n", group->gr_name);
    fixture_start(config);
    child_start(&child, borrow, &full);
    child_expect(&child, 'd');
    listing_text("sessions", "pid", (uint64_t)child.pid, "interception", text, sizeof(text));
    ck_assert_str_eq(text, full ? "full" : "none");
    ck_assert_uint_eq(listing_number("sessions", "pid", (uint64_t)child.pid, "reason"), full ? 0 : EPERM);
    child_say(child.socket, 'e');
    child_end(&child);
    fixture_teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("lending");
    TCase *lending = tcase_create("lending");

    if (geteuid() != 0)
        skip_all("lending: needs root, to be another user for a while");
    if (access("/dev/userfaultfd", F_OK) < 0)
        skip_all("lending: no /dev/userfaultfd");
    if (!getgrgid(NOBODY))
        skip_all("lending: no group 65534");
    tcase_set_timeout(lending, 60);
    tcase_add_loop_test(lending, test_lending, 0, 2);
    suite_add_tcase(suite, lending);
    return suite_run(suite);
}
