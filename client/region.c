/* SPDX-License-Identifier: MIT */

/*
 * Regions: making, mapping, handing over and ending them.
 *
 * A region owns three mappings (data, state page, pin page) and their three descriptors, which are kept to hand them over to the next daemon. It enters
 * its context's list before anything of it exists and leaves it after its descriptors are closed, so that the fork handler knows all that there is at any
 * moment. Addresses never change, whatever daemon serves them.
 *
 * The data is mapped inaccessible first, kept out of children and core dumps, announced to the daemon (which registers
 * it with userfaultfd) and made accessible last: no page of it appears unseen. Its address is congruent with its place
 * in the object modulo 2 MiB, which lets the kernel use huge pages and keeps spans of the daemon in one page table
 * each.
 *
 * The data stays mapped as a whole until the region ends. A region that was made unmapped has no address: somebody else maps pieces of it
 * (piece.c) and keeps their account.
 */

#include "cancel.h"
#include "choice.h"
#include "client.h"
#include "local.h"
#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPAN ((size_t)2 << 20)
/* ---- mapping ---- */

int region_reserve(size_t size, size_t skew, void **ret) {
    size_t total = size + SPAN;
    uintptr_t start, address;
    void *p;

    p = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return error_detail(-ENOMEM, "no address space for a region of %zu bytes: %s", size, strerror(errno));
    start = (uintptr_t)p;
    address = ((start - skew + SPAN - 1) & ~(uintptr_t)(SPAN - 1)) + skew;
    if (address > start)
        munmap(p, address - start);
    munmap((void *)(address + size), start + total - address - size);
    *ret = (void *)address;
    return 0;
}

/* Of the pages. Fork lock held. A mapping that cannot be kept out of children is none. */
static int keep_private(void *p, size_t size) {
    if (madvise(p, size, MADV_DONTFORK) < 0)
        return error_detail(-errno, "cannot keep the region out of child processes: %s", strerror(errno));
    madvise(p, size, MADV_DONTDUMP);
    return 0;
}

static int check_object(int fd, uint64_t size, const char *what, struct object *ret) {
    struct stat st;

    /* What lies beyond the end of an object is SIGBUS. */
    if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < size)
        return error_detail(-EPROTO, "the service's %s is smaller than the region", what);
    *ret = (struct object){.device = st.st_dev, .inode = st.st_ino};
    return 0;
}

static int map_anywhere(struct drp_region *r) {
    void *p = NULL;
    int error;

    error = region_reserve(r->size, r->object_offset & (SPAN - 1), &p);
    if (error < 0)
        return error;
    r->address = p;
    if (mmap(p, r->size, PROT_NONE, MAP_SHARED | MAP_FIXED, r->data_fd, (off_t)r->object_offset) == MAP_FAILED)
        return error_detail(-errno, "cannot map the region: %s", strerror(errno));
    return 0;
}

static int map_data(struct drp_region *r) {
    int error = check_object(r->data_fd, r->object_offset + r->size, "data object", &r->data_object);

    if (error == 0 && !r->next_piece)
        error = map_anywhere(r);
    if (error == 0 && !r->next_piece)
        error = options_apply(r, atomic_load(&r->options));
    return error == 0 && r->granted & DRP_REGION_SIGNAL ? signal_register(r) : error;
}

/* Maps one of the pages; in the place of the old one if there is one. Fork lock held. */
static int map_page(int fd, size_t size, int protection, const char *what, void **page, struct object *ret) {
    int error = check_object(fd, size, what, ret);
    void *p;

    if (error < 0)
        return error;
    p = mmap(*page, size, protection, MAP_SHARED | (*page ? MAP_FIXED : 0), fd, 0);
    if (p == MAP_FAILED)
        return error_detail(-errno, "cannot map the region's %s: %s", what, strerror(errno));
    *page = p;
    return keep_private(p, size);
}

static int map_objects(struct drp_region *r, struct link *link) {
    int error;

    fork_lock();
    r->data_fd = channel_packet_take(link->packet, 0);
    r->state_fd = channel_packet_take(link->packet, 1);
    error = map_data(r);
    if (error == 0)
        error = map_page(r->state_fd, drp_state_bytes(r->chunk_total), PROT_READ, "state page", &r->state,
                         &r->state_object);
    fork_unlock();
    if (error == 0)
        pins_set_state(&r->pins, r->state, r->chunk_base);
    return error;
}

/*
 * Tells the daemon where the region is mapped, with the pin page if there is one already; else maps the one
 * that comes back.
 */
