/* SPDX-License-Identifier: MIT */
/*
 * Stands for droppabled in the tests `confined-...`: executes it under the system call filter of its unit. A call that is not listed there kills
 * it, so that the test fails, where systemd would let it fail with ENOSYS. Then `strace -f` tells which it was, or `journalctl -k`.
 */

#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* systemd's @default, as of 252, as far as x86 and arm have it. */
static const char standard[] =
    "arch_prctl brk clock_getres clock_gettime clock_nanosleep execve exit exit_group futex futex_waitv get_robust_list get_thread_area getegid "
    "geteuid getgid getgroups getpgid getpgrp getpid getppid getrandom getresgid getresuid getrlimit getsid gettid gettimeofday getuid membarrier "
    "mmap mprotect munmap nanosleep pause prlimit64 restart_syscall rseq rt_sigreturn sched_getaffinity sched_yield set_robust_list "
    "set_thread_area set_tid_address time";

/* For a socket of its own, with --socket; the unit has one that is passed. */
static const char own_socket[] = "bind umask unlink chmod chown fchownat fchmodat";

/* What libseccomp has no name for is ENOSYS, as it is under a systemd with the same library. */
static const struct {
    const char *name;
    int number;
} unnamed[] = {{"cachestat", 451}};

static void fail(const char *what, int error) {
    fprintf(stderr, "confine: %s: %s\n", what, strerror(error));
    exit(126);
}

static void allow(scmp_filter_ctx filter, char *names) {
    for (char *name = strtok(names, " \n"); name; name = strtok(NULL, " \n")) {
        int number = seccomp_syscall_resolve_name(name), r = 0;

        for (size_t i = 0; number == __NR_SCMP_ERROR && i < sizeof(unnamed) / sizeof(unnamed[0]); i++)
            if (strcmp(name, unnamed[i].name) == 0)
                r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), unnamed[i].number, 0);
        if (number >= 0) /* below: not of this machine */
            r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
        if (r < 0)
            fail(name, -r);
    }
}

int main(int argc, char *argv[]) {
    static const char key[] = "SystemCallFilter=";
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    FILE *unit = fopen(CONFINE_UNIT, "re");
    char line[1024], text[sizeof(standard)];
    int r;

    (void)argc;
    if (!filter || !unit)
        fail(CONFINE_UNIT, filter ? errno : ENOMEM);
    memcpy(text, standard, sizeof(standard));
    allow(filter, text);
    memcpy(text, own_socket, sizeof(own_socket));
    allow(filter, text);
    while (fgets(line, sizeof(line), unit))
        if (strncmp(line, key, strlen(key)) == 0)
            allow(filter, line + strlen(key));
    fclose(unit);
    r = seccomp_load(filter);
    if (r < 0)
        fail("seccomp_load", -r);
    seccomp_release(filter);
    execv(CONFINE_PROGRAM, argv);
    fail(CONFINE_PROGRAM, errno);
}
