/* SPDX-License-Identifier: MIT */
/*
 * The table. Sources: the manual pages (syscalls(2), madvise(2), mmap(2), fcntl(2), memfd_create(2), UFFDIO_API(2const), capabilities(7), unix(7)), for
 * what these lack the kernel's history.
 *
 * What no filter can show: a different behaviour behind the same call. Of what matters here: vm.unprivileged_userfaultfd is 1 before 5.11 and unknown
 * before 5.2, so any user has a full userfaultfd there; MAP_FIXED_NOREPLACE before 4.17 is a mere hint; mincore(2) before 5.2 tells of any file; PSI
 * windows; the files of cgroups; what reclaim takes first. That is for virtual machines (tests/vm).
 */

#include "kernels.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* As in every kernel's headers, under which numbers ours may not know them yet. */
#define IOCTL_UFFD_NEW 0xaa00U
#define IOCTL_UFFD_API 0xc018aa3fU
#define IOCTL_UFFD_WRITEPROTECT 0xc018aa06U
#define IOCTL_UFFD_CONTINUE 0xc020aa07U
#define IOCTL_UFFD_POISON 0xc020aa08U
#define IOCTL_UFFD_MOVE 0xc028aa05U
#define IOCTL_PAGEMAP_SCAN 0xc0606610U

#define ALL 0xffffffffU
#define ARGUMENT(number, value) \
    { number, ALL, value }
/* That bit is set, whatever the others are. */
#define FLAG(number, bit) \
    { number, bit, bit }

