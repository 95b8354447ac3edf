/* SPDX-License-Identifier: BSD-2-Clause */
/* Everything once, as it is meant to be used. */
#include "test.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/socket.h>

static unsigned char sent[70000], got[70000];

static void sizes(mpt_t *server, mpt_t *client) {
    static const size_t lens[] = {0, 1, 1400, 1472, 9000, 65507};
    mpt_peer_id peer = 99;
    size_t i, b;
    for (i = 0; i < sizeof lens / sizeof *lens; i++) {
        for (b = 0; b < lens[i]; b++)
            sent[b] = (unsigned char)(b * 7 + i);
        EXPECT(lens[i], mpt_send(client, sent, lens[i], SOON));
        memset(got, 0xee, sizeof got);
        EXPECT(lens[i], mpt_recv_from(server, &peer, got, sizeof got, SOON));
        CHECK(memcmp(sent, got, lens[i]) == 0 && got[lens[i]] == 0xee && peer != 0);
        EXPECT(lens[i], mpt_send_to(server, peer, sent, lens[i], SOON));
        EXPECT(lens[i], mpt_recv(client, got, sizeof got, SOON));
        CHECK(memcmp(sent, got, lens[i]) == 0);
    }
    /* No copy of any of them. */
    EXPECT(MPT_EAGAIN, mpt_recv(client, got, sizeof got, 0));
    EXPECT(MPT_ETIMEDOUT, mpt_recv(client, got, sizeof got, 50));

    EXPECT(65507, mpt_max_payload(client));
    EXPECT(MPT_EMSGSIZE, mpt_send(client, sent, 65508, 0));
    CHECK(strstr(mpt_last_error(), "65508") != NULL && strstr(mpt_last_error(), "65507") != NULL);
    EXPECT(MPT_EPEER, mpt_send_to(server, 12345, sent, 1, 0));
    EXPECT(MPT_EPEER, mpt_send(server, sent, 1, 0));
    EXPECT(MPT_EPEER, mpt_send_to(client, 1, sent, 1, 0));

    /* What does not fit is kept, and nothing is written. */
    EXPECT(5, mpt_send(client, "12345", 5, SOON));
    EXPECT(5, mpt_send(client, "67890", 5, SOON));
    memset(got, 0xee, 8);
    peer = 77;
    EXPECT(MPT_EMSGSIZE, mpt_recv_from(server, &peer, got, 4, SOON));
    EXPECT(MPT_EMSGSIZE, mpt_recv(server, got, 0, 0));
    CHECK(got[0] == 0xee && peer == 77);
    EXPECT(5, mpt_recv(server, got, 5, SOON));
    CHECK(memcmp(got, "12345", 5) == 0 && got[5] == 0xee);
    EXPECT(5, mpt_recv(server, got, sizeof got, SOON));
}

/* Until all copies that the client has sent are there. */
static void all_there(mpt_t *server, mpt_t *client) {
    mpt_stats_t here = MPT_STATS_INIT, there = MPT_STATS_INIT;
    struct timespec pause = {0, 2000000};
    int turn;
    EXPECT(0, mpt_stats(client, 0, &here));
    for (turn = 0; there.received < here.sent; turn++) {
        CHECK(turn < SOON / 2);
        nanosleep(&pause, NULL);
        EXPECT(0, mpt_stats(server, 0, &there));
    }
}

static uint64_t duplicates(mpt_t *t) {
    mpt_stats_t stats = MPT_STATS_INIT;
    EXPECT(0, mpt_stats(t, 0, &stats));
    return stats.duplicates;
}

