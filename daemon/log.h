/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_DAEMON_LOG_H
#define DROPPABLE_DAEMON_LOG_H

/* Lines to stderr, or entries with fields where stderr is the journal. Only the loop's modules log; engines return. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LOG_LIMIT_LINES 20
#define LOG_LIMIT_NS UINT64_C(10000000000)

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_NOTICE = 5,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7
};

/*
 * What a line is about, for the fields of the journal (docs/service.md lists them). What is zero or NULL has no field.
 */
struct log_about {
    const char *id;              /* LOG_ID_*: what happened */
    const char *client, *cgroup; /* pid and uid are told with a client */
    pid_t pid;
    uid_t uid;
    uint64_t region;
    const char *domain; /* what ran short */
    int error;          /* errno */
};

/* Events that somebody may want to be told of: MESSAGE_ID. Never changed, never used again. */
#define LOG_ID_LISTENING "9223a668ef724e7da8cbf14bcfa7b81e"
#define LOG_ID_RELOADED "118d9c43f1294123a6c59fcac523927d"
#define LOG_ID_NOT_RELOADED "c301a0592eec4d03907d5db949f85e55"
#define LOG_ID_QUARANTINED "f4f677efa91f46c993b9b902fef75009"
#define LOG_ID_QUARANTINE_LIFTED "120e22b272e24cbb8720011197628f92"
#define LOG_ID_CLIENT_ENDED "dfa1476615e54ad9945f823327a5c38d"
#define LOG_ID_OVER_QUOTA "d08fe440dd634903a4c0c4cbaed45297"
#define LOG_ID_REFUSED "30e339177f2c4de58331272cee971498"

/* Must be called once before the first line; threads may log after it. */
void log_init(enum log_level max);
/* The same with another journal than JOURNAL_SOCKET, for tests. */
void log_init_at(enum log_level max, const char *journal);
/* "error", "warning", "notice", "info", "debug" -> level; -EINVAL otherwise. */
int log_level_parse(const char *text);
/* One line, no newline in format. Cuts at 1,000 bytes; control characters become '?' (clients choose their names). */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_about(enum log_level level, const struct log_about *about, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

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
