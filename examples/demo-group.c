/* SPDX-License-Identifier: MIT */

/*
 * usage: droppable-demo-group BYTES PROGRAM [ARGUMENT...]
 *
 * Makes an empty memory cgroup with that limit, of v1 or v2, runs PROGRAM outside of it with its directory in
 * $DROPPABLE_DEMO_GROUP, and removes it when PROGRAM has ended. Where none can be made the variable holds the reason, a
 * sentence without a slash in front, and PROGRAM runs all the same.
 *
 * A process of its own, so that the group goes however PROGRAM ends. INT, TERM and HUP are blocked here from the start
 * and passed on. Exit status: PROGRAM's, or 128 + the signal that ended it.
 */

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct group {
    bool made;
    int version;         /* 1, 2; 0: no memory controller in sight */
    char path[PATH_MAX]; /* of the directory */
    size_t enabled;      /* length of the parent directory's path, if the controller was switched on there; else 0 */
    char limit[32];
};

static int write_file(const char *directory, const char *name, const char *text) {
    char path[PATH_MAX + 64];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    file = fopen(path, "r+e");
    if (!file)
        return -errno;
    fputs(text, file); /* a short one is not written before fclose() */
    return fclose(file) < 0 ? -errno : 0;
}

/* This process's own place in the hierarchy that has the memory controller. Its version; 0: none. */
static int own_place(char place[PATH_MAX]) {
    FILE *file = fopen("/proc/self/cgroup", "re");
    char line[PATH_MAX], *controllers, *path;
    int version = 0;

    while (file && version != 1 && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        controllers = strchr(line, ':');
        path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        if (controllers[1] != '\0' && !strstr(controllers, "memory"))
            continue;
        version = controllers[1] == '\0' ? 2 : 1;
        snprintf(place, PATH_MAX, "%s", path);
    }
    if (file)
        fclose(file);
    return version;
}

/* Directory of the own cgroup, as mounted here, in @ret; length of the mount point's path, 0: not mounted. */
static size_t own_directory(int version, const char *place, char ret[PATH_MAX]) {
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char line[2 * PATH_MAX], root[PATH_MAX / 2], point[PATH_MAX / 2];
    size_t length = 0;

    while (file && length == 0 && fgets(line, sizeof(line), file)) {
        const char *type = strstr(line, " - "), *options = strrchr(line, ' ');
        size_t skip;

        if (!type || !options || sscanf(line, "%*s %*s %*s %2047s %2047s", root, point) != 2)
            continue;
        if (version == 2 ? strncmp(type, " - cgroup2 ", 11) != 0
                         : strncmp(type, " - cgroup ", 10) != 0 || !strstr(options, "memory"))
            continue;
        skip = strcmp(root, "/") == 0 ? 0 : strlen(root); /* a container may see a part of the hierarchy only */
        if (strncmp(place, root, skip) != 0 || strncmp(place, "/..", 3) == 0)
            place = "", skip = 0;
        length = strlen(point);
        snprintf(ret, PATH_MAX, "%s%.2000s", point, strcmp(place + skip, "/") == 0 ? "" : place + skip);
    }
    if (file)
        fclose(file);
    return length;
}

/* Makes the group below a directory. On v2, one that has processes of its own cannot give memory to its children. */
static int group_make_below(struct group *group, const char *directory) {
    const char *limit_name = group->version == 1 ? "memory.limit_in_bytes" : "memory.max";
    int r;

    if (snprintf(group->path, sizeof(group->path), "%s/droppable-demo-%d", directory, getpid()) >= PATH_MAX)
        return -ENAMETOOLONG;
    if (mkdir(group->path, 0755) < 0)
        return -errno;
    r = write_file(group->path, limit_name, group->limit);
    if (r < 0 && group->version == 2 && write_file(directory, "cgroup.subtree_control", "+memory") == 0) {
        group->enabled = strlen(directory);
        r = write_file(group->path, limit_name, group->limit);
    }
    /* Nothing may go to swap instead: that would be no shortage. Where swap is not accounted, it is as it is. */
    if (r == 0)
        write_file(group->path, group->version == 1 ? "memory.memsw.limit_in_bytes" : "memory.swap.max",
                   group->version == 1 ? group->limit : "0");
    return r;
}

static void group_remove(struct group *group) {
    struct timespec pause = {.tv_nsec = 10000000};

    /* Busy while a process of the program's is still on its way out. */
    for (int i = 0; i < 200 && rmdir(group->path) < 0 && errno == EBUSY; i++)
        nanosleep(&pause, NULL);
    if (group->enabled > 0) {
        group->path[group->enabled] = '\0';
        write_file(group->path, "cgroup.subtree_control", "-memory");
    }
    group->made = false;
    group->enabled = 0;
}

/* Below the own cgroup, or else below the nearest ancestor where that is allowed. 0 or negative errno. */
static int group_make(struct group *group) {
    char place[PATH_MAX] = "", directory[PATH_MAX];
    size_t mount = 0;
    int r = -ENODEV;

    group->version = own_place(place);
    if (group->version > 0)
        mount = own_directory(group->version, place, directory);
    while (mount > 0) {
        r = group_make_below(group, directory);
        group->made = r == 0;
        if (r == 0)
            break;
        if (r != -EEXIST)
            group_remove(group);
        if (strlen(directory) <= mount)
            break;
        *strrchr(directory, '/') = '\0';
    }
    return r;
}

static _Noreturn void run_program(const struct group *group, int error, char **program, const sigset_t *mask) {
    char reason[200];

    if (error == ENODEV || error == ENOENT)
        snprintf(reason, sizeof(reason), "no memory controller for control groups");
    else
        snprintf(reason, sizeof(reason), "making a memory control group: %s", strerror(error));
    setenv("DROPPABLE_DEMO_GROUP", group->made ? group->path : reason, 1);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(program[0], program);
    perror(program[0]);
    _exit(127);
}

/* Passes signals on until the program ends. Its exit status, as a shell has it. */
static int await_program(pid_t pid, const sigset_t *signals) {
    int status, number;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        number = sigwaitinfo(signals, NULL);
        if (number > 0 && number != SIGCHLD)
            kill(pid, number);
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int argc, char **argv) {
    struct group group = {0};
    sigset_t signals, before;
    int status = 1, error;
    pid_t pid;

    if (argc < 3)
        return fprintf(stderr, "usage: droppable-demo-group BYTES PROGRAM [ARGUMENT...]\n"), 2;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, &before);

    snprintf(group.limit, sizeof(group.limit), "%s", argv[1]);
    error = -group_make(&group);
    pid = fork();
    if (pid == 0)
        run_program(&group, error, argv + 2, &before);
    if (pid > 0)
        status = await_program(pid, &signals);
    else
        perror("droppable-demo-group: fork");
    if (group.made)
        group_remove(&group);
    return status;
}
