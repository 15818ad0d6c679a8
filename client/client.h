/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CLIENT_CLIENT_H
#define DROPPABLE_CLIENT_CLIENT_H

/*
 * What the library's modules share. Locks, in the order in which they are taken:
 *
 *   drp.regions_lock  phases of regions, and whether the watcher may hand them over
 *   drp.request_lock  drp.link and the ids that the daemon knows regions by; held for a whole request
 *   fork lock         lists, descriptors and half-made mappings; the fork handler takes it: held for moments only
 *
 * No lock is held while the memory of a region is touched: such an access may wait for the daemon.
 */

#include "channel.h"
#include "pin.h"
#include "wire.h"

#include <droppable/droppable.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#define DRP_CLOCK_BYTES 4096 /* of the clock page's mapping */

#define REQUEST_TIMEOUT_MS 10000
#define REQUEST_TIMEOUT_LONG_MS 30000 /* drop, populate */

#define OBJECT_EVENTFD "anon_inode:[eventfd]"
#define OBJECT_INOTIFY "anon_inode:inotify"
#define OBJECT_USERFAULTFD "anon_inode:[userfaultfd]"

/* What a descriptor is of (object.c). */
struct object {
    uint64_t device, inode; /* zeros: unknown */
    const char *kind;       /* of one that has no inode of its own, as /proc names it; NULL: the inode says enough */
};

/* A connection to a daemon. One thread at a time. */
struct link {
    struct drp *context;
    int socket; /* non-blocking; -1: closed */
    int pidfd;  /* of the daemon's process; -1: cannot be had */
    struct object socket_object, pidfd_object;
    pid_t pid; /* the same, for where there is no pidfd; 0: it has no number here */
    bool cut;  /* by us, of a daemon that may go on */
    int stop;  /* readable: give up waiting; -1: nothing to wait for. Not owned */
    uint32_t serial;
    struct drp_wire_hello_reply hello;
    struct channel_packet *packet; /* the last reply with its descriptors, so that a forked child can close them; of struct drp */
};

enum region_phase {
    REGION_MAKING,    /* drp_region_new() is at it */
    REGION_LIVE,      /* the caller has it; the watcher hands it over to a new daemon */
    REGION_ENDING,    /* drp_region_free() is at it */
    REGION_INHERITED, /* of the parent, in a forked child: plain memory for good */
};

/* A range of a region, as it is mapped. */
struct region_piece {
    void *address;
    size_t length;
    size_t offset;  /* in the region */
    int protection; /* PROT_* */
    bool sealed;    /* by mseal(2) */
};

/*
 * The first piece of a region that ends behind an address, as far as it lies behind it. false: no more. Called under the locks above, and in a
 * child by the fork handler.
 */
typedef bool region_next_piece(const struct drp_region *r, uintptr_t from, struct region_piece *ret);

struct lost;

struct drp_region {
    struct pins pins; /* first: drp_pin() reads nothing else */
    struct drp *context;
    struct drp_region *next;
    enum drp_backend backend; /* others than the daemon: local.c */
    enum region_phase phase;
    region_next_piece *next_piece; /* who keeps the account of what is mapped; NULL: all of it is, at address */
    void *address;                 /* NULL: not mapped; so the others */
    void *state;
    void *pin;
    void *hold;                /* of hold.c */
    _Atomic(void *) own_pages; /* a forked child's, of fork.c; NULL: none */
    size_t size;
    int data_fd;
    int state_fd;
    int pin_fd;
    int ticket_fd; /* of a shared region: given to nobody, kept as long as it is mapped */
    struct object data_object, state_object, pin_object; /* the ticket is of the data object, too */
    int signal_fd; /* its context's, on which it is registered; -1: an ordinary region */
    struct object signal_object;
    uint64_t object_offset;
    uint64_t chunk_base;
    uint64_t chunk_total;
    uint64_t granted;         /* by the service, for good */
    _Atomic uint64_t options; /* what holds now: granted, and options.c; fork lock to write */
    /* As asked for, so that the next daemon hears of it, too. request_lock to write; the watcher reads once that is lost */
    _Atomic uint64_t budget; /* 0: none */
    _Atomic uint32_t share;  /* 0: the default */
    _Atomic uint8_t priority;
    _Atomic(struct lost *) lost; /* of lost.c; NULL: never asked */
    int lost_fd;                 /* eventfd of the program; -1: none */
    struct object lost_object;
    uint64_t lost_drops;                    /* the count of drops that it was told of last; of the watcher */
    _Atomic(_Atomic uint32_t *) volatility; /* of volatile.c; NULL: never used */
    uint64_t told_options;                  /* of options.c: what the daemon at drp.link was told; under request_lock */
    bool told_lent;                         /* the same: that it is lent, or was */
    _Atomic bool lent;                      /* the same: children may have the memory, or have had it */
    bool held_up;                           /* the daemon does not take it yet; regions_lock */
    bool known;                             /* the daemon at drp.link has it under id; under request_lock */
    bool stale;                             /* its state page is of a daemon before that one; regions_lock */
    _Atomic uint64_t id;                    /* changes when a new daemon takes the region */
    uint64_t mapping;                       /* the daemon's id of it; with known */
    _Atomic uint32_t interception;
    _Atomic bool connected;
};

