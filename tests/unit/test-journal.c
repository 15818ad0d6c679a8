/* SPDX-License-Identifier: MIT */
/*
 * Lines that go to the journal, which the test plays: their fields, what nobody can forge, that a journal that does not read holds nobody up, and where
 * lines go without one.
 */

#include "log.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static char folder[] = "/tmp/droppable-journal-XXXXXX", path[96];
static int journal = -1, kept;
static FILE *stream; /* what stderr is */

static void setup(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/socket", folder);
    journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    strcpy(address.sun_path, path);
    ck_assert_int_eq(bind(journal, (struct sockaddr *)&address, sizeof(address)), 0);
    stream = tmpfile();
    ck_assert_ptr_nonnull(stream);
    kept = dup(STDERR_FILENO);
}

static void teardown(void) {
    dup2(kept, STDERR_FILENO);
    close(kept);
    fclose(stream);
    close(journal);
    unlink(path);
    rmdir(folder);
}

/* stderr is the journal's stream, or says that it is. */
static void become_service(bool truly) {
    char text[64];
    struct stat st;

    dup2(fileno(stream), STDERR_FILENO);
    ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
    snprintf(text, sizeof(text), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino + !truly);
    setenv("JOURNAL_STREAM", text, 1);
}

static bool next_entry(char *ret, size_t size) {
    ssize_t n = recv(journal, ret, size - 1, 0);

    ret[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static const char *stream_text(void) {
    static char text[4096];
    size_t n;

    rewind(stream);
    n = fread(text, 1, sizeof(text) - 1, stream);
    text[n] = '\0';
    return text;
}

START_TEST(test_fields) {
    const struct log_about about = {
        .id = LOG_ID_QUARANTINED,
        .client = "cache",
        .pid = 77,
        .uid = 1000,
        .cgroup = "/jobs/cache",
        .domain = "/jobs",
        .region = 12,
        .error = 28,
    };
    char entry[4096];

    become_service(true);
    log_init_at(LOG_LEVEL_INFO, path);
    log_about(LOG_LEVEL_WARNING, &about, "client %s: stuck", "cache");
    log_debug("below the level");
    log_notice("nothing but %d", 1);
    ck_assert(next_entry(entry, sizeof(entry)));
    ck_assert_str_eq(entry, "PRIORITY=4\nSYSLOG_IDENTIFIER=droppabled\nMESSAGE=client cache: stuck\n"
                            "MESSAGE_ID=" LOG_ID_QUARANTINED "\nERRNO=28\n"
                            "DROPPABLE_CLIENT=cache\nDROPPABLE_CLIENT_PID=77\nDROPPABLE_CLIENT_UID=1000\n"
                            "DROPPABLE_REGION=12\nDROPPABLE_CGROUP=/jobs/cache\nDROPPABLE_DOMAIN=/jobs\n");
    ck_assert(next_entry(entry, sizeof(entry)));
    ck_assert_str_eq(entry, "PRIORITY=5\nSYSLOG_IDENTIFIER=droppabled\nMESSAGE=nothing but 1\n");
    ck_assert(!next_entry(entry, sizeof(entry)));
    ck_assert_str_eq(stream_text(), "");
}
END_TEST

/* A name is a value, whatever is in it, and a path that is too long costs its field and not the line. */
START_TEST(test_hostile) {
    char entry[8192], longest[5000];
    const struct log_about about = {.client = "x\nPRIORITY=0\nMESSAGE=root was here", .cgroup = longest, .region = 3};

    memset(longest, 'c', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    become_service(true);
    log_init_at(LOG_LEVEL_INFO, path);
    log_about(LOG_LEVEL_INFO, &about, "%s", "a\nb\033[31m");
    ck_assert(next_entry(entry, sizeof(entry)));
    ck_assert_ptr_nonnull(strstr(entry, "\nMESSAGE=a?b?[31m\n"));
    ck_assert_ptr_nonnull(strstr(entry, "\nDROPPABLE_CLIENT=x?PRIORITY=0?MESSAGE=root was here\n"));
    ck_assert_ptr_null(strstr(entry, "\nPRIORITY=0"));
    ck_assert_ptr_null(strstr(entry, "DROPPABLE_CGROUP="));
    ck_assert_ptr_nonnull(strstr(entry, "\nDROPPABLE_REGION=3\n"));
    log_info("%s", longest);
    ck_assert(next_entry(entry, sizeof(entry)));
    ck_assert_uint_lt(strlen(entry), 1100);
}
END_TEST

START_TEST(test_full) {
    struct timespec before, after;
    unsigned sent = 4000, got = 0, lost = 0;
    char entry[4096];

    become_service(true);
    log_init_at(LOG_LEVEL_INFO, path);
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (unsigned i = 0; i < sent; i++)
        log_info("line %u", i);
    clock_gettime(CLOCK_MONOTONIC, &after);
    ck_assert_int_lt(after.tv_sec - before.tv_sec, 5);
    while (next_entry(entry, sizeof(entry)))
        got++;
    ck_assert_uint_gt(got, 0);
    ck_assert_uint_lt(got, sent);
    log_info("again");
    ck_assert(next_entry(entry, sizeof(entry)));
    ck_assert_int_eq(sscanf(strstr(entry, "MESSAGE="), "MESSAGE=%u lines were lost", &lost), 1);
    ck_assert_uint_eq(lost, sent - got);
    ck_assert_ptr_nonnull(strstr(entry, "PRIORITY=4\n"));
    ck_assert(next_entry(entry, sizeof(entry)));
    ck_assert_ptr_nonnull(strstr(entry, "MESSAGE=again\n"));
    ck_assert(!next_entry(entry, sizeof(entry)));
    ck_assert_str_eq(stream_text(), ""); /* it might wait */
}
END_TEST

/* The journal's stream and no socket of it: priorities are told before the line. */
START_TEST(test_stream) {
    become_service(true);
    log_init_at(LOG_LEVEL_INFO, "/nowhere/at/all");
    log_about(LOG_LEVEL_ERROR, &(struct log_about){.client = "x"}, "broken");
    ck_assert_str_eq(stream_text(), "<3>broken\n");
}
END_TEST

/* The variable was inherited, stderr is something else. */
START_TEST(test_elsewhere) {
    char entry[64];

    become_service(false);
    log_init_at(LOG_LEVEL_INFO, path);
    log_about(LOG_LEVEL_ERROR, &(struct log_about){.client = "x"}, "broken");
    ck_assert_str_eq(stream_text(), "droppabled: broken\n");
    ck_assert(!next_entry(entry, sizeof(entry)));
}
END_TEST

/* Each identifier is documented, and none is used twice. */
START_TEST(test_identifiers) {
    const char *source = getenv("DROPPABLE_TEST_SOURCEDIR");
    char line[256], header[512], page[512], id[33], page_text[65536];
    char seen[4096] = "";
    FILE *file;
    size_t n;

    ck_assert_ptr_nonnull(source);
    snprintf(page, sizeof(page), "%s/docs/service.md", source);
    file = fopen(page, "re");
    ck_assert_ptr_nonnull(file);
    n = fread(page_text, 1, sizeof(page_text) - 1, file);
    page_text[n] = '\0';
    fclose(file);
    snprintf(header, sizeof(header), "%s/daemon/log.h", source);
    file = fopen(header, "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file)) {
        if (sscanf(line, "#define LOG_ID_%*s \"%32[0-9a-f]\"", id) != 1)
            continue;
        ck_assert_msg(strstr(page_text, id) != NULL, "docs/service.md does not know %s", line);
        ck_assert_msg(strstr(seen, id) == NULL, "used twice: %s", line);
        strncat(seen, id, sizeof(seen) - strlen(seen) - 1);
    }
    ck_assert_uint_ge(strlen(seen), 32);
    fclose(file);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("journal");
    TCase *tcase = tcase_create("journal");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_fields);
    tcase_add_test(tcase, test_hostile);
    tcase_add_test(tcase, test_full);
    tcase_add_test(tcase, test_stream);
    tcase_add_test(tcase, test_elsewhere);
    tcase_add_test(tcase, test_identifiers);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
