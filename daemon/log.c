/* SPDX-License-Identifier: MIT */
/*
 * Log lines.
 *
 * A line is formatted into a buffer on the stack and leaves in one write(2): lines of several threads never mix,
 * nothing is allocated, and a reader that is gone costs nothing but the line. Whether stderr is the journal is decided
 * once, by comparing it with $JOURNAL_STREAM (systemd.exec(5)); an inherited variable alone proves nothing, as stderr
 * may have been redirected since. Then lines are entries with fields, sent past stderr: that would wait for a journal which does not read. What it
 * does not take is lost, and counted in the next entry. Where its socket cannot be had, stderr gets the priority before the line (sd-daemon(3)).
 *
 * Text from outside (names that clients chose, paths) must not be able to forge a line or to talk to a terminal: bytes
 * below 32, DEL and the C1 controls of UTF-8 become '?'.
 */

#include "log.h"

#include "journal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_LINE_MAX 1000

static enum log_level log_max = LOG_LEVEL_INFO;
static bool log_journal;
static int log_journal_fd = -1;
static _Atomic unsigned log_lost; /* entries that the journal did not take */

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

void log_init_at(enum log_level max, const char *journal) {
    log_max = max;
    log_journal = stderr_is_journal();
    if (log_journal)
        log_journal_fd = journal_open(journal);
}

void log_init(enum log_level max) {
    log_init_at(max, JOURNAL_SOCKET);
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

/* ---- entries ---- */

static void add_fields(struct journal_entry *entry, const struct log_about *about) {
    if (about->id)
        journal_add(entry, "MESSAGE_ID", "%s", about->id);
    if (about->error)
        journal_add(entry, "ERRNO", "%d", about->error);
    if (about->client) {
        journal_add(entry, "DROPPABLE_CLIENT", "%s", about->client);
        journal_add(entry, "DROPPABLE_CLIENT_PID", "%d", (int)about->pid);
        journal_add(entry, "DROPPABLE_CLIENT_UID", "%u", about->uid);
    }
    if (about->region)
        journal_add(entry, "DROPPABLE_REGION", "%" PRIu64, about->region);
    if (about->cgroup)
        journal_add(entry, "DROPPABLE_CGROUP", "%s", about->cgroup);
    if (about->domain)
        journal_add(entry, "DROPPABLE_DOMAIN", "%s", about->domain);
}

static bool send_entry(enum log_level level, const struct log_about *about, const char *text) {
    struct journal_entry entry = {.used = 0};

    journal_add(&entry, "PRIORITY", "%d", (int)level);
    journal_add(&entry, "SYSLOG_IDENTIFIER", "droppabled");
    journal_add(&entry, "MESSAGE", "%s", text);
    add_fields(&entry, about);
    return journal_send(log_journal_fd, &entry);
}

static void log_entry(enum log_level level, const struct log_about *about, const char *text) {
    unsigned lost = atomic_exchange(&log_lost, 0);
    char told[64];

    if (lost > 0) {
        snprintf(told, sizeof(told), "%u lines were lost: the journal did not take them", lost);
        if (!send_entry(LOG_LEVEL_WARNING, &(struct log_about){0}, told)) {
            atomic_fetch_add(&log_lost, lost + 1);
            return;
        }
    }
    if (!send_entry(level, about, text))
        atomic_fetch_add(&log_lost, 1);
}

/* ---- lines ---- */

__attribute__((format(printf, 3, 0))) static void log_text(enum log_level level, const struct log_about *about,
                                                           const char *format, va_list args) {
    char buffer[32 + LOG_LINE_MAX + 1];
    size_t prefix, size;
    int n;

    n = log_journal ? snprintf(buffer, 32, "<%d>", (int)level) : snprintf(buffer, 32, "droppabled: ");
    prefix = (size_t)n;
    n = vsnprintf(buffer + prefix, LOG_LINE_MAX + 1, format, args);
    if (n < 0)
        return;
    size = n < LOG_LINE_MAX ? (size_t)n : LOG_LINE_MAX;
    replace_controls(buffer + prefix, size);
    if (log_journal_fd >= 0) {
        buffer[prefix + size] = '\0';
        log_entry(level, about, buffer + prefix);
    } else {
        buffer[prefix + size] = '\n';
        write_all(buffer, prefix + size + 1);
    }
}

void log_line(enum log_level level, const char *format, ...) {
    int saved = errno;
    va_list args;

    if (level > log_max)
        return;
    va_start(args, format); /* errno is as it was, for %m */
    log_text(level, &(struct log_about){0}, format, args);
    va_end(args);
    errno = saved;
}

void log_about(enum log_level level, const struct log_about *about, const char *format, ...) {
    int saved = errno;
    va_list args;

    if (level > log_max)
        return;
    va_start(args, format);
    log_text(level, about, format, args);
    va_end(args);
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
