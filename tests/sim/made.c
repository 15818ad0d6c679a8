/* SPDX-License-Identifier: MIT */
/*
 * Traces made by hand. Chunks of 64 KiB, 16 to the MiB. All accesses are pinned but where it says so, since only those are known exactly.
 */

#include "made.h"

#include <math.h>
#include <stdlib.h>

#define CHUNK_SHIFT 16
#define MIB (UINT64_C(1) << 20)
#define CHUNKS_PER_MIB 16
#define CHUNKS_PER_SPAN (2 * CHUNKS_PER_MIB)
#define MS UINT64_C(1000)
#define SECOND (1000 * MS)
#define DOMAIN 1

static uint64_t random_state;

static double random_part(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (double)(random_state >> 11) / (double)(UINT64_C(1) << 53);
}

static uint32_t region(struct trace *trace, uint64_t mib, unsigned priority, unsigned share) {
    return trace_add_region(trace, &(struct trace_region){
                                       .id = trace->n_regions + 1,
                                       .session = trace->n_regions + 1,
                                       .domain = DOMAIN,
                                       .bytes = mib * MIB,
                                       .chunk_shift = CHUNK_SHIFT,
                                       .priority = priority,
                                       .share = share,
                                   });
}

static void use(struct trace *trace, uint64_t us, uint32_t of, uint64_t first, uint64_t count) {
    trace_add(trace, &(struct trace_event){.us = us, .kind = TRACE_PIN, .region = of, .first = first, .count = count});
}

static void touch(struct trace *trace, uint64_t us, uint32_t of, uint64_t first, uint64_t count) {
    trace_add(trace, &(struct trace_event){.us = us, .kind = TRACE_TOUCH, .region = of, .first = first, .count = count});
}

static void memory(struct trace *trace, uint64_t us, uint64_t mib) {
    trace_add(trace, &(struct trace_event){.us = us, .kind = TRACE_MEMORY, .domain = DOMAIN, .bytes = mib * MIB});
}

static void ask(struct trace *trace, uint64_t us, uint64_t bytes) {
    trace_add(trace, &(struct trace_event){.us = us, .kind = TRACE_ASK, .domain = DOMAIN, .bytes = bytes});
}

/* Zipf with exponent 1, near enough: rank n^u. Spread over the region, as hashes are. */
static uint64_t zipf(uint64_t n) {
    uint64_t rank = (uint64_t)pow((double)n, random_part());

    return (rank >= n ? n - 1 : rank) * 2654435761 % n;
}

static void make_loop(struct trace *trace) {
    uint32_t r = region(trace, 110, 2, 100);

    memory(trace, 0, 100);
    for (unsigned round = 0; round < 20; round++)
        for (uint64_t chunk = 0; chunk < 110 * CHUNKS_PER_MIB; chunk++)
            use(trace, (round * 110 * CHUNKS_PER_MIB + chunk) * 2 * MS, r, chunk, 1);
}

static void make_zipf_scans(struct trace *trace) {
    uint32_t r = region(trace, 200, 2, 100);
    uint64_t us = 0, n = 200 * CHUNKS_PER_MIB;

    memory(trace, 0, 100);
    for (unsigned i = 0; i < 60000; i++, us += 2 * MS) {
        use(trace, us, r, zipf(n), 1);
        if (i % 15000 == 14999)
            for (uint64_t chunk = 0; chunk < n; chunk++, us += MS)
                use(trace, us, r, chunk, 1);
    }
}

static void make_hot_cold(struct trace *trace) {
    uint32_t r = region(trace, 64, 2, 100);
    uint64_t us = 0;

    use(trace, 0, r, 0, 64 * CHUNKS_PER_MIB);
    for (unsigned i = 0; i < 300; i++, us += 200 * MS) {
        use(trace, us, r, 0, MADE_HOT_CHUNKS);
        if (i > 100 && i % 20 == 0)
            ask(trace, us + 100 * MS, 4 * MIB);
    }
}

