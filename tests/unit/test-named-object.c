/* SPDX-License-Identifier: MIT */
/* Objects that are never swapped and have a name: what the passport of a shared region is made of. */

#include "kernel.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static struct kernel kernel;

static void with_kernel(void) {
    ck_assert_int_eq(kernel_init(&kernel), 0);
}

static void without_kernel(void) {
    kernel_deinit(&kernel);
}

static void expect_name(int fd, const char *name) {
    char path[64], text[128], wanted[128];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    snprintf(wanted, sizeof(wanted), "/%s (deleted)", name);
    n = readlink(path, text, sizeof(text) - 1);
    ck_assert_int_gt(n, 0);
    text[n] = '\0';
    ck_assert_str_eq(text, wanted);
}

/* Its name is seen for good, also when the mount is gone, and is nobody's to take, to change or to keep others from. */
START_TEST(test_named_object) {
    static const char name[] = "droppable:8192:0:0:600:a.b(c)";
    struct kernel bare = kernel;
    int first = -1, second, left;
    struct stat st;

    bare.noswap = false;
    ck_assert_int_eq(kernel_named_object(&bare, name, 8192, &first), -EOPNOTSUPP);
    if (!kernel.noswap)
        return;
    ck_assert_int_lt(kernel_named_object(&kernel, name, UINT64_MAX, &first), 0);
    ck_assert_int_eq(first, -1);
    ck_assert_int_eq(kernel_named_object(&kernel, name, 8192, &first), 0);
    ck_assert_int_eq(kernel_named_object(&kernel, name, 4096, &second), 0);
    close(second);
    /* One whose unlink failed. */
    left = openat(kernel.mount_small, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    ck_assert_int_ge(left, 0);
    ck_assert_int_eq(kernel_named_object(&kernel, name, 4096, &second), 0);
    ck_assert_int_lt(faccessat(kernel.mount_small, name, F_OK, 0), 0);
    close(left);
    close(second);

    ck_assert_int_eq(fcntl(first, F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(fstat(first, &st), 0);
    ck_assert_int_eq(st.st_size, 8192);
    ck_assert_int_eq(st.st_mode, S_IFREG | 0600);
    ck_assert_uint_eq(st.st_nlink, 0);
    ck_assert_uint_eq(st.st_uid, geteuid());
    ck_assert_int_eq(kernel_check_data_object(first, 8192), 0);
    expect_name(first, name);
    ck_assert_int_lt(linkat(first, "", kernel.mount_small, "other", AT_EMPTY_PATH), 0);
    kernel_deinit(&kernel); /* the mount's only descriptor */
    expect_name(first, name);
    ck_assert_int_eq(kernel_reopen_readonly(first, &second), 0);
    expect_name(second, name);
    close(second);
    close(first);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("named-object");
    TCase *tcase = tcase_create("named-object");

    tcase_add_checked_fixture(tcase, with_kernel, without_kernel);
    tcase_add_test(tcase, test_named_object);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
