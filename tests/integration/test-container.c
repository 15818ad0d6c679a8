/* SPDX-License-Identifier: MIT */
/*
 * A client in an unprivileged container with the system call filter that Docker has by default: no userfaultfd, no io_uring.
 * Namespaces of its own for users, mounts, processes, IPC, cgroups and the network; the folder of the socket is mounted in (the socket alone would
 * stay that of the first service). Everything works but interception, and `droppablectl list` says why; with a lent userfaultfd that works, too. Processes
 * have the numbers of the service's namespace there. An unchanged program with the preload library and droppablectl do there what they do elsewhere.
 */

#include "child.h"
#include "filter.h"
#include "fixture.h"
#include "program.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MIB ((size_t)1 << 20)
#define CHUNK ((size_t)65536)
#define SIZE (4 * MIB)
#define NOBODY 65534
#define CTL_REFUSED 1
#define INSIDE "/mnt/droppable"

static bool lent; /* a userfaultfd, by the service */

static void write_text(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    child_check(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

/* Namespaces; the socket is not where the service has it. */
static void enter_container(void) {
    char map[64], gids[64];

    child_become_nobody();
    snprintf(map, sizeof(map), "0 %u 1\n", geteuid());
    snprintf(gids, sizeof(gids), "0 %u 1\n", getegid());
    child_check(unshare(CLONE_NEWUSER) == 0);
    write_text("/proc/self/setgroups", "deny");
    write_text("/proc/self/uid_map", map);
    write_text("/proc/self/gid_map", gids);
    child_check(unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWCGROUP | CLONE_NEWNET | CLONE_NEWUTS) == 0);
    child_check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    child_check(mount("none", "/mnt", "tmpfs", 0, NULL) == 0);
    child_check(mkdir(INSIDE, 0755) == 0);
    child_check(mount(service.dir, INSIDE, NULL, MS_BIND, NULL) == 0);
    child_check(mount("none", service.dir, "tmpfs", 0, NULL) == 0);
    child_check(access(service.socket, F_OK) < 0);
    child_check(setenv("DROPPABLE_SOCKET", INSIDE "/socket", 1) == 0);
}

/*
 * What Docker's default profile (profiles/seccomp/default.json of moby) does not let a container without capabilities do. That is a list of what is
 * allowed; these are the calls that are on none of its lists, of 2023 and later.
 */
static void filter_calls(void) {
    static const long refused[] = {
        SYS_userfaultfd,
        SYS_io_uring_setup,
        SYS_io_uring_enter,
        SYS_io_uring_register,
        SYS_kcmp,
        SYS_process_madvise,
        SYS_mbind,
        SYS_get_mempolicy,
        SYS_set_mempolicy,
        SYS_migrate_pages,
        SYS_move_pages,
        SYS_unshare,
        SYS_setns,
        SYS_mount,
        SYS_umount2,
        SYS_pivot_root,
        SYS_chroot,
        SYS_fsopen,
        SYS_fsmount,
        SYS_move_mount,
        SYS_open_tree,
        SYS_open_by_handle_at,
        SYS_bpf,
        SYS_perf_event_open,
        SYS_keyctl,
        SYS_add_key,
        SYS_request_key,
        SYS_quotactl,
        SYS_syslog,
        SYS_acct,
        SYS_vhangup,
        SYS_swapon,
        SYS_swapoff,
        SYS_reboot,
        SYS_sethostname,
        438 /* pidfd_getfd */,
        451 /* cachestat */,
        452 /* fchmodat2 */,
        462 /* mseal */,
    };
    struct filter_rule rules[sizeof(refused) / sizeof(refused[0]) + 1] = {{.call = SYS_clone3, .error = ENOSYS}};

    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        rules[i + 1] = (struct filter_rule){.call = refused[i], .error = EPERM};
    child_check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    child_check(filter_install(rules, sizeof(rules) / sizeof(rules[0]), NULL) == 0);
    child_check(syscall(SYS_userfaultfd, O_CLOEXEC) < 0 && errno == EPERM);
}

static bool has_event(int fd) {
    struct pollfd event = {.fd = fd, .events = POLLIN};

    return poll(&event, 1, CHILD_WAIT_MS * (int)patience()) == 1;
}

static void use(int socket) {
    struct drp_region_info info;
    struct drp_region *region, *shared;
    const struct drp_region_options options = {
        .struct_size = sizeof(options), .required = DRP_REGION_SHARED, .name = "inside"};
    uint64_t freed, pinned, generation;
    struct drp *d;
    char *p, word;

    child_check(getpid() == 1 && geteuid() == 0);
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_get_lost_fd(d) >= 0);
    child_check(drp_region_new(&region, d, SIZE, NULL) == 0);
    drp_region_get_info(region, &info);
    child_check(info.interception == (lent ? DRP_INTERCEPTION_FULL : DRP_INTERCEPTION_NONE) && info.connected);
    p = drp_region_address(region);
    memset(p, 7, SIZE);
    child_check(drp_pin(region, 0, CHUNK, &generation) == 0);
    child_check(drp_drop(region, 0, SIZE, &freed, &pinned) == 0);
    child_check(freed == SIZE - CHUNK && pinned == CHUNK);
    child_check(is_filled(p, 7, CHUNK) && is_zero(p + CHUNK, SIZE - CHUNK));
    child_check(drp_generation(region, 0, CHUNK) == generation && has_event(drp_get_lost_fd(d)));
    child_check(drp_populate(region, 0, SIZE) == 0);
    child_check(drp_region_set_budget(region, SIZE) == 0 && drp_set_budget(d, 2 * SIZE) == 0);
    child_check(drp_region_new(&shared, d, MIB, &options) == 0);
    drp_region_free(shared);
    memset(p, 8, SIZE);
    child_check(child_say(socket, 'u') && child_hear(socket, &word)); /* the service drops meanwhile */
    child_check(is_filled(p, 8, CHUNK) && is_zero(p + CHUNK, SIZE - CHUNK));
    memset(p, 9, SIZE);
    child_check(child_say(socket, 'd') && child_hear(socket, &word)); /* and is another one then */
    for (info.connected = false; !info.connected; nap_ms(2))
        drp_region_get_info(region, &info);
    child_check(is_filled(p, 9, SIZE) && drp_drop(region, 0, SIZE, &freed, &pinned) == 0 && pinned == CHUNK);
    child_check(is_filled(p, 9, CHUNK) && is_zero(p + CHUNK, SIZE - CHUNK));
    child_check(child_say(socket, 'r') && child_hear(socket, &word));
    drp_region_free(region);
    drp_free(d);
}

