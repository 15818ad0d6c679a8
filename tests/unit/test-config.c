/* SPDX-License-Identifier: MIT */
/*
 * The settings: every key with good and bad values, what an error text says, and that a bad file changes nothing. Also
 * the log's lines, which have no other home.
 */

#define _GNU_SOURCE

#include "config.h"
#include "log.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TIB (UINT64_C(1) << 40)

static char path[64];

static void write_config(const char *text, size_t size) {
    int fd;

    strcpy(path, "/tmp/test-config-XXXXXX");
    fd = mkostemp(path, O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, size), (ssize_t)size);
    close(fd);
}

static int read_config(struct config *config, const char *text, char **ret_error) {
    int r;

    write_config(text, strlen(text));
    r = config_read_file(config, path, ret_error);
    unlink(path);
    if (r == 0)
        ck_assert_ptr_null(*ret_error);
    return r;
}

/* ---- sizes ---- */

START_TEST(test_parse_size) {
    static const struct {
        const char *text;
        int result;
        uint64_t value;
    } rows[] = {
        {"0", 0, 0},
        {"4096", 0, 4096},
        {"4K", 0, 4096},
        {"64M", 0, 64 << 20},
        {"1G", 0, 1 << 30},
        {"16T", 0, 16 * TIB},
        {"18446744073709551615", 0, UINT64_MAX},
        {"16777215T", 0, UINT64_C(16777215) << 40},
        {"18446744073709551616", -ERANGE, 0},
        {"16777216T", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"K", -EINVAL, 0},
        {"4k", -EINVAL, 0},
        {"4KB", -EINVAL, 0},
        {"4 K", -EINVAL, 0},
        {" 4K", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {"1.5G", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
        {"1P", -EINVAL, 0},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t value = 42;

        ck_assert_msg(config_parse_size(rows[i].text, &value) == rows[i].result, "'%s'", rows[i].text);
        ck_assert_uint_eq(value, rows[i].result < 0 ? 42 : rows[i].value);
    }
}
END_TEST

/* ---- files ---- */

START_TEST(test_defaults) {
    struct config config;
    char *error;

    config_init(&config);
    ck_assert_int_eq(read_config(&config, "", &error), 0);
    ck_assert_ptr_null(config.socket_path);
    ck_assert_ptr_null(config.lend_group);
    ck_assert_ptr_null(config.socket_group);
    ck_assert_uint_eq(config.lend_gid, (gid_t)-1);
    ck_assert_uint_eq(config.socket_gid, (gid_t)-1);
    ck_assert_uint_eq(config.socket_mode, 0666);
    ck_assert_uint_eq(config.machine_reserve, CONFIG_AUTO);
    ck_assert_uint_eq(config.cgroup_reserve, CONFIG_AUTO);
    ck_assert(!config.kill_stuck);
    ck_assert(config.system_huge_pages);
    ck_assert_uint_eq(config.max_connections, 4096);
    ck_assert_uint_eq(config.max_connections_per_uid, 1024);
    ck_assert_uint_eq(config.max_regions, 1024);
    ck_assert_uint_eq(config.max_region_bytes, 16 * TIB);
    ck_assert_uint_eq(config.max_bytes_per_uid, 32 * TIB);
    config_deinit(&config);
}
END_TEST

START_TEST(test_every_key) {
    static const char text[] = "\xef\xbb\xbf# a comment\r\n"
                               "[Daemon]\r\n"
                               "LendUserfaultfd=root\r\n"
                               "SocketGroup = 12345 ; by number\n"
                               "  SocketMode=0660\n"
                               "\tKillStuckClients=yes\n"
                               "SystemHugePages=no\n"
                               "\n[Pressure]\n"
                               "MachineReserve=512M\n"
                               "CgroupReserve=4096\n"
                               "; another comment\n"
                               "[Limits]\n"
                               "Connections=10\n"
                               "ConnectionsPerUser=65536\n"
                               "RegionsPerClient=1\n"
                               "RegionBytes=1G\n"
                               "BytesPerUser=1024T\n"
                               "[Pressure]\n"
                               "CgroupReserve=8K"; /* the last one wins; no newline at the end */
    struct config config;
    char *error = NULL;

    config_init(&config);
    ck_assert_msg(read_config(&config, text, &error) == 0, "%s", error ? error : "?");
    ck_assert_str_eq(config.lend_group, "root");
    ck_assert_uint_eq(config.lend_gid, 0);
    ck_assert_str_eq(config.socket_group, "12345");
    ck_assert_uint_eq(config.socket_gid, 12345);
    ck_assert_uint_eq(config.socket_mode, 0660);
    ck_assert(config.kill_stuck);
    ck_assert(!config.system_huge_pages);
    ck_assert_uint_eq(config.machine_reserve, 512 << 20);
    ck_assert_uint_eq(config.cgroup_reserve, 8192);
    ck_assert_uint_eq(config.max_connections, 10);
    ck_assert_uint_eq(config.max_connections_per_uid, 65536);
    ck_assert_uint_eq(config.max_regions, 1);
    ck_assert_uint_eq(config.max_region_bytes, 1 << 30);
    ck_assert_uint_eq(config.max_bytes_per_uid, 1024 * TIB);

    /* A second file goes over the first; empty and auto lead back. */
    ck_assert_int_eq(read_config(&config,
                                 "[Daemon]\nLendUserfaultfd=\nKillStuckClients=no\n[Pressure]\nMachineReserve=auto\n",
                                 &error),
                     0);
    ck_assert_ptr_null(config.lend_group);
    ck_assert_uint_eq(config.lend_gid, (gid_t)-1);
    ck_assert_str_eq(config.socket_group, "12345");
    ck_assert(!config.kill_stuck);
    ck_assert_uint_eq(config.machine_reserve, CONFIG_AUTO);
    config_deinit(&config);
}
END_TEST

struct bad_row {
    const char *text;
    const char *error; /* behind "<path>:" */
    int result;
};

#define RESERVE "a size (4K..1T, or 'auto')"

static const struct bad_row bad_rows[] = {
    {"[Daemon]\nLendUserfaultfd=no-such-group-here\n",
     "2: LendUserfaultfd=: 'no-such-group-here' is not a group of this system", -EINVAL},
    {"[Daemon]\nSocketGroup=4294967295\n", "2: SocketGroup=: '4294967295' is not a group of this system", -ERANGE},
    {"[Daemon]\nSocketMode=0888\n", "2: SocketMode=: '0888' is not an octal mode (0000..0777)", -EINVAL},
    {"[Daemon]\nSocketMode=1777\n", "2: SocketMode=: '1777' is not an octal mode (0000..0777)", -ERANGE},
    {"[Daemon]\nSocketMode=\n", "2: SocketMode=: '' is not an octal mode (0000..0777)", -EINVAL},
    {"[Daemon]\n\n\nKillStuckClients=maybe\n", "4: KillStuckClients=: 'maybe' is not 'yes' or 'no'", -EINVAL},
    {"[Pressure]\nMachineReserve=x\n", "2: MachineReserve=: 'x' is not " RESERVE, -EINVAL},
    {"[Pressure]\nMachineReserve=4095\n", "2: MachineReserve=: '4095' is not " RESERVE, -ERANGE},
    {"[Pressure]\nCgroupReserve=2T\n", "2: CgroupReserve=: '2T' is not " RESERVE, -ERANGE},
    {"[Pressure]\nCgroupReserve=Auto\n", "2: CgroupReserve=: 'Auto' is not " RESERVE, -EINVAL},
    {"[Limits]\nConnections=0\n", "2: Connections=: '0' is not a number (1..65536)", -ERANGE},
    {"[Limits]\nConnectionsPerUser=65537\n", "2: ConnectionsPerUser=: '65537' is not a number (1..65536)", -ERANGE},
    {"[Limits]\nRegionsPerClient=1K\n", "2: RegionsPerClient=: '1K' is not a number (1..65536)", -EINVAL},
    {"[Limits]\nRegionBytes=17T\n", "2: RegionBytes=: '17T' is not a size (4K..16T)", -ERANGE},
    {"[Limits]\nRegionBytes=auto\n", "2: RegionBytes=: 'auto' is not a size (4K..16T)", -EINVAL},
    {"[Limits]\nBytesPerUser=1\n", "2: BytesPerUser=: '1' is not a size (4K..1024T)", -ERANGE},
    {"[Limits]\nBytesPerUser=99999999999999999999\n",
     "2: BytesPerUser=: '99999999999999999999' is not a size (4K..1024T)", -ERANGE},
    {"[Limits]\nMachineReserve=1G\n", "2: MachineReserve=: no such key in [Limits]", -EINVAL},
    {"[Limits]\nconnections=1\n", "2: connections=: no such key in [Limits]", -EINVAL},
    {"# x\nSocketMode=0\n", "2: SocketMode=: stands before the first [section]", -EINVAL},
    {"[Limit]\n", "1: [Limit]: no such section", -EINVAL},
    {"[]\n", "1: []: no such section", -EINVAL},
    {"[Limits\nConnections=1\n", "1: neither [section] nor key=value", -EINVAL},
    {"[Limits]\nConnections\n", "2: neither [section] nor key=value", -EINVAL},
    {"[Limits]\nConnections=5\nwhat\nConnections=0\n", "3: neither [section] nor key=value", -EINVAL},
    {"[Limits]\nConnections=0\nwhat\n", "2: Connections=: '0' is not a number (1..65536)", -ERANGE},
    {"[Limits]\nConnections=5\n  RegionBytes=x\n", "3: RegionBytes=: 'x' is not a size (4K..16T)", -EINVAL},
};

/* A good line before the bad one shows that nothing of a bad file takes effect. */
START_TEST(test_bad_file) {
    const struct bad_row *row = &bad_rows[_i];
    struct config config;
    struct config before;
    char text[1024];
    char expected[1024];
    char *error = NULL;

    config_init(&config);
    ck_assert_int_eq(read_config(&config, "[Daemon]\nLendUserfaultfd=root\n[Limits]\nConnections=7\n", &error), 0);
    before = config;

    ck_assert_int_eq(read_config(&config, row->text, &error), row->result);
    snprintf(expected, sizeof(expected), "%s:%s", path, row->error);
    ck_assert_ptr_nonnull(error);
    ck_assert_str_eq(error, expected);
    free(error);

    snprintf(text, sizeof(text), "[Daemon]\nLendUserfaultfd=\nSocketMode=0\n[Limits]\nConnections=8\n%s", row->text);
    ck_assert_int_lt(read_config(&config, text, &error), 0);
    free(error);
    ck_assert_mem_eq(&config, &before, sizeof(config)); /* the same pointers too */
    ck_assert_str_eq(config.lend_group, "root");
    config_deinit(&config);
}
END_TEST

START_TEST(test_unreadable_files) {
    struct config config;
    char text[65536];
    char *error = NULL;

    config_init(&config);
    snprintf(text, sizeof(text), "[Limits]\nConnections=%065000d\n", 1); /* inih's limit is a choice of its builder */
    ck_assert_int_eq(read_config(&config, text, &error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error, ":2: the line is longer than "));
    free(error);
    ck_assert_int_eq(config_read_file(&config, "/nonexistent/droppabled.conf", &error), -ENOENT);
    ck_assert_str_eq(error, "/nonexistent/droppabled.conf: No such file or directory");
    free(error);
    ck_assert_int_eq(config_read_file(&config, "/", &error), -EISDIR);
    free(error);
    write_config("[Limits]\n\0Connections=1\n", 24);
    ck_assert_int_eq(config_read_file(&config, path, &error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error, "not a text file"));
    free(error);
    ck_assert_int_eq(truncate(path, 2 << 20), 0);
    ck_assert_int_eq(config_read_file(&config, path, &error), -EFBIG);
    free(error);
    unlink(path);
    config_deinit(&config);
}
END_TEST

START_TEST(test_default_socket) {
    char *socket;

    setenv("XDG_RUNTIME_DIR", "/run/user/1000", 1);
    ck_assert_int_eq(config_default_socket(&socket), 0);
    ck_assert_str_eq(socket, geteuid() == 0 ? "/run/droppabled.sock" : "/run/user/1000/droppabled.sock");
    free(socket);
    setenv("XDG_RUNTIME_DIR", "relative", 1);
    ck_assert_int_eq(config_default_socket(&socket), 0);
    ck_assert_str_eq(socket, "/run/droppabled.sock");
    free(socket);
    unsetenv("XDG_RUNTIME_DIR");
}
END_TEST

/* ---- log ---- */

/* Runs with stderr in a file and returns what came there. */
static void capture(char *ret, size_t size, bool journal, const char *text) {
    char file[] = "/tmp/test-config-XXXXXX";
    int saved = dup(STDERR_FILENO);
    int fd = mkostemp(file, O_CLOEXEC);
    char stream[64];
    struct stat st;
    ssize_t n;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino + !journal);
    setenv("JOURNAL_STREAM", stream, 1);
    ck_assert_int_eq(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    log_init(LOG_LEVEL_INFO);
    errno = EXDEV;
    log_warning("%s", text);
    log_debug("not shown");
    ck_assert_int_eq(errno, EXDEV);
    dup2(saved, STDERR_FILENO);
    close(saved);
    unsetenv("JOURNAL_STREAM");
    n = pread(fd, ret, size - 1, 0);
    ck_assert_int_ge(n, 0);
    ret[n] = '\0';
    close(fd);
    unlink(file);
}

START_TEST(test_log) {
    char long_text[3000];
    char got[4096];

    capture(got, sizeof(got), true, "hello");
    ck_assert_str_eq(got, "<4>hello\n");
    capture(got, sizeof(got), false, "hello");
    ck_assert_str_eq(got, "droppabled: hello\n");
    capture(got, sizeof(got), true,
            "a\nb\x1b[31m\x7f\xc2\x9b"
            "1m\xc3\xa4");
    ck_assert_str_eq(got, "<4>a?b?[31m???1m\xc3\xa4\n");
    memset(long_text, 'x', sizeof(long_text));
    long_text[sizeof(long_text) - 1] = '\0';
    capture(got, sizeof(got), true, long_text);
    ck_assert_uint_eq(strlen(got), 3 + 1000 + 1);
    ck_assert_int_eq(got[1003], '\n');

    ck_assert_int_eq(log_level_parse("error"), LOG_LEVEL_ERROR);
    ck_assert_int_eq(log_level_parse("debug"), LOG_LEVEL_DEBUG);
    ck_assert_int_eq(log_level_parse("Debug"), -EINVAL);
    ck_assert_int_eq(log_level_parse(""), -EINVAL);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("config");
    TCase *tcase = tcase_create("config");
    SRunner *runner;
    int failed;

    tcase_add_test(tcase, test_parse_size);
    tcase_add_test(tcase, test_defaults);
    tcase_add_test(tcase, test_every_key);
    tcase_add_loop_test(tcase, test_bad_file, 0, (int)(sizeof(bad_rows) / sizeof(bad_rows[0])));
    tcase_add_test(tcase, test_unreadable_files);
    tcase_add_test(tcase, test_default_socket);
    tcase_add_test(tcase, test_log);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
