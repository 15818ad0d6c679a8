/* SPDX-License-Identifier: MIT */

/*
 * The last seals of a pin page. Who reads a page that is being punched waits for the end of that, so the daemon reads, and
 * honours, the pins of those only who cannot punch theirs any more. What is mapped by then stays writable. Where the kernel
 * has no such seal (before 5.1) the page comes with F_SEAL_SEAL.
 */

#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

int seal_pins(const struct drp_region *r, struct link *link) {
    struct drp_wire_id request = {.header.type = DRP_WIRE_SEAL_PINS, .id = r->mapping};
    int seals = fcntl(r->pin_fd, F_GET_SEALS);

    if (seals >= 0 && (seals & F_SEAL_SEAL))
        return 0;
    if (fcntl(r->pin_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
        return error_detail(-errno, "cannot seal the region's pin page: %s", strerror(errno));
    return link_call(link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
}
