/* SPDX-License-Identifier: MIT */

/*
 * The watcher: one helper thread per context that notices the end of the daemon and brings the regions to the next one.
 *
 *   connected    asleep in poll(2) on the connection and drp.wake, without timeout; while a region is held up, for a while only
 *   lost         the connection ended: requests fail with ENOTCONN from here on. Regions keep their pins and
 *                generations as they are, odd ones are waited for: the daemon's punches may still be in flight
 *   gone         the daemon's process has ended, all its threads with it (pidfd, or its number): an odd generation will not be settled
 *                any more and counts as lost. Regions are plain memory. After 3 s without that the next connection is looked for all the same; odd ones are
 *                waited for as long as the daemon lives, but for one of which nothing can be seen
 *   connecting   by inotify on the socket's directory, and by a timer from 10 ms to 1 s in case that there is none. A
 *                new connection is built up in drp.fresh, where no other thread sees it, each region is handed over,
 *                and the whole is published as drp.link at once
 *
 * A region that the new daemon does not take stays plain memory; the others go on. One that is held up by somebody's lock, or by a daemon that was cut off and lives, is offered again, at
 * first after 100 ms, then after twice as much each time, up to 10 s. If the new daemon is lost on the
 * way, what came of it is published all the same: it is then lost and gone by the same rules as any daemon. Of a region that stays behind, the process
 * that was about to drop is not watched any more once there is another connection: who meets an odd generation looks by himself whether it has
 * ended (pins.keeper).
 *
 *   withdrawn    the program has closed descriptors of the library, or put others in their place: with the last of drp.wake's other end this thread
 *                wakes. Nothing is opened by itself then, for a program that does so may count on the numbers that its next files get. The next
 *                request makes a connection and a thread, as in a forked child; that thread offers those regions which still have their descriptors,
 *                the others stay plain memory. pins.keeper is for these, too
 *
 * The thread never touches the memory of a region, which could make it wait for the daemon that it watches. It takes
 * requests' lock for moments only, since it sends its requests over a link of its own; but for regions that are offered again, and whoever began to
 * ask for drops meanwhile.
 */

#include "client.h"
#include "keeper.h"
#include "local.h"
#include "options.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#define STACK_SIZE ((size_t)128 << 10)
#define GONE_WAIT_MS 3000
#define GONE_LOOK_MS 20
#define BACKOFF_MIN_MS 10
#define BACKOFF_MAX_MS 1000
#define OFFER_MIN_MS 100
#define OFFER_MAX_MS 10000

static bool has_wake(const struct drp *d) {
    return object_holds(d->wake[0], &d->wake_objects[0]);
}

/*
 * After a wake-up: is it the end, or was the other end closed? Whoever stops us says so before the wake-up: looked at after all words are taken off,
 * or the word that we took off last would have been that, and no other comes.
 */
static bool shall_stop(struct drp *d) {
    char words[64];
    ssize_t n;

    if (!has_wake(d))
        return true;
    do
        n = recv(d->wake[0], words, sizeof(words), MSG_DONTWAIT);
    while (n > 0 || (n < 0 && errno == EINTR));
    return n == 0 || errno != EAGAIN || atomic_load(&d->stopping);
}

/* Waits until fd (-1: none) has events or the time is over (-1: never). false: stop. */
static bool sleep_on(struct drp *d, int fd, short events, int timeout_ms) {
    struct pollfd polls[2] = {
        {.fd = fd, .events = events},
        {.fd = d->wake[0], .events = POLLIN},
    };

    while (has_wake(d)) {
        if (wait_poll(polls, 2, timeout_ms) < 0)
            continue;
        if (polls[1].revents && shall_stop(d))
            return false;
        if (polls[1].revents == 0 && !(polls[0].revents & POLLNVAL))
            return true;
        if (polls[0].revents & POLLNVAL)
            polls[0].fd = -1; /* the program has closed it: the time is to pass all the same */
    }
    return false;
}