struct drp {
    struct drp *next;         /* fork lock */
    enum drp_backend backend; /* of its regions */
    _Atomic bool served;      /* a service was found: always, unless the backend does without. Both locks to set */
    int64_t look_again_at; /* ms of wait_now_ms(): for a service, where there was one that did not answer. regions_lock */
    char *given_path;      /* the program's word; NULL: none */
    char *socket_path;
    char name[sizeof(((struct drp_wire_hello *)0)->name)];
    pthread_mutex_t regions_lock;
    pthread_mutex_t request_lock;
    _Atomic bool connected; /* link is up; written under request_lock */
    bool inherited; /* a forked child that has not connected yet, or one whose watcher has withdrawn; request_lock */
    uint64_t epoch; /* counts connections; written under both locks */
    int signal_fd;  /* of signal.c; -1: no signal region yet. Fork lock to set */
    struct object signal_object;
    struct drp_clock_page *clock;
    struct drp_region *regions; /* regions_lock and fork lock to write, either to read */
    _Atomic bool stopping;      /* the watcher shall end */
    int wake[2]; /* a connection: what is sent to the second wakes the watcher, and so does its end. With it as its thread, request_lock */
    struct object wake_objects[2];
    int lost_fd; /* eventfd of the program; -1: none */
    struct object lost_object;
    _Atomic bool lost_wanted; /* the daemon shall tell of drops */
    _Atomic int lost_socket; /* by which it does; -1: none. request_lock to set, or not connected; the watcher closes it */
    struct object lost_socket_object;
    int notify; /* inotify, while the daemon is away; -1 otherwise */
    struct object notify_object;
    pthread_t watcher;
    bool watching; /* watcher is a thread to be joined */
    /* As the next two under regions_lock: ms of wait_now_ms() when regions that were held up are offered again; 0: none is */
    _Atomic int64_t offer_at;
    int offer_pause; /* ms between two offers */
    bool begins_due; /* watch_due of a watcher that begins; of who makes it */
    bool watch_due;  /* the daemon could not be asked to tell of drops, for want of something: again with the offers */
    _Atomic uint64_t reconnects;
    _Atomic uint64_t budget;       /* of this process, as asked for; 0: as configured. request_lock to write */
    _Atomic uint32_t interception; /* enum drp_interception of the session */
    _Atomic int interception_error;
    struct link link;               /* request_lock */
    struct link fresh;              /* the watcher's, until it is published as link */
    struct channel_packet *packets; /* of these two; large, and what a child writes to shall be on few pages */
};

/* ---- error.c ---- */

/* Sets the text for drp_detail(). Returns error, for `return error_detail(-EINVAL, ...)`. */
int error_detail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Is it one of this process's, or the system's, that may be over the next time? */
bool error_is_shortage(int error);

/* ---- object.c ---- */

/* Of a descriptor that has just been made. */
void object_note(int fd, struct object *ret);
/* The same of an OBJECT_*. */
void object_note_kind(int fd, struct object *ret, const char *kind);
/* Is it still ours? Else the program has closed it (-1: there is none), or put another one in its place. */
bool object_holds(int fd, const struct object *object);
/* The same by its kind, too, which takes a system call more: for what would do the program harm, as to read it or to close it. */
bool object_owns(int fd, const struct object *object);
/* Closes it if it is, and makes it -1. */
void object_close(int *fd, const struct object *object);
/*
 * Of one that has just been made, under the fork lock: the same, or another in its place where it is one of the standard ones, which are the program's also
 * while they are closed: what it writes to stderr must not reach the service. -1 with errno: none, also if there was none.
 */
