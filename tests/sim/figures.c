/* SPDX-License-Identifier: MIT */
/* Runs and their means. */

#include "figures.h"

#include "world.h"

#define MIB ((double)(UINT64_C(1) << 20))

static void add_run(struct figures *figures, const struct world *world, double part) {
    figures->freed += (double)world->freed * part;
    figures->refaults += (double)world->refaults * part;
    figures->refaulted += (double)world->refaulted_bytes * part;
    figures->span_refaults += (double)world->span_refaults * part;
    figures->asked += (double)world->asked * part;
    figures->unmet += (double)world->unmet * part;
    if ((double)world->unmet_resident > figures->unmet_resident)
        figures->unmet_resident = (double)world->unmet_resident;
    for (size_t i = 0; i < world->trace->n_regions && i < FIGURES_REGIONS; i++)
        figures->of_region[i] += (double)world->regions[i].freed * part;
    if (world->plans > 0)
        figures->plan_us += (double)world->plan_ns / (double)world->plans / 1000 * part;
    if ((double)world->plan_most / 1000 > figures->plan_most_us)
        figures->plan_most_us = (double)world->plan_most / 1000;
}

void figures_take(const struct trace *trace, struct figures ret[N_CONTENDERS]) {
    for (unsigned i = 0; i < N_CONTENDERS; i++) {
        ret[i] = (struct figures){0};
        for (unsigned run = 0; run < contenders[i].runs; run++) {
            struct world world;

            world_run(&world, trace, &contenders[i], run + 1);
            add_run(&ret[i], &world, 1.0 / contenders[i].runs);
            world_deinit(&world);
        }
    }
}

double figures_rate(const struct figures *figures) {
    return figures->freed > 0 ? figures->refaults / (figures->freed / MIB) : 0;
}
