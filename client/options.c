/* SPDX-License-Identifier: MIT */

/*
 * Options of regions. Each is given by one side: the service (in its reply to CREATE), or the library and the kernel, by advice about the
 * mapping. The latter can be changed at any time; under the fork lock, so that a child finds mapping and options agreeing.
 */

#include "options.h"

#include "cancel.h"
#include "choice.h"
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK_MIN ((size_t)4096)
#define CHUNK_MAX ((size_t)2 << 20)

#define BUDGET_MIN UINT64_C(4096)
#define SHARE_MAX 10000

#define OPTIONS_SIZE_MIN offsetof(struct drp_region_options, budget)

#define PRIVATE "it is private memory of one process"
#define NEVER_DROPS "nothing is dropped but by drp_drop()"
#define AT_CREATION "it says how a field of drp_region_options is meant"

static const struct option {
    uint64_t bit;
    const char *constant;
    const char *name;
    const char *why_not[DRP_BACKEND_NONE + 1]; /* a backend never gives it; NULL: it may */
    const char *fixed;                         /* why it cannot be changed; NULL: it can be */
} options[] = {
    {DRP_REGION_HUGE, "DRP_REGION_HUGE", "huge", {NULL}, NULL},
    {DRP_REGION_SHARED,
     "DRP_REGION_SHARED",
     "shared",
     {[DRP_BACKEND_NATIVE] = PRIVATE, [DRP_BACKEND_NONE] = PRIVATE},
     "it is decided when the region is made"},
    {DRP_REGION_SIGNAL,
     "DRP_REGION_SIGNAL",
     "signal",
     {[DRP_BACKEND_NATIVE] = "the kernel registers no MAP_DROPPABLE memory with userfaultfd"},
     "it is decided when the region is made"},
    {DRP_REGION_FORK_SHARED,
     "DRP_REGION_FORK_SHARED",
     "fork-shared",
     {[DRP_BACKEND_NATIVE] = PRIVATE, [DRP_BACKEND_NONE] = PRIVATE},
     NULL},
    {DRP_REGION_FORK_ABSENT, "DRP_REGION_FORK_ABSENT", "fork-absent", {NULL}, NULL},
    {DRP_REGION_DUMP,
     "DRP_REGION_DUMP",
     "dump",
     {[DRP_BACKEND_NATIVE] = "the kernel puts no MAP_DROPPABLE memory into core dumps"},
     NULL},
    {DRP_REGION_MERGEABLE,
     "DRP_REGION_MERGEABLE",
     "mergeable",
     {[DRP_BACKEND_DAEMON] = "the kernel merges private pages only, and the service's memory is shared",
      [DRP_BACKEND_NATIVE] = "the kernel takes the advice for MAP_DROPPABLE memory, and merges none of it"},
     NULL},
    {DRP_REGION_NO_SWAP,
     "DRP_REGION_NO_SWAP",
     "no-swap",
     {[DRP_BACKEND_NONE] = "plain memory is swapped like any other"},
     "the region's memory was made with or without"},
    {DRP_REGION_NO_PINS, "DRP_REGION_NO_PINS", "no-pins", {NULL}, "it is decided when the region is made"},
    {DRP_REGION_BUDGET, "DRP_REGION_BUDGET", "budget", {[DRP_BACKEND_NONE] = NEVER_DROPS}, AT_CREATION},
    {DRP_REGION_SHARE, "DRP_REGION_SHARE", "share", {[DRP_BACKEND_NONE] = NEVER_DROPS}, AT_CREATION},
    {DRP_REGION_PRIORITY, "DRP_REGION_PRIORITY", "priority", {[DRP_BACKEND_NONE] = NEVER_DROPS}, AT_CREATION},
    {DRP_REGION_CHUNK_SIZE,
     "DRP_REGION_CHUNK_SIZE",
     "chunk-size",
     {[DRP_BACKEND_NATIVE] = "the kernel drops single pages"},
     AT_CREATION},
};

