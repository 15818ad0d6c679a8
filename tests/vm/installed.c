/* SPDX-License-Identifier: MIT */
#include "installed.h"

#include "service.h"

#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- commands ---- */

const char *systemctl(void) {
    return geteuid() == 0 ? "systemctl" : "systemctl --user";
}

static int shell_run(const char *command, char *line, size_t size) {
    FILE *pipe = popen(command, "re");
    int status;

    ck_assert_ptr_nonnull(pipe);
    if (!fgets(line, (int)size, pipe))
        line[0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    while (fgetc(pipe) != EOF)
        ;
    status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int shell(char *line, size_t size, const char *format, ...) {
    char command[512];
    va_list arguments;
    int n;

    va_start(arguments, format);
    n = vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    ck_assert(n >= 0 && (size_t)n < sizeof(command));
    return shell_run(command, line, size);
}

void run(const char *format, ...) {
    char command[512], line[256];
    va_list arguments;
    int n, status;

    va_start(arguments, format);
    n = vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    ck_assert(n >= 0 && (size_t)n < sizeof(command));
    status = shell_run(command, line, sizeof(line));
    ck_assert_msg(status == 0, "%s: status %d: %s", command, status, line);
}

void property(const char *name, char *ret, size_t size) {
    ck_assert_int_eq(shell(ret, size, "%s show --value -p %s droppabled.service", systemctl(), name), 0);
}

bool property_becomes(const char *name, const char *wanted) {
    uint64_t deadline = now_ms() + INSTALLED_WAIT_MS;
    char value[512];

    do {
        property(name, value, sizeof(value));
        if (strstr(value, wanted))
            return true;
        nap_ms(100);
    } while (now_ms() < deadline);
    printf("%s is '%s', not '%s'\n", name, value, wanted);
    return false;
}

unsigned journal_count(const char *text) {
    char line[64];

    (void)shell(line, sizeof(line), "journalctl -b %s droppabled -o cat | grep -c -e '%s'",
                geteuid() == 0 ? "--unit" : "--user-unit", text);
    return (unsigned)strtoul(line, NULL, 10);
}

void journal_entry(const char *fields, char *ret, size_t size) {
    uint64_t deadline = now_ms() + INSTALLED_WAIT_MS;

    for (;;) {
        (void)shell(ret, size, "journalctl -b %s droppabled -o json %s | tail -n 1",
                    geteuid() == 0 ? "--unit" : "--user-unit", fields);
        if (*ret)
            return;
        ck_assert_msg(now_ms() < deadline, "no entry with %s", fields);
        nap_ms(100);
    }
}