int object_keep(int fd);
/* A copy, close-on-exec. -EBADF: it is not ours any more. */
int object_copy(int fd, const struct object *object);
/* Of a region's ticket. */
bool object_holds_ticket(const struct drp_region *r);
void object_close_region(struct drp_region *r);
/* Has a live region all that a daemon has to be given? -EBADF */
int object_check_region(const struct drp_region *r);

/* ---- request.c ---- */

/* packet: of its own, the caller's. */
void link_init(struct link *link, struct drp *context, struct channel_packet *packet);
/* Closes what is open, and still ours. Takes the fork lock. */
void link_close(struct link *link);
/* Is there a pidfd that can be believed? Before Linux 6.9 it has no inode of its own; who has closed the socket has closed that, too. */
bool link_has_pidfd(const struct link *link);
/* Ends it from this side; the daemon may be in the middle of something. */
void link_cut(struct link *link);
/*
 * Connects to the socket at path and says hello. The clock page and a lent /dev/userfaultfd are in link->packet
 * afterwards. On failure the link is closed.
 */
int link_open(struct link *link, const char *path, const char *name);
/*
 * Sends a request, of which type and content are set, and waits for its reply, which is in link->packet then and has
 * been checked. The request's descriptors stay the caller's, those of the reply belong to link->packet until the next
 * request. 0; the errno of the daemon's error; -ENOTCONN: connection lost; -ETIMEDOUT; -ECANCELED: link->stop; -EPROTO.
 */
int link_call(struct link *link, void *request, size_t size, const int *fds, size_t n_fds, int timeout_ms);
/* Was the last request done, and its reply, whose message is there, only short of the descriptors that did not fit into this process? */
bool link_was_short(const struct link *link, uint16_t type);
/* An error after which a connection is of no use, as against a refusal of the daemon. */
bool link_is_lost(int error);
/* The two halves of link_call(), for who has to do something between them. */
int link_send(struct link *link, void *request, size_t size, const int *fds, size_t n_fds, int timeout_ms);
int link_wait(struct link *link, uint16_t type, int timeout_ms);

/* ---- context.c ---- */

/*
 * Copies a caller's struct of size from (its struct_size) into ours of size known, zeros where it is shorter. -EINVAL:
 * shorter than minimum, or not zero beyond what we know.
 */
int context_copy_struct(void *to, size_t known, size_t minimum, const void *from, const char *name);
/* A context without connection and watcher, in the fork handler's list. */
int context_new(struct drp **ret, const struct drp_config *config);
/* Ends one without regions and watcher. */
void context_free(struct drp *d);
/* Connects link to the first socket that answers: config's, or those of the search order. Sets d->socket_path. */
int context_connect(struct drp *d, const struct drp_config *config);
/* After link_open(): maps its clock page, hands a userfaultfd over. Changes nothing of the region list. */
int context_settle(struct drp *d, struct link *link);
/*
 * Takes request_lock and sees to it that d->link is connected; a forked child connects here for the first time. 0:
 * locked; -ENOTCONN and others: not locked.
 */
int context_lock(struct drp *d);
void context_unlock(struct drp *d);
/* A context that does without a service may have been made before there was one: looks again, and has it told of the regions. */
void context_look_again(struct drp *d);

/* ---- limits.c ---- */

/* Tells the daemon at link of the budget that this process asked for, if it did. One that refuses allows less anyway. */
int limits_hand_over(struct drp *d, struct link *link);
/* What holds of a region that the daemon at link has. request_lock held. */
int limits_ask(const struct drp_region *r, struct link *link, struct drp_region_limits *ret);
/* What holds of any region. */
int limits_get(struct drp_region *r, struct drp_region_limits *ret);
/* Why a region was refused for a quota, as far as the daemon says. Under request_lock. */
int limits_explain(struct drp *d, int error, size_t size);

/* ---- region.c ---- */

/* An empty one of the service, in its context's list. */
struct drp_region *region_alloc(struct drp *d, region_next_piece *next_piece);
/* Finds room for size bytes at an address congruent with skew modulo 2 MiB. Fork lock held until it is filled. */
int region_reserve(size_t size, size_t skew, void **ret);