#define N_OPTIONS (sizeof(options) / sizeof(options[0]))
#define FORKS (DRP_REGION_FORK_SHARED | DRP_REGION_FORK_ABSENT)

static uint64_t known(void) {
    uint64_t bits = 0;

    for (size_t i = 0; i < N_OPTIONS; i++)
        bits |= options[i].bit;
    return bits;
}

/* ---- names ---- */

const char *options_next_name(uint64_t *bits) {
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (*bits & options[i].bit) {
            *bits &= ~options[i].bit;
            return options[i].name;
        }
    return NULL;
}

char *options_text(uint64_t bits, char *text) {
    size_t length = 0;

    text[0] = '\0';
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (bits & options[i].bit)
            length += (size_t)snprintf(text + length, OPTIONS_TEXT_SIZE - length, "%s%s", length ? ", " : "",
                                       options[i].constant);
    if (bits & ~known())
        snprintf(text + length, OPTIONS_TEXT_SIZE - length, "%s0x%llx", length ? ", " : "",
                 (unsigned long long)(bits & ~known()));
    return text;
}

/* ---- asking ---- */

static int check_known(uint64_t bits) {
    if (bits & ~known())
        return error_detail(-EOPNOTSUPP, "unknown DRP_REGION_ bits 0x%llx: this library is older than them",
                            (unsigned long long)(bits & ~known()));
    return 0;
}

static int check_forks(uint64_t bits) {
    return (bits & FORKS) == FORKS
               ? error_detail(-EINVAL, "DRP_REGION_FORK_SHARED and DRP_REGION_FORK_ABSENT: one of them, or neither")
               : 0;
}

static int check(uint64_t required, uint64_t preferred) {
    int error = check_known(required | preferred);

    return error < 0 ? error : check_forks(required | preferred);
}

/* Of OPTIONS_VALUES those whose fields differ. */
static uint64_t differing(const struct drp_region_options *a, const struct drp_region_options *b) {
    return (a->budget != b->budget ? DRP_REGION_BUDGET : 0) | (a->share != b->share ? DRP_REGION_SHARE : 0) |
           (a->priority != b->priority ? DRP_REGION_PRIORITY : 0) |
           (a->chunk_size != b->chunk_size ? DRP_REGION_CHUNK_SIZE : 0);
}

static int check_fields(const struct drp_region_options *o) {
    static const struct drp_region_options none;
    uint64_t empty = (o->required | o->preferred) & OPTIONS_VALUES & ~differing(o, &none);
    char text[OPTIONS_TEXT_SIZE];

    return empty ? error_detail(-EINVAL, "%s: it is about a field of drp_region_options, which is 0",
                                options_text(empty, text))
                 : 0;
}

int options_read(struct drp_region_options *to, const struct drp_region_options *from) {
    int r;

    *to = (struct drp_region_options){.struct_size = sizeof(*to)};
    if (!from)
        return 0;
    r = context_copy_struct(to, sizeof(*to), OPTIONS_SIZE_MIN, from, "drp_region_options");
    if (r < 0)
        return r;
    r = check(to->required, to->preferred);
    if (r == 0)
        r = check_fields(to);
    if (r < 0)
        return r;
    if (to->chunk_size &&
        (to->chunk_size < CHUNK_MIN || to->chunk_size > CHUNK_MAX || (to->chunk_size & (to->chunk_size - 1))))
        return error_detail(-EINVAL, "drp_region_options.chunk_size is %zu: a power of two from 4096 to 2097152, or 0",
                            to->chunk_size);
    if ((to->required & DRP_REGION_HUGE) && to->chunk_size && to->chunk_size != CHUNK_MAX)
        return error_detail(-EINVAL, "drp_region_options.chunk_size is %zu: DRP_REGION_HUGE takes 2097152 or 0",
                            to->chunk_size);
    if (to->budget && to->budget < BUDGET_MIN)
        return error_detail(-EINVAL, "drp_region_options.budget is %llu: 4096 bytes or more, or 0",
                            (unsigned long long)to->budget);
    if (to->share > SHARE_MAX)
        return error_detail(-EINVAL, "drp_region_options.share is %u: 1 to 10000, or 0", to->share);
    if ((unsigned)to->priority > DRP_PRIORITY_HIGH)
        return error_detail(-EINVAL, "drp_region_options.priority is %d: 1 (low) to 3 (high), or 0", (int)to->priority);
    return shared_check(to);
}

