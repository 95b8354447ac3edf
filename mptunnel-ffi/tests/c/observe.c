/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What can be seen of paths that fail, each in its own way: two whose bridges lose the same datagrams,
 * one whose port refuses, one without an interface, one that is cut, one that moves.
 */
#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

/* Bytes of a datagram that no bridge passes on, and of the packet around it. */
enum { LOST = 333, LOST_PACKET = LOST + 36 };

/* Carries between a client and a server, but for packets of that length. */
struct bridge {
    int outer, inner;
    char at[32];
    struct sockaddr_in client;
    volatile int cut;
};

static struct bridge bridges[2];
static volatile int over;

static int bound_socket(char *at, size_t cap) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    snprintf(at, cap, "127.0.0.1:%d", ntohs(address.sin_port));
    return fd;
}

static void build(struct bridge *bridge, const char *server) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons((uint16_t)atoi(strrchr(server, ':') + 1));
    bridge->outer = bound_socket(bridge->at, sizeof bridge->at);
    bridge->inner = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(connect(bridge->inner, (struct sockaddr *)&to, sizeof to) == 0);
}

static void carry(struct bridge *bridge) {
    static char packet[65536];
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    ssize_t len;
    while ((len = recvfrom(bridge->outer, packet, sizeof packet, MSG_DONTWAIT,
                           (struct sockaddr *)&from, &size)) >= 0) {
        bridge->client = from;
        if (len != LOST_PACKET && !bridge->cut)
            (void)!send(bridge->inner, packet, (size_t)len, 0);
    }
    while ((len = recv(bridge->inner, packet, sizeof packet, MSG_DONTWAIT)) >= 0) {
        if (!bridge->cut)
            (void)!sendto(bridge->outer, packet, (size_t)len, 0,
                          (struct sockaddr *)&bridge->client, sizeof bridge->client);
    }
}

static void *carry_all(void *unused) {
    struct pollfd fds[4];
    int i;
    for (i = 0; i < 4; i++) {
        fds[i].fd = i % 2 ? bridges[i / 2].inner : bridges[i / 2].outer;
        fds[i].events = POLLIN;
    }
    while (!over) {
        (void)!poll(fds, 4, 20);
        carry(&bridges[0]);
        carry(&bridges[1]);
    }
    return unused;
}

static void pause_ms(long ms) {
    struct timespec pause = {0, ms * 1000000};
    nanosleep(&pause, NULL);
}

enum { FIRST, SECOND, REFUSED, NOWHERE, PATHS };

static mpt_path_info paths[PATHS];

/* Looks at all paths of the client. */
static void look(mpt_t *client) {
    size_t n, i;
    for (i = 0; i < PATHS; i++) {
        mpt_path_info begin = MPT_PATH_INFO_INIT;
        paths[i] = begin;
    }
    EXPECT(0, mpt_path_list(client, 0, paths, PATHS, &n));
    CHECK(n == PATHS);
}

static uint64_t count_of(const mpt_count *counts, size_t n, const char *name) {
    size_t i;
    for (i = 0; i < n; i++)
        if (strcmp(counts[i].name, name) == 0)
            return counts[i].count;
    return 0;
}

/* Sends until the sample tells that the two paths lose together, and a second was looked at. */
static mpt_peer_id losing_together(mpt_t *server, mpt_t *client) {
    static char sent[LOST], got[LOST];
    mpt_pair_info pair = MPT_PAIR_INFO_INIT;
    mpt_stats_t stats = MPT_STATS_INIT;
    double end = now_ms() + 2 * SOON;
    mpt_peer_id peer = 0;
    size_t n, i;
    CHECK(pair.correlation == -2 && pair.struct_size == sizeof pair);
    do {
        CHECK(now_ms() < end);
        /* One of three: the sample is every 64th or so. */
        for (i = 0; i < 6; i++)
            (void)mpt_send(client, sent, i % 3 == 0 ? LOST : 100, 0);
        while (mpt_recv_from(server, &peer, got, sizeof got, 0) >= 0) {
        }
        pause_ms(1);
        look(client);
        EXPECT(0, mpt_pair_list(client, 0, &pair, 1, &n));
    } while (n == 0 || pair.samples < 20 || pair.correlation < 0.9 || paths[FIRST].last_1s_us < 0);
    CHECK(n == 1 && pair.one == paths[FIRST].id && pair.other == paths[SECOND].id);
    CHECK(pair.correlation <= 1);
    CHECK(pair.lost_one > 0.1 && pair.lost_one < 0.6 && pair.lost_other > 0.1);
    CHECK(pair.lost_both <= pair.lost_one && pair.lost_both > 0.9 * pair.lost_other);
    EXPECT(0, mpt_stats(client, 0, &stats));
    CHECK(stats.residual_loss_out > 0.1 && stats.residual_loss_out < 0.6);
    EXPECT(0, mpt_pair_list(client, 0, NULL, 0, &n));
    CHECK(n == 1);
    EXPECT(MPT_EPEER, mpt_pair_list(server, 4711, NULL, 0, &n));
    return peer;
}

