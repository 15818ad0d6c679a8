/* SPDX-License-Identifier: MIT */

/*
 * Who serves the program:
 *
 *     native   the kernel
 *     daemon   a service of its own (droppablectl run) by the preload library
 *     none     nobody: plain anonymous memory, which has to be found out
 *
 * This program starts itself again between the service and the client. There, behind the service, the client gets what has
 * to be the same everywhere: an ordinary user's limit of descriptors, no core files but its own, and, unless it is native, a filter that
 * makes the kernel refuse MAP_DROPPABLE, so that nothing passes by the backend.
 *
 * A file is looked for beside this program, and where the build puts it.
 */

#include "backend.h"

#include "filter.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Linux 6.11. */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

#define MAX_ARGUMENTS 72
#define DESCRIPTORS 1024 /* what a login gives */

const char *const backend_names[] = {"native", "daemon", "none", NULL};

bool backend_known(const char *name) {
    for (size_t i = 0; backend_names[i]; i++)
        if (strcmp(backend_names[i], name) == 0)
            return true;
    return false;
}

bool backend_has_native(void) {
    void *p = mmap(NULL, 4096, PROT_READ, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

    if (p != MAP_FAILED)
        munmap(p, 4096);
    return p != MAP_FAILED;
}

char *backend_file(const char *name) {
    static const char *const places[] = {"", "../../bin/"};
    char self[PATH_MAX], path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    self[n < 0 ? 0 : n] = '\0';
    if (n > 0)
        *(strrchr(self, '/') + 1) = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        if (snprintf(path, sizeof(path), "%s%s%s", self, places[i], name) < PATH_MAX && access(path, R_OK) == 0)
            return strdup(path);
    fprintf(stderr, "conformance-compare: there is no %s\n", name);
    return NULL;
}

static char *read_all(FILE *file) {
    char *text = NULL;
    size_t size = 0, n = 0;

    for (;;) {
        if (size - n < 4096) {
            char *grown = realloc(text, size = size * 2 + 65536);

            if (!grown) {
                free(text);
                return NULL;
            }
            text = grown;
        }
        size_t got = fread(text + n, 1, size - n - 1, file);

        if (got == 0)
            break;
        n += got;
    }
    text[n] = '\0';
    return text;
}

static void become(const char *name, const char *const *arguments) {
    char *words[MAX_ARGUMENTS], *control = NULL;
    size_t n = 0;

    if (strcmp(name, "daemon") == 0) {
        control = backend_file("droppablectl");
        if (!control)
            return;
        words[n++] = control;
        words[n++] = (char *)"run";
        words[n++] = (char *)"--";
    }
    words[n++] = (char *)"/proc/self/exe";
    words[n++] = (char *)"--enter";
    words[n++] = (char *)name;
    for (size_t i = 0; arguments[i] && n < MAX_ARGUMENTS - 1; i++)
        words[n++] = (char *)arguments[i];
    words[n] = NULL;
    if (control) /* there it would be another program */
        words[3] = realpath("/proc/self/exe", NULL);
    execv(words[0], words);
    fprintf(stderr, "conformance-compare: cannot start %s: %s\n", words[0], strerror(errno));
}

char *backend_run(const char *name, const char *const *arguments) {
    FILE *output;
    int fds[2], status;
    char *text;
    pid_t pid;

    if (pipe(fds) < 0 || (pid = fork()) < 0) {
        perror("conformance-compare");
        return NULL;
    }
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        close(fds[0]);
        close(fds[1]);
        become(name, arguments);
        _exit(126);
    }
    close(fds[1]);
    output = fdopen(fds[0], "r");
    text = output ? read_all(output) : NULL;
    if (output)
        fclose(output);
    waitpid(pid, &status, 0);
    if (text && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return text;
    fprintf(stderr, "conformance-compare: %s: the program ended with wait status %#x\n", name, (unsigned)status);
    free(text);
    return NULL;
}

/* ---- behind the service ---- */

static int limit(void) {
    struct rlimit files, core = {0, RLIM_INFINITY};

    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return -errno;
    files.rlim_cur = files.rlim_max < DESCRIPTORS ? files.rlim_max : DESCRIPTORS;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        return -errno;
    setrlimit(RLIMIT_CORE, &core); /* a lower hard limit stays; then there are no core files, which is told */
    return 0;
}

/* For everybody, as an installed service: `droppablectl run` makes a folder for one user, and checks become others. */
static void open_socket(void) {
    const char *path = getenv("DROPPABLE_SOCKET");
    char *folder = path ? strdup(path) : NULL;

    if (folder && strrchr(folder, '/')) {
        *strrchr(folder, '/') = '\0';
        if (chmod(folder, 0711) < 0 || chmod(path, 0666) < 0)
            fprintf(stderr, "conformance-compare: %s: %s, ignoring\n", path, strerror(errno));
    }
    free(folder);
}

static int enter(const char *name) {
    const char *library = NULL;
    char *path;
    int r = limit();

    unsetenv("LD_PRELOAD");
    unsetenv("DROPPABLE_BACKEND");
    if (strcmp(name, "daemon") == 0) {
        library = "libdroppable-preload.so";
        setenv("DROPPABLE_BACKEND", "daemon", 1);
        open_socket();
    } else if (strcmp(name, "none") == 0) {
        library = "libdroppable-preload.so";
        setenv("DROPPABLE_BACKEND", "none", 1);
    }
    if (r < 0 || !library)
        return r;
    path = backend_file(library);
    if (!path)
        return -ENOENT;
    setenv("LD_PRELOAD", path, 1);
    return filter_install(&filter_no_droppable, 1, NULL);
}

static int become_user(void) {
    const char *user = getenv(BACKEND_USER);
    id_t id = user ? (id_t)strtoul(user, NULL, 10) : 0;

    if (user && (setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0))
        return -errno;
    return 0;
}

int backend_enter(char **argv) {
    char *program = backend_file("conformance");
    int r = program ? enter(argv[2]) : -ENOENT;

    if (r == 0)
        r = become_user();
    if (r == 0) {
        argv[2] = program;
        execv(program, argv + 2);
        r = -errno;
    }
    fprintf(stderr, "conformance-compare: cannot enter: %s\n", strerror(-r));
    return 126;
}