static const struct {
    unsigned since;
    struct filter_rule rule;
} table[] = {
    /* Calls, which have the same numbers on all architectures from 424 on. */
    {KERNEL(4, 18), {.call = SYS_io_pgetevents, .error = ENOSYS}},
    {KERNEL(4, 18), {.call = SYS_rseq, .error = ENOSYS}},
    {KERNEL(5, 1), {.call = 424, .error = ENOSYS}},  /* pidfd_send_signal */
    {KERNEL(5, 1), {.call = 425, .error = ENOSYS}},  /* io_uring_setup */
    {KERNEL(5, 1), {.call = 426, .error = ENOSYS}},  /* io_uring_enter */
    {KERNEL(5, 1), {.call = 427, .error = ENOSYS}},  /* io_uring_register */
    {KERNEL(5, 2), {.call = 428, .error = ENOSYS}},  /* open_tree */
    {KERNEL(5, 2), {.call = 429, .error = ENOSYS}},  /* move_mount */
    {KERNEL(5, 2), {.call = 430, .error = ENOSYS}},  /* fsopen */
    {KERNEL(5, 2), {.call = 431, .error = ENOSYS}},  /* fsconfig */
    {KERNEL(5, 2), {.call = 432, .error = ENOSYS}},  /* fsmount */
    {KERNEL(5, 2), {.call = 433, .error = ENOSYS}},  /* fspick */
    {KERNEL(5, 3), {.call = 434, .error = ENOSYS}},  /* pidfd_open */
    {KERNEL(5, 3), {.call = 435, .error = ENOSYS}},  /* clone3 */
    {KERNEL(5, 9), {.call = 436, .error = ENOSYS}},  /* close_range */
    {KERNEL(5, 6), {.call = 437, .error = ENOSYS}},  /* openat2 */
    {KERNEL(5, 6), {.call = 438, .error = ENOSYS}},  /* pidfd_getfd */
    {KERNEL(5, 8), {.call = 439, .error = ENOSYS}},  /* faccessat2 */
    {KERNEL(5, 10), {.call = 440, .error = ENOSYS}}, /* process_madvise */
    {KERNEL(5, 11), {.call = 441, .error = ENOSYS}}, /* epoll_pwait2 */
    {KERNEL(5, 12), {.call = 442, .error = ENOSYS}}, /* mount_setattr */
    {KERNEL(5, 13), {.call = 444, .error = ENOSYS}}, /* landlock_create_ruleset */
    {KERNEL(5, 14), {.call = 447, .error = ENOSYS}}, /* memfd_secret */
    {KERNEL(5, 15), {.call = 448, .error = ENOSYS}}, /* process_mrelease */
    {KERNEL(5, 16), {.call = 449, .error = ENOSYS}}, /* futex_waitv */
    {KERNEL(5, 17), {.call = 450, .error = ENOSYS}}, /* set_mempolicy_home_node */
    {KERNEL(6, 5), {.call = 451, .error = ENOSYS}},  /* cachestat */
    {KERNEL(6, 6), {.call = 452, .error = ENOSYS}},  /* fchmodat2 */
    {KERNEL(6, 7), {.call = 454, .error = ENOSYS}},  /* futex_wake */
    {KERNEL(6, 7), {.call = 455, .error = ENOSYS}},  /* futex_wait */
    {KERNEL(6, 7), {.call = 456, .error = ENOSYS}},  /* futex_requeue */
    {KERNEL(6, 8), {.call = 457, .error = ENOSYS}},  /* statmount */
    {KERNEL(6, 8), {.call = 458, .error = ENOSYS}},  /* listmount */
    {KERNEL(6, 10), {.call = 462, .error = ENOSYS}}, /* mseal */

    /* Memory. */
    {KERNEL(4, 15), {SYS_mmap, EINVAL, {{4, 0x0f, 0x03}}}},                  /* MAP_SHARED_VALIDATE */
    {KERNEL(6, 11), {SYS_mmap, EINVAL, {{4, 0x0f, 0x08}}}},                  /* MAP_DROPPABLE */
    {KERNEL(5, 4), {SYS_madvise, EINVAL, {ARGUMENT(3, 20)}}},                /* MADV_COLD */
    {KERNEL(5, 4), {SYS_madvise, EINVAL, {ARGUMENT(3, 21)}}},                /* MADV_PAGEOUT */
    {KERNEL(5, 14), {SYS_madvise, EINVAL, {ARGUMENT(3, 22)}}},               /* MADV_POPULATE_READ */
    {KERNEL(5, 14), {SYS_madvise, EINVAL, {ARGUMENT(3, 23)}}},               /* MADV_POPULATE_WRITE */
    {KERNEL(5, 18), {SYS_madvise, EINVAL, {ARGUMENT(3, 24)}}},               /* MADV_DONTNEED_LOCKED */
    {KERNEL(6, 1), {SYS_madvise, EINVAL, {ARGUMENT(3, 25)}}},                /* MADV_COLLAPSE */
    {KERNEL(6, 13), {SYS_madvise, EINVAL, {ARGUMENT(3, 102)}}},              /* MADV_GUARD_INSTALL */
    {KERNEL(6, 13), {SYS_madvise, EINVAL, {ARGUMENT(3, 103)}}},              /* MADV_GUARD_REMOVE */
    {KERNEL(5, 7), {SYS_mremap, EINVAL, {FLAG(4, 4)}}},                      /* MREMAP_DONTUNMAP */
    {KERNEL(6, 3), {SYS_memfd_create, EINVAL, {FLAG(2, 0x08)}}},             /* MFD_NOEXEC_SEAL */
    {KERNEL(6, 3), {SYS_memfd_create, EINVAL, {FLAG(2, 0x10)}}},             /* MFD_EXEC */
    {KERNEL(5, 1), {SYS_fcntl, EINVAL, {ARGUMENT(2, 1033), FLAG(3, 0x10)}}}, /* F_ADD_SEALS: F_SEAL_FUTURE_WRITE */
    {KERNEL(6, 3), {SYS_fcntl, EINVAL, {ARGUMENT(2, 1033), FLAG(3, 0x20)}}}, /* F_SEAL_EXEC */
    {KERNEL(6, 4), {SYS_fsconfig, EINVAL, {ARGUMENT(2, 0)}}}, /* FSCONFIG_SET_FLAG: tmpfs has noswap only */
    {KERNEL(6, 4), {SYS_prctl, EINVAL, {ARGUMENT(1, 67)}}},   /* PR_SET_MEMORY_MERGE */
    {KERNEL(6, 7), {SYS_ioctl, ENOTTY, {ARGUMENT(2, IOCTL_PAGEMAP_SCAN)}}},

    /* userfaultfd: what features UFFDIO_API knows is in memory, so it is asked. */
    {KERNEL(5, 11), {SYS_userfaultfd, EINVAL, {FLAG(1, 1)}}}, /* UFFD_USER_MODE_ONLY */
    {KERNEL(5, 7), {SYS_ioctl, EINVAL, {ARGUMENT(2, IOCTL_UFFD_WRITEPROTECT)}}},
    {KERNEL(5, 13), {SYS_ioctl, EINVAL, {ARGUMENT(2, IOCTL_UFFD_CONTINUE)}}},
    {KERNEL(6, 6), {SYS_ioctl, EINVAL, {ARGUMENT(2, IOCTL_UFFD_POISON)}}},
    {KERNEL(6, 8), {SYS_ioctl, EINVAL, {ARGUMENT(2, IOCTL_UFFD_MOVE)}}},
    {KERNEL(6, 8), {SYS_ioctl, FILTER_ASK, {ARGUMENT(2, IOCTL_UFFD_API)}}},

    /* io_uring began without fallocate(2): a ring of fewer operations is made in the place of the one that was asked for. */
    {KERNEL(5, 6), {.call = 425, .error = FILTER_ASK}},

    /* Processes and sockets. */
    {KERNEL(5, 4), {SYS_waitid, EINVAL, {ARGUMENT(1, 3)}}},                           /* P_PIDFD */
    {KERNEL(6, 5), {SYS_getsockopt, ENOPROTOOPT, {ARGUMENT(2, 1), ARGUMENT(3, 77)}}}, /* SO_PEERPIDFD */
    {KERNEL(5, 11), {436, EINVAL, {FLAG(3, 4)}}},                                     /* CLOSE_RANGE_CLOEXEC */
    {KERNEL(5, 8), {SYS_prctl, EINVAL, {ARGUMENT(1, 23), ARGUMENT(2, 38)}}},          /* PR_CAPBSET_READ: CAP_PERFMON */
    {KERNEL(5, 8), {SYS_prctl, EINVAL, {ARGUMENT(1, 23), ARGUMENT(2, 39)}}},          /* CAP_BPF */
    {KERNEL(5, 9), {SYS_prctl, EINVAL, {ARGUMENT(1, 23), ARGUMENT(2, 40)}}},          /* CAP_CHECKPOINT_RESTORE */
};