static void batches(mpt_t *server, mpt_t *client) {
    enum { N = 40 };
    mpt_msg out[N], in[N];
    mpt_path_info paths[2] = {MPT_PATH_INFO_INIT, MPT_PATH_INFO_INIT};
    static char bytes[N], rooms[N][16];
    ptrdiff_t taken = 0, i;
    struct timespec now;
    uint64_t before;
    size_t n;

    EXPECT(0, mpt_path_list(client, 0, paths, 2, &n));
    for (i = 0; i < N; i++) {
        mpt_msg message = MPT_MSG_INIT;
        bytes[i] = (char)i;
        message.buf = &bytes[i];
        message.len = 1;
        message.path = paths[i / 20].id; /* pinned, so that there are no copies */
        message.deadline_us = 1000000;
        out[i] = message;
        message.buf = rooms[i];
        message.cap = sizeof rooms[i];
        message.len = 0;
        message.path = 0;
        message.deadline_us = 0;
        in[i] = message;
    }
    all_there(server, client);
    before = duplicates(server);
    EXPECT(N, mpt_sendv(client, out, N, SOON));
    while (taken < N) {
        ptrdiff_t filled = mpt_recvv(server, in + taken, (size_t)(N - taken), SOON);
        CHECK(filled > 0);
        taken += filled;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (i = 0; i < N; i++) {
        /* In order per path only, and a server counts paths from 1 in the order of their slots. */
        int64_t age = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - in[i].time_ns;
        CHECK(in[i].len == 1 && in[i].peer != 0 && in[i].path == (mpt_path_id)rooms[i][0] / 20 + 1);
        CHECK(age > -2000000 && age < (int64_t)SOON * 1000000);
    }
    EXPECT(before, duplicates(server));

    /* One copy by the best path, and as many as there are paths. */
    for (i = 0; i < N; i++) {
        out[i].path = 0;
        out[i].copies = 1;
    }
    EXPECT(N, mpt_sendv(client, out, N, SOON));
    for (taken = 0; taken < N; taken++)
        EXPECT(1, mpt_recv(server, got, sizeof got, SOON));
    EXPECT(before, duplicates(server));

    /* What comes behind a message that cannot be sent is not sent. */
    out[2].path = 4711;
    EXPECT(2, mpt_sendv(client, out, N, SOON));
    EXPECT(MPT_EPATH, mpt_sendv(client, out + 2, N - 2, SOON));
    for (taken = 0; taken < 2; taken++)
        EXPECT(1, mpt_recv(server, got, sizeof got, SOON));
    EXPECT(MPT_EAGAIN, mpt_recvv(server, in, N, 0));
    EXPECT(0, mpt_sendv(client, out, 0, 0));
    EXPECT(0, mpt_recvv(client, in, 0, 0));

    /* An element that is too small ends the batch. */
    out[2].path = 0;
    EXPECT(3, mpt_sendv(client, out, 3, SOON));
    in[1].cap = 0;
    do {
        taken = mpt_recvv(server, in, 3, SOON);
    } while (taken == MPT_EAGAIN);
    EXPECT(1, taken);
    EXPECT(MPT_EMSGSIZE, mpt_recvv(server, in + 1, 2, SOON));
    for (taken = 0; taken < 2; taken++)
        EXPECT(1, mpt_recv(server, got, sizeof got, SOON));
}

static void flows(mpt_t *server, mpt_t *client) {
    mpt_peer_id peer = 0;
    EXPECT(2, mpt_send_to(client, MPT_FLOW(7), "up", 2, SOON));
    EXPECT(2, mpt_recv_from(server, &peer, got, sizeof got, SOON));
    CHECK(MPT_FLOW_OF(peer) == 7 && MPT_PEER_OF(peer) != 0);
    EXPECT(4, mpt_send_to(server, peer, "down", 4, SOON));
    EXPECT(4, mpt_recv_from(client, &peer, got, sizeof got, SOON));
    CHECK(peer == MPT_FLOW(7));
}

/* Whether the value of an option is the name of a file, which may be anything. */
static int is_file_name(const char *key) {
    return strstr(key, "-file") != NULL || strcmp(key, "control") == 0
        || strcmp(key, "legacy-state") == 0;
}

/* Every option can be set and read back, and says what it takes if the value is wrong. */
static void options(mpt_t *server, mpt_t *client) {
    mpt_config_t *config = mpt_config_new();
    char value[256], again[256], small[3];
    size_t count = 0;
    const char *key;
    CHECK(config != NULL);
    for (count = 0; (key = mpt_option_name(count)) != NULL; count++) {
        ptrdiff_t len = mpt_config_get(config, key, value, sizeof value);
        CHECK(len >= 0 && (size_t)len == strlen(value));
        if (len > 0) {
            EXPECT(0, mpt_config_set(config, key, value));
            EXPECT(len, mpt_config_get(config, key, again, sizeof again));
            CHECK(strcmp(value, again) == 0);
        }
        if (!is_file_name(key))
            EXPECT(MPT_ECONFIG, mpt_config_set(config, key, "\x01"));
        CHECK(strlen(mpt_option_help(count)) > 20);
        if (strcmp(key, "idle-interval") == 0)
            CHECK(strstr(mpt_option_help(count), "(both ends, live): a duration from 100ms to 20s"));
    }
    CHECK(count > 20 && mpt_option_name(count + 1000) == NULL && mpt_option_help(count) == NULL);
    EXPECT(MPT_ECONFIG, mpt_config_set(config, "wndow", "1"));
    CHECK(strstr(mpt_last_error(), "did you mean \"window\"?") != NULL);
    EXPECT(MPT_ECONFIG, mpt_config_get(config, "wndow", value, sizeof value));
    EXPECT(MPT_ECONFIG, mpt_config_set(config, "path", "wieght=3"));
    EXPECT(MPT_ECONFIG, mpt_config_load(config, "/no/such/file"));
    mpt_config_free(config);

    EXPECT(4, mpt_get(client, "receive-queue", small, sizeof small)); /* 4MiB */
    CHECK(strcmp(small, "4M") == 0);
    EXPECT(4, mpt_get(client, "receive-queue", NULL, 0));
    EXPECT(0, mpt_set(server, "receive-queue", "64KiB"));
    EXPECT(5, mpt_get(server, "receive-queue", value, sizeof value));
    CHECK(strcmp(value, "64KiB") == 0);
    EXPECT(MPT_ECONFIG, mpt_set(client, "window", "8192"));
    CHECK(strstr(mpt_last_error(), "only at the start") != NULL);
    EXPECT(MPT_ECONFIG, mpt_get(client, "sessions", value, sizeof value));
    EXPECT(0, mpt_set(server, "receive-queue", "4MiB"));
}

static void paths(mpt_t *server, mpt_t *client) {
    mpt_path_info list[3] = {MPT_PATH_INFO_INIT, MPT_PATH_INFO_INIT, MPT_PATH_INFO_INIT};
    mpt_event event = MPT_EVENT_INIT;
    mpt_path_id id = 0;
    char spec[128], at[64];
    size_t n = 0;
    CHECK(mpt_local_addr(server, at, sizeof at) > 0);
    snprintf(spec, sizeof spec, "to=%s name=third", at);
    EXPECT(0, mpt_path_add(client, spec, &id));
    for (;;) {
        EXPECT(0, mpt_next_event(client, &event, SOON));
        if (event.type == MPT_EVENT_PATH_UP && event.path == id)
            break;
    }
    CHECK(strcmp(event.name, "third") == 0 && strcmp(event.text, "path third is up") == 0);
    CHECK(strcmp(mpt_event_type_name(event.type), "path_up") == 0);
    CHECK(strcmp(mpt_event_type_name(MPT_EVENT_PEER_REFUSED), "peer_refused") == 0);
    CHECK(strcmp(mpt_event_type_name(MPT_EVENT_OTHER), "other") == 0);
    CHECK(strcmp(mpt_event_type_name(13), "unknown") == 0);
    CHECK(strcmp(mpt_event_type_name(-1), "unknown") == 0);
    EXPECT(0, mpt_path_set(client, id, "name", "renamed"));
    EXPECT(0, mpt_path_set(client, id, "role", "backup"));
    EXPECT(0, mpt_path_list(client, 0, list, 3, &n));
    CHECK(n == 3 && list[2].id == id && list[2].backup == 1 && list[2].up == 1);
    CHECK(strcmp(list[2].name, "renamed") == 0 && strcmp(list[2].remote, at) == 0);
    CHECK(list[2].rtt_us >= 0 && list[2].max_packet > 1000 && list[2].sent > 0);
    EXPECT(MPT_ECONFIG, mpt_path_set(client, id, "mtu", "1"));
    EXPECT(MPT_EPATH, mpt_path_set(client, 4711, "name", "x"));
    EXPECT(0, mpt_path_remove(client, id));
    EXPECT(MPT_EPATH, mpt_path_remove(client, id));
    EXPECT(0, mpt_path_list(client, 0, NULL, 0, &n));
    CHECK(n == 2);
    EXPECT(MPT_ENOTSUP, mpt_path_add(server, "if=lo", NULL));
    EXPECT(MPT_ECONFIG, mpt_path_add(client, "nonsense", NULL));
    EXPECT(MPT_EPEER, mpt_path_list(client, 5, list, 3, &n));
    EXPECT(MPT_EPEER, mpt_path_list(server, 4711, list, 3, &n));
}

static void observation(mpt_t *server, mpt_t *client) {
    mpt_stats_t all = MPT_STATS_INIT, one = MPT_STATS_INIT;
    mpt_event event = MPT_EVENT_INIT;
    mpt_peer_id peer = 0;
    char *text;
    ptrdiff_t len;
    int format;
    do {
        EXPECT(0, mpt_next_event(server, &event, SOON));
    } while (event.type != MPT_EVENT_PEER_UP);
    peer = event.peer;
    /* In this order: a probe may come between the two, and counters only grow. */
    EXPECT(0, mpt_stats(server, peer, &one));
    EXPECT(0, mpt_stats(server, 0, &all));
    CHECK(all.connected && all.peers == 1 && one.connected && one.received > 0);
    CHECK(all.received >= one.received && all.receive_buffer > 0 && one.receive_buffer == 0);
    CHECK(one.wins + one.duplicates == one.received);
    EXPECT(MPT_EPEER, mpt_stats(server, 4711, &one));
    EXPECT(0, mpt_stats(client, 0, &all));
    CHECK(all.connected && all.sent > 0 && all.peers == 0);
    for (format = MPT_JSON; format <= MPT_PROMETHEUS; format++) {
        len = mpt_metrics(client, format, NULL, 0);
        CHECK(len > 100);
        text = malloc((size_t)len * 2);
        len = mpt_metrics(client, format, text, (size_t)len * 2);
        CHECK(len > 0 && strlen(text) == (size_t)len);
        CHECK(strstr(text, format == MPT_JSON ? "\"role\":\"client\"" : "# TYPE mptunnel_path_up") !=
              NULL);
        free(text);
    }
}

/* The figures of paths and tunnels are those of what was sent. */
static void figures(mpt_t *server, mpt_t *client) {
    mpt_path_info paths[3] = {MPT_PATH_INFO_INIT, MPT_PATH_INFO_INIT, MPT_PATH_INFO_INIT};
    mpt_stats_t here = MPT_STATS_INIT, there = MPT_STATS_INIT, before = MPT_STATS_INIT;
    mpt_stats_t all = MPT_STATS_INIT;
    struct timespec pause = {0, 2000000};
    mpt_peer_id peer = 0;
    mpt_path_id slow = 0;
    char spec[128], at[64];
    uint64_t sent_here = 0;
    size_t n = 0, i, told = 0;

    EXPECT(1, mpt_send(client, "x", 1, SOON));
    EXPECT(1, mpt_recv_from(server, &peer, got, sizeof got, SOON));
    EXPECT(0, mpt_stats(server, peer, &before));
    /* Until the ends have told each other of losses, and of a sample, as they do while they are
     * busy. */
    while (told < 2 && sent_here < 8 * SOON) {
        for (i = 0; i < 8; i++, sent_here++) {
            EXPECT(4, mpt_send(client, "data", 4, SOON));
            EXPECT(4, mpt_recv(server, got, sizeof got, SOON));
        }
        nanosleep(&pause, NULL);
        EXPECT(0, mpt_path_list(client, 0, paths, 3, &n));
        EXPECT(0, mpt_stats(client, 0, &here));
        for (told = 0; told < n && here.residual_loss_out >= 0; told++) {
            if (paths[told].loss_out_1s < 0 || paths[told].samples_out == 0)
                break;
        }
    }
    CHECK(told == 2 && n == 2);
    for (i = 0; i < 2; i++) {
        const mpt_path_info *path = &paths[i];
        CHECK(path->known_out >= path->lost_out && path->known_in >= path->lost_in);
        CHECK(path->known_out > 0 && path->known_out <= path->sent);
        CHECK(path->loss_out_1s <= 1 && path->loss_out_10s >= 0 && path->loss_out_10s <= 1);
        CHECK(path->loss_in_1s <= 1 && path->loss_in_10s <= 1);
        CHECK(path->arrived_out <= path->samples_out && path->first_out <= path->arrived_out);
        CHECK(path->only_out <= path->first_out);
        CHECK(path->queue_packets == 0 && path->queue_bytes == 0 && path->queue_us == -1);
        CHECK(path->lead_out_us == -1 || (path->lead_out_us >= 0 && path->first_out > 0));
    }
    /* Nothing is lost on the way. Each of the sample was the first on one path, which for some was
     * one that is not there any more. */
    CHECK(here.residual_loss_out == 0 && here.samples_out > 0);
    CHECK(paths[0].first_out + paths[1].first_out > 0);
    CHECK(paths[0].first_out + paths[1].first_out <= here.samples_out);
    CHECK(paths[0].samples_out <= here.samples_out);
    CHECK(here.first_packets > 0 && here.first_bytes > 16 * here.first_packets && here.rekeys == 0);

    EXPECT(0, mpt_stats(server, peer, &there));
    CHECK(there.first_packets - before.first_packets >= sent_here);
    CHECK(there.first_bytes - before.first_bytes > 20 * sent_here);
    CHECK(there.received - there.duplicates == there.first_packets);
    CHECK(there.late == 0 && there.restarts == 0 && there.residual_loss_out <= 0);
    EXPECT(0, mpt_path_list(server, peer, paths, 3, &n));
    CHECK(n >= 2 && paths[0].samples_in > 0 && paths[0].samples_in <= paths[0].received);
    CHECK(paths[0].first_in + paths[1].first_in > 0 && paths[0].queue_us == -1);
    EXPECT(0, mpt_stats(server, 0, &all));
    CHECK(all.residual_loss_out == -1 && all.first_packets == 0 && all.reorder_held == 0);

    /* A path with a rate has a queue. */
    CHECK(mpt_local_addr(server, at, sizeof at) > 0);
    snprintf(spec, sizeof spec, "to=%s name=slow rate=8", at);
    EXPECT(0, mpt_path_add(client, spec, &slow));
    EXPECT(0, mpt_path_list(client, 0, paths, 3, &n));
    CHECK(n == 3 && paths[2].id == slow && paths[2].queue_us >= 0);
    CHECK(paths[2].rate_bytes_per_s == 1000000 && paths[0].rate_bytes_per_s == 0);
    EXPECT(0, mpt_path_remove(client, slow));
}

static struct {
    pthread_mutex_t lock;
    int sockets, messages;
    mpt_t *t;
} seen = {PTHREAD_MUTEX_INITIALIZER, 0, 0, NULL};

static int socket_hook(void *user, intptr_t fd, const char *spec) {
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    CHECK(user == &seen && fd >= 0 && getsockname((int)fd, (struct sockaddr *)&address, &len) == 0);
    pthread_mutex_lock(&seen.lock);
    seen.sockets++;
    /* From here the library cannot be called. */
    EXPECT(MPT_EBUSY, mpt_interrupt(seen.t));
    pthread_mutex_unlock(&seen.lock);
    return strstr(spec, "name=second") != NULL ? 1 /* EPERM */ : 0;
}

static void log_hook(void *user, int level, const char *target, const char *message) {
    CHECK(user == &seen && level >= 1 && level <= 5 && strncmp(target, "mptunnel", 8) == 0);
    CHECK(message[0] != '\0');
    pthread_mutex_lock(&seen.lock);
    seen.messages++;
    EXPECT(MPT_EBUSY, mpt_interrupt(seen.t));
    pthread_mutex_unlock(&seen.lock);
}

/* A client that is sent away learns of it, and does not come back. */
static void dismissal(void) {
    mpt_t *server = open_server(NULL), *client = open_client(server, NULL);
    mpt_event event = MPT_EVENT_INIT;
    mpt_peer_id peer;
    size_t n;
    char byte;
    EXPECT(0, mpt_wait_ready(server, SOON));
    EXPECT(0, mpt_peer_list(server, &peer, 1, &n));
    CHECK(n == 1);
    EXPECT(MPT_EPEER, mpt_peer_dismiss(server, peer + 1));
    EXPECT(MPT_ENOTSUP, mpt_peer_dismiss(client, 0));
    EXPECT(0, mpt_peer_dismiss(server, peer));
    EXPECT(MPT_ECLOSED, mpt_recv(client, &byte, 1, SOON));
    do {
        EXPECT(0, mpt_next_event(server, &event, SOON));
    } while (event.type != MPT_EVENT_PEER_GONE);
    CHECK(event.peer == peer && strstr(event.text, "dismissed") != NULL);
    CHECK(strcmp(mpt_event_type_name(event.type), "peer_gone") == 0);
    mpt_close(client);
    mpt_close(server);
}

static void hooks(mpt_t *server) {
    mpt_config_t *config = mpt_config_new();
    mpt_event event = MPT_EVENT_INIT;
    mpt_path_info paths[2] = {MPT_PATH_INFO_INIT, MPT_PATH_INFO_INIT};
    char uri[900], at[64];
    mpt_t *t = NULL;
    size_t n;
    seen.t = server;
    CHECK(mpt_local_addr(server, at, sizeof at) > 0);
    snprintf(uri, sizeof uri, "mpt://%s?key-file=%s&path=name=first&path=name=second", at, key_file);
    EXPECT(0, mpt_config_set_socket_hook(config, socket_hook, &seen));
    EXPECT(0, mpt_config_set_log(config, log_hook, &seen, 5));
    EXPECT(0, mpt_open(uri, config, &t));
    EXPECT(0, mpt_wait_ready(t, SOON));
    do {
        EXPECT(0, mpt_next_event(t, &event, SOON));
    } while (event.type != MPT_EVENT_PATH_DOWN);
    CHECK(strcmp(event.name, "second") == 0 && strstr(event.text, "socket hook") != NULL);
    EXPECT(0, mpt_path_list(t, 0, paths, 2, &n));
    CHECK(n == 2 && paths[0].up && !paths[1].up && paths[1].max_packet == 0);
    mpt_close(t);
    CHECK(seen.sockets >= 2 && seen.messages > 0);
    seen.sockets = seen.messages = 0;

    /* Without the hooks, nobody is called. */
    EXPECT(0, mpt_config_set_socket_hook(config, NULL, NULL));
    EXPECT(0, mpt_config_set_log(config, NULL, NULL, 0));
    EXPECT(0, mpt_open(uri, config, &t));
    EXPECT(0, mpt_wait_ready(t, SOON));
    mpt_close(t);
    mpt_config_free(config);
    CHECK(seen.sockets == 0 && seen.messages == 0);
}

/* A key that is in no file: both ends have the same, or another one. */
static void keys(void) {
    char uri[128], at[64], key[MPT_KEY_SIZE], one[64], other[64];
    mpt_config_t *config = mpt_config_new();
    mpt_t *server = NULL, *client = NULL;
    EXPECT(MPT_ECONFIG, mpt_config_set_key(config, "c2hvcnQ="));
    CHECK(strstr(mpt_last_error(), "44 characters") && !strstr(mpt_last_error(), "c2hvcnQ"));
    EXPECT(0, mpt_genkey(key, sizeof key));
    EXPECT(0, mpt_config_set_key(config, key));
    snprintf(uri, sizeof uri, "mpt-listen://127.0.0.1:0?encrypt=on%s", options_too());
    EXPECT(0, mpt_open(uri, config, &server));
    CHECK(mpt_local_addr(server, at, sizeof at) > 0);
    snprintf(uri, sizeof uri, "mpt://%s?encrypt=on%s", at, options_too());
    EXPECT(0, mpt_open(uri, config, &client));
    EXPECT(0, mpt_wait_ready(client, SOON));
    EXPECT(16, mpt_key_ids(client, one, sizeof one));
    mpt_close(client);
    EXPECT(0, mpt_genkey(key, sizeof key));
    EXPECT(0, mpt_config_set_key(config, key));
    EXPECT(0, mpt_open(uri, config, &client));
    EXPECT(16, mpt_key_ids(client, other, sizeof other));
    CHECK(strcmp(one, other) != 0);
    mpt_close(client);
    mpt_close(server);
    mpt_config_free(config);
}

static void connection(void) {
    char uri[700], got_reason[8];
    mpt_t *t = NULL;
    snprintf(uri, sizeof uri, "mpt://127.0.0.1:9?key-file=%s", key_file);
    EXPECT(0, mpt_open(uri, NULL, &t));
    EXPECT(MPT_ENOTCONN, mpt_send(t, "x", 1, 0));
    EXPECT(MPT_ENOTCONN, mpt_wait_ready(t, 50));
    EXPECT(0, mpt_local_addr(t, got_reason, sizeof got_reason));
    mpt_close(t);
    t = NULL;
    EXPECT(MPT_ECONFIG, mpt_open("mpt://127.0.0.1:9", NULL, &t));
    CHECK(t == NULL && strstr(mpt_last_error(), "no key") != NULL);
    EXPECT(MPT_ECONFIG, mpt_open("http://127.0.0.1:9", NULL, &t));
    snprintf(uri, sizeof uri, "mpt-listen://192.0.2.55:1?key-file=%s", key_file);
    EXPECT(MPT_ESYSTEM, mpt_open(uri, NULL, &t));
    CHECK(t == NULL && strstr(mpt_last_error(), "192.0.2.55:1") != NULL);
}

int main(int argc, char **argv) {
    mpt_t *server, *client;
    char key[MPT_KEY_SIZE];
    CHECK(argc == 2);
    CHECK(mpt_abi_version() == MPT_ABI_VERSION && strchr(mpt_version(), '.') != NULL);
    CHECK(strstr(mpt_build_info(), "\"target\"") != NULL && mpt_last_error()[0] == '\0');
    EXPECT(MPT_EMSGSIZE, mpt_genkey(key, sizeof key - 1));
    make_key(argv[1]);
    server = open_server(NULL);
    client = open_client(server, NULL);
    EXPECT(0, mpt_wait_ready(server, SOON));
    sizes(server, client);
    batches(server, client);
    flows(server, client);
    options(server, client);
    paths(server, client);
    observation(server, client);
    figures(server, client);
    dismissal();
    hooks(server);
    keys();
    connection();
    mpt_close(client);
    mpt_close(server);
    unlink(key_file);
    puts("basic: ok");
    return 0;
}
