/* SPDX-License-Identifier: MIT */
/*
 * Log lines.
 *
 * A line is formatted into a buffer on the stack and leaves in one write(2): lines of several threads never mix,
 * nothing is allocated, and a reader that is gone costs nothing but the line. Whether stderr is the journal is decided
 * once, by comparing it with $JOURNAL_STREAM (systemd.exec(5)); an inherited variable alone proves nothing, as stderr
 * may have been redirected since.
 *
 * Text from outside (names that clients chose, paths) must not be able to forge a line or to talk to a terminal: bytes
 * below 32, DEL and the C1 controls of UTF-8 become '?'.
 */

#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_LINE_MAX 1000

static enum log_level log_max = LOG_LEVEL_INFO;
static bool log_journal;

static bool stderr_is_journal(void) {
    const char *text = getenv("JOURNAL_STREAM");
    uintmax_t dev;
    uintmax_t ino;
    struct stat st;

    if (!text || sscanf(text, "%ju:%ju", &dev, &ino) != 2)
        return false;
    if (fstat(STDERR_FILENO, &st) < 0)
        return false;
    return st.st_dev == dev && st.st_ino == ino;
}

void log_init(enum log_level max) {
    log_max = max;
    log_journal = stderr_is_journal();
}

int log_level_parse(const char *text) {
    static const struct {
        const char *name;
        enum log_level level;
    } levels[] = {
        {"error", LOG_LEVEL_ERROR}, {"warning", LOG_LEVEL_WARNING}, {"notice", LOG_LEVEL_NOTICE},
        {"info", LOG_LEVEL_INFO},   {"debug", LOG_LEVEL_DEBUG},
    };

    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
        if (strcmp(text, levels[i].name) == 0)
            return (int)levels[i].level;
    return -EINVAL;
}

static void replace_controls(char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)text[i];

        if (byte < 0x20 || byte == 0x7f) {
            text[i] = '?';
        } else if (byte == 0xc2 && i + 1 < size) {
            unsigned char next = (unsigned char)text[i + 1];

            if (next >= 0x80 && next <= 0x9f)
                text[i] = text[i + 1] = '?';
        }
    }
}

static void write_all(const char *text, size_t size) {
    while (size > 0) {
        ssize_t n = write(STDERR_FILENO, text, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        text += n;
        size -= (size_t)n;
    }
}

void log_line(enum log_level level, const char *format, ...) {
    char buffer[32 + LOG_LINE_MAX + 1];
    int saved = errno;
    va_list args;
    size_t prefix;
    int n;

    if (level > log_max)
        return;

    n = log_journal ? snprintf(buffer, 32, "<%d>", (int)level) : snprintf(buffer, 32, "droppabled: ");
    prefix = (size_t)n;

    va_start(args, format);
    errno = saved; /* for %m */
    n = vsnprintf(buffer + prefix, LOG_LINE_MAX + 1, format, args);
    va_end(args);

    if (n >= 0) {
        size_t size = n < LOG_LINE_MAX ? (size_t)n : LOG_LINE_MAX;

        replace_controls(buffer + prefix, size);
        buffer[prefix + size] = '\n';
        write_all(buffer, prefix + size + 1);
    }
    errno = saved;
}

bool log_allows(struct log_limit *limit, uint64_t now) {
    if (limit->since == 0 || now - limit->since >= LOG_LIMIT_NS) {
        limit->since = now;
        limit->lines = 0;
    }
    if (limit->lines == LOG_LIMIT_LINES) {
        limit->lost++;
        return false;
    }
    limit->lines++;
    if (limit->lost > 0)
        log_notice("%u lines like the next were left out", limit->lost);
    limit->lost = 0;
    return true;
}
