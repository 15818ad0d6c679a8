/* SPDX-License-Identifier: MIT */
/*
 * The daemon's sign of life: a timer of the loop, four times in the time that the service manager allows. Each wakes the pressure thread; the
 * next one says WATCHDOG=1 if that thread has ended a turn since. So both really turn, and can take the manager's lock. Pagers and droppers have
 * no part in it: a client can hold up its own, which is then quarantined, and a restart would not help.
 *
 * STATUS= is sent when it has changed. It sums up all clients' figures, which takes 1 us for each region: a thousandth of the time at most.
 */

#include "heartbeat.h"

#include "manager.h"
#include "notify.h"
#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HEARTBEATS_AT_ONCE 4
#define HEARTBEAT_MOST_MS 5000 /* apart: STATUS= is not older */
#define HEARTBEAT_STATUS_COST 1000

static const char *plural(uint64_t n) {
    return n == 1 ? "" : "s";
}

static void describe(const struct drp_wire_status_reply *status, char *text, size_t size) {
    unsigned warnings = 0;
    int n;

    for (const char *at = status->notes; (at = strchr(at, '\n')); at++)
        warnings++;
    n = snprintf(text, size,
                 "%" PRIu32 " client%s, %" PRIu32 " region%s, %" PRIu64 " MiB resident, %" PRIu64 " MiB dropped",
                 status->sessions, plural(status->sessions), status->regions, plural(status->regions),
                 status->counters.resident_bytes >> 20, status->counters.dropped_bytes >> 20);
    if (status->quarantined > 0)
        n += snprintf(text + n, size - (size_t)n, ", %" PRIu32 " quarantined", status->quarantined);
    if (warnings > 0)
        snprintf(text + n, size - (size_t)n, "; %u warning%s, see 'droppablectl status'", warnings, plural(warnings));
}

/* Is there anything new to tell? */
static bool look(struct heartbeat *heartbeat) {
    uint64_t began = kernel_now();
    struct drp_wire_status_reply status = {0};
    char text[sizeof(heartbeat->status)];

    if (began < heartbeat->due)
        return false;
    report_status(heartbeat->manager, &status);
    describe(&status, text, sizeof(text));
    heartbeat->due = began + (kernel_now() - began) * HEARTBEAT_STATUS_COST;
    if (strcmp(text, heartbeat->status) == 0)
        return false;
    memcpy(heartbeat->status, text, sizeof(text));
    return true;
}

static void beat(uv_timer_t *timer) {
    struct heartbeat *heartbeat = timer->data;
    struct pressure *pressure = &heartbeat->manager->pressure;
    uint64_t turns = atomic_load(&pressure->turns);

    if (heartbeat->watched && turns != heartbeat->turns)
        notify_tell("WATCHDOG=1");
    heartbeat->turns = turns;
    if (heartbeat->watched)
        pressure_wake(pressure);
    if (look(heartbeat))
        notify_tell("STATUS=%s", heartbeat->status);
}

int heartbeat_start(struct heartbeat *heartbeat, uv_loop_t *loop, struct manager *manager) {
    uint64_t period = notify_watchdog() / 1000000 / HEARTBEATS_AT_ONCE;
    int r;

    *heartbeat = (struct heartbeat){.manager = manager, .watched = period > 0};
    if (!notify_is_heard())
        return 0;
    r = uv_timer_init(loop, &heartbeat->timer);
    if (r < 0)
        return r;
    heartbeat->started = true;
    heartbeat->timer.data = heartbeat;
    uv_unref((uv_handle_t *)&heartbeat->timer);
    if (period == 0 || period > HEARTBEAT_MOST_MS)
        period = HEARTBEAT_MOST_MS;
    look(heartbeat);
    notify_state("READY=1\nSTATUS=%s", heartbeat->status);
    heartbeat->turns = atomic_load(&manager->pressure.turns);
    pressure_wake(&manager->pressure);
    return uv_timer_start(&heartbeat->timer, beat, period, period);
}

void heartbeat_stop(struct heartbeat *heartbeat) {
    if (heartbeat->started)
        uv_close((uv_handle_t *)&heartbeat->timer, NULL);
}
