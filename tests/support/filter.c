/* SPDX-License-Identifier: MIT */
/*
 * Rules as a program for seccomp(2). Each is some instructions that skip to the next one when the call is another, so that rules can stand in any order
 * and none is out of a jump's reach.
 */

#include "filter.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Of a rule: the number, twice three for conditions, the answer; before them a jump for each test. */
#define RULE_MAX 10

/* Linux 5.19: a call that was handed over is not interrupted, so it is not made twice. */
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

const struct filter_rule filter_no_droppable = {
    SYS_mmap, EINVAL, {{4, MAP_TYPE | MAP_ANONYMOUS, MAP_DROPPABLE | MAP_ANONYMOUS}}};

static size_t add_rule(const struct filter_rule *rule, struct sock_filter *out) {
    size_t tests[3], n_tests = 0, n = 0;

    out[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    tests[n_tests++] = n;
    out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)rule->call, 0, 0);
    for (size_t i = 0; i < 2 && rule->when[i].argument > 0; i++) {
        const struct filter_condition *when = &rule->when[i];

        out[n++] = (struct sock_filter)BPF_STMT(
            BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, args) + (when->argument - 1) * 8);
        out[n++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, when->mask);
        tests[n_tests++] = n;
        out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, when->value, 0, 0);
    }
    out[n++] = (struct sock_filter)BPF_STMT(
        BPF_RET | BPF_K, rule->error == FILTER_ASK ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ERRNO | (uint32_t)rule->error);
    for (size_t i = 0; i < n_tests; i++)
        out[tests[i]].jf = (uint8_t)(n - tests[i] - 1);
    return n;
}

static int load(struct sock_filter *program, size_t n, int *ret_listener) {
    struct sock_fprog filter = {.len = (unsigned short)n, .filter = program};
    unsigned long flags = ret_listener ? SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV : 0;
    long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);

    if (r < 0 && errno == EACCES && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
    if (r < 0)
        return -errno;
    if (ret_listener)
        *ret_listener = (int)r;
    return 0;
}

int filter_install(const struct filter_rule *rules, size_t n, int *ret_listener) {
    struct sock_filter *program = calloc(n * RULE_MAX + 1, sizeof(*program));
    size_t size = 0;
    int r;

    if (!program)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        size += add_rule(&rules[i], program + size);
    program[size++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    r = load(program, size, ret_listener);
    free(program);
    return r;
}
