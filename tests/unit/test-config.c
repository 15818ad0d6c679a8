/* SPDX-License-Identifier: MIT */
/*
 * The settings: every key with good and bad values, what an error text says, and that a bad file changes nothing. Also
 * the log's lines, which have no other home.
 */

#define _GNU_SOURCE

#include "config.h"
#include "log.h"
#include "suite.h"

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
    ck_assert_ptr_null(config.control_group);
    ck_assert_ptr_null(config.socket_group);
    ck_assert_uint_eq(config.lend_gid, (gid_t)-1);
    ck_assert_uint_eq(config.control_gid, (gid_t)-1);
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
                               "ControlGroup=23456\n"
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
    ck_assert_str_eq(config.control_group, "23456");
    ck_assert_uint_eq(config.control_gid, 23456);
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

/* An empty value is the default, whatever the key. */
START_TEST(test_back_to_default) {
    static const char *const values[] = {"/x", "0", "root", "root", "root", "yes", "no", "8K", "8K", "8K", "8K", "8K",
                                         "8K", "7", "7",    "7",    "8K",   "8K",  "8K", "8K", "8K", "8K", "8K"};
    char expected[128], got[128], text[256];
    const char *section, *name;
    struct config defaults, config;
    char *error = NULL;
    size_t i;

    config_init(&defaults);
    config_init(&config);
    for (i = 0; config_value(&defaults, i, &section, &name, expected, sizeof(expected)); i++) {
        ck_assert_uint_lt(i, sizeof(values) / sizeof(values[0]));
        snprintf(text, sizeof(text), "[%s]\n%s=%s\n", section, name, values[i]);
        ck_assert_msg(read_config(&config, text, &error) == 0, "%s", error ? error : "?");
        config_value(&config, i, &section, &name, got, sizeof(got));
        ck_assert_str_ne(got, expected);
        snprintf(text, sizeof(text), "[%s]\n%s=\n", section, name);
        ck_assert_int_eq(read_config(&config, text, &error), 0);
        config_value(&config, i, &section, &name, got, sizeof(got));
        ck_assert_str_eq(got, expected);
    }
    ck_assert_uint_eq(i, sizeof(values) / sizeof(values[0]));
    ck_assert_mem_eq(&config, &defaults, sizeof(config));
}
END_TEST

/* What config_value() writes is what a file would say. */
START_TEST(test_values_as_text) {
    static const char *const expected[] = {"/run/x", "0640",  "12345", "root",     "23456", "yes", "no", "auto",
                                           "3M",     "1000M", "1025K", "2T",       "2G",    "17",  "18", "19",
                                           "4K",     "5K",    "32T",   "infinity", "auto",  "6K",  "7K"};
    char text[1024] = "", got[128], *error = NULL;
    const char *section, *name;
    struct config config;

    config_init(&config);
    for (size_t i = 0; config_value(&config, i, &section, &name, got, sizeof(got)); i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "[%s]\n%s=%s\n", section, name, expected[i]);
    ck_assert_msg(read_config(&config, text, &error) == 0, "%s", error ? error : "?");
    for (size_t i = 0; config_value(&config, i, &section, &name, got, sizeof(got)); i++)
        ck_assert_str_eq(got, expected[i]);
    config_deinit(&config);
}
END_TEST

START_TEST(test_share_of_memory) {
    uint64_t pages = (uint64_t)sysconf(_SC_PHYS_PAGES);
    struct config config;
    char *error = NULL;

    config_init(&config);
    ck_assert_int_eq(read_config(&config, "[Budgets]\nUser=100%\nClient=25%\n[Pressure]\nMachineReserve=1%\n", &error),
                     0);
    ck_assert_uint_eq(config.user_budget, pages * 4096);
    ck_assert_uint_eq(config.client_budget, pages * 25 / 100 * 4096);
    ck_assert_uint_eq(config.machine_reserve, pages / 100 * 4096);
    config_deinit(&config);
}
END_TEST

/* ---- all files ---- */

static char folder[32];

