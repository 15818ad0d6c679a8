/* SPDX-License-Identifier: MIT */

/*
 * Signal regions: an access to what is not there raises SIGBUS.
 *
 * A userfaultfd with UFFD_FEATURE_SIGBUS, one for each context, on which the whole of every signal region stays registered for missing pages. Nobody
 * reads it, and it has no events that somebody would have to read: the kernel answers each missing page with the signal, at once. It is the library's
 * and not the daemon's, so that a registration outlives a daemon: there is no moment in which lost memory would read zeros. The daemon only knows
 * that it has nothing to arm. A program that lies about that reads zeros of its own.
 *
 * Populating is UFFDIO_ZEROPAGE, by the thread that wants it: one system call, no lock, no wait for the daemon, so that a signal handler can do it. Not
 * fallocate(2): what that allocates counts as a hole until it is touched, and the daemon could not drop it.
 *
 * If the program closes it, what was registered is plain memory. To populate is then an ioctl(2) of whatever has its number, which that does not know:
 * a look at it would be a system call more for each fault.
 *
 * Nothing here sets drp_detail() once a region is made, since that is not for signal handlers.
 */

#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE ((uintptr_t)4096)

/* Linux 5.11; older ones give an ordinary one to everybody, unless told otherwise. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define FEATURES (UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM)

static int make_descriptor(void) {
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

    if (fd < 0 && errno == EINVAL)
        fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    fd = object_keep(fd);
    return fd < 0 ? -errno : fd;
}

/* Fork lock held. */
static int make(void) {
    struct uffdio_api api = {.api = UFFD_API, .features = FEATURES};
    int fd = make_descriptor();

    if (fd < 0)
        return fd == -ENOSYS ? -EOPNOTSUPP : fd;
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        close(fd);
        return -EOPNOTSUPP;
    }
    return fd;
}

int signal_probe(void) {
    int fd;

    fork_lock();
    fd = make();
    if (fd >= 0)
        close(fd);
    fork_unlock();
    return fd < 0 ? fd : 0;
}

int signal_prepare(struct drp *d) {
    int r = 0;

    fork_lock();
    if (!object_owns(d->signal_fd, &d->signal_object)) {
        r = make();
        if (r >= 0) {
            d->signal_fd = r;
            object_note_kind(r, &d->signal_object, OBJECT_USERFAULTFD);
        }
    }
    fork_unlock();
    if (r >= 0)
        return 0;
    if (error_is_shortage(r))
        return error_detail(r, "no userfaultfd for DRP_REGION_SIGNAL at the moment: %s", strerror(-r));
    return error_detail(-EOPNOTSUPP,
                        "DRP_REGION_SIGNAL cannot be given here: the kernel gives this process no userfaultfd that raises "
                        "signals (UFFD_FEATURE_SIGBUS, Linux 4.14): %s",
                        strerror(-r));
}

int signal_ask(struct drp_region *r, const struct drp_region_options *options, uint64_t *given) {
    int error = 0;

    if (!((options->required | options->preferred) & *given & DRP_REGION_SIGNAL))
        return 0;
    if (options->required & DRP_REGION_HUGE) /* what is populated are small pages */
        error = error_detail(-EOPNOTSUPP,
                             "DRP_REGION_SIGNAL cannot be given together with DRP_REGION_HUGE: require one of them");
    else if (r->next_piece)
        error = error_detail(-EOPNOTSUPP, "DRP_REGION_SIGNAL is not for regions in pieces");
    else
        error = signal_prepare(r->context);
    if (error < 0)
        *given &= ~DRP_REGION_SIGNAL;
    /* What is short for the moment is no answer that would hold for the region's life. */
    return options->required & DRP_REGION_SIGNAL || error_is_shortage(error) ? error : 0;
}

int signal_register(struct drp_region *r) {
    struct uffdio_register request = {
        .range = {.start = (uintptr_t)r->address, .len = r->size},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };

    if (ioctl(r->context->signal_fd, UFFDIO_REGISTER, &request) < 0)
        return error_detail(-errno, "the region cannot be registered for signals: %s", strerror(errno));
    if (!(request.ioctls & (UINT64_C(1) << _UFFDIO_ZEROPAGE)))
        return error_detail(-EOPNOTSUPP, "DRP_REGION_SIGNAL cannot be given here: the kernel's userfaultfd cannot fill "
                                         "shared memory with zeros");
    r->signal_fd = r->context->signal_fd;
    r->signal_object = r->context->signal_object;
    return 0;
}

/* Pages that are there stay as they are. */
static int fill(int fd, uintptr_t at, uintptr_t end) {
    while (at < end) {
        struct uffdio_zeropage request = {
            .range = {.start = at, .len = end - at},
            .mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE,
        };

        if (ioctl(fd, UFFDIO_ZEROPAGE, &request) == 0)
            return 0;
        if (errno == EEXIST)
            at += PAGE;
        else if (errno != EAGAIN)
            return -errno;
        else if (request.zeropage > 0) /* so far */
            at += (uintptr_t)request.zeropage;
    }
    return 0;
}

int signal_populate(struct drp_region *r, size_t offset, size_t length) {
    uintptr_t start = (uintptr_t)r->address + (offset & ~(PAGE - 1));
    int saved = errno, error;

    if (length == 0 || offset >= r->size || length > r->size - offset)
        return -ERANGE;
    /* What is being punched right now would not stay. */
    pins_wait_settled(&r->pins, offset, length);
    error = fill(r->signal_fd, start, ((uintptr_t)r->address + offset + length + PAGE - 1) & ~(PAGE - 1));
    errno = saved;
    return error;
}
