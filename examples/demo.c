/* SPDX-License-Identifier: MIT */

/*
 * The demo: a cache and a hog share a memory cgroup that is too small for both. The service drops what the cache has
 * not pinned, early enough that the kernel's OOM killer has nothing to do; the cache computes again what it misses.
 *
 * Three processes. The parent directs, samples the cgroup's usage each millisecond, prints and judges; it maps no
 * droppable memory. Cache and hog are its children, in the cgroup before they allocate; they talk to it by one shared
 * page of atomics and die with it. The cgroup belongs to droppable-demo-group, by which this program starts itself
 * anew. Signals are blocked, and taken by sigtimedwait(2) between two looks.
 *
 * Without the right to make a cgroup there is no hog: filling the whole machine would harm everything on it. The cache
 * then has its region dropped by hand, and all but the timing is checked the same way.
 *
 * Exit status: 0 everything was as promised, 1 something was not, 77 no service, 128 + N ended by signal N.
 */

#include <droppable/droppable.h>
#include <err.h>
#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)
#define LIMIT (320 * MIB)
#define OBJECT_SIZE (64 * KIB)
#define OBJECTS 2560u
#define PIN_EVERY 16u
#define PINNED (OBJECTS / PIN_EVERY)
#define REGION_SIZE (OBJECTS * OBJECT_SIZE)
#define WORDS (OBJECT_SIZE / sizeof(uint64_t))
#define HOG_SIZE (LIMIT - 60 * MIB) /* fits beside the pinned objects, not beside the whole cache */
#define HOG_HOLD_MS 800
#define PATIENCE_MS 20000 /* for one act */

enum phase { PHASE_START, PHASE_FILL, PHASE_PRESSURE, PHASE_READ, PHASE_END };
enum hog { HOG_WAITS, HOG_GROWS, HOG_HOLDS, HOG_LEAVES };

/* The page between the processes. The parent writes phase, the hog its own two, the cache all others. */
struct shared {
    _Atomic int phase;
    _Atomic int done; /* the last phase that the cache has finished */
    _Atomic int hog;
    _Atomic uint64_t hog_bytes;
    _Atomic uint64_t resident, dropped, refaults; /* drp_get_stats() */
    _Atomic uint64_t drop_ns;                     /* of the drop by hand */
    _Atomic unsigned lost, zeros, recomputed;     /* dropped objects that were touched again, and how that went */
    _Atomic unsigned damaged;                     /* not dropped, and yet not what was written */
    _Atomic unsigned pinned_intact;
    char error[400]; /* of the cache, before it ends itself */
};

static struct shared *shared;

