/* SPDX-License-Identifier: MIT */
#include "preloaded.h"

#include "fixture.h"
#include "program.h"

#include <check.h>

void preloaded_run(int socket, void *data) {
    const struct preloaded *program = data;

    program_become(program->name, program->backend, program->output, socket);
}

struct child preloaded_start(const char *name) {
    struct preloaded program = {.name = name, .backend = "daemon"};
    struct child child;

    child_start(&child, preloaded_run, &program);
    return child;
}

void preloaded_go_on(const struct child *child) {
    ck_assert(child_say(child->socket, '.'));
}

uint64_t preloaded_resident(const struct child *child) {
    return listing_number("sessions", "pid", (uint64_t)child->pid, "resident_bytes");
}

void preloaded_drop_all(void) {
    uint64_t deadline = deadline_in(10000);
    char text[256];

    do {
        ck_assert(now_ms() < deadline);
        ck_assert_int_eq(
            service_ctl(&service, text, sizeof(text), (const char *const[]){"--json", "drop", "--all", NULL}), 0);
    } while (!strstr(text, "\"failed_bytes\":0"));
}