uint64_t options_can(enum drp_backend backend, uint64_t bits) {
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (options[i].why_not[backend])
            bits &= ~options[i].bit;
    return bits;
}

const char *options_why_not(enum drp_backend backend, uint64_t bit) {
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (options[i].bit == bit)
            return options[i].why_not[backend];
    return NULL;
}

int options_check_backend(enum drp_backend backend, uint64_t required) {
    for (size_t i = 0; i < N_OPTIONS; i++)
        if ((required & options[i].bit) && options[i].why_not[backend])
            return error_detail(-EOPNOTSUPP,
                                "%s cannot be given by the backend '%s': %s. Make it preferred to go without",
                                options[i].constant, choice_name(backend), options[i].why_not[backend]);
    return 0;
}

int options_check_given(uint64_t required, uint64_t given) {
    char text[OPTIONS_TEXT_SIZE];

    return required & ~given
               ? error_detail(-EOPNOTSUPP,
                              "the service here does not give %s (see 'droppablectl probe'): make it preferred to go "
                              "without",
                              options_text(required & ~given, text))
               : 0;
}

int options_judge(struct drp_region *r, const struct drp_region_options *asked, const struct drp_region_limits *limits) {
    const struct drp_region_options holding = {.budget = limits->budget,
                                               .share = limits->share,
                                               .priority = limits->priority,
                                               .chunk_size = (size_t)1 << r->pins.chunk_shift};
    uint64_t given = (asked->required | asked->preferred) & OPTIONS_VALUES & ~differing(asked, &holding);
    uint64_t missing = asked->required & OPTIONS_VALUES & ~given;
    char text[OPTIONS_TEXT_SIZE];
    int error = options_check_backend(r->backend, missing);

    if (error == 0 && missing)
        error = error_detail(
            -EOPNOTSUPP,
            "the service does not allow what was asked for: %s. Make it preferred to have what it does, see 'droppablectl limit'",
            options_text(missing, text));
    if (error == 0)
        atomic_fetch_or(&r->options, given);
    return error;
}

/* ---- doing ---- */

static int apply_fork(const struct drp_region *r, uint64_t bits) {
    bool inherited = bits & DRP_REGION_FORK_SHARED;
    int error = 0;

    if (r->backend != DRP_BACKEND_DAEMON) /* the kernel wipes what children get */
        inherited = !(bits & DRP_REGION_FORK_ABSENT);
    if (r->backend == DRP_BACKEND_NONE)
        error = madvise(r->address, r->size, MADV_WIPEONFORK);
    if (error == 0)
        error = madvise(r->address, r->size, inherited ? MADV_DOFORK : MADV_DONTFORK);
    return error < 0 ? error_detail(-errno, "cannot decide what child processes have of the region: %s", strerror(errno))
                     : 0;
}