static void set_lost(struct drp *d) {
    pthread_mutex_lock(&d->regions_lock);
    pthread_mutex_lock(&d->request_lock);
    atomic_store(&d->connected, false);
    for (struct drp_region *r = d->regions; r; r = r->next) {
        r->known = false;
        r->stale |= r->phase == REGION_LIVE && r->backend == DRP_BACKEND_DAEMON;
        r->told_options = 0;
        r->told_lent = false;
        atomic_store(&r->connected, false);
    }
    pthread_mutex_unlock(&d->request_lock);
    pthread_mutex_unlock(&d->regions_lock);
}

/*
 * The connection ends before the punches that are under way. A process that does not end is held up by somebody else's lock: our own
 * punches take our own object's lock, and are long through by then, unless we hold it ourselves. Nothing tells the end of one that has no
 * pidfd (before Linux 5.3), and of one in another pid namespace (before 6.5) nothing can be seen.
 */
static bool wait_gone(struct drp *d) {
    int64_t deadline = wait_now_ms() + GONE_WAIT_MS;

    if (link_has_pidfd(&d->link))
        return sleep_on(d, d->link.pidfd, POLLIN, GONE_WAIT_MS);
    while (!keeper_has_ended(&d->link) && wait_now_ms() < deadline)
        if (!sleep_on(d, -1, 0, GONE_LOOK_MS))
            return false;
    return true;
}

/* At its limit of descriptors a process needs those of the last connection for the next one. */
static void set_gone(struct drp *d) {
    pthread_mutex_lock(&d->regions_lock);
    if (!keeper_mark_gone(d))
        link_close(&d->link);
    pthread_mutex_unlock(&d->regions_lock);
    lost_close(d);
}

/* ---- the next daemon ---- */

