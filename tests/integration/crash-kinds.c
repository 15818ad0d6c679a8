/* SPDX-License-Identifier: MIT */
/*
 * What clients may rely on with the kinds of regions that not every system has.
 *
 * Native: a word is as it was or zero, and the service takes no memory that is not droppable, however it is asked.
 * Signal: a word that was there is as it was, or there was a signal: never zero without.
 * Never swapped: where that is a lock, the lock is there from the region's beginning to its end. Shared ones are another kind of object, if there are any.
 */

#include "crash-kinds.h"

#include "client.h"
#include "connected.h"
#include "fixture.h"
#include "page-check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define CHUNK PAGE_CHECK_CHUNK
#define MIB ((size_t)1 << 20)
#define NATIVE_SIZE (MIB / 2)
#define NATIVE_BUDGET (MIB / 4)
#define SIGNAL_PAGES ((size_t)32)
#define PINNED_PAGES (CHUNK / PAGE)

static struct {
    struct drp *d; /* its regions are native */
    struct drp_region *native, *signal, *unswapped, *shared;
    uint64_t words[NATIVE_SIZE / PAGE]; /* of the native one */
    uint64_t signalled[SIGNAL_PAGES];   /* of the one that signals */
} kinds;

/* What the system may not have. false: it has not. */
static bool make(struct drp_region **ret, struct drp *d, size_t size, uint64_t required) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .required = required};
    int r;

    while (is_away(r = drp_region_new(ret, d, size, &options)))
        nap_ms(2);
    child_check(r == 0 || r == -EOPNOTSUPP);
    if (r < 0)
        *ret = NULL;
    return r == 0;
}

/* ---- native ---- */

static void prepare_native(void) {
    const struct drp_config config = {.struct_size = sizeof(config), .backend = DRP_BACKEND_NATIVE};
    int r;

    while (is_away(r = drp_new(&kinds.d, &config)))
        nap_ms(2);
    child_check(r == 0 || r == -EOPNOTSUPP);
    if (r < 0)
        kinds.d = NULL;
    else
        (void)make(&kinds.native, kinds.d, NATIVE_SIZE, 0);
}

/* Memory of another kind. */
static void lie(void) {
    struct drp_wire_native request = {.header.type = DRP_WIRE_NATIVE, .length = PAGE};
    void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), r;

    child_check(p != MAP_FAILED && pagemap >= 0);
    request.address = (uintptr_t)p;
    r = context_lock(kinds.d);
    if (r == 0) {
        r = link_call(&kinds.d->link, &request, sizeof(request), &pagemap, 1, REQUEST_TIMEOUT_MS);
        context_unlock(kinds.d);
    }
    errno = -r;
    child_check(r == -EINVAL || r == -EOPNOTSUPP || r == -EPERM || is_away(r));
    close(pagemap);
    munmap(p, PAGE);
}

static void use_native(uint64_t round) {
    struct drp_region *region = NULL;
    char *p = drp_region_address(kinds.native);
    int r;

    for (size_t page = 0; page < NATIVE_SIZE / PAGE; page++) {
        volatile uint64_t *word = (volatile uint64_t *)(void *)(p + page * PAGE + page % 512 * 8);
        uint64_t value = *word;

        child_check(value == kinds.words[page] || value == 0);
        *word = kinds.words[page] = round;
    }
    r = drp_region_set_budget(kinds.native, NATIVE_BUDGET >> (round & 1));
    child_check(r == 0 || r == -EOPNOTSUPP || is_away(r)); /* without a service nobody keeps it */
    MAY_BE_AWAY(drp_region_new(&region, kinds.d, PAGE, NULL));
    drp_region_free(region);
    lie();
}

/* ---- signal ---- */

static volatile sig_atomic_t signals;

static void on_sigbus(int number, siginfo_t *info, void *context) {
    struct drp_region *region;
    size_t offset;

    (void)number;
    (void)context;
    signals = 1;
    if (drp_locate(info->si_addr, &region, &offset) != 0 || region != kinds.signal ||
        drp_populate(region, offset / PAGE * PAGE, PAGE) != 0)
        _exit(90);
}

static void use_signal(uint64_t round) {
    char *p = drp_region_address(kinds.signal);

    for (size_t page = 0; page < SIGNAL_PAGES; page++) {
        volatile uint64_t *word = (volatile uint64_t *)(void *)(p + page * PAGE + page % 512 * 8);
        uint64_t value;

        signals = 0;
        value = *word;
        child_check(value == kinds.signalled[page] || (value == 0 && signals && page >= PINNED_PAGES));
        *word = kinds.signalled[page] = round;
    }
    MAY_BE_AWAY(drp_drop(kinds.signal, 0, SIGNAL_PAGES * PAGE, NULL, NULL));
}

