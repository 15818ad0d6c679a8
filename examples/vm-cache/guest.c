/* SPDX-License-Identifier: MIT */

/*
 * The guest's side: the first and only process of a small Linux guest, which keeps a cache in the memory of an ivshmem device. It knows
 * nothing of droppable memory: what its host drops reads as zeros, and a page that does not carry its mark is not in the cache.
 *
 * One command a line from the first serial port, one answer a line: "fill SEED" writes every page; "check SEED" counts those that are as they
 * were written, those that read zeros, and those that are neither; "watch SEED" says that it begins, counts so again and again until there is another
 * command, and says how often, and how many were neither.
 */

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / sizeof(uint64_t))
#define DEVICES "/sys/bus/pci/devices"

static uint64_t *memory;
static size_t pages;

/* Does a file of a PCI device say so? */
static int says(const char *device, const char *name, const char *word) {
    char path[512], line[32] = "";
    FILE *file;

    snprintf(path, sizeof(path), DEVICES "/%s/%s", device, name);
    file = fopen(path, "re");
    if (file) {
        (void)!fgets(line, sizeof(line), file);
        fclose(file);
    }
    return strncmp(line, word, strlen(word)) == 0;
}

/* The second resource of an ivshmem device is its memory. */
static int map_device(const char *device) {
    char path[512];
    struct stat st;
    int fd;

    snprintf(path, sizeof(path), DEVICES "/%s/resource2", device);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -1;
    memory = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED)
        return -1;
    pages = (size_t)st.st_size / PAGE;
    return 0;
}

static int find_memory(void) {
    DIR *devices = opendir(DEVICES);
    int r = -1;

    for (struct dirent *entry; devices && r < 0 && (entry = readdir(devices));)
        if (says(entry->d_name, "vendor", "0x1af4") && says(entry->d_name, "device", "0x1110"))
            r = map_device(entry->d_name);
    if (devices)
        closedir(devices);
    return r;
}

/* splitmix64: no word of it is 0 for these seeds but by chance, which the page's other words make good. */
static uint64_t word_of(uint64_t seed, size_t page, size_t i) {
    uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + page * WORDS + i + 1;

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static void fill(uint64_t seed) {
    for (size_t page = 0; page < pages; page++)
        for (size_t i = 0; i < WORDS; i++)
            memory[page * WORDS + i] = word_of(seed, page, i);
    printf("filled %zu\n", pages);
}

struct count {
    size_t kept, lost, torn;
};

static void look(uint64_t seed, size_t page, size_t *ret_same, size_t *ret_zero) {
    *ret_same = *ret_zero = 0;
    for (size_t i = 0; i < WORDS; i++) {
        uint64_t is = ((volatile uint64_t *)memory)[page * WORDS + i];

        *ret_same += is == word_of(seed, page, i);
        *ret_zero += is == 0;
    }
}

static struct count count_pages(uint64_t seed) {
    struct count count = {0};
    size_t same, zero;

    for (size_t page = 0; page < pages; page++) {
        look(seed, page, &same, &zero);
        if (same != WORDS && zero != WORDS) /* it may have gone while we looked */
            look(seed, page, &same, &zero);
        count.kept += same == WORDS;
        count.lost += same != WORDS && zero == WORDS;
        count.torn += same != WORDS && zero != WORDS;
    }
    return count;
}

static void check(uint64_t seed) {
    struct count count = count_pages(seed);

    printf("kept %zu lost %zu torn %zu\n", count.kept, count.lost, count.torn);
}

static void watch(uint64_t seed) {
    struct pollfd command = {.fd = STDIN_FILENO, .events = POLLIN};
    size_t times = 0, torn = 0;

    printf("watching\n");
    for (; poll(&command, 1, 0) == 0; times++)
        torn += count_pages(seed).torn;
    printf("watched %zu torn %zu\n", times, torn);
}

int main(void) {
    char line[64];
    uint64_t seed;

    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (find_memory() < 0)
        printf("no ivshmem device: %m\n");
    else
        printf("ready %zu\n", pages);
    while (fgets(line, sizeof(line), stdin)) {
        if (sscanf(line, "fill %lu", &seed) == 1)
            fill(seed);
        else if (sscanf(line, "check %lu", &seed) == 1)
            check(seed);
        else if (sscanf(line, "watch %lu", &seed) == 1)
            watch(seed);
        else
            break;
    }
    sync();
    reboot(RB_AUTOBOOT); /* QEMU ends: -no-reboot */
    return 1;
}
