/* SPDX-License-Identifier: MIT */

/*
 * fork(): the child must share neither memory nor connection with its parent, and must find zeros where droppable
 * memory was.
 *
 * Shared mappings cannot be wiped on fork (MADV_WIPEONFORK is refused), so regions and their pages are DONTFORK: the
 * child has holes there, and its handler maps anonymous zeros at the same addresses. The fork lock covers each mapping
 * from its mmap(2) to its madvise(2) and each descriptor from its making to its entry in a struct: the prepare handler
 * takes it, so that a child never inherits a shared mapping, and the child handler finds every descriptor. A copy of a
 * userfaultfd that stayed open in a child would keep the parent's faults waiting for a dead daemon.
 *
 * The clock page is inherited: it says nothing of anybody, and can only be read.
 *
 * In the child a context has no connection and no thread; its first request makes new ones. Regions of the parent
 * stay plain zeroed memory, on which all of pin.c works. Pins that the parent held are not the child's: taking one of
 * them back is -EINVAL there. The pages for that are made when they are first needed, as is all that can wait: most children execute
 * something, and a page that is written to, or code that is run, costs as much as a system call.
 *
 * Generations that the parent noted must not compare equal in the child, whose memory reads zeros. Nothing is ever
 * dropped in the child, so all its generations are one constant: the zeros of its own state page plus pins.bias. The
 * bias is odd, which no settled generation is, and in the upper half, so that sums over a range do not meet those of
 * even ones either. The child's mappings are private, so MADV_WIPEONFORK does for its own children what the handler did
 * for it, and the bias moves to the next odd number.
 *
 * A region may be shared with children instead: it is then inherited like any shared mapping. A child cannot pin in it: a pin is only worth
 * something while a service reads its page, and that ends with the parent, or with the service, whose next one makes new state pages for
 * the parent alone. Or it may be absent, addresses where nothing can be accessed. Of neither the child's library says anything but that.
 *
 * Children made without the handlers (_Fork(), clone(2)) have holes in these places until they exec. libdroppable-preload, which stands before
 * these calls, uses the handlers itself. Past that, too, are made whom an instruction of the program's own makes: before such a child makes use of
 * anything of its parent's it sees by a page that was wiped (fork_note) what it is, and goes on as any child does, but for the holes, and for the descriptors: it may
 * share these with its parent.
 */

#include "cancel.h"
#include "client.h"
#include "local.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FORK_BIAS UINT32_C(0x80000001)
#define TRY_SECONDS 1
#define CLOSE_MAX 64

/* Linux 4.17; older kernels take the address for a hint. */
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
/* Linux 6.10. */
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

union fork_note fork_note __attribute__((aligned(4096)));
static union fork_mutex lock;
static bool ready;                /* fork_note is wiped on fork */
static void (*forget_more)(void); /* of fork_on_missed() */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct drp *contexts;
static int init_error;

int fork_mutex_init(union fork_mutex *m) {
    return madvise(m, sizeof(*m), MADV_WIPEONFORK) < 0 ? -errno : 0;
}

void fork_lock(void) {
    pthread_mutex_lock(&lock.mutex);
}

void fork_unlock(void) {
    pthread_mutex_unlock(&lock.mutex);
}

bool fork_try_lock(void) {
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += TRY_SECONDS;
    return pthread_mutex_clocklock(&lock.mutex, CLOCK_MONOTONIC, &until) == 0;
}

/* Descriptors to be closed; most of them are neighbours, and a call costs as much for many as for one. */
struct closing {
    int fds[CLOSE_MAX];
    size_t n;
    bool missed; /* nothing is: who was made past the handlers may share descriptors with the parent */
};

static void close_run(int first, int last) {
    if (first == last || close_range((unsigned)first, (unsigned)last, 0) < 0) /* Linux 5.9 */
        for (int fd = first; fd <= last; fd++)
            close(fd);
}

static void close_all(struct closing *closing) {
    int *fds = closing->fds;

    for (size_t i = 1; i < closing->n; i++)
        for (size_t k = i; k > 0 && fds[k - 1] > fds[k]; k--) {
            int fd = fds[k];

            fds[k] = fds[k - 1];
            fds[k - 1] = fd;
        }
    for (size_t i = 0, first = 0; i < closing->n; i++)
        if (i + 1 == closing->n || fds[i + 1] != fds[i] + 1) {
            close_run(fds[first], fds[i]);
            first = i + 1;
        }
    closing->n = 0;
}

