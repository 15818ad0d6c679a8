/* SPDX-License-Identifier: MIT */
/*
 * A daemon that is killed before its new segment is marked for removal leaves it; the next one that makes one removes it, and nothing that could be
 * anybody else's. In an IPC namespace of its own.
 */

#include "locked.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE ((size_t)1 << 20)
/* As in locked.c: what an older daemon has left must be found by a newer one. */
#define KEY ((key_t)0x64726f70)
#define MODE 0400
#define OTHER_UID 65534

static const struct {
    const char *name;
    int mode;
    uid_t uid;     /* of its maker; 0: ours */
    bool attached; /* by its maker */
    bool seen;     /* by another, before that */
    bool held;     /* by another */
    bool lives;    /* its maker */
    bool scarce;   /* kernel.shmall allows no second one */
    bool stays;
} cases[] = {
    {"killed before attaching it", MODE, .stays = false},
    {"killed before marking it", MODE, .attached = true, .stays = false},
    {"it is all that there may be", MODE, .scarce = true, .stays = false},
    {"its maker lives", MODE, .lives = true, .stays = true},
    {"its maker lives, and has it", MODE, .attached = true, .lives = true, .stays = true},
    {"another has it", MODE, .held = true, .stays = true},
    {"another had it", MODE, .seen = true, .stays = true},
    {"it can have content", 0600, .attached = true, .stays = true},
    {"another's", MODE, .uid = OTHER_UID, .stays = true},
};

static void setup(void) {
    ck_assert(unshare(CLONE_NEWIPC) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWIPC) == 0);
}

static int segments(void) {
    struct shm_info info;

    ck_assert_int_ge(shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&info), 0);
    return info.used_ids;
}

/* Makes it as the case says, says so by closing its end, and lives until the other is closed. */
static pid_t start_maker(int i, int *ret_life) {
    int made[2], life[2];
    pid_t pid;

    ck_assert(pipe(made) == 0 && pipe(life) == 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        int id;

        close(life[1]);
        if (cases[i].uid != 0 && setuid(cases[i].uid) < 0)
            _exit(1);
        id = shmget(KEY, SIZE, IPC_CREAT | IPC_EXCL | cases[i].mode);
        if (id < 0 || (cases[i].attached && shmat(id, NULL, SHM_RDONLY) == (void *)-1))
            _exit(1);
        close(made[0]);
        close(made[1]);
        (void)!read(life[0], &id, sizeof(id));
        _exit(0);
    }
    close(made[1]);
    close(life[0]);
    (void)!read(made[0], &(char){0}, 1);
    close(made[0]);
    *ret_life = life[1];
    return pid;
}

static void end_maker(pid_t pid, int life) {
    int status;

    close(life);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}

static void limit_pages(const char *value) {
    int fd = open("/proc/sys/kernel/shmall", O_WRONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, value, strlen(value)), strlen(value));
    close(fd);
}

/* May fail where it takes a privilege that we have not; what was there is looked at before. */
static void make_one(void) {
    void *map;
    int fd, r = locked_new(SIZE, &fd, &map);

    ck_assert_int_ne(r, -EEXIST);
    if (r < 0)
        return;
    munmap(map, SIZE);
    close(fd);
}

START_TEST(test_left) {
    void *map = NULL;
    int life, id;
    pid_t maker;

    if ((cases[_i].uid != 0 || cases[_i].scarce) && geteuid() != 0)
        return;
    if (cases[_i].scarce)
        limit_pages("300");
    maker = start_maker(_i, &life);
    id = shmget(KEY, 0, 0);
    ck_assert_int_ge(id, 0);
    if (cases[_i].held || cases[_i].seen) {
        map = shmat(id, NULL, SHM_RDONLY);
        ck_assert_ptr_ne(map, (void *)-1);
    }
    if (cases[_i].seen)
        ck_assert_int_eq(shmdt(map), 0);
    if (!cases[_i].lives)
        end_maker(maker, life);
    ck_assert_int_eq(segments(), 1);
    for (int i = 0; i < 2; i++) {
        make_one();
        ck_assert_msg(segments() == cases[_i].stays, "%s", cases[_i].name);
    }
    if (cases[_i].lives)
        end_maker(maker, life);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("locked");
    TCase *tcase = tcase_create("left");

    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_loop_test(tcase, test_left, 0, (int)(sizeof(cases) / sizeof(cases[0])));
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
