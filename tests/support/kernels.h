/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_KERNELS_H
#define DROPPABLE_TESTS_KERNELS_H

/* What came with which kernel, as far as this project or its tests can meet it. */

#include "filter.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KERNEL(major, minor) ((major)*1000U + (minor))

/* A kernel: a version, less what it was built or set up without. */
struct kernel_profile {
    unsigned version;
    bool no_userfaultfd; /* CONFIG_USERFAULTFD=n */
    bool no_io_uring;    /* kernel.io_uring_disabled=2 */
    bool no_psi;         /* CONFIG_PSI=n, or psi=0 */
    bool no_mounts;      /* a container without CAP_SYS_ADMIN: fsopen(2) is EPERM */
    bool in_docker; /* Docker's default seccomp profile, and no device of the host's: EPERM where the others are ENOSYS */
};

/* "5.10", "6.1-userfaultfd-psi". false: unknown. */
bool kernel_profile_parse(const char *text, struct kernel_profile *ret);

#define KERNEL_RULES_MAX 128
/* The rules that make a later kernel such a one; their number. */
size_t kernel_profile_rules(const struct kernel_profile *profile, struct filter_rule rules[KERNEL_RULES_MAX]);
/* Which features UFFDIO_API knows. */
uint64_t kernel_profile_uffd_features(const struct kernel_profile *profile);
/* The last operation of io_uring that there is; -1: all. */
int kernel_profile_last_uring_op(const struct kernel_profile *profile);
/* The last capability; -1: all. */
int kernel_profile_last_capability(const struct kernel_profile *profile);
bool kernel_profile_has_psi(const struct kernel_profile *profile);
bool kernel_profile_has_uffd_device(const struct kernel_profile *profile);

#endif
