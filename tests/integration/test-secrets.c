/* SPDX-License-Identifier: MIT */
/*
 * Who never sees what is in a region: core dumps, unless they are to; the owner of the next region; the service itself.
 *
 * Core dumps are real ones: a child fills memory with words of its own and aborts, and its core file is searched for them. Where
 * /proc/sys/kernel/core_pattern sends them elsewhere than into the current folder, nothing can be told, and that is said.
 */

#include "child.h"
#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <dirent.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#define MIB ((size_t)1 << 20)
#define SIZE (2 * MIB)
#define COPIES 64 /* of a word in a row: no chance */

/* ---- core dumps ---- */

enum { PLAIN_WORD = 1, REGION_WORD, CHILD_WORD };

struct dump {
    uint64_t required;
    uint64_t mask, values; /* changed afterwards */
    bool in_child;         /* the one that dies is a child of the region's owner */
    bool region, child;    /* whose words are in the core */
};

static const struct dump dumps[] = {
    {0, 0, 0, false, false, false},
    {DRP_REGION_DUMP, 0, 0, false, true, false},
    {0, DRP_REGION_DUMP, DRP_REGION_DUMP, false, true, false},
    {DRP_REGION_DUMP, DRP_REGION_DUMP, 0, false, false, false},
    {0, 0, 0, true, false, false},
    {DRP_REGION_DUMP, 0, 0, true, false, true}, /* of zeros of its own, which it has filled */
    {DRP_REGION_FORK_SHARED, 0, 0, true, false, false},
    {DRP_REGION_FORK_SHARED | DRP_REGION_DUMP, 0, 0, true, true, true},
    {DRP_REGION_FORK_ABSENT | DRP_REGION_DUMP, 0, 0, true, false, false},
};

/* Made at run time, so that no other place has it. */
static uint64_t word_of(uint64_t seed) {
    volatile uint64_t factor = UINT64_C(0x9e3779b97f4a7c15);

    return (seed + 1) * factor;
}

static void fill_words(char *p, size_t size, uint64_t seed) {
    for (size_t i = 0; i < size; i += 8)
        *(uint64_t *)(p + i) = word_of(seed);
}

static bool has_words(const char *bytes, size_t size, uint64_t seed) {
    uint64_t word = word_of(seed);
    size_t run = 0;

    for (size_t i = 0; i + 8 <= size; i += 8) {
        run = memcmp(bytes + i, &word, 8) == 0 ? run + 1 : 0;
        if (run == COPIES)
            return true;
    }
    return false;
}

static void die(const struct dump *dump, const char *folder) {
    const struct drp_region_options options = {.struct_size = sizeof(options), .required = dump->required};
    const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    struct drp_region *region;
    struct drp *d;
    char *p, *plain = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    child_check(plain != MAP_FAILED && chdir(folder) == 0 && setrlimit(RLIMIT_CORE, &unlimited) == 0);
    child_check(prctl(PR_SET_DUMPABLE, 1) == 0);
    child_check(drp_new(&d, NULL) == 0 && drp_region_new(&region, d, SIZE, &options) == 0);
    child_check(drp_region_set_options(region, dump->mask, dump->values) == 0);
    p = drp_region_address(region);
    fill_words(plain, SIZE, PLAIN_WORD);
    fill_words(p, SIZE / 2, REGION_WORD);
    if (dump->in_child) {
        if (fork() != 0) {
            wait(NULL);
            _exit(0);
        }
        if (!(dump->required & DRP_REGION_FORK_ABSENT))
            fill_words(p + SIZE / 2, SIZE / 2, CHILD_WORD);
    }
    abort();
}

static char *load_core(const char *folder, size_t *ret_size) {
    DIR *dir = opendir(folder);
    struct dirent *entry;
    struct stat st;
    char *core;
    int fd = -1;

    ck_assert_ptr_nonnull(dir);
    while (fd < 0 && (entry = readdir(dir)))
        if (strncmp(entry->d_name, "core", 4) == 0)
            fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    core = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    ck_assert_ptr_ne(core, MAP_FAILED);
    close(fd);
    ck_assert_int_eq(unlinkat(dirfd(dir), entry->d_name, 0), 0);
    closedir(dir);
    *ret_size = (size_t)st.st_size;
    return core;
}

static bool dumps_are_here(void) {
    FILE *file = fopen("/proc/sys/kernel/core_pattern", "re");
    char line[256] = "";
    bool here;

    here = file && fgets(line, sizeof(line), file) && strncmp(line, "core", 4) == 0 && !under_sanitizer();
    if (file)
        fclose(file);
    if (!here)
        printf("core dumps are not made here: core_pattern is %s\n", line);
    return here;
}

START_TEST(test_core) {
    const struct dump *dump = &dumps[_i];
    char folder[] = "/var/tmp/test-secrets-XXXXXX", *core;
    size_t size;
    pid_t pid;

    if (!dumps_are_here())
        return;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    pid = fork();
    if (pid == 0)
        die(dump, folder);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    core = load_core(folder, &size);
    ck_assert_int_eq(rmdir(folder), 0);
    ck_assert(has_words(core, size, PLAIN_WORD));
    ck_assert_int_eq(has_words(core, size, REGION_WORD), dump->region);
    ck_assert_int_eq(has_words(core, size, CHILD_WORD), dump->child);
    munmap(core, size);
}
END_TEST

