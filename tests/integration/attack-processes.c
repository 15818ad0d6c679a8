/* SPDX-License-Identifier: MIT */
/*
 * What processes can do: be many, stop in the middle of something, share what is one's alone, and die.
 */

#include "attack.h"
#include "child.h"
#include "raw.h"
#include "service.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define PAGE 4096
#define LEFT (32 * MIB)
#define BOMB_WIDTH 32

/* Dies with its parent, as all of them do at the end. */
static pid_t fork_bound(void) {
    pid_t parent = getpid(), pid = fork();

    child_check(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(0);
    }
    return pid;
}

/* ---- many ---- */

static void bomb_child(const struct raw_region *inherited) {
    struct raw_region region;
    int socket;

    if (fork_bound() == 0)
        _exit(0);
    inherited->address[0] = 1; /* its parent's memory, whose userfaultfd this process is not of */
    socket = attack_region("bomb", MIB, &region);
    if (attack_random(2))
        raw_drop(socket, &region, 0, region.size, NULL);
    _exit(0);
}

static void wait_below(unsigned *n) {
    while (*n > 0 && waitpid(-1, NULL, *n >= BOMB_WIDTH ? 0 : WNOHANG) > 0)
        --*n;
}

/* Uses so much CPU time for shared memory. */
static void use_memory(uint64_t size, uint64_t us) {
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    child_check(memory != MAP_FAILED);
    do {
        memset(memory, 1, size);
        (void)madvise(memory, size, MADV_REMOVE);
    } while ((uint64_t)clock() < us); /* CLOCKS_PER_SEC is a million, says POSIX */
}

/* As many processes at a time as a bomb that is held by a limit, each of which is a client, and has the region of its parent. */
static void run_fork_bomb(void) {
    struct raw_region region;

    attack_region("bomb", 4 * MIB, &region);
    attack_begun();
    for (unsigned n = 0;; n++) {
        attack_did();
        wait_below(&n);
        if (fork_bound() == 0)
            bomb_child(&region);
    }
}

/* As many processes, that are clients of nobody. */
static void run_neutral_bomb(const struct attack_pace *pace) {
    uint64_t next = 0;

    attack_begun();
    for (unsigned n = 0;; n++) {
        wait_below(&n);
        if (fork_bound() == 0) {
            if (fork_bound() == 0)
                _exit(0);
            use_memory(MIB, pace->step_us);
            _exit(0);
        }
        attack_await(&next, pace);
    }
}

/* ---- stopped ---- */

/* Faults for ever, and drops. */
static void fault_for_ever(int told) {
    struct raw_region region;
    int socket = attack_region("stopped", 4 * MIB, &region);

    child_check(write(told, "r", 1) == 1);
    for (;;) {
        for (size_t i = 0; i < region.size; i += PAGE)
            region.address[i] = 1;
        (void)madvise(region.address, region.size, MADV_REMOVE);
        raw_drop(socket, &region, 0, region.size, NULL);
    }
}

static pid_t start_faulter(void) {
    int ends[2];
    char word;
    pid_t pid;

    child_check(pipe2(ends, O_CLOEXEC) == 0);
    pid = fork_bound();
    if (pid == 0)
        fault_for_ever(ends[1]);
    close(ends[1]);
    child_check(read(ends[0], &word, 1) == 1);
    close(ends[0]);
    return pid;
}

static void control_drop(int socket, pid_t pid) {
    struct drp_wire_control_drop drop = {
        .header.type = DRP_WIRE_CONTROL_DROP, .scope = DRP_SCOPE_PID, .id = (uint64_t)pid};

    raw_call(socket, &drop, sizeof(drop), NULL, 0, NULL);
}

/* Wherever it is: in a fault, in a request, in the kernel. It is dropped from meanwhile. */
static void run_stopped(void) {
    int control = raw_hello("stopper");
    pid_t pid = start_faulter();

    attack_begun();
    for (;;) {
        attack_did();
        usleep((useconds_t)attack_random(500));
        kill(pid, SIGSTOP);
        control_drop(control, pid);
        usleep((useconds_t)attack_random(20000));
        kill(pid, SIGCONT);
    }
}

