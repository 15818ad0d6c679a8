/* SPDX-License-Identifier: MIT */

/*
 * Fuzzes sessions, with the whole daemon in this process and the input as a client: packets one after the other, each with
 * descriptors of many kinds. Each request is answered, or ends the connection; when everybody has gone, nothing is left of them: no
 * session, no region, no resident byte, no descriptor.
 *
 * Input: a byte of flags (1: says hello first; 2: offers a userfaultfd; 4, 8 and 16 together: dies at the end, else hangs up and lives on), then packets:
 * length (2 bytes, low one first), kinds of two descriptors (a nibble each), message. A region's or mapping's id under 16 is that of one that this client has.
 *
 * The client is another process, which connects, makes userfaultfds and dies as it is told: what the daemon does with ranges that were
 * never mapped from it does not happen to us. Who lives on is the next input's client, too: a process costs more than a session.
 */

#define _GNU_SOURCE

#include "channel.h"
#include "codec.h"
#include "fuzz.h"
#include "log.h"
#include "manager.h"
#include "server.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define SAY_HELLO 1
#define OFFER_UFFD 2
#define DIES 28                 /* all of its bits: most mutations shall not cost a process */
#define CLIENTS_UNTIL_EMPTY 256 /* so many come and go before all that they left is looked for */
#define REPLY_WAIT_NS UINT64_C(20000000000)
#define LOOK_MS 100 /* at deadlines */
#define ENDS_WAIT_NS UINT64_C(20000000000)
#define OWN_DESCRIPTORS \
    4 /* at most, that threads of the daemon open after the start: it is a leak that goes on that shows */
#define IDS_MAX 16

#define ORDER_CONNECT 'c'
#define ORDER_UFFD 'u'

enum kind {
    KIND_NONE,
    KIND_UFFD,
    KIND_MEMFD,
    KIND_PIPE,
    KIND_NULL,
    KIND_FOLDER,
    KIND_SOCKET,
    KIND_SEALED,
    KIND_RECEIVED, /* this and what follows: what the daemon gave, the last first */
};

static struct {
    struct config config;
    struct manager manager;
    struct server server;
    uv_loop_t loop;
    char folder[32];
    int nursery; /* makes processes: a control socket in */
    int idle;    /* control socket of the process that lives on; -1: none */
    size_t descriptors;
    unsigned clients;
    bool started;
} world;

/* One client, which is the input. */
struct client {
    int control; /* of the process: an ORDER_ in, a descriptor out */
    int socket;
    uint64_t ids[IDS_MAX]; /* of regions and mappings, the last first */
    int received[8];
};

/* ---- the world ---- */

static void send_descriptor(int socket, int fd) {
    (void)channel_send(socket, "", 1, &fd, fd >= 0 ? 1 : 0, 0);
    close(fd);
}

/* -1: there was none, or the other end has gone. */
static int receive_descriptor(int socket) {
    struct channel_packet packet;

    return channel_receive(socket, &packet, 0) == CHANNEL_OK && packet.n_fds > 0 ? packet.fds[0] : -1;
}

static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    REQUIRE(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    return fd;
}

/* A client's process. */
static void live(int control, const char *path) {
    char order;

    while (read(control, &order, 1) == 1)
        send_descriptor(control, order == ORDER_CONNECT ? connect_to(path)
                                                        : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
    _exit(0);
}

static void serve_nursery(int socket, const char *path) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int control = receive_descriptor(socket);
        pid_t pid = control >= 0 ? fork() : -1;

        if (pid < 0)
            _exit(0);
        if (pid == 0) {
            close(socket);
            live(control, path);
        }
        close(control);
    }
}

