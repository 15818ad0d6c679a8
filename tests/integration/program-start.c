/* SPDX-License-Identifier: MIT */
/* How a test becomes one of its programs, under the preload library. */

#include "child.h"
#include "program.h"

#include <fcntl.h>
#include <link.h>
#include <stdlib.h>

static int is_sanitizer(struct dl_phdr_info *info, size_t size, void *ret_name) {
    (void)size;
    if (!strstr(info->dlpi_name, "/libasan."))
        return 0;
    *(const char **)ret_name = info->dlpi_name;
    return 1;
}

static const char *also = "";

void program_preload_also(const char *path) {
    also = path;
}

/* AddressSanitizer insists on being the first of all libraries; its mmap(2) then calls ours. */
static void preload(void) {
    const char *sanitizer = "";
    char library[512], list[1024];

    snprintf(library, sizeof(library), "%s/libdroppable-preload.so", getenv("DROPPABLE_TEST_BINDIR"));
    child_check(access(library, R_OK) == 0);
    dl_iterate_phdr(is_sanitizer, &sanitizer);
    snprintf(list, sizeof(list), "%s:%s:%s", sanitizer, library, also);
    child_check(setenv("LD_PRELOAD", list, 1) == 0);
}

void program_become(const char *name, const char *backend, const char *output, int socket) {
    char number[16];
    int fd;

    if (output) {
        fd = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        child_check(fd >= 0 && dup2(fd, STDOUT_FILENO) >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    }
    if (backend) {
        preload();
        child_check(*backend ? setenv("DROPPABLE_BACKEND", backend, 1) == 0 : unsetenv("DROPPABLE_BACKEND") == 0);
    }
    child_check(fcntl(socket, F_SETFD, 0) == 0);
    snprintf(number, sizeof(number), "%d", socket);
    execl("/proc/self/exe", "program", "--program", name, number, (char *)NULL);
    child_check(false);
}