/* ---- the next owner ---- */

static void leave_words(int socket, void *data) {
    struct drp_region *region;
    struct drp *d;
    char word;

    (void)data;
    child_check(drp_new(&d, NULL) == 0 && drp_region_new(&region, d, SIZE, NULL) == 0);
    fill_words(drp_region_address(region), SIZE, REGION_WORD);
    child_say(socket, 'f');
    child_hear(socket, &word); /* until it is killed */
}

/* Of a region that was freed, one whose owner was killed, one that was dropped and filled anew by halves. */
START_TEST(test_next_owner) {
    struct drp_region *region;
    struct child child;
    struct drp *d;
    char *p;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    for (unsigned i = 0; i < 50; i++) {
        if (i % 10 == 0) {
            child_start(&child, leave_words, NULL);
            child_expect(&child, 'f');
            child_kill(&child);
        }
        ck_assert_int_eq(drp_region_new(&region, d, SIZE, NULL), 0);
        p = drp_region_address(region);
        ck_assert(is_zero(p, SIZE));
        fill_words(p, SIZE, REGION_WORD);
        ck_assert_int_eq(drp_drop(region, 0, SIZE, NULL, NULL), 0);
        fill_words(p, SIZE / 2, PLAIN_WORD);
        ck_assert(!has_words(p, SIZE, REGION_WORD));
        ck_assert(is_zero(p + SIZE / 2, SIZE / 2));
        fill_words(p, SIZE, REGION_WORD);
        drp_region_free(region);
    }
    drp_free(d);
}
END_TEST

/* ---- the service ---- */

struct mapping {
    char permissions[5];
    unsigned major, minor;
    uint64_t inode;
    char name[128];
};

static bool next_mapping(FILE *file, struct mapping *ret) {
    char line[512];

    if (!fgets(line, sizeof(line), file))
        return false;
    *ret = (struct mapping){0};
    ck_assert_int_ge(sscanf(line, "%*x-%*x %4s %*x %x:%x %" SCNu64 " %127[^\n]", ret->permissions, &ret->major,
                            &ret->minor, &ret->inode, ret->name),
                     4);
    return true;
}

/* How many mappings of the object the service has; each of them must be inaccessible. What it can read of others are pages of its own making. */
static unsigned look_at_service(const struct stat *object) {
    char path[64];
    struct mapping m;
    unsigned found = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)service.pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    while (next_mapping(file, &m)) {
        bool is_object = m.inode == object->st_ino && makedev(m.major, m.minor) == object->st_dev;
        bool is_page = strstr(m.name, "droppable-state") || strstr(m.name, "droppable-pins") ||
                       strstr(m.name, "droppable-clock") || strstr(m.name, "io_uring");

        found += is_object;
        if (is_object || strncmp(m.name, "/#", 2) == 0 || strncmp(m.name, "/SYSV", 5) == 0 ||
            strstr(m.name, "droppable-data"))
            ck_assert_msg(strcmp(m.permissions, "---s") == 0, "%s %s", m.permissions, m.name);
        else if (m.permissions[3] == 's')
            ck_assert_msg(is_page, "%s %s", m.permissions, m.name);
    }
    fclose(file);
    return found;
}

START_TEST(test_service_maps_nothing) {
    struct drp_region_options options = {.struct_size = sizeof(options)};
    const uint64_t required[] = {0, status_feature("huge") ? DRP_REGION_HUGE : 0,
                                 DRP_REGION_FORK_SHARED | DRP_REGION_DUMP};
    struct drp_region *regions[3];
    struct stat objects[3];
    uint64_t offset;
    struct drp *d;

    ck_assert_int_eq(drp_new(&d, NULL), 0);
    for (unsigned i = 0; i < 3; i++) {
        int fd;

        options.required = required[i];
        ck_assert_int_eq(drp_region_new(&regions[i], d, SIZE, &options), 0);
        fd = drp_region_get_object(regions[i], &offset);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(fstat(fd, &objects[i]), 0);
        close(fd);
        fill_words(drp_region_address(regions[i]), SIZE, REGION_WORD);
    }
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 3; i++) {
            ck_assert_uint_eq(look_at_service(&objects[i]), 1);
            ck_assert_int_eq(drp_drop(regions[i], 0, SIZE, NULL, NULL), 0);
            ck_assert_int_eq(drp_populate(regions[i], 0, SIZE), 0);
        }
        if (round == 0) { /* one that took them over */
            ck_assert(service_kill(&service, 10000));
            service_restart(&service);
            for (unsigned i = 0; i < 3; i++)
                while (drp_drop(regions[i], 0, SIZE, NULL, NULL) == -ENOTCONN)
                    nap_ms(1);
        }
    }
    drp_free(d);
    fixture_measure();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("secrets");
    TCase *tcase = tcase_create("secrets");

    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_core, 0, sizeof(dumps) / sizeof(dumps[0]));
    tcase_add_test(tcase, test_next_owner);
    tcase_add_test(tcase, test_service_maps_nothing);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
