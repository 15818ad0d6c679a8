/* SPDX-License-Identifier: MIT */
/*
 * Privileges after start.
 *
 * What needs much (the private tmpfs, /dev/userfaultfd, the socket's group) is done by the time this runs. What
 * remains is the list below; everything else goes from all five sets, and no_new_privs sees to it that no program that
 * this process might ever execute gets anything back. The bounding set can be cut only by CAP_SETPCAP and is left
 * alone without it: under no_new_privs it bounds nothing that could be gained.
 *
 * Then nothing is believed: the sets are read back and compared, each dropped capability is asked for again, one by
 * one, and only EPERM will do. A daemon that cannot prove it must not go on.
 *
 * Not dumpable: no core of a process that holds other people's objects, and nobody without CAP_SYS_PTRACE looks into
 * its /proc/PID. Its own threads keep their access to /proc/thread-self/fd (the kernel excepts the same thread group),
 * so descriptors can still be opened again there. A daemon of an ordinary user has nothing that its user lacks: it
 * stays dumpable, so that the user can debug it.
 */

#include "privs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

static const cap_value_t kept[] = {
    CAP_SYS_PTRACE, /* /proc/PID/maps of clients of other users, before a range is armed again; what is resident of native regions, and dropping it */
    CAP_SYS_RESOURCE, /* PSI triggers of cgroups: while we are root, whose files they are */
    CAP_SYS_NICE,     /* SCHED_FIFO of the sampler; process_madvise(2), for native regions */
    CAP_KILL,         /* ending a stuck client by pidfd */
    /*
     * Where tmpfs has no noswap: opening locked segments by /proc/self/map_files. Another process that did it for us would save nothing: with
     * CAP_SYS_PTRACE this one adds no more than the choice of pids.
     */
    CAP_CHECKPOINT_RESTORE,
    /* Likewise, where RLIMIT_MEMLOCK could not be raised: locking them. */
    CAP_IPC_LOCK,
};

#define N_KEPT (sizeof(kept) / sizeof(kept[0]))

static bool has(cap_t caps, cap_value_t cap, cap_flag_t flag) {
    cap_flag_value_t value = CAP_CLEAR;

    return cap_get_flag(caps, cap, flag, &value) == 0 && value == CAP_SET;
}

/* What only root can make use of is no use to a user of our own. */
static bool is_needed(cap_value_t cap, bool locks) {
    struct rlimit limit;

    if (cap == CAP_CHECKPOINT_RESTORE)
        return locks;
    if (cap == CAP_IPC_LOCK)
        return locks && (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur != RLIM_INFINITY);
    return cap != CAP_SYS_RESOURCE || geteuid() == 0;
}

/* The sets to end with: effective and permitted what is both permitted now and kept, inheritable empty. */
static int wanted_sets(bool locks, cap_t *ret) {
    cap_t now = cap_get_proc();
    cap_t wanted = cap_init();
    int r = 0;

    if (!now || !wanted)
        r = -ENOMEM;
    for (size_t i = 0; r == 0 && i < N_KEPT; i++) {
        if (!has(now, kept[i], CAP_PERMITTED) || !is_needed(kept[i], locks))
            continue;
        if (cap_set_flag(wanted, CAP_PERMITTED, 1, &kept[i], CAP_SET) < 0 ||
            cap_set_flag(wanted, CAP_EFFECTIVE, 1, &kept[i], CAP_SET) < 0)
            r = -errno;
    }
    cap_free(now);
    if (r < 0) {
        cap_free(wanted);
        return r;
    }
    *ret = wanted;
    return 0;
}

/* cap_get_bound() ends the walk by failing at the first capability that this kernel does not know. */
static int drop_bounding(cap_t wanted) {
    cap_t now = cap_get_proc();
    bool may;

    if (!now)
        return -errno;
    may = has(now, CAP_SETPCAP, CAP_EFFECTIVE);
    cap_free(now);
    if (!may)
        return 0;
    for (cap_value_t cap = 0; cap_get_bound(cap) >= 0; cap++)
        if (cap_get_bound(cap) > 0 && !has(wanted, cap, CAP_PERMITTED) && cap_drop_bound(cap) < 0)
            return -errno;
    return 1;
}

static int drop(cap_t wanted, bool *ret_bounded) {
    int r;

    r = drop_bounding(wanted);
    if (r < 0)
        return r;
    *ret_bounded = r > 0;
    /* EINVAL: before 4.3, there is no ambient set */
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
        return -errno;
    if (cap_set_proc(wanted) < 0)
        return -errno;
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    return 0;
}

static int prove_sets(cap_t wanted, bool bounded) {
    cap_t now = cap_get_proc();
    int r = 0;

    if (!now)
        return -errno;
    if (cap_compare(now, wanted) != 0)
        r = -EPERM;
    cap_free(now);
    for (cap_value_t cap = 0; r == 0 && cap_get_bound(cap) >= 0; cap++) {
        if (bounded && (cap_get_bound(cap) > 0) != has(wanted, cap, CAP_PERMITTED))
            r = -EPERM;
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, (unsigned long)cap, 0, 0) > 0)
            r = -EPERM;
    }
    return r;
}

/* Tries to take each capability that is gone again. 0 if the kernel says EPERM to every one. */
static int prove_gone(cap_t wanted) {
    int r = 0;

    for (cap_value_t cap = 0; r == 0 && cap_get_bound(cap) >= 0; cap++) {
        cap_t more;

        if (has(wanted, cap, CAP_PERMITTED))
            continue;
        more = cap_dup(wanted);
        if (!more)
            return -errno;
        if (cap_set_flag(more, CAP_PERMITTED, 1, &cap, CAP_SET) < 0)
            r = -errno;
        else if (cap_set_proc(more) == 0)
            r = -ENOTRECOVERABLE;
        else if (errno != EPERM)
            r = -errno;
        cap_free(more);
    }
    return r;
}

static void describe(cap_t caps, char *ret_text, size_t size) {
    size_t used = 0;

    if (size == 0)
        return;
    ret_text[0] = '\0';
    for (size_t i = 0; i < N_KEPT; i++) {
        char *name;
        int n;

        if (!has(caps, kept[i], CAP_PERMITTED))
            continue;
        name = cap_to_name(kept[i]);
        n = snprintf(ret_text + used, size - used, "%s%s", used ? "," : "", name ? name : "?");
        cap_free(name);
        if (n < 0 || (size_t)n >= size - used)
            return;
        used += (size_t)n;
    }
    if (used == 0)
        snprintf(ret_text, size, "none");
}

/* An ordinary user's process that never had a capability: nothing to drop, and nothing to hide from its user. */
static int had_any(bool *ret) {
    cap_t now = cap_get_proc();
    cap_t none = cap_init();
    int r = -ENOMEM;

    if (now && none) {
        *ret = geteuid() == 0 || cap_compare(now, none) != 0;
        r = 0;
    }
    cap_free(now);
    cap_free(none);
    return r;
}

int privs_drop(bool locks, char *ret_text, size_t size) {
    bool bounded = false;
    bool any = false;
    cap_t wanted;
    int r;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    r = had_any(&any);
    if (r < 0)
        return r;
    r = wanted_sets(locks, &wanted);
    if (r < 0)
        return r;

    if (any)
        r = drop(wanted, &bounded);
    if (r == 0)
        r = prove_sets(wanted, bounded);
    if (r == 0)
        r = prove_gone(wanted);
    if (r == 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        r = -ENOTRECOVERABLE;
    if (r == 0)
        describe(wanted, ret_text, size);
    cap_free(wanted);
    return r;
}