#define N_TABLE (sizeof(table) / sizeof(table[0]))

static const struct {
    unsigned since;
    uint64_t feature;
} uffd_features[] = {
    {KERNEL(5, 7), 1 << 0},   /* PAGEFAULT_FLAG_WP */
    {KERNEL(4, 11), 0xfe},    /* the events, MISSING_HUGETLBFS, MISSING_SHMEM; SIGBUS with 4.14, where we begin */
    {KERNEL(4, 14), 1 << 8},  /* THREAD_ID */
    {KERNEL(5, 13), 1 << 9},  /* MINOR_HUGETLBFS */
    {KERNEL(5, 14), 1 << 10}, /* MINOR_SHMEM */
    {KERNEL(5, 18), 1 << 11}, /* EXACT_ADDRESS */
    {KERNEL(5, 19), 1 << 12}, /* WP_HUGETLBFS_SHMEM */
    {KERNEL(6, 4), 1 << 13},  /* WP_UNPOPULATED */
    {KERNEL(6, 6), 1 << 14},  /* POISON */
    {KERNEL(6, 7), 1 << 15},  /* WP_ASYNC */
    {KERNEL(6, 8), 1 << 16},  /* MOVE */
};

/* What Docker's default profile refuses without CAP_SYS_ADMIN, of what the service and the library ask for. */
static const long docker_refuses[] = {SYS_userfaultfd, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
                                      SYS_open_tree,   SYS_move_mount,     SYS_fsopen,         SYS_fsconfig,
                                      SYS_fsmount};