static void make_stream(struct trace *trace) {
    uint32_t hot = region(trace, 48, 2, 100), stream = region(trace, 512, 2, 100);

    memory(trace, 0, 64);
    for (uint64_t chunk = 0; chunk < 512 * CHUNKS_PER_MIB; chunk++) {
        uint64_t us = chunk * 5 * MS;

        use(trace, us, stream, chunk, 1);
        use(trace, us, hot, (uint64_t)(random_part() * 48 * CHUNKS_PER_MIB), 1);
    }
}

static void make_shares(struct trace *trace) {
    uint32_t regions[2] = {region(trace, 64, 2, 100), region(trace, 64, 2, 300)};

    for (unsigned i = 0; i < 2; i++)
        use(trace, 0, regions[i], 0, 64 * CHUNKS_PER_MIB);
    for (unsigned i = 0; i < 4; i++)
        ask(trace, 60 * SECOND + i * 10 * MS, 3 * MIB);
}

static void make_phases(struct trace *trace) {
    uint32_t regions[2] = {region(trace, 64, 2, 100), region(trace, 64, 2, 100)};

    memory(trace, 0, 80);
    for (unsigned i = 0; i < 2 * 20000; i++)
        use(trace, i * 3 * MS, regions[i / 20000], (uint64_t)(random_part() * 64 * CHUNKS_PER_MIB), 1);
}

static void make_priorities(struct trace *trace) {
    uint32_t low = region(trace, 32, 1, 100), high = region(trace, 32, 3, 100);

    use(trace, 0, high, 0, 32 * CHUNKS_PER_MIB);
    for (unsigned i = 0; i < 100; i++)
        use(trace, i * 300 * MS, low, 0, 32 * CHUNKS_PER_MIB);
    for (unsigned i = 0; i < 7; i++) /* 28 MiB of the 32 */
        ask(trace, 29900 * MS + i * 10 * MS, 4 * MIB);
}

static void make_idle(struct trace *trace) {
    uint32_t idle = region(trace, 64, 2, 100), busy = region(trace, 64, 2, 100);

    use(trace, 0, idle, 0, 64 * CHUNKS_PER_MIB);
    for (unsigned i = 0; i < 60000; i++)
        use(trace, SECOND + i * 2 * MS, busy, (uint64_t)(random_part() * 64 * CHUNKS_PER_MIB), 1);
    for (unsigned i = 0; i < 12; i++)
        ask(trace, 40 * SECOND + i * 5 * SECOND, 5 * MIB);
}

/* Nothing is pinned. Whole spans are used again and again; what streams by beside them is used once. */
static void make_whole(struct trace *trace) {
    uint32_t hot = region(trace, 48, 2, 100), stream = region(trace, 512, 2, 100);

    memory(trace, 0, 64);
    for (uint64_t chunk = 0; chunk < 512 * CHUNKS_PER_MIB; chunk++) {
        uint64_t us = chunk * 5 * MS;

        touch(trace, us, stream, chunk, 1);
        if (chunk % CHUNKS_PER_SPAN == 0)
            touch(trace, us, hot, (uint64_t)(random_part() * 24) * CHUNKS_PER_SPAN, CHUNKS_PER_SPAN);
    }
}

const struct made made[N_MADE] = {
    [MADE_LOOP] = {"loop", "a loop over a tenth more than there is", make_loop},
    [MADE_ZIPF_SCANS] = {"zipf-scans", "zipf over twice the memory, and a scan now and then", make_zipf_scans},
    [MADE_HOT_COLD] = {"hot-cold", "a quarter is used all the time, the rest once", make_hot_cold},
    [MADE_STREAM] = {"stream", "a stream beside what is used again and again", make_stream},
    [MADE_SHARES] = {"shares", "two clients, equally cold, of which one has three times the share", make_shares},
    [MADE_PHASES] = {"phases", "what was hot is never used again", make_phases},
    [MADE_PRIORITIES] = {"priorities", "low and hot beside high and cold", make_priorities},
    [MADE_WHOLE] = {"whole", "spans that are used as a whole and never pinned, beside a stream", make_whole},
    [MADE_IDLE] = {"idle", "a client that sleeps beside one that works", make_idle},
};

void made_make(const struct made *of, struct trace *trace) {
    random_state = 1234567;
    of->make(trace);
    trace_sort(trace);
}