/* The exit status of droppablectl. */
static int ctl(const char *verb, const char *option) {
    char path[512];
    pid_t pid;
    int status;

    snprintf(path, sizeof(path), "%s/droppablectl", getenv("DROPPABLE_TEST_BINDIR"));
    pid = fork();
    child_check(pid >= 0);
    if (pid == 0) {
        unsetenv("LD_PRELOAD");
        child_check(freopen("/dev/null", "w", stdout) && dup2(STDOUT_FILENO, STDERR_FILENO) >= 0);
        execl(path, path, verb, option, (char *)NULL);
        _exit(127);
    }
    child_check(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* What has been made of the container's first process: it knows of mmap(2) only. */
static void be_unchanged(int socket) {
    char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_DROPPABLE, -1, 0), word;

    child_check(p != MAP_FAILED);
    memset(p, 7, SIZE);
    child_check(child_say(socket, 'p') && child_hear(socket, &word)); /* the service drops meanwhile */
    child_check(is_zero(p, SIZE));
    memset(p, 8, SIZE);
    child_check(is_filled(p, 8, SIZE));
    child_check(ctl("status", NULL) == 0 && ctl("list", "--json") == 0 && ctl("probe", NULL) == 0);
    child_check(ctl("drop", "--all") == CTL_REFUSED && is_filled(p, 8, SIZE));
    child_check(child_say(socket, 'x') && child_hear(socket, &word));
}

/* Its child is the first process of the container; it ends with that, and dies with the test. */
static void run_container(int socket, void *data) {
    pid_t pid;
    int status;

    (void)data;
    enter_container();
    pid = fork();
    child_check(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        filter_calls();
        use(socket);
        program_become("unchanged", "daemon", NULL, socket);
    }
    child_check(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The process of the container, as the service numbers it. */
static uint64_t pid_inside(const struct child *container) {
    char path[64], text[32];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)container->pid, (int)container->pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    ck_assert_ptr_nonnull(fgets(text, sizeof(text), file));
    fclose(file);
    return strtoull(text, NULL, 10);
}

START_TEST(test_container) {
    char out[65536], pid[24], text[64];
    struct child container;
    uint64_t inside;

    fixture_start(lent ? "[Daemon]\nLendUserfaultfd=65534\n" : NULL);
    child_start(&container, run_container, NULL);
    child_expect(&container, 'u');
    inside = pid_inside(&container);
    listing_text("sessions", "pid", inside, "interception", text, sizeof(text));
    ck_assert_str_eq(text, lent ? "full" : "none");
    ck_assert_uint_eq(listing_number("sessions", "pid", inside, "reason"), lent ? 0 : EPERM);
    ck_assert_uint_eq(listing_number("sessions", "pid", inside, "uid"), geteuid() == 0 ? NOBODY : geteuid());
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"list", NULL}), 0);
    ck_assert_msg(lent == !strstr(out, "not intercepted: Operation not permitted"), "%s", out);
    ck_assert_uint_eq(listing_number("sessions", "pid", inside, "resident_bytes"), SIZE);
    snprintf(pid, sizeof(pid), "%llu", (unsigned long long)inside);
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"drop", "--pid", pid, NULL}), 0);
    ck_assert_uint_eq(listing_number("sessions", "pid", inside, "resident_bytes"), CHUNK);
    ck_assert(child_say(container.socket, 'c'));
    child_expect(&container, 'd');
    ck_assert(service_kill(&service, 10000));
    service_restart(&service);
    ck_assert(child_say(container.socket, 'c'));
    child_expect(&container, 'r');
    ck_assert(child_say(container.socket, 'c'));
    child_expect(&container, 'p');
    ck_assert_uint_eq(listing_number("sessions", "pid", inside, "resident_bytes"), SIZE);
    ck_assert_int_eq(service_ctl(&service, out, sizeof(out), (const char *const[]){"drop", "--pid", pid, NULL}), 0);
    ck_assert(child_say(container.socket, 'c'));
    child_expect(&container, 'x');
    child_kill(&container);
    ck_assert(status_becomes("regions", 0, 20000));
    fixture_measure();
    fixture_teardown();
}
END_TEST

/* usage: test-container [lent] */
int main(int argc, char *argv[]) {
    Suite *suite = suite_create("container");
    TCase *tcase = tcase_create("container");

    if (argc == 4 && strcmp(argv[1], "--program") == 0) {
        be_unchanged(atoi(argv[3]));
        return 0;
    }
    lent = argc > 1 && strcmp(argv[1], "lent") == 0;
    if (lent && geteuid() != 0)
        skip_all("container: lending a userfaultfd to another user needs root");
    if (lent && access("/dev/userfaultfd", F_OK) < 0)
        skip_all("container: no /dev/userfaultfd to lend");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_container);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
