/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_SIM_FIGURES_H
#define DROPPABLE_SIM_FIGURES_H

/* What came of a trace, for each contender. */

#include "contender.h"
#include "trace.h"

#define FIGURES_REGIONS 8

struct figures {
    double freed;         /* bytes, as all of these the mean of the runs */
    double refaults;      /* chunks that were missed */
    double refaulted;     /* bytes */
    double span_refaults; /* spans from which something was missed */
    double asked, unmet;
    double unmet_resident;             /* of the worst run: bytes that were left though a demand was not met */
    double of_region[FIGURES_REGIONS]; /* bytes freed of the first regions */
    double plan_us, plan_most_us;      /* ours: the mean and the longest */
};

void figures_take(const struct trace *trace, struct figures ret[N_CONTENDERS]);
/* Refaults per MiB freed; 0 if nothing was. */
double figures_rate(const struct figures *figures);

#endif
