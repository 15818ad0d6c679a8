/* SPDX-License-Identifier: MIT */
/* What the main() of every test program ends with. */

#include "suite.h"

#include <stdio.h>
#include <stdlib.h>

void suite_skip_part(const char *what, const char *reason) {
    const char *path = getenv("DROPPABLE_TEST_SKIPS");
    FILE *file = path ? fopen(path, "ae") : NULL;

    printf("%s: skipped: %s\n", what, reason);
    if (file) {
        fprintf(file, "%s: %s\n", what, reason);
        fclose(file);
    }
}

int suite_run(Suite *suite) {
    SRunner *runner = srunner_create(suite);
    int failed;

    setvbuf(stdout, NULL, _IOLBF, 0); /* a failing test takes what is in the buffer along */
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