static uint64_t now_ns(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static unsigned mib(uint64_t bytes) {
    return (unsigned)(bytes / MIB);
}

/* ---- the memory cgroup, made and removed by droppable-demo-group ---- */

static const char *group; /* its directory; NULL: there is none */

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

/* The number behind a key ("": the file is one number). @fallback if there is none. */
static uint64_t read_number(const char *directory, const char *name, const char *key, uint64_t fallback) {
    char path[PATH_MAX + 64], line[256];
    uint64_t value = fallback;
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    file = fopen(path, "re");
    if (!file)
        return fallback;
    while (fgets(line, sizeof(line), file))
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtoull(line + strlen(key), NULL, 10);
    fclose(file);
    return value;
}

/* The calling process, before it allocates anything. */
static bool group_join(void) {
    return !group || write_file(group, "cgroup.procs", "0") == 0;
}

/* What may still be allocated: in the group, or in the machine if there is no group. Of two names the first is v1's. */
static uint64_t group_headroom(void) {
    uint64_t usage;

    if (!group)
        return read_number("/proc", "meminfo", "MemAvailable:", 0) * KIB;
    usage = read_number(group, "memory.usage_in_bytes", "", read_number(group, "memory.current", "", LIMIT));
    return usage < LIMIT ? LIMIT - usage : 0;
}

static uint64_t group_oom_kills(void) {
    return read_number(group, "memory.oom_control", "oom_kill ", read_number(group, "memory.events", "oom_kill ", 0));
}

/* ---- the cache, a child ---- */

static struct object {
    uint64_t generation;
    unsigned round; /* computed so many times: each time to another contents */
} objects[OBJECTS];

static struct drp *connection;
static struct drp_region *region;

static _Noreturn void cache_fail(const char *what, int error) {
    snprintf(shared->error, sizeof(shared->error), "%s: %s %.200s", what, drp_strerror(error), drp_detail());
    _exit(1);
}

/* The contents of an object, word by word; stands for a decoded image, an index block. After splitmix64. */
static uint64_t word_of(unsigned key, size_t i) {
    uint64_t x = ((uint64_t)key << 40 | (uint64_t)objects[key].round << 16 | i) + UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t *words_of(unsigned key) {
    return (uint64_t *)((char *)drp_region_address(region) + key * OBJECT_SIZE);
}

static void compute(unsigned key) {
    for (size_t i = 0; i < WORDS; i++)
        words_of(key)[i] = word_of(key, i);
}

static bool is_right(unsigned key) {
    size_t i = 0;

    while (i < WORDS && words_of(key)[i] == word_of(key, i))
        i++;
    return i == WORDS;
}

static bool is_zero(unsigned key) {
    static const char zeros[OBJECT_SIZE];

    return memcmp(words_of(key), zeros, OBJECT_SIZE) == 0;
}

/*
 * Uses an object as caches do: pins it, and computes it if it is new or its generation tells that it was dropped.
 * Leaves it pinned if @keep.
 */
static void visit(unsigned key, bool keep) {
    uint64_t generation;
    int r = drp_pin(region, key * OBJECT_SIZE, OBJECT_SIZE, &generation);

    if (r < 0)
        cache_fail("pinning an object", r);
    if (objects[key].round > 0 && generation == objects[key].generation) {
        shared->damaged += !is_right(key);
    } else {
        bool lost = objects[key].round++ > 0;

        shared->lost += lost;
        shared->zeros += lost && is_zero(key);
        objects[key].generation = generation;
        compute(key);
        shared->recomputed += lost && is_right(key);
    }
    if (!keep)
        drp_unpin(region, key * OBJECT_SIZE, OBJECT_SIZE);
}

/* A pinned object must never change, so one wrong look counts as damage for good. */
static bool check_pinned(unsigned key) {
    bool right = drp_generation(region, key * OBJECT_SIZE, OBJECT_SIZE) == objects[key].generation && is_right(key);

    shared->damaged += !right;
    return right;
}

static void publish_stats(void) {
    struct drp_stats stats;
    int r = drp_get_stats(connection, &stats);

    if (r < 0)
        cache_fail("asking for the figures", r);
    shared->resident = stats.resident_bytes;
    shared->dropped = stats.dropped_bytes;
    shared->refaults = stats.refaults;
}

static void await_phase(int phase) {
    while (shared->phase < phase)
        usleep(1000);
}

/* While memory is short: goes on with its work, at an easy pace; looks at a pinned object at every step. */
static void cache_under_pressure(bool by_hand) {
    uint64_t start = now_ns();
    int r = 0;

    if (by_hand) {
        r = drp_drop(region, 0, REGION_SIZE, NULL, NULL);
        shared->drop_ns = now_ns() - start;
        if (r < 0)
            cache_fail("dropping by hand", r);
    }
    for (unsigned i = 0; !by_hand && shared->phase == PHASE_PRESSURE; i++) {
        check_pinned(i % PINNED * PIN_EVERY);
        if (i % 4 == 0)
            visit(i * 1021 % OBJECTS, false); /* some of them pinned */
        publish_stats();
        usleep(5000);
    }
    publish_stats();
}

static void cache_main(void) {
    struct drp_region_options options = {.struct_size = sizeof(options), .chunk_size = OBJECT_SIZE};
    int r;

    if (!group_join())
        cache_fail("entering the control group", -EACCES);
    await_phase(PHASE_FILL);
    r = drp_new(&connection, NULL);
    if (r < 0)
        cache_fail("connecting to the service", r);
    r = drp_region_new(&region, connection, REGION_SIZE, &options);
    if (r < 0)
        cache_fail("making a region", r);
    for (unsigned key = 0; key < OBJECTS; key++)
        visit(key, key % PIN_EVERY == 0);
    publish_stats();
    shared->done = PHASE_FILL;

    await_phase(PHASE_PRESSURE);
    cache_under_pressure(!group);
    shared->done = PHASE_PRESSURE;

    await_phase(PHASE_READ);
    for (unsigned key = 0; key < OBJECTS; key++) {
        if (key % PIN_EVERY == 0)
            shared->pinned_intact += check_pinned(key);
        else
            visit(key, false);
        if (key % 64 == 0)
            publish_stats();
    }
    publish_stats();
    shared->done = PHASE_READ;
    await_phase(PHASE_END); /* the service frees what is ours */
}

/* ---- the hog, a child ---- */

static void hog_main(void) {
    char *memory = mmap(NULL, HOG_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED || !group_join())
        _exit(1);
    madvise(memory, HOG_SIZE, MADV_NOHUGEPAGE);
    write_file("/proc/self", "oom_score_adj", "1000"); /* if one of us must be killed, then this one */
    await_phase(PHASE_PRESSURE);
    shared->hog = HOG_GROWS;
    for (size_t i = 0; i < HOG_SIZE; i += 4 * KIB) {
        memset(memory + i, 1, 4 * KIB);
        shared->hog_bytes = i + 4 * KIB;
    }
    shared->hog = HOG_HOLDS;
    usleep(HOG_HOLD_MS * 1000);
    shared->hog = HOG_LEAVES;
}

/* ---- the sampler, a thread of the parent ---- */

/* How long the headroom was under the reserve while the hog was there. Read by others when the thread has ended. */
struct sampler {
    pthread_t thread;
    bool started;
    uint64_t reserve;
    uint64_t lowest;
    uint64_t since;   /* under the reserve since then; 0: it is not */
    uint64_t longest; /* nanoseconds */
    unsigned crossings;
    bool settled; /* seen at the reserve or over it while the hog had all it wants */
};

static void *sampler_main(void *argument) {
    struct sampler *sampler = argument;

    for (; shared->phase == PHASE_PRESSURE; usleep(1000)) {
        bool holds = shared->hog == HOG_HOLDS;
        uint64_t headroom = group_headroom(), now = now_ns();

        if (shared->hog == HOG_LEAVES)
            break; /* what it leaves is nobody's merit */
        if (headroom < sampler->lowest)
            sampler->lowest = headroom;
        if (sampler->since > 0 && now - sampler->since > sampler->longest)
            sampler->longest = now - sampler->since;
        if (headroom >= sampler->reserve) {
            sampler->since = 0;
            sampler->settled |= holds;
        } else if (sampler->since == 0) {
            sampler->since = now;
            sampler->crossings++;
        }
    }
    return NULL;
}

/* ---- the parent ---- */

struct demo {
    struct sampler sampler;
    pid_t cache, hog; /* 0: reaped, or never there */
    int killed;       /* signal that ended a child too early */
    int interrupted;  /* signal that this process got */
    uint64_t start;
    uint64_t given_back;
    uint64_t oom_kills;
    sigset_t signals;
};

static bool reap(struct demo *demo, pid_t *pid, const char *name) {
    int status;

    if (*pid == 0 || waitpid(*pid, &status, WNOHANG) != *pid)
        return true;
    *pid = 0;
    if (WIFSIGNALED(status))
        return demo->killed = WTERMSIG(status), warnx("the %s was killed by signal %d", name, demo->killed), false;
    if (WEXITSTATUS(status) != 0)
        return warnx("the %s gave up: %s", name, shared->error), false;
    return true;
}

/* Sleeps a little. false: a signal came, or a child has ended as it should not. */
static bool tick(struct demo *demo) {
    struct timespec pause = {.tv_nsec = 10000000};
    int number = sigtimedwait(&demo->signals, NULL, &pause);

    if (number > 0)
        demo->interrupted = number;
    return demo->interrupted == 0 && reap(demo, &demo->hog, "hog") && reap(demo, &demo->cache, "cache");
}

static void print_line(const struct demo *demo) {
    printf("  %6.2f s %8u MiB %8u MiB %8u MiB %9u %9u MiB\n", (double)(now_ns() - demo->start) / 1e9,
           mib(group_headroom()), mib(shared->resident), mib(shared->dropped), (unsigned)shared->refaults,
           shared->hog == HOG_LEAVES ? 0 : mib(shared->hog_bytes));
}

/* One act: goes on until the cache has done its part, under pressure until the hog is gone. */
static bool run_phase(struct demo *demo, int phase) {
    uint64_t start = now_ns(), printed = start;

    shared->phase = phase;
    while (group && phase == PHASE_PRESSURE ? demo->hog > 0 : shared->done < phase) {
        if (!tick(demo))
            return false;
        if (now_ns() - start > PATIENCE_MS * UINT64_C(1000000))
            return warnx("this takes too long, giving up"), false;
        if (now_ns() - printed >= (shared->hog == HOG_GROWS ? 50000000 : 200000000)) {
            printed = now_ns();
            print_line(demo);
        }
    }
    print_line(demo);
    return true;
}

/* Path of a program in the same directory as this one; its name alone if that can't be found out. */
static void beside_self(char ret[PATH_MAX], const char *name) {
    ssize_t length = readlink("/proc/self/exe", ret, PATH_MAX - 32);

    ret[length > 0 ? length : 0] = '\0';
    strcpy(strrchr(ret, '/') ? strrchr(ret, '/') + 1 : ret, name);
}

/* What the service keeps free in the group, as `droppablectl list` has it. 0: it did not tell. */
static uint64_t ask_reserve(void) {
    struct json_object *list, *domains;
    char program[PATH_MAX];
    uint64_t reserve = 0;
    FILE *output;

    beside_self(program, "droppablectl");
    setenv("DROPPABLECTL", program, 1);
    output = popen("exec \"$DROPPABLECTL\" --json list", "re");
    if (!output)
        return 0;
    list = json_object_from_fd(fileno(output));
    pclose(output);
    domains = json_object_object_get(list, "domains");
    for (size_t i = 0; domains && i < json_object_array_length(domains); i++) {
        struct json_object *domain = json_object_array_get_idx(domains, i);
        const char *path = json_object_get_string(json_object_object_get(domain, "path"));
        const char *name = path ? strrchr(path, '/') : NULL; /* of a long path its end is told */

        if (name && strcmp(name, strrchr(group, '/')) == 0)
            reserve = json_object_get_uint64(json_object_object_get(domain, "reserve"));
    }
    json_object_put(list);
    return reserve;
}

static bool act_pressure(struct demo *demo) {
    bool ok;

    if (group) {
        demo->sampler = (struct sampler){.reserve = ask_reserve(), .lowest = LIMIT};
        if (demo->sampler.reserve == 0)
            return warnx("droppablectl list does not tell the reserve of %s", group), false;
        printf("\n2. The hog writes %u MiB as fast as it can, and holds them. The service keeps a reserve of %u MiB.\n",
               mib(HOG_SIZE), mib(demo->sampler.reserve));
        shared->phase = PHASE_PRESSURE;
        demo->sampler.started = pthread_create(&demo->sampler.thread, NULL, sampler_main, &demo->sampler) == 0;
    } else {
        printf("\n2. The cache asks for a drop of everything, as `droppablectl drop --all` would.\n");
    }
    ok = run_phase(demo, PHASE_PRESSURE);
    demo->given_back = shared->dropped;
    return ok;
}

static bool run_acts(struct demo *demo) {
    printf("\n1. The cache fills %u MiB of droppable memory: %u objects of %u KiB. One in %u is pinned: it must stay.\n"
           "  (refaults: returns to dropped memory that the service saw; it need not see more than one in each 2 MiB)\n"
           "      time     headroom     resident      dropped  refaults      hog has\n",
           mib(REGION_SIZE), OBJECTS, (unsigned)(OBJECT_SIZE / KIB), PIN_EVERY);
    if (!run_phase(demo, PHASE_FILL) || !act_pressure(demo))
        return false;
    printf("\n3. %sThe cache reads all its objects, and computes again what it has lost.\n",
           group ? "The hog is gone. " : "");
    return run_phase(demo, PHASE_READ);
}

__attribute__((format(printf, 3, 4))) static bool verdict(bool ok, const char *name, const char *format, ...) {
    va_list arguments;

    printf("  %-5s %-24s ", ok ? "ok" : "WRONG", name);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    return ok;
}

static bool judge(const struct demo *demo, bool finished) {
    const struct sampler *sampler = &demo->sampler;
    unsigned lost = shared->lost, zeros = shared->zeros, recomputed = shared->recomputed;
    bool ok = finished;

    printf("\nVerdict\n");
    ok &= verdict(demo->given_back > 0, "given back", "%u MiB", mib(demo->given_back));
    if (!group) {
        ok &= verdict(shared->drop_ns > 0, "time for it", "%.1f ms", (double)shared->drop_ns / 1e6);
    } else {
        ok &= verdict(sampler->settled, "reserve free again",
                      "after %.1f ms at most; crossed %u times; at least %u MiB of headroom left",
                      (double)sampler->longest / 1e6, sampler->crossings, mib(sampler->lowest));
        ok &= verdict(demo->oom_kills == 0 && demo->killed == 0, "OOM kills", "%u", (unsigned)demo->oom_kills);
    }
    if (finished) {
        ok &= verdict(shared->pinned_intact == PINNED, "pinned objects intact", "%u of %u", shared->pinned_intact,
                      PINNED);
        ok &= verdict(lost > 0 && zeros == lost && recomputed == lost, "dropped objects",
                      "%u of %u read as zeros, %u computed again", zeros, lost, recomputed);
    }
    ok &= verdict(shared->damaged == 0, "objects damaged", "%u", shared->damaged);
    printf("%s\n", ok ? "Everything is as promised." : "Something is NOT as promised.");
    return ok;
}

/* Its process id; -1: fork failed. */
static pid_t start_child(void (*child_main)(void)) {
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    child_main();
    _exit(0);
}

static bool start_children(struct demo *demo) {
    demo->cache = start_child(cache_main);
    demo->hog = group ? start_child(hog_main) : 0;
    if (demo->cache < 0 || demo->hog < 0)
        return warn("fork"), false;
    return true;
}

/* Ends what still runs, on every path. */
static void clean_up(struct demo *demo) {
    shared->phase = PHASE_END;
    if (demo->sampler.started)
        pthread_join(demo->sampler.thread, NULL);
    if (demo->cache > 0 && kill(demo->cache, SIGKILL) == 0)
        waitpid(demo->cache, NULL, 0);
    if (demo->hog > 0 && kill(demo->hog, SIGKILL) == 0)
        waitpid(demo->hog, NULL, 0);
}

/* Starts this program anew by droppable-demo-group. Returns only if that fails. */
static void enter_group(void) {
    char self[PATH_MAX], helper[PATH_MAX], limit[32];

    beside_self(self, "droppable-demo");
    beside_self(helper, "droppable-demo-group");
    snprintf(limit, sizeof(limit), "%ju", (uintmax_t)LIMIT);
    execl(helper, helper, limit, self, NULL);
}

static void explain(const char *why_no_group) {
    puts("droppable-demo: what becomes of a cache in droppable memory when memory runs short\n");
    if (group)
        printf("A cache and a hog share a control group of %u MiB. Together they want %u MiB: without droppable\n"
               "memory the kernel's OOM killer would have to end one of them.\n",
               mib(LIMIT), mib(REGION_SIZE + HOG_SIZE));
    else
        printf("There is no control group in which memory could run short here (%s).\n"
               "Filling the whole machine would trouble everybody on it, so a drop is asked for by hand instead.\n",
               why_no_group);
}

static bool find_service(void) {
    struct drp_probe probe = {0};
    int r = drp_get_probe(NULL, &probe);

    if (r == 0 && probe.daemon)
        return true;
    warnx("no service at %s: %s", probe.daemon_socket, drp_strerror(r < 0 ? r : probe.daemon_error));
    warnx("start one for the demo alone: droppablectl run -- droppable-demo");
    return false;
}

int main(void) {
    const char *given = getenv("DROPPABLE_DEMO_GROUP");
    struct demo demo = {.start = now_ns()};
    bool ok;

    if (!given)
        enter_group();
    if (!find_service())
        return 77;
    group = given && *given == '/' ? given : NULL;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        err(1, "mmap");
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&demo.signals);
    sigaddset(&demo.signals, SIGINT);
    sigaddset(&demo.signals, SIGTERM);
    sigaddset(&demo.signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &demo.signals, NULL);

    explain(given ? given : "droppable-demo-group was not found");
    ok = start_children(&demo) && run_acts(&demo);
    clean_up(&demo);
    if (demo.interrupted)
        return warnx("interrupted"), 128 + demo.interrupted;
    demo.oom_kills = group ? group_oom_kills() : 0;
    return judge(&demo, ok) ? 0 : 1;
}
