/* SPDX-License-Identifier: MIT */

/*
 * Errors as text. The number goes through return values; the sentence that says which option or limit it was goes into
 * a buffer of the calling thread, overwritten by the next failing call. Nothing is allocated, so nothing here can fail.
 */

#include "client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DETAIL_SIZE 320

static _Thread_local char detail[DETAIL_SIZE];

int error_detail(int error, const char *format, ...) {
    int saved = errno;
    va_list args;

    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    errno = saved;
    return error;
}

bool error_is_shortage(int error) {
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM;
}

const char *drp_detail(void) {
    return detail;
}

const char *drp_strerror(int error) {
    const char *text;

    switch (error) {
    case 0:
        return "No error.";
    case -EAGAIN:
        return "The memory is being dropped right now.";
    case -ECONNREFUSED:
        return "Nobody answers on the service's socket.";
    case -EDQUOT:
        return "A quota of the service is used up.";
    case -EINVAL:
        return "An argument is malformed.";
    case -EMFILE:
        return "This process has too many open descriptors.";
    case -ENOENT:
        return "The service's socket does not exist.";
    case -ENOMEM:
        return "There is no memory for it.";
    case -ENOTCONN:
        return "The service is away.";
    case -EOPNOTSUPP:
        return "A required option cannot be had here.";
    case -EOVERFLOW:
        return "A chunk is pinned too many times.";
    case -EPERM:
    case -EACCES:
        return "The service or the system does not permit it.";
    case -EPROTO:
        return "The peer is not this service, or of another version.";
    case -ERANGE:
        return "The range is empty or not inside the region.";
    case -ETIMEDOUT:
        return "The service did not answer in time.";
    default:
        text = strerrordesc_np(-error);
        return text ? text : "Unknown error.";
    }
}