static size_t count_descriptors(void) {
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    REQUIRE(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* One turn of the loop, from which all replies come; and a connection's last close in a thread, which the loop does not see. */
static void turn(int socket, uint64_t deadline) {
    struct pollfd fds[] = {{.fd = uv_backend_fd(&world.loop), .events = POLLIN}, {.fd = socket, .events = POLLIN}};
    int timeout = uv_backend_timeout(&world.loop);

    REQUIRE(kernel_now() < deadline);
    (void)poll(fds, 2, timeout < 0 || timeout > LOOK_MS ? LOOK_MS : timeout);
    uv_run(&world.loop, UV_RUN_NOWAIT);
}

/* Nobody waits in line for what the input before cost: that is test-turns' subject. */
static void forgive_costs(void) {
    struct turns_user *user;

    LIST_FOREACH (user, &world.server.turns.users, link)
        user->until = 0;
}

/* How much there is of what goes with a client; says what if it is asked to. */
static size_t count_left(bool say) {
    size_t descriptors = count_descriptors(), connections = 0, endings = 0, vets, homes = 0, ending_homes = 0;
    struct connection *connection;
    struct ending *ending;
    struct home *home;

    LIST_FOREACH (connection, &world.server.connections, link)
        connections++;
    LIST_FOREACH (ending, &world.server.endings, link)
        endings++;
    vets = vets_are_left(&world.server.vets);
    LIST_FOREACH (home, &world.manager.homes, link)
        homes++;
    LIST_FOREACH (home, &world.manager.ending_homes, link)
        ending_homes++;
    descriptors -= descriptors > world.descriptors ? world.descriptors : descriptors;
    if (say)
        fprintf(stderr, "left: %zu connections, %zu endings, %zu vets, %zu homes, %zu ending homes, %zu descriptors\n",
                connections, endings, vets, homes, ending_homes, descriptors);
    return connections + endings + vets + homes + ending_homes + descriptors;
}

/* Until nobody is left, and nothing of them. */
static void require_empty(void) {
    uint64_t deadline = kernel_now() + ENDS_WAIT_NS;

    if (world.idle >= 0)
        close(world.idle);
    world.idle = -1;
    while (count_left(kernel_now() >= deadline) > 0)
        turn(-1, deadline);
    REQUIRE(world.manager.n_sessions == 0 && world.manager.n_regions == 0 && world.manager.n_homes == 0);
    REQUIRE(LIST_EMPTY(&world.manager.sessions) && LIST_EMPTY(&world.manager.leaving));
}

static void end_world(void) {
    require_empty();
    server_end(&world.server);
    uv_run(&world.loop, UV_RUN_DEFAULT);
    manager_deinit(&world.manager);
    server_deinit(&world.server);
    REQUIRE(uv_loop_close(&world.loop) == 0);
    config_deinit(&world.config);
    rmdir(world.folder);
}

static void start_world(void) {
    int sockets[2];
    pid_t pid;

    log_init(LOG_LEVEL_ERROR);
    signal(SIGPIPE, SIG_IGN);
    strcpy(world.folder, "/tmp/droppable-fuzz-XXXXXX");
    REQUIRE(mkdtemp(world.folder));
    config_init(&world.config);
    REQUIRE(asprintf(&world.config.socket_path, "%s/socket", world.folder) > 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0);
    pid = fork(); /* while there are no threads */
    REQUIRE(pid >= 0);
    if (pid == 0) {
        close(sockets[0]);
        serve_nursery(sockets[1], world.config.socket_path);
    }
    close(sockets[1]);
    world.nursery = sockets[0];
    world.idle = -1;
    world.config.max_regions = 6;
    world.config.max_region_bytes = UINT64_C(64) << 20;
    world.config.max_bytes_per_client = UINT64_C(128) << 20;
    REQUIRE(manager_init(&world.manager, &world.config) >= 0);
    REQUIRE(uv_loop_init(&world.loop) == 0);
    REQUIRE(server_init(&world.server, &world.loop, &world.manager, -1) >= 0);
    REQUIRE(manager_start(&world.manager) >= 0);
    REQUIRE(server_start(&world.server) >= 0);
    world.descriptors = count_descriptors() + OWN_DESCRIPTORS;
    world.started = true;
    atexit(end_world);
}

/* ---- the client ---- */

static int new_memfd(int seals) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    REQUIRE(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
    REQUIRE(seals == 0 || fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

static int give_order(const struct client *client, char order) {
    REQUIRE(write(client->control, &order, 1) == 1);
    return receive_descriptor(client->control);
}

/* A descriptor of that kind, or -1. */
static int make_descriptor(const struct client *client, unsigned kind) {
    int fds[2];

    switch (kind) {
    case KIND_NONE:
        return -1;
    case KIND_UFFD:
        return give_order(client, ORDER_UFFD);
    case KIND_MEMFD:
        return new_memfd(0);
    case KIND_SEALED:
        return new_memfd(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    case KIND_PIPE:
        REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
        close(fds[1]);
        return fds[0];
    case KIND_NULL:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    case KIND_FOLDER:
        return open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    case KIND_SOCKET:
        return fcntl(client->socket, F_DUPFD_CLOEXEC, 0);
    default:
        kind -= KIND_RECEIVED;
        return kind < 8 && client->received[kind] >= 0 ? fcntl(client->received[kind], F_DUPFD_CLOEXEC, 0) : -1;
    }
}

static void keep_id(struct client *client, uint64_t id) {
    memmove(client->ids + 1, client->ids, sizeof(client->ids) - sizeof(client->ids[0]));
    client->ids[0] = id;
}

static void take_reply(struct client *client, struct channel_packet *packet) {
    switch (packet->message.header.error ? 0 : packet->message.header.type & ~DRP_WIRE_REPLY) {
    case DRP_WIRE_CREATE:
    case DRP_WIRE_ADOPT:
    case DRP_WIRE_CREATE_SHARED:
    case DRP_WIRE_OPEN:
        keep_id(client, packet->message.create_reply.region);
        break;
    case DRP_WIRE_MAP:
        keep_id(client, packet->message.map_reply.mapping);
        break;
    default:
        break;
    }
    for (size_t i = packet->n_fds; i-- > 0;) {
        if (client->received[7] >= 0)
            close(client->received[7]);
        memmove(client->received + 1, client->received, 7 * sizeof(int));
        client->received[0] = channel_packet_take(packet, i);
    }
}

/* Waits for the reply. false: the connection is over. */
static bool wait_reply(struct client *client, uint16_t type) {
    uint64_t deadline = kernel_now() + REPLY_WAIT_NS;
    struct channel_packet packet;
    int r;

    for (;;) {
        r = channel_receive(client->socket, &packet, MSG_DONTWAIT);
        if (r != CHANNEL_AGAIN)
            break;
        turn(client->socket, deadline);
    }
    if (r != CHANNEL_OK)
        return false;
    if (codec_request_size(type) > 0)
        REQUIRE(codec_check_reply(&packet.message, packet.size, packet.n_fds, type) == CODEC_OK);
    else
        REQUIRE(packet.size == sizeof(packet.message.header) && packet.message.header.error == DRP_WIRE_ERROR_MALFORMED);
    take_reply(client, &packet);
    channel_packet_close(&packet);
    return true;
}

static void put_ids(const struct client *client, union drp_wire_message *message) {
    uint64_t *id;

    switch (message->header.type) {
    case DRP_WIRE_MAP:
    case DRP_WIRE_UNMAP:
    case DRP_WIRE_DESTROY:
    case DRP_WIRE_DROP:
    case DRP_WIRE_POPULATE:
    case DRP_WIRE_MAP_PIECES:
    case DRP_WIRE_UNMAP_PIECES:
        id = &message->id.id; /* where all of these have it */
        break;
    case DRP_WIRE_LIMIT:
        id = &message->limit.id;
        break;
    default:
        return;
    }
    if (*id < IDS_MAX && client->ids[*id])
        *id = client->ids[*id];
}

/* false: the connection is over. */
static bool call(struct client *client, union drp_wire_message *message, size_t size, uint8_t kinds) {
    int fds[2], fd;
    size_t n = 0;
    int r;

    for (unsigned i = 0; i < 2; i++) {
        fd = make_descriptor(client, kinds >> (4 * i) & 15);
        if (fd >= 0)
            fds[n++] = fd;
    }
    put_ids(client, message);
    forgive_costs();
    r = channel_send(client->socket, message, size, fds, n, MSG_DONTWAIT);
    while (n > 0)
        close(fds[--n]);
    return r == CHANNEL_OK && wait_reply(client, message->header.type);
}

/* Its control socket. */
static int new_process(void) {
    int sockets[2];

    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0);
    REQUIRE(channel_send(world.nursery, "", 1, &sockets[1], 1, 0) == CHANNEL_OK);
    close(sockets[1]);
    return sockets[0];
}

static bool client_start(struct client *client, unsigned flags) {
    union drp_wire_message message = {.hello = {.header = {.type = DRP_WIRE_HELLO},
                                                .magic = DRP_WIRE_MAGIC,
                                                .version_min = DRP_WIRE_VERSION,
                                                .version_max = DRP_WIRE_VERSION,
                                                .features = DRP_FEATURES_KNOWN,
                                                .name = "fuzz"}};

    *client = (struct client){.control = world.idle >= 0 ? world.idle : new_process(),
                              .received = {-1, -1, -1, -1, -1, -1, -1, -1}};
    client->socket = give_order(client, ORDER_CONNECT);
    REQUIRE(client->socket >= 0);
    if (flags & SAY_HELLO && !call(client, &message, sizeof(message.hello), 0))
        return false;
    message = (union drp_wire_message){.uffd = {.header = {.type = DRP_WIRE_UFFD}}};
    return !(flags & OFFER_UFFD) || call(client, &message, sizeof(message.uffd), KIND_UFFD);
}

static void client_end(struct client *client, unsigned flags) {
    close(client->socket);
    world.idle = client->control;
    if ((flags & DIES) == DIES) {
        close(world.idle);
        world.idle = -1;
    }
    for (size_t i = 0; i < 8; i++)
        if (client->received[i] >= 0)
            close(client->received[i]);
}

/* Threads free what clients had when they get to it: no leak of the input's, and require_empty() looks. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "detect_leaks=0";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct client client;
    unsigned flags;
    bool on;

    if (size < 1)
        return 0;
    if (!world.started)
        start_world();
    flags = *data++;
    on = client_start(&client, flags);
    size--;
    while (on && size > 3) {
        static union drp_wire_message message;
        size_t length = (size_t)(data[0] | data[1] << 8) % (DRP_WIRE_MAX_SIZE + 1);
        uint8_t kinds = data[2];

        data += 3;
        size -= 3;
        if (length > size)
            length = size;
        if (length < sizeof(message.header))
            break;
        memset(&message, 0, sizeof(message));
        memcpy(&message, data, length);
        on = call(&client, &message, length, kinds);
        data += length;
        size -= length;
    }
    client_end(&client, flags);
    uv_run(&world.loop, UV_RUN_NOWAIT);
    if (++world.clients % CLIENTS_UNTIL_EMPTY == 0)
        require_empty();
    return 0;
}