#define N_DOCKER (sizeof(docker_refuses) / sizeof(docker_refuses[0]))

bool kernel_profile_parse(const char *text, struct kernel_profile *ret) {
    struct kernel_profile profile = {0};
    char copy[128], *rest = copy, *word;
    unsigned major, minor;

    if (strlen(text) >= sizeof(copy))
        return false;
    strcpy(copy, text);
    major = (unsigned)strtoul(copy, &rest, 10);
    if (*rest != '.')
        return false;
    minor = (unsigned)strtoul(rest + 1, &rest, 10);
    profile.version = KERNEL(major, minor);
    if (major < 4 || profile.version < KERNEL(4, 14) || (*rest && *rest != '-'))
        return false;
    for (word = strtok(rest, "-"); word; word = strtok(NULL, "-"))
        if (strcmp(word, "userfaultfd") == 0)
            profile.no_userfaultfd = true;
        else if (strcmp(word, "io_uring") == 0)
            profile.no_io_uring = true;
        else if (strcmp(word, "psi") == 0)
            profile.no_psi = true;
        else if (strcmp(word, "mounts") == 0)
            profile.no_mounts = true;
        else if (strcmp(word, "docker") == 0)
            profile.in_docker = true;
        else
            return false;
    *ret = profile;
    return true;
}

size_t kernel_profile_rules(const struct kernel_profile *profile, struct filter_rule rules[KERNEL_RULES_MAX]) {
    size_t n = 0;

    _Static_assert(N_TABLE + N_DOCKER + 3 <= KERNEL_RULES_MAX, "no room");
    if (profile->no_userfaultfd)
        rules[n++] = (struct filter_rule){.call = SYS_userfaultfd, .error = ENOSYS};
    if (profile->no_io_uring)
        rules[n++] = (struct filter_rule){.call = SYS_io_uring_setup, .error = EPERM};
    if (profile->no_mounts)
        rules[n++] = (struct filter_rule){.call = SYS_fsopen, .error = EPERM};
    for (size_t i = 0; profile->in_docker && i < N_DOCKER; i++)
        rules[n++] = (struct filter_rule){.call = docker_refuses[i], .error = EPERM};
    for (size_t i = 0; i < N_TABLE; i++)
        if (profile->version < table[i].since)
            rules[n++] = table[i].rule;
    return n;
}

uint64_t kernel_profile_uffd_features(const struct kernel_profile *profile) {
    uint64_t features = 0;

    for (size_t i = 0; i < sizeof(uffd_features) / sizeof(uffd_features[0]); i++)
        if (profile->version >= uffd_features[i].since)
            features |= uffd_features[i].feature;
    return features;
}

int kernel_profile_last_uring_op(const struct kernel_profile *profile) {
    return profile->version < KERNEL(5, 6) ? 11 : -1; /* IORING_OP_TIMEOUT of 5.4 */
}

int kernel_profile_last_capability(const struct kernel_profile *profile) {
    if (profile->version >= KERNEL(5, 9))
        return -1;
    return profile->version >= KERNEL(5, 8) ? 39 : 37; /* CAP_BPF, CAP_AUDIT_READ */
}

bool kernel_profile_has_psi(const struct kernel_profile *profile) {
    return !profile->no_psi && profile->version >= KERNEL(4, 20);
}

bool kernel_profile_has_uffd_device(const struct kernel_profile *profile) {
    return !profile->no_userfaultfd && !profile->in_docker && profile->version >= KERNEL(6, 1);
}
