/* SPDX-License-Identifier: MIT */
/*
 * Objects that are never swapped, made without tmpfs' noswap (Linux 6.4): a System V segment with SHM_LOCK is a tmpfs file whose inode says that its
 * pages are not evictable, whoever has them mapped, or nobody. /proc/self/map_files opens that file: from there on it is an object as any other,
 * mapped, punched and registered like one; its owner sees no VmLck.
 *
 * mlock(2) by the client was the alternative. It takes a raised RLIMIT_MEMLOCK, with which he can lock anything, and holds only pages that his
 * mapping has an entry for: what another process brought in was swapped out. A locked segment can always be punched, so the lock harms nobody.
 *
 * The lock lasts as long as somebody is attached. That is our mapping of the object (PROT_NONE: it serves mincore(2), too), and where the client is
 * in our IPC namespace a page that he attaches, so that the lock outlives us. The segment is marked for removal as soon as it is attached: nothing
 * is left of it when all have ended. Who is killed just before that leaves it, and the next one removes it. Segments count for the limits of the
 * IPC namespace, kernel.shmmni (4096) and shmall: we take half at most.
 *
 * Locked bytes count for our user's RLIMIT_MEMLOCK, which is raised while that is allowed, so that CAP_IPC_LOCK can go. What stays needed is
 * CAP_CHECKPOINT_RESTORE for map_files.
 */

#include "locked.h"

#include "crash-point.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* More than any default of RLIMIT_MEMLOCK; no page of it is made. */
#define PROBE_SIZE (UINT64_C(1) << 30)
/* What a segment has until it is marked for removal: "drop", and no right to write. */
#define LOCKED_KEY ((key_t)0x64726f70)
#define LOCKED_MODE 0400

static int limits(struct shminfo *ret) {
    return shmctl(0, IPC_INFO, (struct shmid_ds *)(void *)ret) < 0 ? -errno : 0;
}

unsigned locked_max(void) {
    struct shminfo info;

    return limits(&info) < 0 ? 0 : (unsigned)(info.shmmni < 131072 ? info.shmmni / 2 : 65536);
}

/* Pages of all segments: half of the system's at most. The limit is without effect unless somebody set it. */
static int check_total(uint64_t size) {
    struct shm_info used;
    struct shminfo info;
    int r = limits(&info);

    if (r < 0)
        return r;
    if (info.shmall >= ULONG_MAX / 4)
        return 0;
    if (shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&used) < 0)
        return -errno;
    return used.shm_tot + size / 4096 > info.shmall / 2 ? -ENOSPC : 0;
}

/* The file of a mapping that nobody else can name. */
static int open_mapping(const void *map, uint64_t size) {
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)map, (unsigned long)map + size);
    fd = open(path, O_RDWR | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Readable while it is empty and nobody else's; then not even by us. */
static int prepare(int id, void *map, uint64_t size, int *ret_fd) {
    struct stat st;
    int fd;

    if (shmctl(id, SHM_LOCK, NULL) < 0)
        return -errno;
    fd = open_mapping(map, size);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0 || st.st_ino != (ino_t)id || mprotect(map, size, PROT_NONE) < 0) {
        close(fd);
        return -EOPNOTSUPP;
    }
    *ret_fd = fd;
    return 0;
}

/*
 * Has a daemon that was killed left it? Of our user, attached by nobody now and by nobody but its maker ever, who is gone: one that lives is about to
 * attach it. Nobody can have written to what has that mode, so whoever's it were, no content were lost. A maker in a namespace that we do
 * not see is 0. tgkill(2) and not kill(2): the unit allows it.
 */
static bool is_left(const struct shmid_ds *state) {
    pid_t maker = state->shm_cpid;

    return (state->shm_perm.mode & 0777) == LOCKED_MODE && state->shm_perm.cuid == geteuid() &&
           state->shm_nattch == 0 && (state->shm_lpid == 0 || state->shm_lpid == maker) && maker > 0 &&
           (maker == getpid() || (syscall(SYS_tgkill, maker, maker, 0) < 0 && errno == ESRCH));
}

static void remove_left(void) {
    int id = shmget(LOCKED_KEY, 0, 0);
    struct shmid_ds state;

    if (id >= 0 && shmctl(id, IPC_STAT, &state) == 0 && is_left(&state))
        (void)shmctl(id, IPC_RMID, NULL);
}

/*
 * It is marked for removal only when it is attached, since else it were gone at once: who is killed before that leaves it. So it has a key up to then, the
 * same for all daemons, by which the next one finds it. Where anything else has that it must do without. Larger than memory it may be, as any region.
 */
static int make(uint64_t size) {
    const int flags = IPC_CREAT | IPC_EXCL | SHM_NORESERVE | LOCKED_MODE;
    int id = shmget(LOCKED_KEY, size, flags);

    if (id < 0 && errno == EEXIST)
        id = shmget(IPC_PRIVATE, size, flags);
    return id < 0 ? -errno : id;
}