int options_apply(const struct drp_region *r, uint64_t bits) {
    int error = apply_fork(r, bits);

    if (error < 0)
        return error;
    if (madvise(r->address, r->size, bits & DRP_REGION_DUMP ? MADV_DODUMP : MADV_DONTDUMP) < 0)
        return error_detail(-errno, "cannot decide whether the region is in core dumps: %s", strerror(errno));
    /* EINVAL: a kernel without transparent huge pages, which gives what is asked for anyway, or nothing. */
    madvise(r->address, r->size, bits & DRP_REGION_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    /* A kernel that does not merge takes neither advice. */
    if (madvise(r->address, r->size, bits & DRP_REGION_MERGEABLE ? MADV_MERGEABLE : MADV_UNMERGEABLE) < 0 &&
        (bits & DRP_REGION_MERGEABLE))
        return error_detail(-EOPNOTSUPP,
                            "DRP_REGION_MERGEABLE cannot be given here: the kernel does not merge pages: %s",
                            strerror(errno));
    return 0;
}

static int check_change(const struct drp_region *r, uint64_t mask, uint64_t values) {
    int error = check_known(mask | values);

    if (error < 0)
        return error;
    if (values & ~mask)
        return error_detail(-EINVAL, "values has bits that mask does not name");
    for (size_t i = 0; i < N_OPTIONS; i++)
        if ((mask & options[i].bit) && options[i].fixed)
            return error_detail(-EOPNOTSUPP, "%s cannot be changed: %s", options[i].constant, options[i].fixed);
    error = options_check_backend(r->backend, values);
    if (error < 0)
        return error;
    if (r->backend == DRP_BACKEND_DAEMON && (values & DRP_REGION_HUGE & ~r->granted))
        return error_detail(
            -EOPNOTSUPP, "DRP_REGION_HUGE: the region was made without, its object and its chunks are for small pages");
    return 0;
}

/* Fork lock held. */
static int change(struct drp_region *r, uint64_t mask, uint64_t values) {
    uint64_t was = atomic_load(&r->options), bits = (was & ~mask) | values;
    int error = check_forks(bits);

    if (error == 0 && r->phase == REGION_INHERITED)
        error = error_detail(-ENOTCONN, "the region was made before fork(), by another process");
    if (error < 0)
        return error;
    error = options_apply(r, bits);
    if (error < 0)
        options_apply(r, was);
    else
        atomic_store(&r->options, bits);
    return error;
}

static int tell(struct drp_region *r, struct link *link, uint64_t bits) {
    struct drp_wire_options request = {
        .header.type = DRP_WIRE_TELL_OPTIONS, .region = atomic_load(&r->id), .options = bits};
    int error;

    if (!(link->hello.features & DRP_FEATURE_OPTIONS) || bits == r->told_options)
        return 0;
    error = link_call(link, &request, sizeof(request), NULL, 0, REQUEST_TIMEOUT_MS);
    if (error == 0) {
        r->told_options = bits;
        r->told_lent |= (bits & DRP_REGION_FORK_SHARED) != 0;
    }
    return error;
}

int options_hand_over(struct drp_region *r, struct link *link) {
    uint64_t bits = atomic_load(&r->options) & OPTIONS_LOCAL;
    int error = 0;

    /* What a child was given before the option was taken back it still has. */
    if (atomic_load(&r->lent) && !r->told_lent && !(bits & DRP_REGION_FORK_SHARED))
        error = tell(r, link, DRP_REGION_FORK_SHARED);
    return error < 0 ? error : tell(r, link, bits);
}

int options_tell(struct drp_region *r) {
    struct drp *d = r->context;
    int error = 0;

    if (atomic_load(&r->options) & DRP_REGION_FORK_SHARED)
        atomic_store(&r->lent, true);
    pthread_mutex_lock(&d->request_lock);
    if (r->known && atomic_load(&d->connected))
        error = options_hand_over(r, &d->link);
    pthread_mutex_unlock(&d->request_lock);
    return error;
}

int drp_region_set_options(struct drp_region *r, uint64_t mask, uint64_t values) {
    NOT_CANCELLED;
    int error = check_change(r, mask, values);

    if (error < 0)
        return error;
    fork_lock();
    error = change(r, mask, values);
    fork_unlock();
    if (error == 0)
        (void)options_tell(r);
    return error;
}