/* Watches the directory of the socket; without success the timer alone has to do. */
static void notify_begin(struct drp *d) {
    char *directory = strdup(d->socket_path);
    char *slash = directory ? strrchr(directory, '/') : NULL;
    const char *path = ".";

    if (slash) {
        slash[slash == directory] = '\0';
        path = directory;
    }
    fork_lock();
    d->notify = object_keep(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    object_note_kind(d->notify, &d->notify_object, OBJECT_INOTIFY);
    if (d->notify >= 0 && inotify_add_watch(d->notify, path, IN_CREATE | IN_MOVED_TO | IN_ATTRIB) < 0)
        object_close(&d->notify, &d->notify_object);
    fork_unlock();
    free(directory);
}

static void notify_end(struct drp *d) {
    fork_lock();
    object_close(&d->notify, &d->notify_object);
    fork_unlock();
}

/* Takes all events off. true: there were some. */
static bool notify_drain(struct drp *d) {
    char events[1024] __attribute__((aligned(__alignof__(struct inotify_event))));
    bool any = false;

    while (object_owns(d->notify, &d->notify_object) && read(d->notify, events, sizeof(events)) > 0)
        any = true;
    return any;
}

/*
 * Somebody's lock holds a region up: of a shared one that of whoever has it, too; or the daemon is the same as before, and still at work on it for the
 * connection that ended. Or a quota does, or memory: what the connection that ended had counts until its session does. That is an answer, and no reason to
 * leave the others behind; nor is a shortage here, as of descriptors.
 */
static bool is_held_up(const struct link *link, int error) {
    const struct drp_wire_header *reply = &link->packet->message.header;

    return error < 0 && reply->serial == link->serial &&
           (reply->error == DRP_WIRE_ERROR_QUARANTINED || reply->error == DRP_WIRE_ERROR_QUOTA ||
            reply->error == DRP_WIRE_ERROR_MEMORY);
}

/* Makes d->fresh the connection of all. regions_lock held. */
static void publish(struct drp *d) {
    struct channel_packet *spare = d->link.packet;

    keeper_mark_gone(d); /* the last look */
    keeper_leave(d);
    pthread_mutex_lock(&d->request_lock);
    link_close(&d->link);
    fork_lock();
    d->link = d->fresh;
    link_init(&d->fresh, d, spare);
    fork_unlock();
    d->link.stop = -1;
    d->epoch++;
    atomic_fetch_add(&d->reconnects, 1);
    atomic_store(&d->connected, true);
    pthread_mutex_unlock(&d->request_lock);
}

/* The next service will not know the pins of a shared one that lacks descriptors, or of whose mapping it does not know, and drops for others. */
static int adopt(struct drp_region *r, struct link *link) {
    pid_t keeper = atomic_exchange(&r->pins.keeper, 0); /* before there is another one's page */
    int error = object_check_region(r);

    if (error == 0)
        error = region_adopt(r, link);
    if (r->stale)
        atomic_store(&r->pins.keeper, keeper);
    if (error == 0)
        pins_allow(&r->pins);
    else if (r->granted & DRP_REGION_SHARED && ((r->known && !link_is_lost(error)) || object_check_region(r) < 0))
        pins_refuse(&r->pins);
    return error;
}

static int hand_over_to(struct drp_region *r, struct link *link) {
    int error;

    switch (r->backend) {
    case DRP_BACKEND_DAEMON:
        return adopt(r, link);
    case DRP_BACKEND_NATIVE:
        error = native_register(r, link);
        return error < 0 ? error : options_hand_over(r, link);
    default:
        return 0;
    }
}

/* false: it is the connection that is of no use; a refusal concerns the region alone. */
static bool hand_over(const struct drp *d, struct drp_region *r, struct link *link) {
    uint32_t before = link->serial;
    bool held_up;
    int error;

    if (r->backend == DRP_BACKEND_DAEMON && keeper_holds(d, r, link)) {
        r->held_up = true;
        return true;
    }
    error = hand_over_to(r, link);
    held_up = link->serial != before && is_held_up(link, error);
    if (held_up && r->stale && link->packet->message.header.error == DRP_WIRE_ERROR_QUARANTINED)
        keeper_is_at_work(d, r, link);

    /* What came of another's, with descriptors that did not fit, is not known. */
    held_up |= r->backend == DRP_BACKEND_NATIVE && error_is_shortage(error);

    r->held_up = held_up && !r->known;
    return held_up || !link_is_lost(error);
}

/* All of it is done once more. Not who has ended the connection himself is cut off: he begins nothing any more. */
static void give_up(struct link *link) {
    char byte;

    if (!object_holds(link->socket, &link->socket_object) || recv(link->socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0)
        link_cut(link);
}

/* How long until what was held up is offered again: ms, -1: nothing is. */
static int until_offer(const struct drp *d) {
    int64_t at = atomic_load(&d->offer_at), left = at - wait_now_ms();

    if (at == 0)
        return -1;
    return left > 0 ? (int)left : 0;
}

/* The same, or until somebody has to look whether the program has ended. */
static int until_look(const struct drp *d) {
    int offer = until_offer(d), last = last_pause();

    return offer < 0 || (last >= 0 && last < offer) ? last : offer;
}

/* regions_lock held. */
static void plan_offer(struct drp *d, int pause) {
    bool due = d->watch_due;

    d->offer_pause = pause < OFFER_MAX_MS ? pause : OFFER_MAX_MS;
    for (const struct drp_region *r = d->regions; r; r = r->next)
        due |= r->phase == REGION_LIVE && r->held_up;
    atomic_store(&d->offer_at, due ? wait_now_ms() + d->offer_pause : 0);
}

/* What was dropped before is told by lost_again(). regions_lock held, and request_lock unless the link is ours alone. */
static void watch_again(struct drp *d, struct link *link) {
    int error = lost_watch_again(d, link);

    if (link_is_lost(error))
        give_up(link);
    d->watch_due = error < 0;
}

/* Those that are shared, or the others. Returns the one at which the connection turned out to be of no use, or NULL. regions_lock held. */
static struct drp_region *hand_over_all(struct drp *d, bool shared) {
    struct drp_region *r;

    for (r = d->regions; r; r = r->next)
        if (r->phase == REGION_LIVE && shared == !!(r->granted & DRP_REGION_SHARED) && !hand_over(d, r, &d->fresh))
            break;
    return r;
}

/*
 * The shared ones come first: the service waits for them for a time only, and nothing of this process holds them up.
 *
 * A daemon that does not answer in time is as good as lost: each region more would wait for it again, and what it takes over too late nobody would
 * know of. With the connection ended, all of it is done once more.
 */
static void adopt_all(struct drp *d) {
    struct drp_region *r;

    pthread_mutex_lock(&d->regions_lock);
    r = hand_over_all(d, true);
    if (!r)
        r = hand_over_all(d, false);
    if (r)
        give_up(&d->fresh);
    else
        watch_again(d, &d->fresh);
    publish(d);
    /* By somebody who has found no link: with the offers, for it can take long. */
    d->watch_due |= lost_is_due(d, &d->link);
    for (r = d->regions; r; r = r->next)
        if (r->phase == REGION_LIVE && link_is_lost(options_tell(r)))
            break;
    if (r)
        give_up(&d->link);
    plan_offer(d, OFFER_MIN_MS);
    lost_again(d);
    pthread_mutex_unlock(&d->regions_lock);
}

/* By the link of all requests: what is still held up is answered at once. */
static void offer_again(struct drp *d) {
    bool taken, due = d->watch_due;
    struct drp_region *r;

    pthread_mutex_lock(&d->regions_lock);
    pthread_mutex_lock(&d->request_lock);
    if (due)
        watch_again(d, &d->link);
    taken = due && !d->watch_due;
    for (r = d->regions; r; r = r->next) {
        if (r->phase != REGION_LIVE || !r->held_up)
            continue;
        if (!hand_over(d, r, &d->link)) {
            give_up(&d->link);
            break;
        }
        taken |= r->known;
    }
    pthread_mutex_unlock(&d->request_lock);
    plan_offer(d, d->offer_pause * 2);
    if (taken)
        lost_again(d);
    pthread_mutex_unlock(&d->regions_lock);
}

/* One attempt. */
static int reconnect(struct drp *d) {
    int error;

    d->fresh.stop = d->wake[0];
    error = has_wake(d) ? link_open(&d->fresh, d->socket_path, d->name) : -ECANCELED;
    if (error < 0)
        return error;
    error = context_settle(d, &d->fresh);
    if (error < 0) {
        link_close(&d->fresh);
        return error;
    }
    adopt_all(d);
    return 0;
}

/* Whoever waits for the last daemon looks by himself. */
static void spare_descriptors(struct drp *d) {
    pthread_mutex_lock(&d->regions_lock);
    keeper_leave(d);
    link_close(&d->link);
    pthread_mutex_unlock(&d->regions_lock);
}

/* false: stop. */
static bool wait_reconnected(struct drp *d) {
    int backoff = BACKOFF_MIN_MS;
    bool go_on = true;
    int error;

    notify_begin(d);
    while (go_on && (error = reconnect(d)) < 0) {
        set_gone(d);
        if (error == -EMFILE)
            spare_descriptors(d);
        go_on = sleep_on(d, object_owns(d->notify, &d->notify_object) ? d->notify : -1, POLLIN, backoff);
        backoff = notify_drain(d) ? BACKOFF_MIN_MS : backoff * 2;
        if (backoff > BACKOFF_MAX_MS)
            backoff = BACKOFF_MAX_MS;
        go_on &= !last_is_alone();
    }
    notify_end(d);
    return go_on;
}

/*
 * The end of the connection wakes us, replies are for who sent the requests; and what the daemon tells of drops. The wake-up is also
 * for a socket of that kind that has just been made. false: stop, or withdraw, also since nobody else is left.
 */
static bool wait_lost(struct drp *d) {
    while (has_wake(d) && object_holds(d->link.socket, &d->link.socket_object)) {
        struct pollfd polls[3] = {
            {.fd = d->link.socket, .events = POLLRDHUP},
            {.fd = d->wake[0], .events = POLLIN},
            {.fd = d->lost_socket, .events = POLLIN},
        };

        if (wait_poll(polls, 3, until_look(d)) < 0)
            continue;
        if ((polls[1].revents && shall_stop(d)) || last_is_alone())
            return false;
        if (polls[0].revents)
            return object_holds(d->link.socket, &d->link.socket_object);
        if (polls[2].revents)
            lost_pass_on(d);
        if (until_offer(d) == 0)
            offer_again(d);
    }
    return false;
}

/* Leaves all to the thread after this one. */
static void withdraw(struct drp *d) {
    set_lost(d);
    link_cut(&d->link); /* children that were made past the fork handler may have copies */
    set_gone(d);
    pthread_mutex_lock(&d->regions_lock);
    lost_forget(d);
    keeper_leave(d);
    for (struct drp_region *r = d->regions; r; r = r->next) {
        r->held_up = r->phase == REGION_LIVE;
        if (r->phase == REGION_LIVE && r->granted & DRP_REGION_SHARED)
            pins_refuse(&r->pins);
    }
    pthread_mutex_lock(&d->request_lock);
    link_close(&d->link);
    d->epoch++;
    d->inherited = true;
    pthread_mutex_unlock(&d->request_lock); /* who has it next may wait for our end */
    pthread_mutex_unlock(&d->regions_lock);
}

static void *run(void *context) {
    struct drp *d = context;

    last_begin();
    pthread_mutex_lock(&d->regions_lock);
    d->watch_due = d->begins_due;
    plan_offer(d, OFFER_MIN_MS); /* of what the one before us has left */
    pthread_mutex_unlock(&d->regions_lock);
    while (wait_lost(d)) {
        set_lost(d);
        if (!wait_gone(d))
            break;
        set_gone(d);
        if (!wait_reconnected(d))
            break;
    }
    if (!atomic_load(&d->stopping)) {
        withdraw(d);
        last_succeed();
    }
    last_end();
    return NULL;
}

/* ---- life ---- */

static int create_thread(struct drp *d) {
    size_t size = STACK_SIZE;
    pthread_attr_t attributes;
    int error;

    if ((size_t)PTHREAD_STACK_MIN + STACK_SIZE / 2 > size)
        size = (size_t)PTHREAD_STACK_MIN + STACK_SIZE;
    error = pthread_attr_init(&attributes);
    if (error)
        return error;
    pthread_attr_setstacksize(&attributes, size);
    error = pthread_create(&d->watcher, &attributes, run, d);
    pthread_attr_destroy(&attributes);
    /* A program whose thread-local data needs more than that. */
    if (error == EINVAL)
        error = pthread_create(&d->watcher, NULL, run, d);
    return error;
}

static void end_wake(struct drp *d) {
    fork_lock();
    for (int i = 0; i < 2; i++)
        object_close(&d->wake[i], &d->wake_objects[i]);
    fork_unlock();
}

static int make_wake(struct drp *d) {
    int ends[2], error = 0;

    fork_lock();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) {
        error = -errno;
        ends[0] = ends[1] = -1; /* what it has stored are other threads' descriptors by now */
    }
    for (int i = 0; i < 2; i++) {
        d->wake[i] = object_keep(ends[i]);
        if (d->wake[i] < 0 && error == 0)
            error = -errno;
        object_note(d->wake[i], &d->wake_objects[i]);
    }
    fork_unlock();
    if (error < 0)
        end_wake(d);
    return error;
}

void watcher_wake(struct drp *d) {
    if (object_holds(d->wake[1], &d->wake_objects[1]))
        send(d->wake[1], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void watcher_offer(struct drp_region *r) {
    struct drp *d = r->context;

    pthread_mutex_lock(&d->regions_lock);
    r->held_up = true;
    plan_offer(d, OFFER_MIN_MS);
    pthread_mutex_unlock(&d->regions_lock);
    pthread_mutex_lock(&d->request_lock);
    watcher_wake(d); /* it sleeps until then at most */
    pthread_mutex_unlock(&d->request_lock);
}

int watcher_start(struct drp *d) {
    sigset_t all, before;
    int error;

    last_note();
    watcher_stop(d);
    error = make_wake(d);
    if (error < 0)
        return error_detail(error, "no descriptors for the helper thread: %s", strerror(-error));
    d->begins_due = lost_is_due(d, &d->link); /* who connects has asked, if there was a descriptor for it */
    /* The program's signals are the program's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = create_thread(d);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        end_wake(d);
        return error_detail(error == EAGAIN ? -ENOMEM : -error, "cannot start the helper thread: %s", strerror(error));
    }
    pthread_setname_np(d->watcher, "droppable");
    d->watching = true;
    return 0;
}

void watcher_stop(struct drp *d) {
    if (!d->watching)
        return;
    atomic_store(&d->stopping, true);
    watcher_wake(d);
    pthread_join(d->watcher, NULL);
    atomic_store(&d->stopping, false);
    d->watching = false;
    end_wake(d);
}