/* Dies there. */
static void run_killed(void) {
    attack_begun();
    for (;;) {
        attack_did();
        pid_t pid = start_faulter();

        usleep((useconds_t)attack_random(2000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}

static void run_neutral_killed(const struct attack_pace *pace) {
    uint64_t next = 0;

    attack_begun();
    for (;;) {
        pid_t pid = fork_bound();

        if (pid == 0) {
            use_memory(4 * MIB, pace->step_us);
            kill(getpid(), SIGKILL);
        }
        waitpid(pid, NULL, 0);
        attack_await(&next, pace);
    }
}

/* Ends with much, again and again: somebody has to free it. */
static void run_leaver(void) {
    attack_begun();
    for (;;) {
        struct raw_region region;
        pid_t pid = fork_bound();

        attack_did();
        if (pid == 0) {
            attack_region("leaver", LEFT, &region);
            _exit(0);
        }
        waitpid(pid, NULL, 0);
    }
}

static void run_neutral_leaver(const struct attack_pace *pace) {
    uint64_t next = 0;

    attack_begun();
    for (;;) {
        pid_t pid = fork_bound();

        if (pid == 0) {
            memset(mmap(NULL, LEFT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), 1, LEFT);
            _exit(0);
        }
        waitpid(pid, NULL, 0);
        attack_await(&next, pace);
    }
}

/* ---- another's ---- */

/* A userfaultfd of a child's, which has no region, and ends when *ret_hold is closed. */
static int foreign_userfaultfd(pid_t *ret_pid, int *ret_hold) {
    struct channel_packet packet;
    int ends[2];

    child_check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    *ret_pid = fork_bound();
    if (*ret_pid == 0) {
        int fd = raw_userfaultfd();

        close(ends[0]);
        child_check(channel_send(ends[1], "u", 1, &fd, 1, 0) == CHANNEL_OK);
        (void)channel_receive(ends[1], &packet, 0);
        _exit(0);
    }
    close(ends[1]);
    child_check(channel_receive(ends[0], &packet, 0) == CHANNEL_OK && packet.n_fds == 1);
    *ret_hold = ends[0];
    return packet.fds[0];
}

/* As its own, with regions at addresses that are none of the other's; who lives, or has ended. */
static void run_foreign_userfaultfd(void) {
    attack_begun();
    for (unsigned i = 0;; i++) {
        attack_did();
        int hold, socket, fd;
        struct raw_region region;
        pid_t pid;

        fd = foreign_userfaultfd(&pid, &hold);
        if (i % 2) {
            close(hold);
            waitpid(pid, NULL, 0);
        }
        socket = raw_hello("foreign");
        if (raw_uffd(socket, fd, 0, NULL) == DRP_WIRE_OK) {
            raw_region_new(socket, 4 * MIB, &region);
            memset(region.address, 1, region.size);
            raw_drop(socket, &region, 0, region.size, NULL);
            region.address[0] = 1;
            raw_region_end(socket, &region);
        }
        close(socket);
        close(fd);
        if (i % 2 == 0) {
            close(hold);
            waitpid(pid, NULL, 0);
        }
    }
}

/* ---- stolen events ---- */

static void *steal_events(void *data) {
    raw_steal_events(*(int *)data, 1);
}

static void run_thief(void) {
    int connection = raw_hello("thief"), fd = raw_userfaultfd();
    struct raw_region region;
    pthread_t thread;

    child_check(raw_uffd(connection, fd, 0, NULL) == DRP_WIRE_OK);
    raw_region_new(connection, 8 * MIB, &region);
    child_check(pthread_create(&thread, NULL, steal_events, &fd) == 0);
    attack_begun();
    for (;;) {
        attack_did();
        for (size_t i = 0; i < region.size; i += PAGE)
            region.address[i] = 1;
        madvise(region.address, region.size, MADV_REMOVE);
    }
}

const struct attack attacks_by_processes[] = {
    {"fork bomb of clients", BOMB_WIDTH, 1, run_fork_bomb, run_neutral_bomb},
    {"stops in the middle", 2, 1, run_stopped, NULL},
    {"dies in the middle", 2, 1, run_killed, run_neutral_killed},
    {"leaves much behind", 2, 1, run_leaver, run_neutral_leaver},
    {"another's userfaultfd", 2, 1, run_foreign_userfaultfd, NULL},
    {"steals its pager's events", 2, 2, run_thief, NULL},
    {0},
};
