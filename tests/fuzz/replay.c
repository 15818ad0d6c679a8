/* SPDX-License-Identifier: MIT */

/*
 * Runs a fuzz target over the files of the folders given, without libFuzzer: the corpus as an ordinary test. Each input lies in a
 * block of exactly its size, so that AddressSanitizer sees every byte read beyond it. An empty corpus is a failure:
 * nothing would have been tested.
 */

#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_whole(int fd, uint8_t *data, size_t size) {
    size_t done = 0;

    while (done < size) {
        ssize_t n = read(fd, data + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        done += (size_t)n;
    }
    return 0;
}

/* Returns 1: replayed; 0: not a regular file; negative errno. */
static int replay_file(int dir_fd, const char *name) {
    uint8_t *data = NULL;
    struct stat st;
    int fd, r;

    fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0) {
        r = -errno;
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        r = 0;
        goto out;
    }

    /* malloc(0) may be NULL; one byte more would hide a read past the end of any other size */
    data = malloc(st.st_size > 0 ? (size_t)st.st_size : 1);
    if (!data) {
        r = -ENOMEM;
        goto out;
    }
    r = read_whole(fd, data, (size_t)st.st_size);
    if (r < 0)
        goto out;
    (void)LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
    r = 1;

out:
    free(data);
    close(fd);
    return r;
}

/* Returns the number of files replayed, or a negative errno (reported already). */
static long replay_folder(const char *path) {
    long count = 0;
    DIR *dir;

    dir = opendir(path);
    if (!dir) {
        int r = -errno;
        fprintf(stderr, "replay: cannot open %s: %s\n", path, strerror(-r));
        return r;
    }
    for (;;) {
        const struct dirent *entry;
        int r;

        errno = 0;
        entry = readdir(dir);
        if (!entry) {
            if (errno != 0)
                count = -errno;
            break;
        }
        r = replay_file(dirfd(dir), entry->d_name);
        if (r < 0) {
            fprintf(stderr, "replay: cannot read %s/%s: %s\n", path, entry->d_name, strerror(-r));
            count = r;
            break;
        }
        count += r;
    }
    closedir(dir);
    return count;
}

int main(int argc, char **argv) {
    long total = 0;

    if (argc < 2) {
        fprintf(stderr, "usage: %s CORPUS-FOLDER...\n", argv[0]);
        return EXIT_FAILURE;
    }
    for (int i = 1; i < argc; i++) {
        long count = replay_folder(argv[i]);
        if (count < 0)
            return EXIT_FAILURE;
        total += count;
    }
    if (total == 0) {
        fprintf(stderr, "replay: no inputs in the folders given\n");
        return EXIT_FAILURE;
    }
    printf("replayed %ld inputs\n", total);
    return EXIT_SUCCESS;
}
