/* SPDX-License-Identifier: MIT */

/*
 * A virtual machine with a cache that its host may drop. An unmodified QEMU gets the memory of a droppable region as an ivshmem device; the
 * guest fills it, the host drops some of it because it has to, the guest reads zeros there and fills it again.
 *
 * The host has no mapping that the guest's accesses would go through, so they are not intercepted: the service sees what is
 * there by asking the kernel for it.
 */

#include <argp.h>
#include <droppable/droppable.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define PAGE 4096
#define ANSWER_MS 120000 /* an emulated guest takes its time */
#define PRESSURE_MS 10000

struct settings {
    const char *qemu, *kernel, *initrd;
    uint64_t size, hog;
};

struct guest {
    pid_t pid;
    int in;
    FILE *out;
};

static _Noreturn void die(const char *what, const char *why) {
    fprintf(stderr, "vm-cache: %s: %s\n", what, why);
    exit(1);
}

static void check(int r, const char *what) {
    if (r < 0)
        die(what, *drp_detail() ? drp_detail() : drp_strerror(r));
}

/* ---- the guest ---- */

static _Noreturn void run_qemu(const struct settings *settings, int memory) {
    char backend[128], size[32];

    /* QEMU opens it by name; the descriptor is inherited. */
    snprintf(backend, sizeof(backend), "memory-backend-file,id=cache,share=on,mem-path=/proc/self/fd/%d,size=%" PRIu64,
             memory, settings->size);
    snprintf(size, sizeof(size), "%dM", 128);
    execlp(settings->qemu, settings->qemu, "-M", "pc", "-m", size, "-kernel", settings->kernel, "-initrd",
           settings->initrd, "-append", "console=ttyS0 quiet loglevel=1 panic=-1", "-nodefaults", "-no-user-config",
           "-nic", "none", "-display", "none", "-no-reboot", "-serial", "stdio", "-object", backend, "-device",
           "ivshmem-plain,memdev=cache", NULL);
    die(settings->qemu, strerror(errno));
}

static void start_guest(struct guest *guest, const struct settings *settings, struct drp_region *region) {
    int in[2], out[2], memory;
    uint64_t offset;

    if (pipe(in) < 0 || pipe(out) < 0)
        die("pipe", strerror(errno));
    memory = drp_region_get_object(region, &offset);
    check(memory, "the region's object");
    if (offset != 0)
        die("the region's object", "the region does not begin at its start, and QEMU 7.2 knows no offset");
    guest->pid = fork();
    if (guest->pid < 0)
        die("fork", strerror(errno));
    if (guest->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        memory = dup(memory); /* without FD_CLOEXEC */
        run_qemu(settings, memory);
    }
    close(memory);
    close(in[0]);
    close(out[1]);
    guest->in = in[1];
    guest->out = fdopen(out[0], "r");
}

/* The next line that begins with the word; the guest's firmware and kernel may say other things. */
static void hear(struct guest *guest, const char *word, char *line, int size) {
    struct pollfd readable = {.fd = fileno(guest->out), .events = POLLIN};

    for (;;) {
        char *found;

        if (poll(&readable, 1, ANSWER_MS) <= 0)
            die("the guest", "says nothing");
        if (!fgets(line, size, guest->out))
            die("the guest", "has ended");
        found = strstr(line, word);
        if (found) {
            memmove(line, found, strlen(found) + 1);
            return;
        }
        if (strstr(line, "no ivshmem"))
            die("the guest", line);
    }
}

static void ask(struct guest *guest, const char *command, unsigned seed, const char *word, char *line, int size) {
    dprintf(guest->in, "%s %u\n", command, seed);
    hear(guest, word, line, size);
}

struct count {
    uint64_t kept, lost, torn;
};

static struct count hear_count(struct guest *guest) {
    struct count count;
    char line[256];

    hear(guest, "kept ", line, sizeof(line));
    if (sscanf(line, "kept %" SCNu64 " lost %" SCNu64 " torn %" SCNu64, &count.kept, &count.lost, &count.torn) != 3)
        die("the guest", line);
    printf("guest: %" PRIu64 " pages kept, %" PRIu64 " lost, %" PRIu64 " torn\n", count.kept, count.lost, count.torn);
    if (count.torn > 0)
        die("the guest", "a page is neither as it was written nor zeros");
    return count;
}

static struct count ask_check(struct guest *guest, unsigned seed) {
    dprintf(guest->in, "check %u\n", seed);
    return hear_count(guest);
}

/* The guest reads all the time from here on, until it is asked for something else. */
static void ask_watch(struct guest *guest, unsigned seed) {
    char line[256];

    ask(guest, "watch", seed, "watching", line, sizeof(line));
}

static struct count end_watch(struct guest *guest, unsigned seed) {
    uint64_t times, torn;
    char line[256];

    dprintf(guest->in, "check %u\n", seed);
    hear(guest, "watched ", line, sizeof(line));
    if (sscanf(line, "watched %" SCNu64 " torn %" SCNu64, &times, &torn) != 2)
        die("the guest", line);
    printf("guest: read all of it %" PRIu64 " times meanwhile, %" PRIu64 " torn\n", times, torn);
    if (torn > 0)
        die("the guest", "a page was neither as it was written nor zeros while it was dropped");
    return hear_count(guest);
}

/* ---- the host ---- */

/* So far. Who looks at what is left sees a guest that reads bring it back, as zeros. */
static uint64_t dropped(struct drp *d) {
    struct drp_stats stats;

    check(drp_get_stats(d, &stats), "figures");
    return stats.dropped_bytes;
}

