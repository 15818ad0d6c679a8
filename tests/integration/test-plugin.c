/* SPDX-License-Identifier: MIT */
/* A program that loads a plugin which is linked with the library, and closes it again: the library's thread and handlers stay, and go on. */

#include "fixture.h"
#include "suite.h"

#include <check.h>
#include <dlfcn.h>
#include <droppable/droppable.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define WAIT_MS 10000

static struct {
    int (*new)(struct drp **ret, const struct drp_config *config);
    struct drp *(*free)(struct drp *d);
    int (*region_new)(struct drp_region **ret, struct drp *d, size_t size, const struct drp_region_options *options);
    void *(*region_address)(const struct drp_region *r);
} library;

static void *load(void) {
    void *plugin = dlopen(LIBDROPPABLE, RTLD_NOW | RTLD_LOCAL);

    ck_assert_msg(plugin != NULL, "%s", dlerror());
    *(void **)&library.new = dlsym(plugin, "drp_new");
    *(void **)&library.free = dlsym(plugin, "drp_free");
    *(void **)&library.region_new = dlsym(plugin, "drp_region_new");
    *(void **)&library.region_address = dlsym(plugin, "drp_region_address");
    ck_assert(library.new &&library.free &&library.region_new &&library.region_address);
    return plugin;
}

START_TEST(test_closed) {
    void *plugin = load();
    struct drp_region *r;
    struct drp *d;
    char *memory;
    int status;
    pid_t pid;

    ck_assert_int_eq(library.new(&d, NULL), 0);
    ck_assert_int_eq(library.region_new(&r, d, MIB, NULL), 0);
    memory = library.region_address(r);
    memory[0] = 1;
    ck_assert_int_eq(dlclose(plugin), 0);
    pid = fork();
    if (pid == 0)
        _exit(memory[0] != 0);
    ck_assert(waitpid(pid, &status, 0) == pid && status == 0);
    ck_assert(service_kill(&service, WAIT_MS));
    service_restart(&service);
    ck_assert(status_becomes("regions", 1, WAIT_MS)); /* the thread has brought it */
    ck_assert_int_eq(memory[0], 1);
    library.free(d);
    ck_assert(status_becomes("regions", 0, WAIT_MS));
    fixture_measure();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("plugin");
    TCase *tcase = tcase_create("plugin");

    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_closed);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
