/* SPDX-License-Identifier: MIT */
/*
 * What the pressure thread finds out about sessions and the log shall have. That thread does not log: the log's reader may be slow, or
 * starved by what the thread is about to relieve. It leaves a mark, and the loop goes through the sessions.
 */

#include "notices.h"

#include "log.h"
#include "manager.h"
#include "process.h"

#include <inttypes.h>

/* A session is quarantined, or no longer. */
static void tell_quarantine(struct notices *notices, const struct config *config, struct session *session) {
    bool quarantined = atomic_load(&session->home.quarantined);
    bool logged;

    if (quarantined == session->home.quarantine_logged)
        return;
    session->home.quarantine_logged = quarantined;
    logged = log_allows(&notices->quarantines, kernel_now());
    if (!quarantined) {
        if (logged)
            log_about(LOG_LEVEL_NOTICE, &(struct log_about){SESSION_ABOUT(session), .id = LOG_ID_QUARANTINE_LIFTED},
                      "client %s (pid %d): no longer holds up the daemon: quarantine lifted", session->name,
                      (int)session->pid);
        return;
    }
    if (logged)
        log_about(LOG_LEVEL_WARNING, &(struct log_about){SESSION_ABOUT(session), .id = LOG_ID_QUARANTINED},
                  "client %s (pid %d): holds up a call for over 1 s (%s): quarantined", session->name, (int)session->pid,
                  worker_overdue(&session->home.dropper.worker, kernel_now(), 0) ? "its object's lock"
                                                                                 : "its address space's lock");
    dropper_give_up(&session->home);
    if (config->kill_stuck) {
        log_about(LOG_LEVEL_WARNING, &(struct log_about){SESSION_ABOUT(session), .id = LOG_ID_CLIENT_ENDED},
                  "client %s (pid %d): ended, as KillStuckClients= says", session->name, (int)session->pid);
        process_kill(session->pid, session->pidfd);
    }
}

/* Any of those who have it can be the cause: nobody is ended for it. */
static void tell_shared_quarantine(struct notices *notices, struct shared *shared) {
    bool quarantined = atomic_load(&shared->home.quarantined);

    if (quarantined == shared->home.quarantine_logged)
        return;
    shared->home.quarantine_logged = quarantined;
    if (log_allows(&notices->quarantines, kernel_now()))
        log_about(LOG_LEVEL_WARNING,
                  &(struct log_about){.region = shared->region->id,
                                      .id = quarantined ? LOG_ID_QUARANTINED : LOG_ID_QUARANTINE_LIFTED},
                  "shared region %" PRIu64 " '%s' of uid %u: %s", shared->region->id, shared->name, shared->uid,
                  quarantined ? "its object's lock holds up a call for over 1 s: quarantined" : "quarantine lifted");
    if (quarantined)
        dropper_give_up(&shared->home);
}

/* Once for each client: one that stays near its quota would fill the log. */
static void tell_pins(struct notices *notices, struct session *session) {
    bool own = atomic_load(&session->pins_closed);

    if (session->pins_logged || (!own && !atomic_load(&session->user->pins_closed)))
        return;
    if (!log_allows(&notices->pins, kernel_now()))
        return;
    session->pins_logged = true;
    log_about(LOG_LEVEL_NOTICE, &(struct log_about){SESSION_ABOUT(session), .id = LOG_ID_OVER_QUOTA},
              "client %s (pid %d, uid %u): pins no more for now: the quota of pinned memory is used up: %s",
              session->name, (int)session->pid, session->uid, own ? "PinnedPerClient" : "PinnedPerUser");
}

void notices_tell(struct notices *notices, struct manager *manager) {
    bool quarantines = atomic_exchange(&manager->pressure.quarantines, false);
    bool pins = atomic_exchange(&manager->budgets.pins_changed, false);
    struct session *session;
    struct home *home;

    if (!quarantines && !pins)
        return;
    LIST_FOREACH (home, &manager->homes, link)
        if (!home->session)
            tell_shared_quarantine(notices, shared_of(home));
    LIST_FOREACH (session, &manager->sessions, link) {
        tell_quarantine(notices, manager->config, session);
        tell_pins(notices, session);
    }
}
