/* SPDX-License-Identifier: MIT */
/* What somebody asked the pressure thread for is given up at the daemon's end, and who waits for it is told. */

#include "container.h"
#include "manager.h"
#include "suite.h"

#include <check.h>

struct asking {
    struct pressure_hand hand;
    struct completion completion;
    struct manager *manager;
    unsigned told;
};

static void done(struct pressure_hand *hand) {
    struct asking *asking = container_of(hand, struct asking, hand);

    manager_complete(asking->manager, &asking->completion);
}

static void told(struct completion *completion) {
    struct asking *asking = container_of(completion, struct asking, completion);

    asking->told++;
    domain_unref(asking->hand.domain);
}

START_TEST(test_end) {
    static struct manager manager;
    struct asking asking[2] = {0};
    struct config config;

    config_init(&config);
    ck_assert_int_eq(manager_init(&manager, &config), 0);
    for (size_t i = 0; i < 2; i++) {
        manager.domains.machine->refs++;
        asking[i].manager = &manager;
        asking[i].completion.run = told;
        asking[i].hand = (struct pressure_hand){.domain = manager.domains.machine, .wanted = 1, .done = done};
        pressure_ask(&manager.pressure, &asking[i].hand); /* its thread was not even started */
    }
    manager_deinit(&manager);
    for (size_t i = 0; i < 2; i++)
        ck_assert_uint_eq(asking[i].told, 1);
    config_deinit(&config);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("hand");
    TCase *tcase = tcase_create("hand");

    tcase_add_test(tcase, test_end);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
