/* SPDX-License-Identifier: MIT */

/*
 * Regions that several processes have: a name, or the data object as a handle, and a mapping and a pin page for each.
 *
 * Each mapping has a ticket besides, a descriptor whose lock tells whatever daemon that somebody still has the region. So it is given to
 * nobody, is closed in children, and never before the mapping's end is under way.
 */

#include "cancel.h"
#include "client.h"
#include "codec.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define MODE_DEFAULT 0600

static bool name_ok(const char *name) {
    return name[0] != '\0' && codec_is_shared_name(name);
}

static int refuse_name(const char *what) {
    return error_detail(-EINVAL, "%s: 1 to %d printable ASCII characters, neither space nor '/'", what,
                        DRP_WIRE_SHARED_NAME - 1);
}

int shared_check(const struct drp_region_options *options) {
    bool shared = (options->required | options->preferred) & DRP_REGION_SHARED;

    if ((options->name || options->mode) && !shared)
        return error_detail(-EINVAL, "drp_region_options has a name or a mode: that takes DRP_REGION_SHARED");
    if (options->mode && !options->name)
        return error_detail(-EINVAL, "drp_region_options.mode is for regions that have a name");
    if (options->name && !name_ok(options->name))
        return refuse_name("drp_region_options.name");
    if (!codec_is_shared_mode(options->mode))
        return error_detail(-EINVAL, "drp_region_options.mode is %o: a sum of 0600, 0060 and 0006", options->mode);
    return 0;
}

size_t shared_ask(struct drp_wire_create_shared *request, const struct drp_region_options *options) {
    if (!((request->create.required | request->create.preferred) & DRP_REGION_SHARED))
        return sizeof(request->create);
    request->create.header.type = DRP_WIRE_CREATE_SHARED;
    if (options->name) {
        strcpy(request->name, options->name);
        request->mode = options->mode ? options->mode : MODE_DEFAULT;
    }
    return sizeof(*request);
}

struct opening {
    struct drp_wire_open request;
    int handle; /* -1: by name */
};

static int open_error(struct drp *d, int error) {
    switch (error) {
    case -ENOENT:
        return error_detail(error, "no shared region of that name, or nobody has it any more");
    case -EPERM:
        return error_detail(-EACCES, "the mode of that shared region does not allow this user to open it by name");
    case -EBADF:
        return error_detail(error, "the descriptor is no handle of a shared region that this service has");
    case -EDQUOT:
        return limits_explain(d, error, 0);
    default:
        return error;
    }
}

/* Under request_lock. */
static int ask(struct drp_region *r, const void *data) {
    struct opening opening = *(const struct opening *)data;
    struct drp *d = r->context;
    const struct drp_wire_create_reply *reply = &d->link.packet->message.create_reply;
    int error;

    if (!(d->link.hello.features & DRP_FEATURE_SHARED))
        return error_detail(-EOPNOTSUPP, "the service is older than this library: it has no shared regions");
    error = link_call(&d->link, &opening.request, sizeof(opening.request), &opening.handle, opening.handle >= 0,
                      REQUEST_TIMEOUT_MS);
    if (error < 0)
        return open_error(d, error);
    r->known = true;
    atomic_store(&r->id, reply->region);
    if (!(reply->granted & DRP_REGION_SHARED))
        return error_detail(-EPROTO, "the service opened a region that is not shared");
    error = reply->granted & DRP_REGION_SIGNAL ? signal_prepare(d) : 0;
    return error < 0 ? error : region_take(r, 0, 0);
}

int drp_region_open(struct drp_region **ret, struct drp *d, const char *name, uid_t uid) {
    NOT_CANCELLED;
    struct opening opening = {.request = {.header.type = DRP_WIRE_OPEN, .uid = uid}, .handle = -1};

    if (!name_ok(name))
        return refuse_name("the name of a shared region");
    if (uid == (uid_t)-1)
        return error_detail(-EINVAL, "no user has the number %u", uid);
    strcpy(opening.request.name, name);
    return region_make(ret, d, NULL, ask, &opening);
}

int drp_region_open_handle(struct drp_region **ret, struct drp *d, int handle) {
    NOT_CANCELLED;
    struct opening opening = {.request = {.header.type = DRP_WIRE_OPEN}, .handle = handle};

    /* What is no shared memory would end the connection. */
    if (fcntl(handle, F_GET_SEALS) < 0)
        return error_detail(-EBADF, "the descriptor is no handle of a shared region");
    return region_make(ret, d, NULL, ask, &opening);
}

int drp_region_get_handle(const struct drp_region *r) {
    int fd;

    if (!(r->granted & DRP_REGION_SHARED))
        return error_detail(-EINVAL, "the region was not made with DRP_REGION_SHARED");
    if (r->data_fd < 0)
        return error_detail(-ENOTCONN, "the region was made before fork(), and is plain memory");
    fd = object_copy(r->data_fd, &r->data_object);
    return fd < 0 ? error_detail(fd, "no descriptor for a handle: %s", strerror(-fd)) : fd;
}
