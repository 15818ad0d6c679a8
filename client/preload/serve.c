/* SPDX-License-Identifier: MIT */

/*
 * Droppable memory of the service under the semantics of mmap(2), madvise(2) and their kin.
 *
 * Each mmap(2) is a region of its own, a holding, with chunks that divide its length, so that no byte is mapped beyond
 * what was asked for. The program may then unmap any part: the table keeps the pieces that are left, the memory of the part is
 * freed at once, and with the last piece the region ends. A call's range may cover ours and other memory: it is walked
 * piece by piece, and the kernel gets what lies between.
 *
 * No lock is held over a call of the client library or the kernel. What takes addresses from us changes the table first
 * and the mapping second; so an address that the kernel gives away again is never in the table. If the kernel then refuses
 * the second step, the memory stays mapped without being ours: it reads what it holds, and is not dropped any more.
 */

#include "serve.h"

#include "backend.h"
#include "client.h"
#include "holding.h"
#include "raw.h"
#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Linux 4.17. */
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define CHUNK ((size_t)64 << 10)

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_error;

/*
 * This thread is inside of serve_mmap(), whose library allocates: an allocator that takes its memory from us would come
 * back here, and wait for itself. initial-exec: the other models may allocate at the first access.
 */
static _Thread_local bool inside __attribute__((tls_model("initial-exec")));

/* ---- fork ---- */

static void prepare(void) {
    table_fork_prepare();
}

static void parent(void) {
    table_fork_parent();
}

static void child(void) {
    table_fork_child();
    backend_fork_child();
}

/*
 * Before the client library registers its own: handlers that prepare run in reverse order, so that the table's lock is taken
 * last. Who holds the library's fork lock may come here and wait for the table, never the other way round.
 */
static void init(void) {
    once_error = -pthread_atfork(prepare, parent, child);
}

/* ---- unmapping ---- */

/* Takes what is ours of a range out of the table and frees its memory; it is still mapped then. */
static int displace(uintptr_t start, uintptr_t end) {
    struct piece piece;
    int r;

    while ((r = table_cut(start, end, &piece)) > 0) {
        if (!piece.holding->inherited && !table_is_last(piece.holding))
            holding_discard(&piece);
        holding_release(piece.holding);
    }
    return r;
}

int serve_displace(void *address, size_t length) {
    int saved = errno, r = 0;
    uintptr_t start, end;

    if (holding_pages(address, length, &start, &end))
        r = displace(start, end);
    errno = r < 0 ? -r : saved;
    return r < 0 ? -1 : 0;
}

int serve_munmap(void *address, size_t length) {
    return serve_displace(address, length) < 0 ? -1 : raw_munmap(address, length);
}

/* ---- mapping ---- */

static bool next_piece(const struct drp_region *r, size_t *offset, size_t *ret_length) {
    uintptr_t base = (uintptr_t)r->address, start, end;

    if (!table_next_piece(r, base + *offset, base + r->size, &start, &end))
        return false;
    *offset = start - base;
    *ret_length = end - start;
    return true;
}

/* As Linux 6.11 checks MAP_DROPPABLE | MAP_ANONYMOUS; what depends on the address is left to the kernel. */
static int check(const void *address, size_t length, int flags, long offset) {
    if (length == 0 || offset & (long)(HOLDING_PAGE - 1))
        return -EINVAL;
    if (length > SIZE_MAX / 2)
        return -ENOMEM;
    if (flags & (MAP_LOCKED | MAP_HUGETLB | MAP_GROWSDOWN))
        return -EINVAL;
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) && (uintptr_t)address & (HOLDING_PAGE - 1))
        return -EINVAL;
    return 0;
}

/* Where the new region shall be. A hint, or a limit, is the kernel's to weigh: a reservation holds its answer. */
static int find_place(void *address, size_t length, int flags, struct region_place *ret) {
    int kept = flags & (MAP_FIXED_NOREPLACE | MAP_32BIT);
    void *p;

    if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) == MAP_FIXED) {
        if (!address)
            return -EPERM;
        ret->address = address;
        return displace((uintptr_t)address, (uintptr_t)address + length);
    }
    if (!address && !kept)
        return 0;
    p = raw_mmap(address, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | kept, -1, 0);
    if (p == MAP_FAILED)
        return -errno;
    ret->address = p;
    ret->reserved = true;
    return 0;
}

/* What mmap(2) says: a service that is not there is a kernel without MAP_DROPPABLE, all else is no memory. */
static int context_error(int error) {
    return error == -ENOMEM || error == -EMFILE || error == -ENFILE || error == -EDQUOT || error == -ETIMEDOUT
               ? -ENOMEM
               : -EOPNOTSUPP;
}

static int region_error(int error) {
    return error == -EACCES || error == -EPERM || error == -EAGAIN ? error : -ENOMEM;
}

static int make_region(struct holding *holding, struct drp *d, size_t length, const struct region_place *place) {
    struct drp_region_options options = {.struct_size = sizeof(options), .chunk_size = length & -length};
    uintptr_t start;
    int r;

    if (options.chunk_size > CHUNK)
        options.chunk_size = CHUNK;
    r = region_new_at(&holding->region, d, length, &options, place);
    if (r < 0) {
        backend_complain(r);
        return region_error(r);
    }
    start = (uintptr_t)holding->region->address;
    r = holding_note_object(holding);
    if (r == 0)
        r = table_add(start, start + length, holding);
    if (r < 0) {
        drp_region_free(holding->region);
        return -ENOMEM;
    }
    region_set_pieces(holding->region, next_piece);
    return 0;
}

static int make(struct holding *holding, void *address, size_t length, int protection, int flags) {
    struct region_place place = {.protection = protection & (PROT_READ | PROT_WRITE | PROT_EXEC)};
    struct drp *d;
    int r;

    r = backend_context(&d);
    if (r < 0) {
        backend_complain(r);
        return context_error(r);
    }
    r = find_place(address, length, flags, &place);
    if (r == 0)
        r = make_region(holding, d, length, &place);
    if (r < 0)
        return r;
    /* Like the kernel, to which a failure of this is none of the mapping. */
    if ((flags & MAP_POPULATE) && !(flags & MAP_NONBLOCK) && place.protection != PROT_NONE)
        drp_populate(holding->region, 0, length);
    return 0;
}

static int map(void *address, size_t length, int protection, int flags, void **ret) {
    struct holding *holding = calloc(1, sizeof(*holding));
    int r;

    if (!holding)
        return -ENOMEM;
    r = make(holding, address, length, protection, flags);
    if (r < 0) {
        free(holding);
        return r;
    }
    *ret = holding->region->address;
    return 0;
}

void *serve_mmap(void *address, size_t length, int protection, int flags, long offset) {
    int saved = errno, r;
    void *p = MAP_FAILED;

    r = inside ? -ENOMEM : check(address, length, flags, offset);
    if (r == 0) {
        pthread_once(&once, init);
        inside = true;
        r = once_error < 0 ? once_error
                           : map(address, (length + HOLDING_PAGE - 1) & ~(HOLDING_PAGE - 1), protection, flags, &p);
        inside = false;
    }
    errno = r < 0 ? -r : saved;
    return p;
}