static int announce(struct drp_region *r, struct link *link) {
    struct drp_wire_map request = {
        .header.type = DRP_WIRE_MAP,
        .region = atomic_load(&r->id),
        .address = (uintptr_t)r->address,
        .length = r->next_piece ? 0 : r->size,
    };
    bool has_pins = r->pin_fd >= 0, shared = r->granted & DRP_REGION_SHARED;
    int fds[2] = {r->pin_fd, r->ticket_fd};
    size_t n = shared ? 2 : 1;
    int error;

    error = link_call(link, &request, sizeof(request), fds, has_pins ? n : 0, REQUEST_TIMEOUT_MS);
    if (error < 0)
        return error;
    if (link->packet->n_fds != (has_pins ? 0 : n))
        return error_detail(-EPROTO, "the service's reply to 'map' has %s pin page", has_pins ? "an unwanted" : "no");
    r->mapping = link->packet->message.map_reply.mapping;
    atomic_store(&r->pins.mapping, r->mapping);
    atomic_store(&r->interception, link->packet->message.map_reply.interception);
    if (has_pins)
        return 0;
    fork_lock();
    r->pin_fd = channel_packet_take(link->packet, 0);
    if (shared)
        r->ticket_fd = channel_packet_take(link->packet, 1);
    error =
        map_page(r->pin_fd, drp_pin_bytes(r->chunk_total), PROT_READ | PROT_WRITE, "pin page", &r->pin, &r->pin_object);
    fork_unlock();
    if (error == 0)
        error = seal_pins(r, link);
    if (error < 0)
        return error;
    pins_set_pins(&r->pins, r->pin, r->chunk_base);
    return 0;
}

/* ---- making ---- */

struct drp_region *region_alloc(struct drp *d, region_next_piece *next_piece) {
    struct drp_region *r;

    fork_catch_up(); /* before there is something new among what the parent left, and its locks */
    r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->context = d;
    r->backend = DRP_BACKEND_DAEMON;
    r->next_piece = next_piece;
    r->data_fd = -1;
    r->lost_fd = -1;
    r->state_fd = -1;
    r->pin_fd = -1;
    r->ticket_fd = -1;
    r->signal_fd = -1;
    pthread_mutex_lock(&d->regions_lock);
    fork_lock();
    r->next = d->regions;
    d->regions = r;
    fork_unlock();
    pthread_mutex_unlock(&d->regions_lock);
    return r;
}

static int create_error(struct drp *d, int error, size_t size, uint64_t required) {
    char text[OPTIONS_TEXT_SIZE];

    switch (error) {
    case -EDQUOT:
        return limits_explain(d, error, size);
    case -EOPNOTSUPP:
        if ((required & ~(OPTIONS_LOCAL | DRP_REGION_SIGNAL)) == (DRP_REGION_SHARED | DRP_REGION_NO_SWAP))
            return error_detail(error, "DRP_REGION_NO_SWAP of a shared region takes a service with a tmpfs without swap "
                                       "(Linux 6.4, root)");
        return error_detail(error,
                            "the service refuses a required option: %s (see 'droppablectl probe'); make it preferred "
                            "to go without",
                            options_text(required & ~OPTIONS_LOCAL, text));
    case -ENOMEM:
        return error_detail(error, "the service has no memory or descriptors left for a region of %zu bytes", size);
    case -EINVAL:
        return error_detail(error, "the service does not take a region of %zu bytes with these options", size);
    case -EEXIST:
        return error_detail(
            error, "drp_region_options.name: this user has a shared region of that name: drp_region_open() it");
    default:
        return error;
    }
}

/* What drp_region_new() asks for. */
struct region_wish {
    size_t size;
    const struct drp_region_options *options;
};

/* The region as the reply tells; its options are what the service granted and, of what was asked, the library's. */
int region_take(struct drp_region *r, uint64_t required, uint64_t preferred) {
    struct drp *d = r->context;
    const struct drp_wire_create_reply *reply = &d->link.packet->message.create_reply;
    uint32_t ipc_namespace;
    int error;

    r->size = reply->size;
    r->object_offset = reply->object_offset;
    r->chunk_base = reply->chunk_base;
    r->chunk_total = reply->chunk_total;
    r->granted = reply->granted;
    atomic_store(&r->options, r->granted | ((required | preferred) & OPTIONS_LOCAL));
    atomic_store(&r->pins.size, reply->size);
    r->pins.chunk_shift = reply->chunk_shift;
    r->pins.clock = d->clock;
    ipc_namespace = reply->ipc_namespace;
    error = map_objects(r, &d->link);
    if (error == 0)
        error = hold_take(r, ipc_namespace, required);
    return error < 0 ? error : announce(r, &d->link);
}

