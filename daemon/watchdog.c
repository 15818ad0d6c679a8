/* SPDX-License-Identifier: MIT */
/* The watchdog of the workers: a call overdue by 1 s quarantines its session, and one that returns frees it. */

#include "watchdog.h"

#include "manager.h"

#include <unistd.h>

#define OVERDUE_NS UINT64_C(1000000000)

void watchdog_look(struct manager *manager) {
    uint64_t now = kernel_now();
    struct session *session;
    struct home *home;
    bool changed = false, any = false;

    if (now - manager->pressure.watched < WATCHDOG_NS)
        return;
    manager->pressure.watched = now;
    LIST_FOREACH (home, &manager->homes, link) {
        bool overdue = worker_overdue(&home->dropper.worker, now, OVERDUE_NS) ||
                       (home->session && worker_overdue(&home->session->pager.worker, now, OVERDUE_NS));

        if (atomic_exchange(&home->quarantined, overdue) != overdue)
            changed = true;
        any |= overdue;
    }
    LIST_FOREACH (session, &manager->sessions, link) {
        session_review_former(session);
    }
    manager->pressure.quarantined = any;
    if (!changed)
        return;
    atomic_store(&manager->pressure.quarantines, true);
    (void)!write(manager->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}