static void prepare_signal(struct drp *d) {
    const struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

    if (!make(&kinds.signal, d, SIGNAL_PAGES * PAGE, DRP_REGION_SIGNAL))
        return;
    child_check(sigaction(SIGBUS, &action, NULL) == 0);
    child_check(drp_pin(kinds.signal, 0, PINNED_PAGES * PAGE, NULL) == 0);
    child_check(drp_populate(kinds.signal, 0, PINNED_PAGES * PAGE) == 0);
}

/* ---- never swapped ---- */

static bool is_segment(int fd) {
    char path[64], name[64];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    n = readlink(path, name, sizeof(name));
    return n >= 5 && strncmp(name, "/SYSV", 5) == 0;
}

static void check_lock(const struct drp_region *region) {
    struct drp_region_info info;
    struct shmid_ds segment;
    struct stat st;
    uint64_t offset;
    int fd = drp_region_get_object(region, &offset);

    drp_region_get_info(region, &info);
    child_check(info.granted & DRP_REGION_NO_SWAP);
    child_check(fd >= 0 && fstat(fd, &st) == 0);
    child_check(!is_segment(fd) || (shmctl((int)st.st_ino, IPC_STAT, &segment) == 0 &&
                                    (segment.shm_perm.mode & SHM_LOCKED) && segment.shm_nattch >= 1));
    close(fd);
}

static void use_unswapped(struct drp *d, uint64_t round) {
    const struct drp_region_options needed = {.struct_size = sizeof(needed), .required = DRP_REGION_NO_SWAP};
    struct drp_region *region = NULL;

    check_lock(kinds.unswapped);
    child_check(is_filled(drp_region_address(kinds.unswapped), 0xc0, CHUNK));
    memset((char *)drp_region_address(kinds.unswapped) + CHUNK, (int)round, CHUNK);
    MAY_BE_AWAY(drp_drop(kinds.unswapped, 0, 2 * CHUNK, NULL, NULL));
    MAY_BE_AWAY(drp_region_new(&region, d, CHUNK, &needed));
    if (!region)
        return;
    check_lock(region);
    memset(drp_region_address(region), (int)round, CHUNK);
    drp_region_free(region);
}

static void prepare_unswapped(struct drp *d) {
    if (!make(&kinds.unswapped, d, 2 * CHUNK, DRP_REGION_NO_SWAP))
        return;
    child_check(drp_pin(kinds.unswapped, 0, CHUNK, NULL) == 0);
    memset(drp_region_address(kinds.unswapped), 0xc0, CHUNK);
}

/* ---- never swapped, and shared ---- */

#define SHARED_UNSWAPPED (DRP_REGION_SHARED | DRP_REGION_NO_SWAP)

static void use_shared(struct drp *d, uint64_t round) {
    char *p = drp_region_address(kinds.shared);
    struct drp_region *region = NULL;

    child_check(is_filled(p, 0xd0, CHUNK));
    memset(p + CHUNK, (int)round, CHUNK);
    MAY_BE_AWAY(drp_drop(kinds.shared, 0, 2 * CHUNK, NULL, NULL));
    child_check(is_filled(p, 0xd0, CHUNK));
    if (make(&region, d, CHUNK, SHARED_UNSWAPPED))
        memset(drp_region_address(region), (int)round, CHUNK);
    drp_region_free(region);
}

static void prepare_shared(struct drp *d) {
    if (!make(&kinds.shared, d, 2 * CHUNK, SHARED_UNSWAPPED))
        return;
    child_check(drp_pin(kinds.shared, 0, CHUNK, NULL) == 0);
    memset(drp_region_address(kinds.shared), 0xd0, CHUNK);
}

/* ---- all ---- */

void crash_kinds_prepare(struct drp *d) {
    prepare_native();
    prepare_signal(d);
    prepare_unswapped(d);
    prepare_shared(d);
}

void crash_kinds_use(struct drp *d, uint64_t round) {
    if (kinds.native && round % 3 == 0)
        use_native(round);
    if (kinds.signal && round % 3 == 1)
        use_signal(round);
    if (kinds.unswapped && round % 3 == 2)
        use_unswapped(d, round);
    if (kinds.shared && round % 3 == 2)
        use_shared(d, round);
}

bool crash_kinds_are_connected(void) {
    return (!kinds.native || is_connected(kinds.native)) && (!kinds.signal || is_connected(kinds.signal)) &&
           (!kinds.unswapped || is_connected(kinds.unswapped)) && (!kinds.shared || is_connected(kinds.shared));
}

void crash_kinds_finish(void) {
    drp_region_free(kinds.native);
    drp_region_free(kinds.signal);
    drp_region_free(kinds.unswapped);
    drp_region_free(kinds.shared);
    drp_free(kinds.d);
}
