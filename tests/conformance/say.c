/* SPDX-License-Identifier: MIT */

/*
 * A check's words go out one by one, so that a check which is killed has still said what it saw.
 *
 * An access that may fail runs between sigsetjmp(3) and a handler that jumps back. The handler stays installed all the
 * time and dies of the signal if no access is under way.
 */

#include "say.h"
#include "zero-page.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static int words = -1;
static bool spoken;

static _Thread_local sigjmp_buf back;
static _Thread_local volatile bool accessing;
/* One call may tell several, so they take turns. */
static _Thread_local char caught[8][48];
static _Thread_local unsigned n_caught;

const char *signal_name(int signal) {
    static char name[32];

    snprintf(name, sizeof(name), "SIG%s", sigabbrev_np(signal) ? sigabbrev_np(signal) : "?");
    return name;
}

static void on_signal(int signal, siginfo_t *info, void *context) {
    const char *code = "";

    (void)context;
    if (!accessing) {
        struct sigaction plain_action = {.sa_handler = SIG_DFL};

        sigaction(signal, &plain_action, NULL);
        return; /* and the access is made again */
    }
    if (signal == SIGSEGV)
        code = info->si_code == SEGV_MAPERR ? "/MAPERR" : info->si_code == SEGV_ACCERR ? "/ACCERR" : "/other";
    snprintf(caught[++n_caught % 8], sizeof(caught[0]), "%s%s", signal_name(signal), code);
    siglongjmp(back, 1);
}

void say_init(int fd) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};

    words = fd;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGILL, &action, NULL);
}

int say_descriptor(void) {
    return words;
}

void say(const char *format, ...) {
    char text[512];
    va_list list;
    int n;

    va_start(list, format);
    n = vsnprintf(text + 1, sizeof(text) - 1, format, list);
    va_end(list);
    text[0] = ' ';
    if (n < 0 || n >= (int)sizeof(text) - 1 || write(words, text, (size_t)n + 1) != n + 1)
        _exit(125);
    spoken = true;
}

static const char *error_name(int error) {
    const char *name = strerrorname_np(error);
    static char number[32];

    if (name)
        return name;
    snprintf(number, sizeof(number), "errno-%d", error);
    return number;
}

void say_result(const char *key, long result) {
    say("%s=%s", key, result < 0 ? error_name(errno) : "ok");
}

void say_number(const char *key, long result) {
    if (result < 0)
        say_result(key, result);
    else
        say("%s=%ld", key, result);
}

void say_count(const char *key, size_t n, size_t of) {
    if (n == of)
        say("%s=all", key);
    else
        say("%s=%zu", key, n);
}

size_t often(long times) {
    const char *text = getenv("CONFORMANCE_PART");
    long part = text ? strtol(text, NULL, 10) : 1;

    return (size_t)(part > 1 && times >= part ? times / part : times);
}

void say_absent(void) {
    say("absent");
    _exit(0);
}

void need_keys(void) {
    int key = pkey_alloc(0, 0);

    if (key < 0)
        say_absent();
    pkey_free(key);
}

void need_zero_page(void) {
    if (!kernel_has_zero_page())
        say_absent();
}

char *droppable(size_t size) {
    char *p = mmap(NULL, size, READ_WRITE, DROPPABLE, -1, 0);

    if (p == MAP_FAILED) {
        say_result("no-droppable-memory", -1);
        _exit(0);
    }
    return p;
}

char *plain(size_t size) {
    char *p = mmap(NULL, size, READ_WRITE, PLAIN, -1, 0);

    if (p == MAP_FAILED) {
        say_result("no-plain-memory", -1);
        _exit(0);
    }
    return p;
}

char *place_alone(size_t size) {
    char *p = mmap(NULL, size + 4 * MIB, PROT_NONE, PLAIN | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED) {
        say_result("no-place", -1);
        _exit(0);
    }
    return (char *)(((uintptr_t)p + 3 * MIB) & ~(uintptr_t)(2 * MIB - 1));
}

char *droppable_alone(size_t size) {
    char *p = mmap(place_alone(size), size, READ_WRITE, DROPPABLE | MAP_FIXED, -1, 0);

    if (p == MAP_FAILED) {
        say_result("no-droppable-memory", -1);
        _exit(0);
    }
    return p;
}

void fill(char *p, size_t size) {
    memset(p, FILL, size);
}

static const char *look(const char *p, size_t size) {
    const uint64_t fills = FILL * UINT64_C(0x0101010101010101);
    bool zero = false, data = false;
    size_t i = 0;

    /* Most of it is in whole words of one kind. */
    for (; (uintptr_t)p % 8 == 0 && i + 8 <= size; i += 8) {
        uint64_t word = *(const volatile uint64_t *)(p + i);

        if (word != 0 && word != fills)
            break;
        zero |= word == 0;
        data |= word == fills;
    }
    for (; i < size; i++) {
        char c = *(const volatile char *)(p + i);

        if (c != 0 && c != FILL)
            return "other";
        zero |= c == 0;
        data |= c == FILL;
    }
    return zero && data ? "mixed" : data ? "data" : "zero";
}

const char *seen(const char *p, size_t size) {
    const char *r = NULL;

    accessing = true;
    if (sigsetjmp(back, 1) == 0)
        r = look(p, size);
    accessing = false;
    return r ? r : caught[n_caught % 8];
}

const char *written(char *p, size_t size) {
    const char *r = NULL;

    accessing = true;
    if (sigsetjmp(back, 1) == 0) {
        for (size_t i = 0; i < size; i += PAGE)
            *(volatile char *)(p + i) = FILL;
        r = "ok";
    }
    accessing = false;
    return r ? r : caught[n_caught % 8];
}

const char *executed(char *p) {
    const char *r = NULL;
    void (*code)(void);

    memcpy(&code, &p, sizeof(code));
    accessing = true;
    if (sigsetjmp(back, 1) == 0) {
        code();
        r = "ok";
    }
    accessing = false;
    return r ? r : caught[n_caught % 8];
}

void wait_child(pid_t pid) {
    int status;

    if (waitpid(pid, &status, 0) != pid)
        say_result("waitpid", -1);
    else if (WIFSIGNALED(status))
        say("child-killed=%s", signal_name(WTERMSIG(status)));
    else if (WEXITSTATUS(status) != 0)
        say("child-exit=%d", WEXITSTATUS(status));
}

void in_child(void (*run)(void *data), void *data) {
    pid_t pid = fork();

    if (pid == 0) {
        run(data);
        _exit(0);
    }
    if (pid < 0)
        say_result("fork", pid);
    else
        wait_child(pid);
}

int scratch_file(int flags) {
    const char *folder = getenv("TMPDIR");

    return open(folder && *folder ? folder : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
}