/*
 * drp_region_new() for who maps the region himself, piece by piece, and keeps the account of that: what next_piece does not name, nobody here
 * touches.
 */
int region_new_unmapped(struct drp_region **ret, struct drp *d, size_t size, const struct drp_region_options *options,
                        region_next_piece *next_piece);
/* A region as ask() has it from the service; it is called under request_lock, and ends with region_take(). */
int region_make(struct drp_region **ret, struct drp *d, region_next_piece *next_piece,
                int (*ask)(struct drp_region *r, const void *data), const void *data);
/* After a reply of CREATE's kind: maps the region. request_lock held. */
int region_take(struct drp_region *r, uint64_t required, uint64_t preferred);
/* The next mapped piece, see region_next_piece. */
bool region_piece(const struct drp_region *r, uintptr_t from, struct region_piece *ret);

/* Unmaps and frees a region; tell: sends DESTROY before, if the daemon knows it. 0, or why it could not be told. */
int region_end(struct drp_region *r, bool tell);
/*
 * Hands a live region, whose descriptors are there, over to the new daemon at link. On failure the region is as before, or (if the daemon has it but
 * could not map it) known to it and never dropped. regions_lock held.
 */
int region_adopt(struct drp_region *r, struct link *link);

/* ---- seal.c ---- */

/* After MAP, when its pin page is mapped: seals the page and says so, from when on its pins count. */
int seal_pins(const struct drp_region *r, struct link *link);

/* ---- hold.c ---- */

/*
 * After CREATE, with what its reply said: attaches the object if it is a locked segment, so that it stays locked without the daemon. Where that
 * cannot be, the region loses DRP_REGION_NO_SWAP, or creation fails if that is required.
 */
int hold_take(struct drp_region *r, uint32_t ipc_namespace, uint64_t required);
/* At the region's end. */
void hold_free(struct drp_region *r);

/* ---- shared.c ---- */

/* -EINVAL: name and mode are none. */
int shared_check(const struct drp_region_options *options);
/* Makes a CREATE the request for a shared region if that is asked for. Returns its size. */
size_t shared_ask(struct drp_wire_create_shared *request, const struct drp_region_options *options);

/* ---- volatile.c ---- */

/* At the region's end. */
void volatile_free(struct drp_region *r);

/* ---- lost.c ---- */

/* At the region's end. */
void lost_free(struct drp_region *r);
/* Something of a region was dropped by this process itself. */
void lost_tell(struct drp *d);
/* The daemon at link, which is d->link or about to be, is to tell of drops, and does not yet although it can. */
bool lost_is_due(const struct drp *d, const struct link *link);
/* Then it is asked to. request_lock held, or the link is the caller's alone. */
int lost_watch_again(struct drp *d, struct link *link);
/* A new daemon has the regions: all is looked at again. regions_lock held. */
void lost_again(struct drp *d);
/* d->lost_socket is readable: passes it on to the program. One that has ended is closed. */
void lost_pass_on(struct drp *d);
void lost_close(struct drp *d);
/*
 * The watcher withdraws: nobody wants to be told any more, but for who has an eventfd. A program that closes what it does not know has closed that, too; one
 * that is there was left, or asked for since, before the watcher noticed. regions_lock held.
 */
void lost_forget(struct drp *d);
/*
 * In the fork handler, when what the child does not need is closed: it takes a descriptor, of which there may have been no other. missed: it leaves descriptors
 * alone, see fork_catch_up().
 */
void lost_fork_child(struct drp *d, bool missed);

/* ---- piece.c, for regions that were made unmapped ---- */

/* Maps a range of a region, inaccessible, as mmap(2) with these flags (MAP_FIXED and the like). The errors of mmap(2). */
int piece_map(struct drp_region *r, void *address, int flags, size_t offset, size_t length, void **ret);
/* Tells the daemon that it is mapped, so that it may be made accessible. Again is no error. */
int piece_announce(struct drp_region *r, const struct region_piece *piece);
/*
 * Tells the daemon that what of the region is at these addresses, and in no account any more, is about to be unmapped. It may be away: then it knows
 * nothing of them. A hand-over that is under way is waited for.
 */
void piece_end(struct drp_region *r, const void *address, size_t length);
/* Makes a mapped piece resident, by the daemon or else by the kernel. */
int piece_populate(struct drp_region *r, const struct region_piece *piece);
/* Tells the daemon at link of all pieces of a region that it has just taken over. */
int piece_announce_all(struct drp_region *r, struct link *link);