static void states_and_figures(void) {
    const mpt_path_info *first = &paths[FIRST], *refused = &paths[REFUSED];
    const mpt_path_info *nowhere = &paths[NOWHERE];
    CHECK(first->state == MPT_PATH_UP && first->reason[0] != '\0' && first->errors == 0);
    CHECK(strcmp(first->remote, bridges[0].at) == 0);
    CHECK(strncmp(first->local, "127.0.0.1:", 10) == 0);
    CHECK(first->remote_before[0] == '\0' && first->local_before[0] == '\0');
    CHECK(first->last_1s_us >= 900000 && first->last_1s_us <= 2500000);
    CHECK(first->sent_1s > 0 && first->sent_bytes_1s > 36 * first->sent_1s);
    CHECK(first->received_1s > 0 && first->received_1s <= first->received);
    CHECK(first->received_bytes_1s > 0 && first->sent_1s <= first->sent);
    CHECK(first->loss_out_1s > 0 && first->known_out_1s > 0);
    CHECK(first->known_out_1s <= first->known_out_10s && first->known_out_10s <= first->known_out);
    CHECK(first->known_in_1s <= first->known_in_10s);
    CHECK(refused->state == MPT_PATH_STARTING && refused->errors > 0 && !refused->up);
    CHECK(strstr(refused->reason, "nothing listens there") != NULL);
    CHECK(nowhere->state == MPT_PATH_NO_SOCKET && strstr(nowhere->reason, "nowhere0") != NULL);
    CHECK(nowhere->local[0] == '\0' && nowhere->remote[0] == '\0' && nowhere->sent_1s == 0);
    CHECK(strcmp(mpt_path_state_name(nowhere->state), "no_socket") == 0);
    CHECK(strcmp(mpt_path_state_name(first->state), "up") == 0);
    CHECK(strcmp(mpt_path_state_name(refused->state), "starting") == 0);
    CHECK(strcmp(mpt_path_state_name(MPT_PATH_DOWN), "down") == 0);
    CHECK(strcmp(mpt_path_state_name(99), "unknown") == 0);
}

static void errors(mpt_t *server, mpt_t *client) {
    mpt_count some[8] = {MPT_COUNT_INIT}, all[8] = {MPT_COUNT_INIT};
    mpt_stats_t stats = MPT_STATS_INIT;
    mpt_path_id refused = paths[REFUSED].id;
    uint64_t sum = 0;
    size_t n, i;
    EXPECT(0, mpt_error_list(client, refused, some, 8, &n));
    CHECK(n == 1 && some[0].code == ECONNREFUSED && some[0].count >= paths[REFUSED].errors);
    CHECK(strcmp(some[0].name, "ECONNREFUSED") == 0 && some[0].struct_size == sizeof some[0]);
    EXPECT(0, mpt_error_list(client, paths[FIRST].id, some, 8, &n));
    CHECK(n == 0);
    EXPECT(MPT_EPATH, mpt_error_list(client, 4711, some, 8, &n));
    EXPECT(MPT_ENOTSUP, mpt_error_list(server, 1, some, 8, &n));
    EXPECT(0, mpt_error_list(server, 0, some, 8, &n));

    /* Those of a path that is gone stay among all, which are what the statistics count. */
    EXPECT(0, mpt_path_remove(client, refused));
    EXPECT(MPT_EPATH, mpt_error_list(client, refused, some, 8, &n));
    EXPECT(0, mpt_error_list(client, 0, all, 8, &n));
    CHECK(n > 0 && n <= 8 && count_of(all, n, "ECONNREFUSED") >= paths[REFUSED].errors);
    EXPECT(0, mpt_stats(client, 0, &stats));
    for (i = 0; i < n; i++)
        sum += all[i].count;
    CHECK(sum > 0 && sum <= stats.socket_errors);
}

static void drops(mpt_t *server) {
    mpt_stats_t before = MPT_STATS_INIT, after = MPT_STATS_INIT;
    mpt_count counts[64] = {MPT_COUNT_INIT};
    uint64_t sum = 0;
    size_t n, i, again;
    EXPECT(0, mpt_stats(server, 0, &before));
    EXPECT(0, mpt_drop_list(server, counts, 64, &n));
    EXPECT(0, mpt_stats(server, 0, &after));
    CHECK(n > 10 && n <= 64 && count_of(counts, n, "duplicate") > 0);
    for (i = 0; i < n; i++)
        sum += counts[i].count;
    sum -= count_of(counts, n, "duplicate");
    CHECK(before.dropped <= sum && sum <= after.dropped);
    /* As many as fit, and how many there are. */
    memset(&counts[1], 0xaa, sizeof counts[1]);
    EXPECT(0, mpt_drop_list(server, counts, 1, &again));
    CHECK(again == n && (unsigned char)counts[1].name[0] == 0xaa);
}