/* The reply to CREATE does not tell what became of the limits. request_lock held. */
static int judge(struct drp_region *r, const struct drp_region_options *options) {
    struct drp_region_limits limits = {0};
    int error = 0;

    if ((options->required | options->preferred) & OPTIONS_LIMITS)
        error = limits_ask(r, &r->context->link, &limits);
    return error < 0 ? error : options_judge(r, options, &limits);
}

static int create(struct drp_region *r, const void *data) {
    struct drp *d = r->context;
    const struct region_wish *wish = data;
    const struct drp_region_options *options = wish->options;
    uint64_t told = d->link.hello.region_options; /* what the service knows nothing of is not asked of it */
    int error = signal_ask(r, options, &told);
    struct drp_wire_create_shared request = {
        .create =
            {
                .header.type = DRP_WIRE_CREATE,
                .size = wish->size,
                .required = options->required & told,
                .preferred = options->preferred & told,
                .budget = options->budget,
                .share = options->share,
                .chunk_shift = options->chunk_size ? (uint8_t)__builtin_ctzll(options->chunk_size) : 0,
                .priority = (uint8_t)options->priority,
            },
    };
    const struct drp_wire_create_reply *reply = &d->link.packet->message.create_reply;
    size_t size = shared_ask(&request, options);

    if (r->next_piece && !(d->link.hello.features & DRP_FEATURE_PIECES))
        return error_detail(-EOPNOTSUPP, "the service is older than this library: it knows of no regions in pieces");
    if (error == 0)
        error = options_check_given(options->required, told | OPTIONS_LOCAL | OPTIONS_VALUES);
    if (error == 0)
        error = create_error(d, link_call(&d->link, &request, size, NULL, 0, REQUEST_TIMEOUT_MS), wish->size,
                             request.create.required);
    if (error < 0)
        return error;
    r->known = true;
    r->budget = request.create.budget;
    r->share = request.create.share;
    r->priority = request.create.priority;
    atomic_store(&r->id, reply->region);
    if (reply->size < wish->size || reply->size - wish->size >= UINT64_C(1) << reply->chunk_shift ||
        (request.create.chunk_shift && reply->chunk_shift != request.create.chunk_shift) ||
        (request.create.required & ~reply->granted))
        return error_detail(-EPROTO, "the service made a region that is not as asked for");
    error = region_take(r, options->required, options->preferred);
    return error < 0 ? error : judge(r, options);
}

/* From here on the watcher sees to the region; unless the daemon was lost meanwhile, which nobody told the region. */
static int make_live(struct drp_region *r, uint64_t epoch) {
    struct drp *d = r->context;
    int error = 0;
    bool same;

    if (r->address && mprotect(r->address, r->size, PROT_READ | PROT_WRITE) < 0)
        return error_detail(-errno, "cannot make the region accessible: %s", strerror(errno));
    if (r->address) {
        fork_lock();
        error = locate_add(r);
        fork_unlock();
    }
    if (error < 0)
        return error;
    pthread_mutex_lock(&d->regions_lock);
    same = atomic_load(&d->connected) && d->epoch == epoch;
    if (same) {
        r->phase = REGION_LIVE;
        atomic_store(&r->connected, true);
    }
    pthread_mutex_unlock(&d->regions_lock);
    return same ? 0 : error_detail(-ENOTCONN, "the service went away while it made the region");
}

int region_make(struct drp_region **ret, struct drp *d, region_next_piece *next_piece,
                int (*ask)(struct drp_region *r, const void *data), const void *data) {
    struct drp_region *r = region_alloc(d, next_piece);
    uint64_t epoch = 0;
    int error;

    if (!r)
        return error_detail(-ENOMEM, "no memory for a region");
    error = context_lock(d);
    if (error == 0) {
        epoch = d->epoch;
        error = ask(r, data);
        context_unlock(d);
    }
    if (error == 0)
        error = make_live(r, epoch);
    if (error < 0) {
        region_end(r, true);
        return error;
    }
    (void)options_tell(r);
    *ret = r;
    return 0;
}

