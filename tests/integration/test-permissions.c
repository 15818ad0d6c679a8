/* SPDX-License-Identifier: MIT */
/*
 * Who may do what: each acting verb of droppablectl, by root, the owner, a member of ControlGroup=, and a stranger. A refusal says so and changes
 * nothing. Needs root, to be all of them.
 */

#include "child.h"
#include "fixture.h"
#include "raw.h"
#include "suite.h"

#include <check.h>
#include <droppable/droppable.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define MIB (UINT64_C(1) << 20)
#define OWNER 65534
#define OTHER 65533
#define CONTROL_GROUP 65532
#define CONFIG "[Daemon]\nControlGroup=65532\n"

enum who { ROOT, MEMBER, OWNER_ITSELF, STRANGER, N_WHO };

static const char *const who_names[N_WHO] = {"root", "a member of the group", "the owner", "a stranger"};

/* R and P are the owner's region and process; may: a bit for each who. */
static const struct verb {
    const char *arguments[6];
    unsigned may;
} verbs[] = {
#define ADMINISTRATORS (1 << ROOT | 1 << MEMBER)
#define OWNERS (ADMINISTRATORS | 1 << OWNER_ITSELF)
#define ALL (OWNERS | 1 << STRANGER)
    {{"drop", "--region", "R"}, OWNERS},
    {{"drop", "--pid", "P"}, OWNERS},
    {{"drop", "--all"}, ADMINISTRATORS},
    {{"free", "4K"}, ADMINISTRATORS},
    {{"limit", "--region", "R", "--budget", "3M"}, OWNERS},
    {{"limit", "--region", "R", "--share", "50"}, OWNERS},
    {{"limit", "--region", "R", "--priority", "low"}, OWNERS},
    {{"limit", "--pid", "P", "--budget", "3M"}, OWNERS},
    {{"limit", "--pid", "P", "--quota", "1G"}, OWNERS},
    {{"limit", "--user", "65534", "--budget", "1G"}, OWNERS},
    {{"limit", "--cgroup", "/nobody", "--budget", "1G"}, ADMINISTRATORS},
    {{"limit", "--region", "R"}, ALL},
    {{"limit", "--pid", "P"}, ALL},
    {{"list"}, ALL},
    {{"status"}, ALL},
    {{"why"}, ALL},
};

#define N_VERBS ((int)(sizeof(verbs) / sizeof(verbs[0])))

struct cell {
    const struct verb *verb;
    enum who who;
    char region[24], pid[24];
};

static void become(uid_t uid, const gid_t *group) {
    child_check(setgroups(group ? 1 : 0, group) == 0);
    child_check(setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0);
    child_check(prctl(PR_SET_DUMPABLE, 1) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
}

/* What the command says when it is refused; stderr is a file by now. */
static bool is_refusal(int fd) {
    char text[512];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    child_check(n >= 0);
    text[n] = '\0';
    return strstr(text, ": not permitted: ") != NULL;
}

static void ask(int socket, void *data) {
    static const gid_t group = CONTROL_GROUP;
    const struct cell *cell = data;
    const char *arguments[6] = {0};
    char out[16384];
    int fd, status;

    (void)socket;
    for (size_t i = 0; i < 6; i++) {
        const char *word = cell->verb->arguments[i];

        arguments[i] = !word ? NULL : strcmp(word, "R") == 0 ? cell->region : strcmp(word, "P") == 0 ? cell->pid : word;
    }
    fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    child_check(fd >= 0);
    if (cell->who != ROOT)
        become(cell->who == OWNER_ITSELF ? OWNER : OTHER, cell->who == MEMBER ? &group : NULL);
    child_check(dup2(fd, STDERR_FILENO) == STDERR_FILENO);
    status = service_ctl(&service, out, sizeof(out), arguments);
    if (cell->verb->may & 1U << cell->who)
        _exit(status == 0 ? 0 : 2);
    _exit(status == 1 && is_refusal(fd) ? 0 : 3);
}

/* Has a region of 1 MiB, all of it resident; d: it has to be still; e: ends. */
static void own(int socket, void *data) {
    struct drp_region *region;
    struct drp *d;
    char word;

    become(*(uid_t *)data, NULL);
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, MIB, NULL) == 0);
    do {
        memset(drp_region_address(region), 1, MIB);
        child_check(child_say(socket, 'f') && child_hear(socket, &word));
        if (word == 'd')
            child_check(is_filled(drp_region_address(region), 1, MIB));
    } while (word != 'e');
    drp_region_free(region);
    drp_free(d);
}

