/* SPDX-License-Identifier: MIT */
/* Whether a process has ended of which only the number is left, and the inode that its pidfd had. */

#include "process.h"

#include "service.h"
#include "suite.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int words[2];

static void setup(void) {
    ck_assert_int_eq(pipe(words), 0);
}

/* 0: there are no pidfds. */
static uint64_t inode_of(pid_t pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct stat st = {0};

    if (fd >= 0) {
        ck_assert_int_eq(fstat(fd, &st), 0);
        close(fd);
    }
    return st.st_ino;
}

static void wait_for_exit(pid_t pid) {
    siginfo_t info;

    ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

START_TEST(no_numbers) {
    ck_assert(!process_has_ended(0, 0) && !process_has_ended(-1, 0) && !process_has_ended(-1, 1));
}
END_TEST

START_TEST(lives) {
    int next = dup(0), again;

    ck_assert(!process_has_ended(getpid(), 0) && !process_has_ended(getpid(), inode_of(getpid())));
    again = dup(0);
    ck_assert_int_eq(again, next + 1); /* it keeps no descriptor */
}
END_TEST

/* A child that nobody waits for, and after that. */
START_TEST(unreaped) {
    uint64_t inode;
    char byte;
    pid_t pid = fork();

    if (pid == 0)
        _exit((int)read(words[0], &byte, 1) - 1);
    inode = inode_of(pid);
    ck_assert(!process_has_ended(pid, inode));
    ck_assert_int_eq(write(words[1], "", 1), 1);
    wait_for_exit(pid);
    ck_assert(process_has_ended(pid, 0) || inode == 0);
    ck_assert(process_has_ended(pid, inode) || inode == 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert(process_has_ended(pid, 0) && process_has_ended(pid, inode));
}
END_TEST

static void *go_on(void *data) {
    char byte;

    _exit((int)read(words[0], &byte, 1) - 1);
    return data;
}

static char state_of(pid_t pid) {
    char path[64], state = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
    fclose(file);
    return state;
}

/* Its first thread has ended, which makes it look so, but another one goes on. */
START_TEST(first_thread_ended) {
    uint64_t deadline = deadline_in(10000);
    pthread_t thread;
    pid_t pid = fork();

    if (pid == 0) {
        pthread_create(&thread, NULL, go_on, NULL);
        pthread_exit(NULL);
    }
    for (; state_of(pid) != 'Z'; nap_ms(1))
        ck_assert_uint_lt(now_ms(), deadline);
    ck_assert(!process_has_ended(pid, inode_of(pid)));
    ck_assert_int_eq(write(words[1], "", 1), 1);
    wait_for_exit(pid);
    ck_assert(process_has_ended(pid, 0) || inode_of(pid) == 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

/* Another one has its number: of this one's parent the inode tells it apart, where pidfds have inodes of their own. */
START_TEST(number_used_again) {
    uint64_t inode = inode_of(getppid());

    ck_assert_int_eq(process_has_ended(getpid(), inode), inode != inode_of(getpid()));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("process");
    TCase *tcase = tcase_create("process");

    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, no_numbers);
    tcase_add_test(tcase, lives);
    tcase_add_test(tcase, unreaped);
    tcase_add_test(tcase, first_thread_ended);
    tcase_add_test(tcase, number_used_again);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