/* Checks what is asked for, and leaves of it what the backend can give. */
static int read_wish(struct region_wish *wish, struct drp_region_options *o, const struct drp *d, enum drp_backend *ret) {
    int error = options_read(o, wish->options);

    if (error < 0)
        return error;
    if (wish->size == 0 || wish->size > SIZE_MAX / 2)
        return error_detail(-EINVAL, "a region of %zu bytes cannot be made", wish->size);
    wish->options = o;
    *ret = choice_of_region(d->backend, o);
    error = options_check_backend(*ret, o->required & ~OPTIONS_VALUES); /* of these what they come to is judged */
    o->required &= ~DRP_REGION_NO_PINS;                                 /* a permission */
    o->preferred &= (options_can(*ret, o->preferred) | OPTIONS_VALUES) & ~DRP_REGION_NO_PINS;
    return error;
}

int region_new_unmapped(struct drp_region **ret, struct drp *d, size_t size, const struct drp_region_options *options,
                        region_next_piece *next_piece) {
    struct region_wish wish = {.size = size, .options = options};
    struct drp_region_options o;
    enum drp_backend backend = DRP_BACKEND_DAEMON; /* for compilers who cannot see that errors are negative */
    int error = read_wish(&wish, &o, d, &backend);

    if (error < 0)
        return error;
    if (backend != DRP_BACKEND_DAEMON) {
        struct drp_region_options local = o;

        if (d->backend == DRP_BACKEND_AUTO) /* what native memory has not the service's may have */
            local.required |= local.preferred & OPTIONS_VALUES;
        error = local_new(ret, d, size, &local, backend);
        /* The service here keeps no limits of native memory, but those of its own. */
        if (error != -EOPNOTSUPP || d->backend != DRP_BACKEND_AUTO)
            return error;
    }
    return region_make(ret, d, next_piece, create, &wish);
}

int drp_region_new(struct drp_region **ret, struct drp *d, size_t size, const struct drp_region_options *options) {
    NOT_CANCELLED;
    return region_new_unmapped(ret, d, size, options, NULL);
}

bool region_piece(const struct drp_region *r, uintptr_t from, struct region_piece *ret) {
    if (r->next_piece)
        return r->next_piece(r, from, ret);
    if (!r->address || from >= (uintptr_t)r->address + r->size)
        return false;
    *ret = (struct region_piece){.address = r->address, .length = r->size, .protection = PROT_READ | PROT_WRITE};
    return true;
}

/* ---- ending ---- */

