/* SPDX-License-Identifier: MIT */
/*
 * The recorder: which files it takes, what it writes, and what becomes of more events than it has room for.
 *
 * There is one recorder a process: Check's fork mode gives each test its own.
 */

#include "record.h"
#include "suite.h"
#include "tree.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS 4
#define EVENTS 200000

static char folder[] = "/tmp/test-record-XXXXXX";
static char path[64];

static void setup(void) {
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/trace", folder);
}

static void teardown(void) {
    unlink(path);
    ck_assert_int_eq(rmdir(folder), 0);
}

static void expect_refused(int error, const char *what) {
    const char *why = NULL;

    ck_assert_int_eq(record_open(path, &why), error);
    ck_assert_str_eq(why, what);
}

START_TEST(test_files) {
    const char *why;
    struct stat st;
    int fd;

    ck_assert_int_eq(mkfifo(path, 0600), 0);
    expect_refused(-ENXIO, "cannot open it"); /* nobody reads: no wait for somebody either */
    fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    expect_refused(-EINVAL, "not a regular file");
    close(fd);
    unlink(path);
    ck_assert_int_eq(symlink("/dev/null", path), 0);
    expect_refused(-ELOOP, "cannot open it");
    unlink(path);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    expect_refused(-EISDIR, "cannot open it");
    rmdir(path);

    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ck_assert_int_eq(write(fd, "old", 3), 3);
    close(fd);
    ck_assert_int_eq(record_open(path, &why), 0);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_size, 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    ck_assert_int_eq(record_stop(), 0);
}
END_TEST

/* The lines but for those that say how late it is: a slow machine has them anywhere. */
static const char *without_times(const char *text) {
    static char lines[4096];
    char *to = lines;

    ck_assert_uint_lt(strlen(text), sizeof(lines));
    while (*text) {
        size_t n = strcspn(text, "\n") + 1;

        if (*text != 't')
            to = mempcpy(to, text, n);
        text += n;
    }
    *to = '\0';
    return lines;
}

START_TEST(test_lines) {
    uint64_t bits[8] = {UINT64_C(1) << 63 | 6, 1};
    const char *why, *text;

    record_fault(1, 1, false); /* nothing is recorded yet */
    ck_assert_int_eq(record_open(path, &why), 0);
    ck_assert_int_eq(record_start(), 0);
    record_event(RECORD_DOMAIN, 2, 1, 0, 0, 0);
    record_event(RECORD_REGION, 5, 4, 2, 1 << 21, UINT64_C(16) << 48 | UINT64_C(3) << 32 | 250);
    record_fault(5, 7, false);
    record_fault(5, 8, true);
    record_event(RECORD_PINS, 5, 3, 2, 0, 0);
    record_drop(true, 5, 512, bits, 512);
    record_drop(false, 5, 0, bits, 8);
    record_demand(2, 1, 65536);
    record_freed(2, 4096);
    record_budget(3, 8192);
    record_end(5);
    ck_assert_int_eq(record_stop(), 0);
    record_end(6);
    text = tree_text(path);
    ck_assert_msg(strncmp(text, "droppable-trace 1\n", 18) == 0, "%s", text);
    text = strchr(text + 18, '\n') + 1; /* behind B */
    ck_assert_str_eq(without_times(text),
                     "D 2 1\nR 5 4 2 2097152 16 3 250\nf 5 7\nr 5 8\np 5 3 2 0\nx 5 513 2\nx 5 575 2\no 5 1 2\n"
                     "d 2 1 65536\ng 2 4096\nb 3 8192\nE 5\n");
}
END_TEST

static void *enter_many(void *data) {
    for (uint64_t i = 0; i < EVENTS; i++)
        record_fault((uint64_t)(uintptr_t)data, i, false);
    return NULL;
}

/* Everything is either in the trace, in its thread's order, or counted as lost. */
START_TEST(test_many_threads) {
    uint64_t next[THREADS] = {0}, lost = 0, n = 0;
    pthread_t threads[THREADS];
    const char *why;
    char line[64];
    FILE *file;

    ck_assert_int_eq(record_open(path, &why), 0);
    ck_assert_int_eq(record_start(), 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, enter_many, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(record_stop(), 0);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file)) {
        unsigned long long a, b;

        if (sscanf(line, "L %llu", &a) == 1)
            lost += a;
        if (sscanf(line, "f %llu %llu", &a, &b) != 2)
            continue;
        ck_assert_uint_lt(a, THREADS);
        ck_assert_uint_ge(b, next[a]);
        next[a] = b + 1;
        n++;
    }
    fclose(file);
    ck_assert_uint_gt(lost, 0); /* else the ring is never full */
    ck_assert_uint_eq(n + lost, (uint64_t)THREADS * EVENTS);
}
END_TEST

START_TEST(test_full_disk) {
    const char *why;
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC), fd;

    if (full < 0)
        return;
    ck_assert_int_eq(record_open(path, &why), 0);
    /* The file's descriptor becomes one on which every write fails. */
    for (fd = 3; fd < 64; fd++) {
        char link[64], name[64] = "";

        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        if (readlink(link, name, sizeof(name) - 1) > 0 && strcmp(name, path) == 0)
            break;
    }
    ck_assert_int_lt(fd, 64);
    ck_assert_int_eq(dup2(full, fd), fd);
    close(full);
    ck_assert_int_eq(record_start(), 0);
    record_fault(1, 1, false);
    ck_assert_int_eq(record_stop(), -ENOSPC);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("record");
    TCase *tcase = tcase_create("record");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_files);
    tcase_add_test(tcase, test_lines);
    tcase_add_test(tcase, test_many_threads);
    tcase_add_test(tcase, test_full_disk);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