/* If it is ours: the child has what its parent put in its place, too. */
static void close_soon(struct closing *closing, int *fd, const struct object *object) {
    if (*fd < 0)
        return;
    if (closing->n == CLOSE_MAX)
        close_all(closing);
    if (!closing->missed && object_owns(*fd, object))
        closing->fds[closing->n++] = *fd;
    *fd = -1;
}

/* No call more than is needed: a child that only executes something pays for all of them. */
static bool map_zeros(void *address, size_t size, int protection) {
    void *p = mmap(address, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    if (p == address)
        return true;
    if (p != MAP_FAILED)
        munmap(p, size);
    return false;
}

/* What the child writes there is its own: its children find zeros again, and core dumps nothing, unless they shall. */
static bool map_own(void *address, size_t size, int protection, bool dump) {
    if (!map_zeros(address, size, protection))
        return false;
    madvise(address, size, MADV_WIPEONFORK);
    if (!dump)
        madvise(address, size, MADV_DONTDUMP);
    return true;
}

/* Neighbours at once: a program can have thousands of them. */
static bool map_zero_pieces(const struct drp_region *r) {
    struct region_piece piece, next;
    bool more = region_piece(r, 0, &piece), complete = true, dump = atomic_load(&r->options) & DRP_REGION_DUMP;

    while (more) {
        uintptr_t end = (uintptr_t)piece.address + piece.length;

        more = region_piece(r, end, &next);
        if (more && (uintptr_t)next.address == end && next.protection == piece.protection &&
            next.sealed == piece.sealed) {
            piece.length += next.length;
            continue;
        }
        complete &= map_own(piece.address, piece.length, piece.protection, dump);
        if (piece.sealed)
            syscall(SYS_mseal, piece.address, piece.length, 0UL);
        piece = next;
    }
    return complete;
}

/* What the region's addresses are in a child. */
static bool map_data(const struct drp_region *r) {
    uint64_t options = atomic_load(&r->options);

    if (options & DRP_REGION_FORK_SHARED)
        return true;
    if (options & DRP_REGION_FORK_ABSENT)
        return !r->address || map_zeros(r->address, r->size, PROT_NONE);
    return map_zero_pieces(r);
}

/* Both at once, in the parent's stead: they need not be where the parent's were. */
static bool map_pages(struct drp_region *r) {
    size_t pin_bytes = drp_pin_bytes(r->chunk_total), size = pin_bytes + drp_state_bytes(r->chunk_total);
    void *pages = atomic_load(&r->own_pages), *none = NULL;

    if (!pages) {
        pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (pages == MAP_FAILED)
            return false;
        madvise(pages, size, MADV_WIPEONFORK);
        if (!atomic_compare_exchange_strong(&r->own_pages, &none, pages)) { /* another thread, or whom we interrupted */
            munmap(pages, size);
            pages = none;
        }
    }
    pins_set_pins(&r->pins, pages, r->chunk_base);
    pins_set_state(&r->pins, (char *)pages + pin_bytes, r->chunk_base);
    return true;
}

/* Without a lock, so that what calls it may be called by signal handlers: who comes second stores the same values. */
bool pins_arrive(const struct pins *p) {
    struct drp_region *r = atomic_load(&p->late);

    if (!r)
        return !p->foreign;
    if (!map_pages(r))
        return false;
    atomic_store(&r->pins.size, r->size);
    atomic_store(&r->pins.late, NULL);
    return true;
}

void fork_free_region(struct drp_region *r) {
    void *pages = atomic_load(&r->own_pages);

    if (pages)
        munmap(pages, drp_pin_bytes(r->chunk_total) + drp_state_bytes(r->chunk_total));
}

/* A region that another thread was making or ending in the parent is completed as far as it had come; nobody has it. */
static void child_region(struct drp_region *r, struct closing *closing) {
    bool complete = true;

    close_soon(closing, &r->data_fd, &r->data_object);
    close_soon(closing, &r->state_fd, &r->state_object);
    close_soon(closing, &r->pin_fd, &r->pin_object);
    if (r->ticket_fd >= 0 && !object_holds_ticket(r))
        r->ticket_fd = -1;
    close_soon(closing, &r->ticket_fd, &r->data_object);
    r->signal_fd = -1;
    if (r->backend != DRP_BACKEND_DAEMON) {
        complete = local_fork_child(r);
    } else if (r->phase != REGION_INHERITED) {
        complete = !closing->missed && map_data(r);
        if (!complete && !(atomic_load(&r->options) & DRP_REGION_FORK_SHARED)) {
            locate_remove(r); /* a hole, in which there may be something else by the time that it is freed */
            r->address = NULL;
        }
        r->state = NULL;
        r->pin = NULL;
        atomic_store(&r->pins.size, 0);
        atomic_store(&r->pins.late, r);
    }
    if (!complete || atomic_load(&r->options) & (DRP_REGION_FORK_SHARED | DRP_REGION_FORK_ABSENT)) {
        atomic_store(&r->pins.size, 0); /* every range is outside of it */
        atomic_store(&r->pins.late, NULL);
        r->pins.foreign = true;
    }
    atomic_store(&r->pins.unpinnable, 0);
    r->pins.bias = r->pins.bias ? r->pins.bias + 2 : FORK_BIAS;
    r->hold = NULL;
    r->phase = REGION_INHERITED;
    r->known = false;
    atomic_store(&r->connected, false);
    atomic_store(&r->interception, DRP_INTERCEPTION_NONE);
    atomic_store(&r->pins.gone, r->backend == DRP_BACKEND_DAEMON);
}

static void child_link(struct link *link, struct closing *closing) {
    if (closing->missed)
        link->packet->n_fds = 0;
    channel_packet_close(link->packet);
    if (link->pidfd >= 0 && !object_holds(link->socket, &link->socket_object)) /* see link_has_pidfd() */
        link->pidfd = -1;
    close_soon(closing, &link->socket, &link->socket_object);
    close_soon(closing, &link->pidfd, &link->pidfd_object);
    if (link->stop >= 0)
        link->stop = -1; /* the context's */
}

static void child_context(struct drp *d, struct closing *closing) {
    child_link(&d->link, closing);
    child_link(&d->fresh, closing);
    for (int i = 0; i < 2; i++)
        close_soon(closing, &d->wake[i], &d->wake_objects[i]);
    close_soon(closing, &d->notify, &d->notify_object);
    close_soon(closing, &d->signal_fd, &d->signal_object);
    d->regions_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    d->request_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    d->watching = false;
    atomic_store(&d->stopping, false);
    d->epoch++;
    atomic_store(&d->connected, false);
    atomic_store(&d->interception, DRP_INTERCEPTION_NONE);
    atomic_store(&d->reconnects, 0);
    d->inherited = true;
    for (struct drp_region *r = d->regions; r; r = r->next)
        child_region(r, closing);
}

static void become_child(bool missed) {
    NOT_CANCELLED; /* fork(2) ends nobody, and close(2) does */
    struct closing closing;

    closing.n = 0;
    closing.missed = missed;
    for (struct drp *d = contexts; d; d = d->next)
        child_context(d, &closing);
    close_all(&closing);
    for (struct drp *d = contexts; d; d = d->next)
        lost_fork_child(d, missed);
    last_fork_child();
    atomic_store(&fork_note.handled, true);
}

void fork_in_child(void) {
    become_child(false);
}

/* The lock is nobody's there: its page was wiped, too. */
void fork_catch_up(void) {
    if (!ready || atomic_load(&fork_note.handled))
        return;
    fork_lock();
    if (!atomic_load(&fork_note.handled)) {
        if (forget_more)
            forget_more();
        become_child(true);
    }
    fork_unlock();
}

void fork_on_missed(void (*forget)(void)) {
    forget_more = forget;
}

static void prepare(void) {
    fork_catch_up();
    fork_lock();
}

static void init(void) {
    init_error = fork_mutex_init(&lock);
    if (init_error == 0 && madvise(&fork_note, sizeof(fork_note), MADV_WIPEONFORK) < 0)
        init_error = -errno;
    if (init_error == 0)
        init_error = -pthread_atfork(prepare, fork_unlock, fork_in_child);
    atomic_store(&fork_note.handled, true);
    ready = init_error == 0;
}

int fork_init(void) {
    pthread_once(&once, init);
    return init_error < 0 ? error_detail(init_error, "no fork handlers, or no lock that is wiped on fork: %s",
                                         strerror(-init_error))
                          : 0;
}

int fork_foreign(void) {
    return error_detail(-ENOTCONN, "the region is another process's: it was made before fork(), and is shared with this "
                                   "one, or absent here");
}

void fork_add(struct drp *d) {
    fork_lock();
    d->next = contexts;
    contexts = d;
    fork_unlock();
}

void fork_each(void (*run)(struct drp *d)) {
    fork_lock();
    for (struct drp *d = contexts; d; d = d->next)
        run(d);
    fork_unlock();
}

void fork_remove(struct drp *d) {
    fork_lock();
    for (struct drp **p = &contexts; *p; p = &(*p)->next)
        if (*p == d) {
            *p = d->next;
            break;
        }
    fork_unlock();
}
