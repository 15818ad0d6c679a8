/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_LOG_H
#define DROPPABLE_DAEMON_LOG_H

/* Lines to stderr, with sd-daemon(3) priority prefixes when stderr is the journal. Only the loop's modules log; engines return. */

#include <stdbool.h>
#include <stdint.h>

#define LOG_LIMIT_LINES 20
#define LOG_LIMIT_NS UINT64_C(10000000000)

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_NOTICE = 5,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7
};

/* Must be called once before the first line; threads may log after it. */
void log_init(enum log_level max);
/* "error", "warning", "notice", "info", "debug" -> level; -EINVAL otherwise. */
int log_level_parse(const char *text);
/* One line, no newline in format. Cuts at 1,000 bytes; control characters become '?' (clients choose their names). */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* For lines that anybody can cause as often as he likes: so many in a while. All zeros at the start. */
struct log_limit {
    uint64_t since;
    unsigned lines, lost;
};
/* May one more be logged? Says before it how many were left out. */
bool log_allows(struct log_limit *limit, uint64_t now);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...) log_line(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
