/* SPDX-License-Identifier: MIT */
/* Which region has an address, while other threads make and free regions: nobody is missed who stays, and nobody is found who is not there. */

#include "client.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#define STAY 100 /* more than the first block has */
#define COME_AND_GO 64
#define SIZE ((size_t)65536)
#define MAKERS 2
#define ROUNDS 500

static struct drp_region stay[STAY], others[MAKERS][COME_AND_GO];
static _Atomic bool done;
static _Atomic unsigned wrong;

static void place(struct drp_region *r, uintptr_t number) {
    r->address = (void *)((number + 1) << 24);
    r->size = SIZE;
}

static void add(struct drp_region *r) {
    fork_lock();
    if (locate_add(r) < 0)
        atomic_fetch_add(&wrong, 1);
    fork_unlock();
}

static void take(struct drp_region *r) {
    fork_lock();
    locate_remove(r);
    fork_unlock();
}

static bool finds(const char *address, const struct drp_region *expected, size_t offset) {
    struct drp_region *r = NULL;
    size_t at = 0;

    return drp_locate(address + offset, &r, &at) == 0 && r == expected && at == offset;
}

static void *make_and_free(void *data) {
    struct drp_region *mine = data;

    for (unsigned i = 0; i < ROUNDS; i++) {
        /* Of another size each time: a slot of two regions' halves would be found. */
        for (unsigned k = 0; k < COME_AND_GO; k++) {
            mine[k].size = SIZE << (i + k) % 4;
            add(&mine[k]);
        }
        for (unsigned k = 0; k < COME_AND_GO; k++)
            if (!finds(mine[k].address, &mine[k], mine[k].size - 1))
                atomic_fetch_add(&wrong, 1);
        for (unsigned k = 0; k < COME_AND_GO; k++)
            take(&mine[k]);
        if (drp_locate(mine[i % COME_AND_GO].address, NULL, NULL) != -ERANGE)
            atomic_fetch_add(&wrong, 1);
    }
    return NULL;
}

static void *look(void *data) {
    struct drp_region *r;
    size_t offset;

    (void)data;
    while (!atomic_load(&done))
        for (unsigned i = 0; i < STAY; i++) {
            const struct drp_region *other = &others[i % MAKERS][i % COME_AND_GO];

            if (!finds(stay[i].address, &stay[i], i))
                atomic_fetch_add(&wrong, 1);
            if (drp_locate((const char *)stay[i].address + SIZE, NULL, NULL) == 0)
                atomic_fetch_add(&wrong, 1);
            /* May be there or not, but is no other than itself. */
            if (drp_locate(other->address, &r, &offset) == 0 && (r != other || offset != 0))
                atomic_fetch_add(&wrong, 1);
        }
    return NULL;
}

START_TEST(test_locate) {
    pthread_t makers[MAKERS], lookers[2];
    uintptr_t number = 0;
    pid_t pid;
    int status;

    for (unsigned i = 0; i < STAY; i++) {
        place(&stay[i], number++);
        add(&stay[i]);
    }
    for (unsigned m = 0; m < MAKERS; m++)
        for (unsigned k = 0; k < COME_AND_GO; k++)
            place(&others[m][k], number++);
    ck_assert_int_eq(fork_init(), 0);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&lookers[i], NULL, look, NULL), 0);
    for (unsigned m = 0; m < MAKERS; m++)
        ck_assert_int_eq(pthread_create(&makers[m], NULL, make_and_free, others[m]), 0);

    /* A child of that moment has a table to work with. */
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        for (unsigned i = 0; i < STAY; i++)
            if (!finds(stay[i].address, &stay[i], SIZE - 1))
                _exit(1);
        take(&stay[0]);
        if (drp_locate(stay[0].address, NULL, NULL) != -ERANGE)
            _exit(2);
        add(&stay[0]);
        _exit(finds(stay[0].address, &stay[0], 0) ? 0 : 3);
    }
    for (unsigned m = 0; m < MAKERS; m++)
        pthread_join(makers[m], NULL);
    atomic_store(&done, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(lookers[i], NULL);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert_uint_eq(atomic_load(&wrong), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("locate");
    TCase *tcase = tcase_create("locate");

    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_locate);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