static void make_file(const char *name, const char *text) {
    char file[128];
    FILE *f;

    snprintf(file, sizeof(file), "%s/%s", folder, name);
    f = fopen(file, "we");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

static void make_folder(void) {
    strcpy(folder, "/tmp/test-config-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/x.conf", folder);
}

static void remove_folder(void) {
    char command[128];

    snprintf(command, sizeof(command), "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(test_drop_ins) {
    struct config_source source = {.path = path, .socket_path = "/a/socket"};
    struct config config, before;
    char *error = NULL, name[128];

    make_folder();
    ck_assert_int_eq(config_load(&config, &source, &error), -ENOENT);
    ck_assert_ptr_nonnull(strstr(error, "/x.conf: No such file or directory"));
    free(error);
    source.optional = true;
    ck_assert_int_eq(config_load(&config, &source, &error), 0);
    ck_assert_str_eq(config.socket_path, "/a/socket");
    config_deinit(&config);

    /* One that is there and cannot be read is no missing one. */
    snprintf(name, sizeof(name), "%s/x.conf", folder);
    ck_assert_int_eq(symlink("x.conf", name), 0);
    ck_assert_int_eq(config_load(&config, &source, &error), -ELOOP);
    ck_assert_ptr_nonnull(strstr(error, "x.conf: "));
    free(error);
    ck_assert_int_eq(unlink(name), 0);

    make_file("x.conf", "[Limits]\nConnections=1\nConnectionsPerUser=1\nRegionsPerClient=1\nRegionBytes=4K\n");
    snprintf(name, sizeof(name), "%s/x.conf.d", folder);
    ck_assert_int_eq(mkdir(name, 0755), 0);
    make_file("x.conf.d/9.conf", "[Limits]\nConnections=9\nRegionBytes=\n[Daemon]\nSocket=/not/this\n");
    make_file("x.conf.d/10.conf", "[Limits]\nConnections=10\nConnectionsPerUser=10\n");
    make_file("x.conf.d/.99.conf", "bad");
    make_file("x.conf.d/99.conf~", "bad");
    make_file("x.conf.d/.conf", "bad");
    ck_assert_msg(config_load(&config, &source, &error) == 0, "%s", error ? error : "?");
    ck_assert_uint_eq(config.max_connections, 9);
    ck_assert_uint_eq(config.max_connections_per_uid, 10);
    ck_assert_uint_eq(config.max_regions, 1);
    ck_assert_uint_eq(config.max_region_bytes, 16 * TIB);
    ck_assert_str_eq(config.socket_path, "/a/socket");

    /* One bad line anywhere, and nothing of it counts. */
    before = config;
    make_file("x.conf.d/5.conf", "[Limits]\n\nConnections=0\n");
    ck_assert_int_eq(config_load(&config, &source, &error), -ERANGE);
    ck_assert_ptr_nonnull(strstr(error, "x.conf.d/5.conf:3: Connections=: '0' is not a number (1..65536)"));
    free(error);
    ck_assert_mem_eq(&config, &before, sizeof(config));
    config_deinit(&config);

    source.socket_path = NULL;
    make_file("x.conf.d/5.conf", "");
    ck_assert_int_eq(config_load(&config, &source, &error), 0);
    ck_assert_str_eq(config.socket_path, "/not/this");
    config_deinit(&config);
    remove_folder();
}
END_TEST

/* systemd/droppabled.conf has each key once, in its section, with its default, and is itself a file that changes nothing. */
START_TEST(test_documented) {
    const char *source = getenv("DROPPABLE_TEST_SOURCEDIR"), *section, *name;
    char file[4096], line[512], in[64] = "", value[128], wanted[256], *error = NULL;
    struct config defaults, config;
    size_t lines = 0, keys = 0;
    FILE *f;

    snprintf(file, sizeof(file), "%s/systemd/droppabled.conf", source ? source : ".");
    config_init(&defaults);
    config_init(&config);
    ck_assert_msg(config_read_file(&config, file, &error) == 0, "%s", error ? error : "?");
    ck_assert_mem_eq(&config, &defaults, sizeof(config));
    f = fopen(file, "re");
    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof(line), f)) {
        bool found = false;

        line[strcspn(line, "\n")] = '\0';
        sscanf(line, "[%63[A-Za-z]]", in);
        if (line[0] != '#' || line[1] == ' ' || line[1] == '\0')
            continue;
        lines++;
        for (size_t i = 0; config_value(&defaults, i, &section, &name, value, sizeof(value)); i++) {
            snprintf(wanted, sizeof(wanted), "#%s=%s", name, value);
            found |= strcmp(section, in) == 0 && strcmp(line, wanted) == 0;
        }
        ck_assert_msg(found, "%s: [%s] %s is no key with its default", file, in, line);
    }
    fclose(f);
    while (config_value(&defaults, keys, &section, &name, value, sizeof(value)))
        keys++;
    ck_assert_uint_eq(lines, keys);
}
END_TEST

struct bad_row {
    const char *text;
    const char *error; /* behind "<path>:" */
    int result;
};

#define SHARE "1%..100% of the machine's memory"
#define RESERVE "a size (4K..1T, " SHARE ", or 'auto')"
#define AMOUNT "a size (4K..1024T, " SHARE ", or 'infinity')"
#define PATH_EXPECTED "an absolute path (107 bytes at most)"

