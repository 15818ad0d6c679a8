/* SPDX-License-Identifier: MIT */

/* Calls about memory that few programs make: names, msync(2), userfaultfd(2), remap_file_pages(2), mseal(2), NUMA, KSM. */

#include "sections.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define SIZE (16 * PAGE)

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#ifndef SYS_mseal
#define SYS_mseal 462 /* Linux 6.10 */
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif

static char *filled(void) {
    char *p = droppable_alone(SIZE);

    fill(p, SIZE);
    return p;
}

static void run_name(const struct check *c) {
    char *p = filled(), *q = plain(SIZE);

    (void)c;
    if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, q, SIZE, "plain") < 0)
        say_absent();
    say_result("name", prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, SIZE, "mine"));
    say_result("part", prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, PAGE, "other"));
    say_result("none", prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, SIZE, NULL));
    say("read=%s", seen(p, SIZE));
}

static void run_msync(const struct check *c) {
    char *p = filled();

    say_result("msync", msync(p, SIZE, (int)c->a));
    say("read=%s", seen(p, SIZE));
    say_result("odd-address", msync(p + 1, SIZE, (int)c->a));
    say_result("length-0", msync(p, 0, (int)c->a));
    munmap(p + 4 * PAGE, PAGE);
    say_result("hole", msync(p, SIZE, (int)c->a));
    mlock(p, PAGE);
    say_result("locked", msync(p, PAGE, (int)c->a));
    mprotect(p, PAGE, PROT_NONE);
    say_result("inaccessible", msync(p, PAGE, (int)c->a));
}

/* ---- userfaultfd ---- */

static int new_userfaultfd(uint64_t features) {
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
        say_absent();
    return fd;
}

static void say_register(const char *key, int fd, char *p, size_t size, uint64_t mode) {
    struct uffdio_register range = {.range = {(uintptr_t)p, size}, .mode = mode};

    say_result(key, ioctl(fd, UFFDIO_REGISTER, &range));
}

static void run_userfaultfd(const struct check *c) {
    int fd = new_userfaultfd(0);
    char *p = filled(), *q = plain(SIZE);

    say_register("plain", fd, q, SIZE, UFFDIO_REGISTER_MODE_MISSING);
    say_register("register", fd, p, SIZE, (uint64_t)c->a);
    say_register("part", fd, p + PAGE, PAGE, (uint64_t)c->a);
    close(fd); /* or the next access would wait */
    say("read=%s", seen(p, SIZE));
    say("write=%s", written(p, SIZE));
    say_result("pageout", madvise(p, SIZE, MADV_PAGEOUT));
    say("read=%s", seen(p, SIZE));
}

static void run_userfaultfd_fresh(const struct check *c) {
    int fd = new_userfaultfd(0);
    char *p = droppable_alone(SIZE);
    struct uffdio_zeropage zero = {.range = {(uintptr_t)p, PAGE}};
    struct uffdio_copy copy = {.dst = (uintptr_t)p + PAGE, .src = (uintptr_t)plain(PAGE), .len = PAGE};

    say_register("register", fd, p, SIZE, (uint64_t)c->a);
    say_result("zeropage", ioctl(fd, UFFDIO_ZEROPAGE, &zero));
    say_result("copy", ioctl(fd, UFFDIO_COPY, &copy));
    close(fd);
    say("read=%s", seen(p, SIZE));
}

/* Of what is registered by nobody. */
static void run_userfaultfd_unregister(const struct check *c) {
    int fd = new_userfaultfd(0);
    char *p = filled();
    struct uffdio_range range = {(uintptr_t)p, SIZE};

    (void)c;
    say_result("unregister", ioctl(fd, UFFDIO_UNREGISTER, &range));
    range.len = PAGE;
    say_result("part", ioctl(fd, UFFDIO_UNREGISTER, &range));
    close(fd);
    say("read=%s", seen(p, SIZE));
}

static void run_userfaultfd_pointer(const struct check *c) {
    static const unsigned long requests[] = {UFFDIO_REGISTER, UFFDIO_UNREGISTER, UFFDIO_ZEROPAGE, UFFDIO_COPY};
    int fd = new_userfaultfd(0);
    char *p = filled(), *none = mmap(NULL, PAGE, PROT_NONE, PLAIN, -1, 0);

    (void)c;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        say_result("null", ioctl(fd, requests[i], NULL));
        say_result("inaccessible", ioctl(fd, requests[i], none));
    }
    close(fd);
    say("read=%s", seen(p, SIZE));
}

/* ---- sealing ---- */

static bool kernel_seals(void) {
    char *p = plain(PAGE);

    return syscall(SYS_mseal, p, PAGE, 0UL) == 0;
}