int locked_new(uint64_t size, int *ret_fd, void **ret_map) {
    void *map;
    int id, r;

    remove_left(); /* it counts */
    r = check_total(size);
    if (r < 0)
        return r;
    id = make(size);
    if (id < 0)
        return id;
    CRASH_POINT("locked-made");
    map = shmat(id, NULL, SHM_RDONLY);
    r = map == (void *)-1 ? -errno : 0;
    CRASH_POINT("locked-attached");
    if (shmctl(id, IPC_RMID, NULL) < 0 && r == 0)
        r = -errno;
    if (r == 0)
        r = prepare(id, map, size, ret_fd);
    if (r < 0) {
        if (map != (void *)-1)
            munmap(map, size);
        return r;
    }
    *ret_map = map;
    return 0;
}

/* The number alone does not say: one that is free again becomes another's, and each IPC namespace has its own. */
static bool is_same_file(int a, int b) {
    union {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } of_a = {.handle.handle_bytes = MAX_HANDLE_SZ}, of_b = {.handle.handle_bytes = MAX_HANDLE_SZ};
    int mount_a, mount_b;

    return name_to_handle_at(a, "", &of_a.handle, &mount_a, AT_EMPTY_PATH) == 0 &&
           name_to_handle_at(b, "", &of_b.handle, &mount_b, AT_EMPTY_PATH) == 0 && mount_a == mount_b &&
           of_a.handle.handle_type == of_b.handle.handle_type && of_a.handle.handle_bytes == of_b.handle.handle_bytes &&
           memcmp(of_a.handle.f_handle, of_b.handle.f_handle, of_a.handle.handle_bytes) == 0;
}

static int check_attached(int fd, void *map, uint64_t size) {
    int own, r;

    if (mprotect(map, size, PROT_NONE) < 0)
        return -errno;
    own = open_mapping(map, size);
    if (own < 0)
        return own;
    r = is_same_file(fd, own) ? 0 : -EINVAL;
    close(own);
    return r;
}

int locked_take(int fd, uint64_t size, void **ret_map) {
    struct shmid_ds state;
    struct stat st;
    void *map;
    int r;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_ino > INT_MAX || shmctl((int)st.st_ino, IPC_STAT, &state) < 0 || !(state.shm_perm.mode & SHM_LOCKED) ||
        state.shm_perm.cuid != geteuid() || state.shm_segsz != size)
        return -EINVAL;
    map = shmat((int)st.st_ino, NULL, SHM_RDONLY);
    if (map == (void *)-1)
        return -errno;
    r = check_attached(fd, map, size);
    if (r < 0)
        munmap(map, size);
    else
        *ret_map = map;
    return r;
}

int locked_lend(uint64_t inode, uid_t uid, gid_t gid) {
    struct shmid_ds owner = {.shm_perm = {.uid = uid, .gid = gid, .mode = 0600}};

    return shmctl((int)inode, IPC_SET, &owner) < 0 ? -errno : 0;
}

void locked_end(uint64_t inode) {
    (void)shmctl((int)inode, SHM_UNLOCK, NULL); /* fails if it is gone */
}

uint32_t locked_namespace(void) {
    struct stat st;

    return stat("/proc/self/ns/ipc", &st) < 0 || st.st_ino > UINT32_MAX ? 0 : (uint32_t)st.st_ino;
}

/* ---- the probe ---- */

static int raise_limit(void) {
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};

    return setrlimit(RLIMIT_MEMLOCK, &unlimited) < 0 ? -errno : 0;
}

/* Effective capabilities become those that privs_drop() keeps for us. */
static int lower_capabilities(cap_t before) {
    static const cap_value_t needed[] = {CAP_CHECKPOINT_RESTORE, CAP_IPC_LOCK};
    cap_t lower = cap_dup(before);
    int r = lower ? 0 : -ENOMEM;

    if (r == 0 && cap_clear_flag(lower, CAP_EFFECTIVE) < 0)
        r = -errno;
    for (size_t i = 0; r == 0 && i < sizeof(needed) / sizeof(needed[0]); i++) {
        cap_flag_value_t has = CAP_CLEAR;

        (void)cap_get_flag(before, needed[i], CAP_EFFECTIVE, &has);
        if (has == CAP_SET && cap_set_flag(lower, CAP_EFFECTIVE, 1, &needed[i], CAP_SET) < 0)
            r = -errno;
    }
    if (r == 0 && cap_set_proc(lower) < 0)
        r = -errno;
    cap_free(lower);
    return r;
}

static int try_one(void) {
    void *map;
    int fd, r;

    r = locked_new(PROBE_SIZE, &fd, &map);
    if (r < 0)
        return r;
    munmap(map, PROBE_SIZE);
    close(fd);
    return 0;
}

/* As it will be: /proc/self of a process that is not dumpable is root's. */
int locked_probe(void) {
    int dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
    cap_t before = cap_get_proc();
    int r;

    if (!before)
        return -errno;
    (void)raise_limit(); /* EPERM: CAP_IPC_LOCK has to do */
    r = lower_capabilities(before);
    if (r == 0) {
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        r = try_one();
        if (cap_set_proc(before) < 0 && r == 0)
            r = -errno;
        (void)prctl(PR_SET_DUMPABLE, (unsigned long)(dumpable == 1), 0, 0, 0);
    }
    cap_free(before);
    return r;
}