START_TEST(test_verb) {
    const struct verb *verb = &verbs[_i];
    uid_t uid = OWNER;
    struct child owner;
    struct cell cell = {.verb = verb};
    uint64_t session;

    fixture_start(CONFIG);
    child_start(&owner, own, &uid);
    child_expect(&owner, 'f');
    session = listing_number("sessions", "pid", (uint64_t)owner.pid, "id");
    snprintf(cell.region, sizeof(cell.region), "%llu",
             (unsigned long long)listing_number("regions", "session", session, "id"));
    snprintf(cell.pid, sizeof(cell.pid), "%d", (int)owner.pid);
    for (int who = STRANGER; who >= ROOT; who--) { /* what root has set the owner cannot go beyond */
        struct child child;
        int status;

        cell.who = (enum who)who;
        child_start(&child, ask, &cell);
        ck_assert_int_eq(waitpid(child.pid, &status, 0), child.pid);
        close(child.socket);
        ck_assert_msg(status == 0, "%s %s %s by %s: %s", verb->arguments[0],
                      verb->arguments[1] ? verb->arguments[1] : "", verb->arguments[3] ? verb->arguments[3] : "",
                      who_names[who],
                      WEXITSTATUS(status) == 2   ? "was refused"
                      : WEXITSTATUS(status) == 3 ? "was not refused, or not as it should"
                                                 : "failed");
        ck_assert(child_say(owner.socket, verb->may & 1U << who ? 'n' : 'd'));
        child_expect(&owner, 'f');
    }
    ck_assert(child_say(owner.socket, 'e'));
    child_end(&owner);
    fixture_teardown();
}
END_TEST

/*
 * Two connections of one process, made by two users: what one of them may not drop is found before anything is dropped. (It was found behind
 * that once, and the reply was sent while drops were under way.)
 */
static void be_two(int socket, void *data) {
    struct drp_wire_control_drop drop = {.header.type = DRP_WIRE_CONTROL_DROP, .scope = DRP_SCOPE_PID};
    struct drp_region *regions[2];
    struct drp *connections[2];
    char word;
    int raw;

    (void)data;
    child_check(setresuid(OWNER, OTHER, 0) == 0);
    for (int i = 0; i < 2; i++) {
        child_check(seteuid(0) == 0 && seteuid(i == 0 ? OWNER : OTHER) == 0);
        child_check(drp_new(&connections[i], NULL) == 0);
        child_check(drp_region_new(&regions[i], connections[i], MIB, NULL) == 0);
        memset(drp_region_address(regions[i]), 1 + i, MIB);
    }
    drop.id = (uint64_t)getpid();
    raw = raw_session("two");
    child_check(raw_call(raw, &drop, sizeof(drop), NULL, 0, NULL) == DRP_WIRE_ERROR_PERMISSION);
    for (int i = 0; i < 2; i++)
        child_check(is_filled(drp_region_address(regions[i]), 1 + i, MIB));
    close(raw);
    child_check(child_say(socket, 'd') && child_hear(socket, &word));
    _exit(0);
}

START_TEST(test_two_users) {
    struct child child;

    fixture_start(NULL);
    child_start(&child, be_two, NULL);
    child_expect(&child, 'd');
    ck_assert(child_say(child.socket, 'e'));
    child_end(&child);
    fixture_teardown();
}
END_TEST

/* ---- ControlGroup= is about verbs, not about others' memory ---- */

static void make_shared(int socket, void *data) {
    const struct drp_region_options options = {
        .struct_size = sizeof(options), .required = DRP_REGION_SHARED, .name = "secret"};
    struct drp_region *region;
    struct drp *d;
    char word;

    (void)data;
    become(OWNER, NULL);
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_new(&region, d, MIB, &options) == 0);
    child_check(child_say(socket, 'm') && child_hear(socket, &word));
    _exit(0);
}

static void open_shared(int socket, void *data) {
    static const gid_t group = CONTROL_GROUP;
    struct drp_region *region;
    struct drp *d;

    (void)socket;
    (void)data;
    become(OTHER, &group);
    child_check(drp_new(&d, NULL) == 0);
    child_check(drp_region_open(&region, d, "secret", OWNER) == -EACCES);
    _exit(0);
}

START_TEST(test_shared) {
    struct child owner, other;

    fixture_start(CONFIG);
    child_start(&owner, make_shared, NULL);
    child_expect(&owner, 'm');
    child_start(&other, open_shared, NULL);
    child_end(&other);
    ck_assert(child_say(owner.socket, 'e'));
    child_end(&owner);
    fixture_teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("permissions");
    TCase *tcase = tcase_create("permissions");

    if (geteuid() != 0)
        skip_all("permissions: needs root, to be other users for a while");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_verb, 0, N_VERBS);
    tcase_add_test(tcase, test_two_users);
    tcase_add_test(tcase, test_shared);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