/* Another process of this cgroup takes so much memory, and holds it. */
static pid_t start_hog(uint64_t bytes) {
    int done[2];
    pid_t pid;
    char c;

    if (pipe(done) < 0 || (pid = fork()) < 0)
        die("a process that takes memory", strerror(errno));
    if (pid == 0) {
        char *p;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(done[0]);
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            _exit(1);
        for (uint64_t at = 0; at < bytes; at += PAGE)
            p[at] = 1;
        (void)!write(done[1], "", 1);
        for (;;)
            pause();
    }
    close(done[1]);
    if (read(done[0], &c, 1) != 1)
        die("the process that takes memory", "was ended by the kernel");
    close(done[0]);
    return pid;
}

/* The service has to drop: since memory is short, or since we say that half is enough. */
static void press(struct drp *d, const struct settings *settings) {
    uint64_t before = dropped(d), wanted = settings->hog > 0 ? 1 : settings->size / 2, now;
    pid_t hog = 0;

    if (settings->hog > 0) {
        hog = start_hog(settings->hog);
        printf("host: another process has taken %" PRIu64 " MiB\n", settings->hog / MIB);
    } else {
        check(drp_set_budget(d, settings->size / 2), "budget");
        printf("host: the budget is half of it now\n");
    }
    for (unsigned waited = 0; (now = dropped(d)) - before < wanted && waited < PRESSURE_MS; waited++)
        usleep(1000);
    printf("host: %" PRIu64 " of %" PRIu64 " MiB dropped\n", (now - before) / MIB, settings->size / MIB);
    if (now - before < wanted)
        die("the service", "dropped nothing, or too little");
    if (hog > 0) {
        kill(hog, SIGKILL);
        waitpid(hog, NULL, 0);
    } else
        check(drp_set_budget(d, UINT64_MAX), "budget");
}

static void run(struct drp *d, struct drp_region *region, const struct settings *settings) {
    struct guest guest;
    struct count count;
    char line[256];
    int status;

    start_guest(&guest, settings, region);
    hear(&guest, "ready ", line, sizeof(line));
    printf("guest: up, %" PRIu64 " pages\n", settings->size / PAGE);
    ask(&guest, "fill", 1, "filled ", line, sizeof(line));
    count = ask_check(&guest, 1);
    if (count.lost > 0)
        die("the service", "dropped without need");
    ask_watch(&guest, 1);
    press(d, settings);
    count = end_watch(&guest, 1);
    if (count.lost == 0 || count.kept + count.lost != settings->size / PAGE)
        die("the guest", "sees no loss");
    ask(&guest, "fill", 2, "filled ", line, sizeof(line));
    count = ask_check(&guest, 2);
    if (count.lost > 0)
        die("the service", "dropped without need");
    dprintf(guest.in, "quit\n");
    if (waitpid(guest.pid, &status, 0) != guest.pid || status != 0)
        die("QEMU", "ended badly");
    fclose(guest.out);
    close(guest.in);
}

/* ---- the command line ---- */

static uint64_t parse_mib(const char *text, struct argp_state *state) {
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (*end || value == 0 || value > 65536)
        argp_error(state, "'%s' is no number of MiB from 1 to 65536", text);
    return value * MIB;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct settings *settings = state->input;

    switch (key) {
    case 'k':
        settings->kernel = arg;
        return 0;
    case 'i':
        settings->initrd = arg;
        return 0;
    case 'q':
        settings->qemu = arg;
        return 0;
    case 's':
        settings->size = parse_mib(arg, state);
        if (settings->size & (settings->size - 1))
            argp_error(state, "--size: a PCI device's memory is a power of two");
        return 0;
    case 'H':
        settings->hog = parse_mib(arg, state);
        return 0;
    case ARGP_KEY_END:
        if (!settings->kernel || !settings->initrd)
            argp_error(state, "--kernel and --initrd are needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv) {
    static const struct argp_option options[] = {
        {"kernel", 'k', "FILE", 0, "The guest's Linux kernel", 0},
        {"initrd", 'i', "FILE", 0, "The guest's initramfs, whose init is vm-cache-guest", 0},
        {"qemu", 'q', "PROGRAM", 0, "qemu-system-x86_64", 0},
        {"size", 's', "MIB", 0, "The cache, a power of two (64)", 0},
        {"hog", 'H', "MIB", 0, "Have another process take so much memory, instead of setting a budget", 0},
        {0},
    };
    static const struct argp argp = {.options = options,
                                     .parser = parse,
                                     .doc = "A QEMU guest with a cache in droppable memory of its host.\v"
                                            "Exit status: 0 fine, 1 something was wrong, 77 no service."};
    struct settings settings = {.qemu = "qemu-system-x86_64", .size = 64 * MIB};
    struct drp_region *region;
    struct drp *d;
    int r;

    argp_parse(&argp, argc, argv, 0, NULL, &settings);
    setvbuf(stdout, NULL, _IOLBF, 0);
    r = drp_new(&d, NULL);
    if (r < 0)
        return fprintf(stderr, "skipped: %s %s\n", drp_strerror(r), drp_detail()), 77;
    check(drp_region_new(
              &region, d, settings.size,
              &(struct drp_region_options){.struct_size = sizeof(struct drp_region_options), .chunk_size = 65536}),
          "a region");
    run(d, region, &settings);
    region = drp_region_free(region);
    d = drp_free(d);
    return 0;
}
