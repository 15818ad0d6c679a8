/* SPDX-License-Identifier: MIT */

/*
 * A userfaultfd server as the manual page has it, to compare with: owns the descriptor and one thread, or the only thread of a
 * forked process, which ends when the other end of its pipe is closed. A page that cannot be filled is woken, so that nobody hangs: the kernel then faults again.
 */

#include "textbook.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE_BYTES 4096

/* Linux 5.11. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

struct textbook {
    int uffd;
    int stop[2]; /* a pipe; closed at [1]: the thread ends */
    pthread_t thread;
    pid_t process; /* 0: the thread it is */
};

static void serve_one(int uffd) {
    struct uffdio_zeropage zero = {.range.len = PAGE_BYTES};
    struct uffd_msg event;

    if (read(uffd, &event, sizeof(event)) != sizeof(event) || event.event != UFFD_EVENT_PAGEFAULT)
        return;
    zero.range.start = event.arg.pagefault.address & ~(uint64_t)(PAGE_BYTES - 1);
    if (ioctl(uffd, UFFDIO_ZEROPAGE, &zero) < 0)
        ioctl(uffd, UFFDIO_WAKE, &zero.range);
}

static void *serve(void *context) {
    struct textbook *textbook = context;
    struct pollfd polled[2] = {
        {.fd = textbook->uffd, .events = POLLIN},
        {.fd = textbook->stop[0], .events = POLLIN},
    };

    for (;;) {
        if (poll(polled, 2, -1) < 0 && errno != EINTR)
            return NULL;
        if (polled[1].revents)
            return NULL;
        if (polled[0].revents & POLLIN)
            serve_one(textbook->uffd);
    }
}

static int register_range(int uffd, void *address, uint64_t size) {
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)address, .len = size},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };

    if (ioctl(uffd, UFFDIO_API, &api) < 0 || ioctl(uffd, UFFDIO_REGISTER, &range) < 0)
        return -errno;
    return 0;
}

/* Forked before the memory is touched, so that nothing of it is copied; the descriptor goes on to mean the parent's memory. */
static int start_process(struct textbook *textbook) {
    textbook->process = fork();
    if (textbook->process < 0)
        return -errno;
    if (textbook->process == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(textbook->stop[1]);
        serve(textbook);
        _exit(0);
    }
    return 0;
}

int textbook_new(struct textbook **ret, void *address, uint64_t size, bool process) {
    struct textbook *textbook = malloc(sizeof(*textbook));
    int r;

    if (!textbook)
        return -ENOMEM;
    textbook->stop[0] = textbook->stop[1] = -1;
    textbook->process = 0;
    textbook->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (textbook->uffd < 0)
        textbook->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    r = textbook->uffd < 0 || pipe2(textbook->stop, O_CLOEXEC) < 0 ? -errno : 0;
    if (r == 0)
        r = register_range(textbook->uffd, address, size);
    if (r == 0)
        r = process ? start_process(textbook) : -pthread_create(&textbook->thread, NULL, serve, textbook);
    if (r < 0) {
        close(textbook->uffd);
        close(textbook->stop[0]);
        close(textbook->stop[1]);
        free(textbook);
        return r;
    }
    *ret = textbook;
    return 0;
}

struct textbook *textbook_free(struct textbook *textbook) {
    if (!textbook)
        return NULL;
    close(textbook->stop[1]);
    if (textbook->process > 0)
        waitpid(textbook->process, NULL, 0);
    else
        pthread_join(textbook->thread, NULL);
    close(textbook->stop[0]);
    close(textbook->uffd);
    free(textbook);
    return NULL;
}