static void peers(mpt_t *server, mpt_t *client, mpt_peer_id peer) {
    mpt_stats_t here = MPT_STATS_INIT, there = MPT_STATS_INIT, all = MPT_STATS_INIT;
    mpt_peer_id ids[2] = {0, 0};
    char one[64], other[64];
    size_t n;
    EXPECT(0, mpt_peer_list(server, ids, 2, &n));
    CHECK(n == 1 && ids[0] == peer && peer != 0 && ids[1] == 0);
    EXPECT(0, mpt_peer_list(client, ids, 2, &n));
    CHECK(n == 0);
    EXPECT(0, mpt_stats(client, 0, &here));
    EXPECT(0, mpt_stats(server, peer, &there));
    EXPECT(0, mpt_stats(server, 0, &all));
    CHECK(here.cipher[0] != '\0' && strcmp(here.cipher, there.cipher) == 0);
    CHECK(strcmp(here.mode, "redundant") == 0 && strcmp(there.mode, "redundant") == 0);
    CHECK(there.window >= 4096 && here.window == 0);
    CHECK(all.mode[0] == '\0' && all.cipher[0] == '\0');
    CHECK(mpt_key_ids(client, one, sizeof one) > 0);
    CHECK(mpt_key_ids(server, other, sizeof other) > 0 && strcmp(one, other) == 0);
}

static void a_path_that_is_cut(mpt_t *client) {
    double end = now_ms() + SOON;
    bridges[1].cut = 1;
    do {
        CHECK(now_ms() < end);
        pause_ms(2);
        look(client);
    } while (paths[SECOND].state != MPT_PATH_DOWN);
    CHECK(strncmp(paths[SECOND].reason, "no probe was answered", 21) == 0 && !paths[SECOND].up);
    CHECK(paths[SECOND].since_us < SOON * 1000LL && paths[FIRST].state == MPT_PATH_UP);
}

static void a_path_that_moves(mpt_t *server, mpt_t *client, mpt_peer_id peer, const char *to) {
    double end = now_ms() + SOON;
    mpt_path_info theirs[2] = {MPT_PATH_INFO_INIT, MPT_PATH_INFO_INIT};
    char old_remote[72];
    size_t n;
    EXPECT(0, mpt_path_list(server, peer, theirs, 2, &n));
    CHECK(n == 2 && theirs[0].state == MPT_PATH_UP && theirs[0].local[0] == '\0');
    CHECK(theirs[0].reason[0] != '\0' && theirs[0].since_us > 0 && theirs[0].errors == 0);
    strcpy(old_remote, theirs[0].remote);
    EXPECT(0, mpt_path_set(client, paths[FIRST].id, "to", to));
    do {
        CHECK(now_ms() < end);
        pause_ms(2);
        look(client);
        EXPECT(0, mpt_path_list(server, peer, theirs, 2, &n));
    } while (strcmp(paths[FIRST].remote, to) != 0 || theirs[0].remote_before[0] == '\0');
    CHECK(strcmp(paths[FIRST].remote_before, bridges[0].at) == 0);
    CHECK(strcmp(theirs[0].remote_before, old_remote) == 0);
}

int main(int argc, char **argv) {
    mpt_t *server = NULL, *client = NULL;
    char uri[900], at[64], closed[32];
    pthread_t thread;
    mpt_peer_id peer;
    CHECK(argc == 2);
    make_key(argv[1]);
    /* Probes are what tells of all this: the fastest that there are. */
    snprintf(uri, sizeof uri, "mpt-listen://127.0.0.1:0?key-file=%s&probe-interval=50ms", key_file);
    EXPECT(0, mpt_open(uri, NULL, &server));
    CHECK(mpt_local_addr(server, at, sizeof at) > 0);
    build(&bridges[0], at);
    build(&bridges[1], at);
    close(bound_socket(closed, sizeof closed));
    CHECK(pthread_create(&thread, NULL, carry_all, NULL) == 0);
    snprintf(uri, sizeof uri, "mpt://%s?key-file=%s&path=name=first&path=to=%s&path=to=%s&path="
             "if=nowhere0", bridges[0].at, key_file, bridges[1].at, closed);
    EXPECT(0, mpt_open(uri, NULL, &client));
    EXPECT(0, mpt_wait_ready(client, SOON));

    peer = losing_together(server, client);
    states_and_figures();
    drops(server);
    peers(server, client, peer);
    a_path_that_is_cut(client);
    a_path_that_moves(server, client, peer, at);
    errors(server, client);

    mpt_close(client);
    mpt_close(server);
    over = 1;
    CHECK(pthread_join(thread, NULL) == 0);
    unlink(key_file);
    puts("observe: ok");
    return 0;
}