static const struct bad_row bad_rows[] = {
    {"[Daemon]\nLendUserfaultfd=no-such-group-here\n",
     "2: LendUserfaultfd=: 'no-such-group-here' is not a group of this system", -EINVAL},
    {"[Daemon]\nSocketGroup=4294967295\n", "2: SocketGroup=: '4294967295' is not a group of this system", -ERANGE},
    {"[Daemon]\nSocketMode=0888\n", "2: SocketMode=: '0888' is not an octal mode (0000..0777)", -EINVAL},
    {"[Daemon]\nSocketMode=1777\n", "2: SocketMode=: '1777' is not an octal mode (0000..0777)", -ERANGE},
    {"[Daemon]\nSocket=run/x\n", "2: Socket=: 'run/x' is not " PATH_EXPECTED, -EINVAL},
    {"[Daemon]\nSocket=/2345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678"
     "90123456789\n",
     "2: Socket=: '/234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"
     "123456789' is not " PATH_EXPECTED,
     -ERANGE},
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
    {"[Limits]\nBytesPerUser=1\n", "2: BytesPerUser=: '1' is not " AMOUNT, -ERANGE},
    {"[Limits]\nBytesPerUser=99999999999999999999\n", "2: BytesPerUser=: '99999999999999999999' is not " AMOUNT, -ERANGE},
    {"[Limits]\nPinnedPerClient=auto\n", "2: PinnedPerClient=: 'auto' is not " AMOUNT, -EINVAL},
    {"[Limits]\nRegionBytes=10%\n", "2: RegionBytes=: '10%' is not a size (4K..16T)", -EINVAL},
    {"[Budgets]\nUser=0%\n", "2: User=: '0%' is not " AMOUNT, -ERANGE},
    {"[Budgets]\nUser=101%\n", "2: User=: '101%' is not " AMOUNT, -ERANGE},
    {"[Budgets]\nUser=5%%\n", "2: User=: '5%%' is not " AMOUNT, -EINVAL},
    {"[Budgets]\nUser=%\n", "2: User=: '%' is not " AMOUNT, -EINVAL},
    {"[Budgets]\nCgroup=2048T\n", "2: Cgroup=: '2048T' is not " AMOUNT, -ERANGE},
    {"[Limits]\nUser=1G\n", "2: User=: no such key in [Limits]", -EINVAL},
    {"[Limits]\nMachineReserve=1G\n", "2: MachineReserve=: no such key in [Limits]", -EINVAL},
    {"[Limits]\nconnections=1\n", "2: connections=: no such key in [Limits]", -EINVAL},
    {"# x\nSocketMode=0\n", "2: SocketMode=: stands before the first [section]", -EINVAL},
    {"[Limit]\n", "1: [Limit]: no such section", -EINVAL},
    {"[User]\n", "1: [User]: no such section", -EINVAL},
    {"[User ]\n", "1: [User ]: this is not a user of this system", -EINVAL},
    {"[User no-such-user-here]\n", "1: [User no-such-user-here]: this is not a user of this system", -EINVAL},
    {"[User 4294967295]\n", "1: [User 4294967295]: this is not a user of this system", -EINVAL},
    {"[User 12x]\n", "1: [User 12x]: this is not a user of this system", -EINVAL},
    {"[Cgroup system.slice]\n", "1: [Cgroup system.slice]: this is not the path of a cgroup as in /proc/PID/cgroup",
     -EINVAL},
    {"[Cgroup /a/]\n", "1: [Cgroup /a/]: this is not the path of a cgroup as in /proc/PID/cgroup", -EINVAL},
    {"[Cgroup /a//b]\n", "1: [Cgroup /a//b]: this is not the path of a cgroup as in /proc/PID/cgroup", -EINVAL},
    {"[User root]\nBudget=1G\nPinned=1\n", "3: Pinned=: no such key in [User root]", -EINVAL},
    {"[Cgroup /a]\nQuota=1\n", "2: Quota=: '1' is not " AMOUNT, -ERANGE},
    {"[Cgroup /a]\n[Limits]\nQuota=1G\n", "3: Quota=: no such key in [Limits]", -EINVAL},
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

    tcase_add_test(tcase, test_parse_size);
    tcase_add_test(tcase, test_defaults);
    tcase_add_test(tcase, test_every_key);
    tcase_add_test(tcase, test_back_to_default);
    tcase_add_test(tcase, test_values_as_text);
    tcase_add_test(tcase, test_share_of_memory);
    tcase_add_test(tcase, test_drop_ins);
    tcase_add_test(tcase, test_documented);
    tcase_add_loop_test(tcase, test_bad_file, 0, (int)(sizeof(bad_rows) / sizeof(bad_rows[0])));
    tcase_add_test(tcase, test_unreadable_files);
    tcase_add_test(tcase, test_default_socket);
    tcase_add_test(tcase, test_log);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
