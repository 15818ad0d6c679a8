/* SPDX-License-Identifier: MIT */

/*
 * Core dumps: a child fills plain and droppable memory with words of its own and dies; then its core file is searched for them. Where
 * core files are not made in the current folder, nothing can be told, and the checks are absent.
 */

#include "sections.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SIZE (16 * PAGE)
#define COPIES 64 /* of a word in a row: no chance */

enum { SIMPLE, FILTER_ALL, DODUMP, CHILD, PARTS, PLAIN_THERE };

/* Made at run time, so that no other place has it. */
static uint64_t word_of(uint64_t seed) {
    volatile uint64_t factor = UINT64_C(0x9e3779b97f4a7c15);

    return (seed + 1) * factor;
}

static void fill_words(char *p, size_t size, uint64_t seed) {
    for (size_t i = 0; i < size; i += 8)
        *(uint64_t *)(p + i) = word_of(seed);
}

static const char *has_words(const char *bytes, size_t size, uint64_t seed) {
    uint64_t word = word_of(seed);
    size_t run = 0;

    for (size_t i = 0; i + 8 <= size; i += 8) {
        run = memcmp(bytes + i, &word, 8) == 0 ? run + 1 : 0;
        if (run == COPIES)
            return "dumped";
    }
    return "left-out";
}

static void set_filter(const char *text) {
    int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);

    if (write(fd, text, strlen(text)) < 0)
        say_result("filter", -1);
    close(fd);
}

static void die(const struct check *c) {
    const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    char *p = droppable_alone(SIZE), *q = plain(SIZE);

    setrlimit(RLIMIT_CORE, &unlimited);
    prctl(PR_SET_DUMPABLE, 1);
    fill_words(q, SIZE, 1);
    fill_words(p, SIZE, 2);
    if (c->a == FILTER_ALL)
        set_filter("0x1ff");
    if (c->a == DODUMP)
        say_result("dodump", madvise(p, SIZE, MADV_DODUMP));
    if (c->a == PARTS) {
        munmap(p + 4 * PAGE, 4 * PAGE);
        mprotect(p + 8 * PAGE, 4 * PAGE, PROT_READ);
    }
    if (c->a == PLAIN_THERE) {
        mmap(p + 4 * PAGE, 8 * PAGE, READ_WRITE, PLAIN | MAP_FIXED, -1, 0);
        fill_words(p + 4 * PAGE, 8 * PAGE, 3);
    }
    if (c->a == CHILD && fork() == 0) {
        fill_words(p, SIZE, 2); /* what it inherited */
        abort();
    }
    if (c->a == CHILD) {
        wait(NULL);
        _exit(0);
    }
    abort();
}

/* Everything called core* in this folder. */
static size_t load_core(char **ret) {
    DIR *dir = opendir(".");
    struct dirent *entry;
    struct stat st;
    int fd = -1;

    while (dir && fd < 0 && (entry = readdir(dir)))
        if (strncmp(entry->d_name, "core", 4) == 0)
            fd = open(entry->d_name, O_RDONLY | O_CLOEXEC);
    if (dir)
        closedir(dir);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0)
        return 0;
    *ret = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    return *ret == MAP_FAILED ? 0 : (size_t)st.st_size;
}

static void remove_folder(const char *folder) {
    DIR *dir = opendir(".");
    struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            unlink(entry->d_name);
    if (dir)
        closedir(dir);
    if (chdir("/") < 0 || rmdir(folder) < 0)
        say_result("rmdir", -1);
}

static void run_core(const struct check *c) {
    char folder[] = "/var/tmp/conformance-XXXXXX", *core = NULL;
    size_t size;
    pid_t pid;

    if (!mkdtemp(folder) || chdir(folder) < 0)
        say_absent();
    pid = fork();
    if (pid == 0)
        die(c);
    waitpid(pid, NULL, 0);
    size = load_core(&core);
    remove_folder(folder);
    if (size == 0)
        say_absent();
    say("plain=%s droppable=%s", has_words(core, size, 1), has_words(core, size, 2));
    if (c->a == PLAIN_THERE)
        say("plain-inside=%s", has_words(core, size, 3));
}

static const struct check checks[] = {
    {"simple", run_core, SIMPLE, 0},
    {"filter-all", run_core, FILTER_ALL, 0},
    {"dodump", run_core, DODUMP, 0},
    {"child", run_core, CHILD, 0},
    {"parts", run_core, PARTS, 0},
    {"plain-inside", run_core, PLAIN_THERE, 0},
    {0},
};

const struct section section_core = {"core", checks};