static void run_seal(const struct check *c) {
    char *p;

    if (!kernel_seals())
        say_absent();
    p = filled();
    if (c->a)
        mprotect(p, SIZE, PROT_READ);
    say_result("mseal", syscall(SYS_mseal, p, SIZE, 0UL));
    say_result("munmap", munmap(p, SIZE));
    say_result("munmap-part", munmap(p + PAGE, PAGE));
    say_result("mprotect", mprotect(p, SIZE, PROT_NONE));
    say_result("mremap", mremap(p, SIZE, 2 * SIZE, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
    say_result("mmap-over", mmap(p, PAGE, READ_WRITE, PLAIN | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0);
    say_result("mmap-droppable-over", mmap(p, PAGE, READ_WRITE, DROPPABLE | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0);
    say("read=%s", seen(p, SIZE));
    say_result("free", madvise(p, SIZE, MADV_FREE));
    say_result("dontneed", madvise(p, SIZE, MADV_DONTNEED));
    say("read=%s", seen(p, SIZE));
    say_result("pageout", madvise(p, SIZE, MADV_PAGEOUT));
    say("read=%s", seen(p, SIZE));
    say_result("dontfork", madvise(p, SIZE, MADV_DONTFORK));
    say_result("wipeonfork", madvise(p, SIZE, MADV_WIPEONFORK));
}

static void run_seal_guard(const struct check *c) {
    char *p = plain(PAGE);

    if (!kernel_seals() || madvise(p, PAGE, 102) < 0)
        say_absent();
    p = filled();
    if (c->a)
        mprotect(p, SIZE, PROT_READ);
    say_result("mseal", syscall(SYS_mseal, p, SIZE, 0UL));
    say_result("guard", madvise(p, PAGE, 102));
    say("first=%s rest=%s", seen(p, PAGE), seen(p + PAGE, SIZE - PAGE));
    say_result("unguard", madvise(p, PAGE, 103));
    say("first=%s", seen(p, PAGE));
}

static void child_of_sealed(void *data) {
    say("child=%s", seen(data, SIZE));
    say_result("child-munmap", munmap(data, SIZE));
}

static void run_seal_fork(const struct check *c) {
    char *p;

    (void)c;
    if (!kernel_seals())
        say_absent();
    p = filled();
    say_result("mseal", syscall(SYS_mseal, p, SIZE, 0UL));
    in_child(child_of_sealed, p);
    say("parent=%s", seen(p, SIZE));
}

/* Made smaller on the way to what is sealed: refused before anything of it ends. */
static void run_seal_target(const struct check *c) {
    char *p, *to;

    if (!kernel_seals())
        say_absent();
    p = droppable_alone(2 * SIZE);
    to = droppable_alone(SIZE);
    if (c->a && mmap(p, SIZE, READ_WRITE, PLAIN | MAP_FIXED, -1, 0) == MAP_FAILED)
        say_result("mmap", -1);
    fill(p, 2 * SIZE);
    say_result("mseal", syscall(SYS_mseal, to, SIZE, 0UL));
    say_result("mremap", mremap(p, 2 * SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED ? -1 : 0);
    say("first=%s second=%s", seen(p, SIZE), seen(p + SIZE, SIZE));
}

/* ---- where pages are ---- */

static void run_mbind(const struct check *c) {
    char *p = filled(), *q = plain(SIZE);
    unsigned long nodes = 1;

    if (syscall(SYS_mbind, q, SIZE, c->a, c->a ? &nodes : NULL, c->a ? 64UL : 0UL, 0) < 0 && errno == ENOSYS)
        say_absent();
    say_result("mbind", syscall(SYS_mbind, p, SIZE, c->a, c->a ? &nodes : NULL, c->a ? 64UL : 0UL, c->b));
    say("read=%s", seen(p, SIZE));
    say_result("pageout", madvise(p, SIZE, MADV_PAGEOUT));
    say("read=%s", seen(p, SIZE));
    say_result("odd-address", syscall(SYS_mbind, p + 1, SIZE, c->a, c->a ? &nodes : NULL, c->a ? 64UL : 0UL, c->b));
    munmap(p + PAGE, PAGE);
    say_result("hole", syscall(SYS_mbind, p, SIZE, c->a, c->a ? &nodes : NULL, c->a ? 64UL : 0UL, c->b));
}

static void run_move_pages(const struct check *c) {
    char *p = droppable_alone(SIZE);
    void *pages[4] = {p, p + PAGE, p + 2 * PAGE, p + 3 * PAGE};
    int nodes[4] = {0, 0, 0, 0}, status[4] = {99, 99, 99, 99};
    long r;

    need_zero_page();
    written(p, PAGE);
    seen(p + PAGE, PAGE);
    munmap(p + 3 * PAGE, PAGE);
    r = syscall(SYS_move_pages, 0, 4UL, pages, c->a ? nodes : NULL, status, 2);
    if (r < 0 && errno == ENOSYS)
        say_absent();
    say_result("move_pages", r);
    for (unsigned i = 0; i < 4; i++)
        say("%s", status[i] < 0 ? strerrorname_np(-status[i]) : status[i] == 0 ? "0" : "other");
}

static void run_get_mempolicy(const struct check *c) {
    char *p = filled();
    int mode = 99;
    long r = syscall(SYS_get_mempolicy, &mode, NULL, 0UL, p, c->a);

    if (r < 0 && errno == ENOSYS)
        say_absent();
    say_result("get_mempolicy", r);
    say("mode=%d", mode);
}

/* ---- the rest ---- */

static void run_remap_file_pages(const struct check *c) {
    char *p = filled();

    say_result("remap_file_pages", remap_file_pages(p, PAGE, 0, (size_t)c->a, 0));
    say("first=%s rest=%s", seen(p, PAGE), seen(p + PAGE, SIZE - PAGE));
}

static void run_merge(const struct check *c) {
    char *p;

    (void)c;
    if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) < 0)
        say_absent();
    p = filled();
    say("read=%s", seen(p, SIZE));
    say_result("unmergeable", madvise(p, SIZE, MADV_UNMERGEABLE));
    say("read=%s", seen(p, SIZE));
}

static void run_thp_disable(const struct check *c) {
    char *p;

    (void)c;
    say_result("prctl", prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    p = droppable_alone(8 * MIB);
    say_result("hugepage", madvise(p, 8 * MIB, MADV_HUGEPAGE));
    fill(p, 8 * MIB);
    say("read=%s", seen(p, 8 * MIB));
}

/* Is it a file that could be opened? */
static void run_map_files(const struct check *c) {
    char *p = filled(), path[96];
    int fd;

    (void)c;
    snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)p, (unsigned long)p + SIZE);
    fd = open(path, O_RDWR | O_CLOEXEC);
    say_result("open", fd);
    if (fd >= 0)
        say_result("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SIZE));
    say("read=%s", seen(p, SIZE));
}

static const struct check checks[] = {
    {"name", run_name, 0, 0},
    {"msync-sync", run_msync, MS_SYNC, 0},
    {"msync-async", run_msync, MS_ASYNC, 0},
    {"msync-invalidate", run_msync, MS_INVALIDATE, 0},
    {"msync-sync-async", run_msync, MS_SYNC | MS_ASYNC, 0},
    {"msync-bad-flag", run_msync, 8, 0},
    {"userfaultfd-missing", run_userfaultfd, UFFDIO_REGISTER_MODE_MISSING, 0},
    {"userfaultfd-wp", run_userfaultfd, UFFDIO_REGISTER_MODE_WP, 0},
    {"userfaultfd-minor", run_userfaultfd, UFFDIO_REGISTER_MODE_MINOR, 0},
    {"userfaultfd-fresh-missing", run_userfaultfd_fresh, UFFDIO_REGISTER_MODE_MISSING, 0},
    {"userfaultfd-fresh-wp", run_userfaultfd_fresh, UFFDIO_REGISTER_MODE_WP, 0},
    {"userfaultfd-unregister", run_userfaultfd_unregister, 0, 0},
    {"userfaultfd-pointer", run_userfaultfd_pointer, 0, 0},
    {"seal", run_seal, 0, 0},
    {"seal-read-only", run_seal, 1, 0},
    {"seal-guard", run_seal_guard, 0, 0},
    {"seal-guard-read-only", run_seal_guard, 1, 0},
    {"seal-fork", run_seal_fork, 0, 0},
    {"seal-target", run_seal_target, 0, 0},
    {"seal-target-of-plain", run_seal_target, 1, 0},
    {"mbind-default", run_mbind, 0, 0},
    {"mbind-bind", run_mbind, 2, 0},
    {"mbind-preferred", run_mbind, 1, 0},
    {"mbind-interleave", run_mbind, 3, 0},
    {"mbind-move", run_mbind, 2, 2},
    {"mbind-strict", run_mbind, 2, 1},
    {"move-pages-status", run_move_pages, 0, 0},
    {"move-pages", run_move_pages, 1, 0},
    {"get-mempolicy-address", run_get_mempolicy, 2, 0},
    {"get-mempolicy-node", run_get_mempolicy, 3, 0},
    {"remap-file-pages", run_remap_file_pages, 0, 0},
    {"remap-file-pages-other", run_remap_file_pages, 4, 0},
    {"merge-all", run_merge, 0, 0},
    {"thp-disable", run_thp_disable, 0, 0},
    {"map-files", run_map_files, 0, 0},
    {0},
};

const struct section section_misc = {"misc", checks};
