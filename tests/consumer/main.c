/* SPDX-License-Identifier: MIT */

/* A stranger's program: built against the installed library only, by `./run test`. */

#include <droppable/droppable.h>

#include <stdio.h>

int main(void) {
    struct drp_probe probe;
    int r;

    r = drp_get_probe(NULL, &probe);
    if (r < 0) {
        fprintf(stderr, "drp_get_probe: %s: %s\n", drp_strerror(r), drp_detail());
        return 1;
    }
    printf("native: %s, daemon: %s\n", probe.native ? "yes" : "no", probe.daemon ? "yes" : "no");
    return 0;
}
