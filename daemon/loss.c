/* SPDX-License-Identifier: MIT */
/*
 * Tells clients that something of it was dropped: a count in the region's state page, and a byte in a socket for who sleeps. What was
 * dropped say the generations.
 *
 * The loop sends, without waiting: a client that does not read has a full socket, which says it all. (An eventfd would not do. Its
 * write(2) waits while the counter is at its end, and O_NONBLOCK can be taken off a descriptor by whoever has it, too.) Many drops
 * before the loop comes to it are one byte.
 */

#include "loss.h"

#include "container.h"
#include "manager.h"
#include "pages.h"
#include "session.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static void tell(struct completion *completion) {
    struct loss *loss = container_of(completion, struct loss, completion);

    /* Before the send: what is dropped from here on is told again. */
    atomic_store(&loss->pending, false);
    if (loss->socket < 0 || send(loss->socket, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno == EAGAIN ||
        errno == ENOBUFS)
        return;
    loss_deinit(loss); /* the client has closed its end */
}

void loss_init(struct loss *loss, struct session *session) {
    loss->completion.run = tell;
    loss->session = session;
    loss->socket = -1;
}

void loss_deinit(struct loss *loss) {
    atomic_store(&loss->watched, false);
    if (loss->socket >= 0)
        close(loss->socket);
    loss->socket = -1;
}

int loss_watch(struct loss *loss, int *ret_socket) {
    int ends[2], size = 0;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
        return -errno;
    /* The least there is: a few bytes tell as much as many. */
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    shutdown(ends[0], SHUT_RD); /* nothing is taken from there, descriptors least of all */
    loss_deinit(loss);
    loss->socket = ends[0];
    atomic_store(&loss->watched, true);
    *ret_socket = ends[1];
    return 0;
}

void loss_note(struct region *region) {
    struct drp_state_header *header = region->state;

    atomic_fetch_add(&header->drops, 1);
    for (unsigned i = 0; i < region->n_mappings; i++) {
        struct loss *loss = &region->mappings[i]->session->loss;

        if (atomic_load(&loss->watched) && !atomic_exchange(&loss->pending, true))
            manager_complete(loss->session->manager, &loss->completion);
    }
}