/* ---- range.c ---- */

/* Is the range in the region, and the region ours? -ERANGE, -ENOTCONN */
int range_check(const struct drp_region *r, size_t offset, size_t length);
/* drp_populate() of a range that is mapped at an address. */
int range_populate(struct drp_region *r, void *address, uint64_t offset, uint64_t length);

/* ---- wait.c ---- */

int64_t wait_now_ms(void);
/* poll(2), whatever RLIMIT_NOFILE is now. */
int wait_poll(struct pollfd *polls, unsigned n, int timeout_ms);

/* ---- signal.c ---- */

/* Can accesses raise signals here? 0, or negative errno: why not. */
int signal_probe(void);
/* Before a region is asked for: takes DRP_REGION_SIGNAL out of what can be given where it cannot. Negative errno: it was required, or is short. */
int signal_ask(struct drp_region *r, const struct drp_region_options *options, uint64_t *given);
/* The context's descriptor, made when first needed. -EOPNOTSUPP: it cannot be had; a shortage: not now. */
int signal_prepare(struct drp *d);
/* Registers a region that was mapped, and is not accessible yet. */
int signal_register(struct drp_region *r);
/* drp_populate() of a signal region. */
int signal_populate(struct drp_region *r, size_t offset, size_t length);

/* ---- locate.c ---- */

/* A mapped region can be found by its addresses, until it is removed. Fork lock held. */
int locate_add(struct drp_region *r);
/* Fine if it was never added. */
void locate_remove(const struct drp_region *r);

/* ---- watcher.c ---- */

/* Starts the helper thread of a connected context, which has none, or one that has withdrawn. */
int watcher_start(struct drp *d);
/* Has it look at what has changed. */
void watcher_wake(struct drp *d);
/* A region that the service could not be told of, for want of something, is offered to it later. */
void watcher_offer(struct drp_region *r);
/* Ends it. Fine if there is none. */
void watcher_stop(struct drp *d);

/* ---- last.c ---- */

/* By whoever may be the first thread: its end will be noticed. */
void last_note(void);
/* By a watcher. */
void last_begin(void);
void last_end(void);
/* ms after which a watcher should look whether it is alone; -1: no need. */
int last_pause(void);
/* Are there none but watchers? Then they have to end. */
bool last_is_alone(void);
/* By a watcher that ends: if it is for that, another thread awaits its end, so as to be the last. */
void last_succeed(void);
/* In the fork handler. */
void last_fork_child(void);

/* ---- fork.c ---- */

/*
 * A lock that the fork handler takes. All zeros is unlocked: wiped on fork, it is so in a child without being written to there, and the parent's page
 * does not become one of both, which who unlocks it would have to copy.
 */
union fork_mutex {
    pthread_mutex_t mutex;
    char page[4096];
} __attribute__((aligned(4096)));

/* Of a static one, before the first fork(). 0 or a negative errno: no Linux 4.14. */
int fork_mutex_init(union fork_mutex *m);

/*
 * Wiped on fork as well, and written again by the handlers in a child: so who was made past them, by an instruction of the program's own, say, knows it by
 * the zeros.
 */
extern union fork_note {
    struct {
        _Atomic bool handled;
        _Atomic size_t pieces; /* in the preload library's table; written under its lock */
    };
    char page[4096];
} fork_note;

/*
 * In a child that was made past the handlers, before it makes use of anything: forgets what is its parent's, once. Where regions were it has holes.
 */
void fork_catch_up(void);
/* What is to be forgotten besides: fork lock held, nobody else is here. Before the first fork(). */
void fork_on_missed(void (*forget)(void));

void fork_lock(void);
void fork_unlock(void);
/*
 * For who forks past the handlers: takes the lock, unless that takes long, since its holder may be who was interrupted for this; and does what is
 * to be done in the child, and gives the lock back there.
 */
bool fork_try_lock(void);
void fork_in_child(void);
/* Registers the handlers, once per process. */
int fork_init(void);
void fork_add(struct drp *d);
/* For each context, fork lock held. */
void fork_each(void (*run)(struct drp *d));
void fork_remove(struct drp *d);
/* At the region's end. */
void fork_free_region(struct drp_region *r);
/* The error of what is asked of a region that another process made, and that is no memory of this one. */
int fork_foreign(void);

#endif