/* First of all, since munmap(2) of what the daemon has registered waits for it to read the event. */
static int destroy(struct drp_region *r) {
    struct drp *d = r->context;
    struct drp_wire_id request = {.header.type = DRP_WIRE_DESTROY};
    int error = 0;

    if (r->backend == DRP_BACKEND_NATIVE)
        request.header.type = DRP_WIRE_END_NATIVE;
    pthread_mutex_lock(&d->request_lock);
    if (r->known && atomic_load(&d->connected)) {
        /* This mapping: others of this process may have the same region. */
        if (r->granted & DRP_REGION_SHARED && r->mapping != 0) {
            request = (struct drp_wire_id){.header.type = DRP_WIRE_UNMAP, .id = r->mapping};
            link_call(&d->link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
            request = (struct drp_wire_id){.header.type = DRP_WIRE_DESTROY};
        }
        request.id = atomic_load(&r->id);
        error = link_call(&d->link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
        r->known = false;
    }
    pthread_mutex_unlock(&d->request_lock);
    return error;
}

int region_end(struct drp_region *r, bool tell) {
    struct drp *d = r->context;
    int error = 0;

    fork_catch_up();
    pthread_mutex_lock(&d->regions_lock);
    if (r->phase != REGION_INHERITED)
        r->phase = REGION_ENDING;
    pthread_mutex_unlock(&d->regions_lock);
    if (tell)
        error = destroy(r);

    pthread_mutex_lock(&d->regions_lock);
    fork_lock();
    for (struct drp_region **p = &d->regions; *p; p = &(*p)->next)
        if (*p == r) {
            *p = r->next;
            break;
        }
    object_close_region(r);
    locate_remove(r);
    fork_unlock();
    pthread_mutex_unlock(&d->regions_lock);

    if (r->address)
        munmap(r->address, r->size);
    if (r->state)
        munmap(r->state, drp_state_bytes(r->chunk_total));
    if (r->pin)
        munmap(r->pin, drp_pin_bytes(r->chunk_total));
    fork_free_region(r);
    hold_free(r);
    volatile_free(r);
    lost_free(r);
    free(r);
    return error;
}

struct drp_region *drp_region_free(struct drp_region *r) {
    NOT_CANCELLED;
    if (r)
        region_end(r, true);
    return NULL;
}

/* ---- handing over ---- */

static int adopt_state(struct drp_region *r, struct link *link) {
    const struct drp_wire_create_reply *reply = &link->packet->message.create_reply;
    struct object object;
    int fd;
    int error;

    if (reply->size != r->size || reply->object_offset != r->object_offset || reply->chunk_base != r->chunk_base ||
        reply->chunk_total != r->chunk_total || reply->chunk_shift != r->pins.chunk_shift)
        return error_detail(-EPROTO, "the service took another region over than it was given");
    fork_lock();
    fd = channel_packet_take(link->packet, 0);
    error = map_page(fd, drp_state_bytes(r->chunk_total), PROT_READ, "state page", &r->state, &object);
    if (error == 0) {
        object_close(&r->state_fd, &r->state_object);
        r->state_fd = fd;
        r->state_object = object;
    } else {
        close(fd);
    }
    fork_unlock();
    return error;
}

/*
 * The order matters. The daemon drops nothing of an adopted region before it has the pin page, which MAP brings. Until
 * then the new state page takes the old one's place, so that every pin is checked against the generations that will
 * change, and gone is cleared, so that an odd one is waited for again. Pins taken in between are counts in the same pin
 * page.
 */
int region_adopt(struct drp_region *r, struct link *link) {
    struct drp_wire_adopt request = {
        .header.type = DRP_WIRE_ADOPT,
        .size = r->size,
        .object_offset = r->object_offset,
        .chunk_base = r->chunk_base,
        .chunk_total = r->chunk_total,
        .granted = r->granted,
        .budget = r->budget,
        .share = r->share,
        .chunk_shift = (uint8_t)r->pins.chunk_shift,
        .priority = r->priority,
    };
    int fds[2] = {r->data_fd, r->state_fd};
    int error = link_call(link, &request, sizeof(request), fds, 2, REQUEST_TIMEOUT_MS), told;

    if (error < 0 && !link_was_short(link, DRP_WIRE_ADOPT))
        return error;
    r->known = true; /* also without its new state page, so that its end is told */
    atomic_store(&r->id, link->packet->message.create_reply.region);
    /* The old daemon's number may be another region's mapping in this one. */
    r->mapping = 0;
    if (error == 0)
        error = adopt_state(r, link);
    if (error == 0) {
        r->stale = false;
        atomic_store(&r->pins.gone, false);
    }
    told = options_hand_over(r, link); /* children may have it: before anything else, for this process may end */
    if (error < 0 || link_is_lost(told))
        return error < 0 && !link_is_lost(told) ? error : told;
    error = announce(r, link);
    if (error == 0 && r->next_piece)
        error = piece_announce_all(r, link);
    if (error == 0)
        atomic_store(&r->connected, true);
    return error;
}

/* ---- information ---- */

void *drp_region_address(const struct drp_region *r) {
    return r->address;
}

size_t drp_region_size(const struct drp_region *r) {
    return r->size;
}

enum drp_backend drp_region_get_backend(const struct drp_region *r) {
    return r->backend;
}

int drp_region_get_object(const struct drp_region *r, uint64_t *ret_offset) {
    int fd;

    if (r->backend != DRP_BACKEND_DAEMON)
        return error_detail(-EOPNOTSUPP, "the region has no object: its backend is '%s', private memory of this process",
                            choice_name(r->backend));
    if (r->data_fd < 0)
        return error_detail(-ENOTCONN, "the region has no object: it was made before fork(), and is plain memory");
    fd = object_copy(r->data_fd, &r->data_object);
    if (fd < 0)
        return error_detail(fd, "no descriptor for the region's object: %s", strerror(-fd));
    *ret_offset = r->object_offset;
    return fd;
}

void drp_region_get_info(const struct drp_region *r, struct drp_region_info *ret) {
    bool connected = atomic_load(&r->connected) && atomic_load(&r->context->connected);

    *ret = (struct drp_region_info){
        .id = atomic_load(&r->id),
        .address = r->address,
        .size = r->size,
        .chunk_size = (size_t)1 << r->pins.chunk_shift,
        .granted = atomic_load(&r->options),
        .interception = connected ? (enum drp_interception)atomic_load(&r->interception) : DRP_INTERCEPTION_NONE,
        .connected = connected,
    };
}
