/* SPDX-License-Identifier: BSD-2-Clause */
/* Every function with every wrong handle and pointer, from two threads, and in random order. */
#include "test.h"

#include <pthread.h>
#include <stdint.h>

static char buffer[70000];

/* All functions that take an endpoint; what each answers to one that it cannot use. */
static void all_with(mpt_t *t, int expected) {
    mpt_path_info info = MPT_PATH_INFO_INIT;
    mpt_stats_t stats = MPT_STATS_INIT;
    mpt_event event = MPT_EVENT_INIT;
    mpt_msg message = MPT_MSG_INIT;
    mpt_pair_info pair = MPT_PAIR_INFO_INIT;
    mpt_count count = MPT_COUNT_INIT;
    mpt_peer_id peer = 7;
    mpt_path_id path = 7;
    size_t n = 7;
    message.buf = buffer;
    message.cap = sizeof buffer;
    EXPECT(expected, mpt_wait_ready(t, 0));
    EXPECT(expected, mpt_interrupt(t));
    EXPECT(expected, mpt_peer_dismiss(t, 1));
    EXPECT(expected, mpt_send(t, "x", 1, 0));
    EXPECT(expected, mpt_send_to(t, 1, "x", 1, 0));
    EXPECT(expected, mpt_recv(t, buffer, sizeof buffer, 0));
    EXPECT(expected, mpt_recv_from(t, &peer, buffer, sizeof buffer, 0));
    EXPECT(expected, mpt_sendv(t, &message, 1, 0));
    EXPECT(expected, mpt_recvv(t, &message, 1, 0));
    EXPECT(expected, mpt_set(t, "idle-interval", "1s"));
    EXPECT(expected, mpt_get(t, "idle-interval", buffer, sizeof buffer));
    EXPECT(expected, mpt_local_addr(t, buffer, sizeof buffer));
    EXPECT(expected, mpt_path_add(t, "to=127.0.0.1:9", &path));
    EXPECT(expected, mpt_path_set(t, 1, "name", "x"));
    EXPECT(expected, mpt_path_remove(t, 1));
    EXPECT(expected, mpt_path_list(t, 0, &info, 1, &n));
    EXPECT(expected, mpt_pair_list(t, 0, &pair, 1, &n));
    EXPECT(expected, mpt_drop_list(t, &count, 1, &n));
    EXPECT(expected, mpt_error_list(t, 0, &count, 1, &n));
    EXPECT(expected, mpt_peer_list(t, &peer, 1, &n));
    EXPECT(expected, mpt_key_ids(t, buffer, sizeof buffer));
    EXPECT(expected, mpt_next_event(t, &event, 0));
    EXPECT(expected, mpt_stats(t, 0, &stats));
    EXPECT(expected, mpt_metrics(t, MPT_JSON, buffer, sizeof buffer));
    EXPECT(expected, mpt_fd(t));
    EXPECT(0, mpt_max_payload(t));
    mpt_close(t);
    /* What failed wrote nothing. */
    CHECK(peer == 7 && path == 7 && n == 7 && stats.connected == 0 && event.text[0] == '\0');
}

static void all_configs_with(mpt_config_t *c, int expected) {
    mpt_t *t = NULL;
    EXPECT(expected, mpt_config_set(c, "mtu", "1400"));
    EXPECT(expected, mpt_config_get(c, "mtu", buffer, sizeof buffer));
    EXPECT(expected, mpt_config_load(c, "/dev/null"));
    EXPECT(expected, mpt_config_set_key(c, "nonsense"));
    EXPECT(expected, mpt_config_set_socket_hook(c, NULL, NULL));
    EXPECT(expected, mpt_config_set_log(c, NULL, NULL, 0));
    if (c != NULL)
        EXPECT(expected, mpt_open("mpt://127.0.0.1:9", c, &t));
    CHECK(t == NULL);
    mpt_config_free(c);
}

static void handles(void) {
    mpt_t *t = open_server(NULL);
    mpt_config_t *c = mpt_config_new();
    static const uintptr_t numbers[] = {1,      7,          11,        23,        4096,
                                        0xffff, 0xdeadbeef, UINTPTR_MAX, UINTPTR_MAX / 2};
    size_t i;
    all_with(NULL, MPT_EINVAL);
    all_configs_with(NULL, MPT_EINVAL);
    /* Of the other type. */
    all_with((mpt_t *)(void *)c, MPT_EBADF);
    all_configs_with((mpt_config_t *)(void *)t, MPT_EBADF);
    for (i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (numbers[i] == (uintptr_t)t || numbers[i] == (uintptr_t)c)
            continue;
        all_with((mpt_t *)numbers[i], MPT_EBADF);
        all_configs_with((mpt_config_t *)numbers[i], MPT_EBADF);
    }
    all_with((mpt_t *)(void *)buffer, MPT_EBADF);
    all_with((mpt_t *)(void *)&i, MPT_EBADF);
    all_with((mpt_t *)(void *)((char *)t + 1), MPT_EBADF);
    /* They are still open after all this, and closed ones stay closed. */
    EXPECT(0, mpt_interrupt(t));
    EXPECT(0, mpt_config_set(c, "mtu", "1400"));
    mpt_close(t);
    all_with(t, MPT_EBADF);
    mpt_config_free(c);
    all_configs_with(c, MPT_EBADF);
}

static void arguments(mpt_t *server, mpt_t *client) {
    mpt_path_info info = MPT_PATH_INFO_INIT;
    mpt_stats_t stats = MPT_STATS_INIT;
    mpt_event event = MPT_EVENT_INIT;
    mpt_msg message = MPT_MSG_INIT;
    mpt_pair_info pair = MPT_PAIR_INFO_INIT;
    mpt_count count = MPT_COUNT_INIT;
    mpt_config_t *c = mpt_config_new();
    mpt_t *t = NULL;
    mpt_peer_id peer;
    size_t n;
    static const char no_utf8[] = "\xff\xfe";

    EXPECT(MPT_EINVAL, mpt_open(NULL, NULL, &t));
    EXPECT(MPT_EINVAL, mpt_open("mpt://127.0.0.1:9", NULL, NULL));
    EXPECT(MPT_EINVAL, mpt_open(no_utf8, NULL, &t));
    EXPECT(MPT_EINVAL, mpt_wait_ready(client, -2));
    EXPECT(MPT_EINVAL, mpt_send(client, NULL, 1, 0));
    EXPECT(MPT_EINVAL, mpt_send(client, "x", 1, -2));
    EXPECT(MPT_EINVAL, mpt_send(client, "x", SIZE_MAX, 0));
    EXPECT(0, mpt_send(client, NULL, 0, 0));
    EXPECT(0, mpt_recv(server, NULL, 0, SOON));
    EXPECT(MPT_EINVAL, mpt_recv(client, NULL, 1, 0));
    EXPECT(MPT_EINVAL, mpt_recv(client, buffer, SIZE_MAX, 0));
    EXPECT(MPT_EINVAL, mpt_recv(client, buffer, 1, -100));
    EXPECT(MPT_EINVAL, mpt_recv_from(client, NULL, buffer, 1, 0));
    EXPECT(MPT_EINVAL, mpt_recv_from(client, &peer, NULL, 1, 0));
    EXPECT(MPT_EINVAL, mpt_sendv(client, NULL, 1, 0));
    EXPECT(MPT_EINVAL, mpt_recvv(client, NULL, 1, 0));
    EXPECT(MPT_EINVAL, mpt_sendv(client, &message, SIZE_MAX, 0));
    EXPECT(MPT_EINVAL, mpt_recvv(client, &message, SIZE_MAX / 2, 0));
    EXPECT(0, mpt_sendv(client, NULL, 0, 0));
    message.flags = 1;
    EXPECT(MPT_EINVAL, mpt_sendv(client, &message, 1, 0));
    EXPECT(MPT_EINVAL, mpt_recvv(client, &message, 1, 0));
    message.flags = 0;
    message.len = 1;
    EXPECT(MPT_EINVAL, mpt_sendv(client, &message, 1, 0));
    message.cap = 1;
    EXPECT(MPT_EINVAL, mpt_recvv(client, &message, 1, 0));
    message.struct_size = 0;
    EXPECT(MPT_EINVAL, mpt_sendv(client, &message, 1, 0));
    CHECK(strstr(mpt_last_error(), "struct_size") != NULL);
    EXPECT(MPT_EINVAL, mpt_config_set(c, NULL, "x"));
    EXPECT(MPT_EINVAL, mpt_config_set(c, "mtu", NULL));
    EXPECT(MPT_EINVAL, mpt_config_set(c, no_utf8, "x"));
    EXPECT(MPT_EINVAL, mpt_config_get(c, NULL, buffer, 1));
    EXPECT(MPT_EINVAL, mpt_config_get(c, "mtu", NULL, 1));
    EXPECT(MPT_EINVAL, mpt_config_load(c, NULL));
    EXPECT(MPT_EINVAL, mpt_config_set_key(c, NULL));
    EXPECT(MPT_EINVAL, mpt_config_set_key(c, no_utf8));
    EXPECT(MPT_EINVAL, mpt_config_set_log(c, NULL, NULL, 6));
    EXPECT(MPT_EINVAL, mpt_config_set_log(c, NULL, NULL, -1));
    EXPECT(MPT_EINVAL, mpt_set(client, NULL, "1s"));
    EXPECT(MPT_EINVAL, mpt_set(client, "mtu", NULL));
    EXPECT(MPT_EINVAL, mpt_get(client, NULL, buffer, 1));
    EXPECT(MPT_EINVAL, mpt_get(client, "mtu", NULL, 1));
    EXPECT(MPT_EINVAL, mpt_local_addr(client, NULL, 1));
    EXPECT(MPT_EINVAL, mpt_path_add(client, NULL, NULL));
    EXPECT(MPT_EINVAL, mpt_path_set(client, 1, NULL, "x"));
    EXPECT(MPT_EINVAL, mpt_path_set(client, 1, "name", NULL));
    EXPECT(MPT_EINVAL, mpt_path_list(client, 0, NULL, 1, &n));
    EXPECT(MPT_EINVAL, mpt_path_list(client, 0, &info, 1, NULL));
    info.struct_size = 3;
    EXPECT(MPT_EINVAL, mpt_path_list(client, 0, &info, 1, &n));
    EXPECT(MPT_EINVAL, mpt_pair_list(client, 0, NULL, 1, &n));
    EXPECT(MPT_EINVAL, mpt_pair_list(client, 0, &pair, 1, NULL));
    EXPECT(MPT_EINVAL, mpt_drop_list(client, NULL, 1, &n));
    EXPECT(MPT_EINVAL, mpt_error_list(client, 0, NULL, 1, &n));
    EXPECT(MPT_EINVAL, mpt_peer_list(server, NULL, 1, &n));
    EXPECT(MPT_EINVAL, mpt_peer_list(server, &peer, 1, NULL));
    EXPECT(MPT_EINVAL, mpt_key_ids(client, NULL, 1));
    pair.struct_size = count.struct_size = 8;
    EXPECT(MPT_EINVAL, mpt_pair_list(client, 0, &pair, 1, &n));
    EXPECT(MPT_EINVAL, mpt_drop_list(client, &count, 1, &n));
    EXPECT(MPT_EINVAL, mpt_next_event(client, NULL, 0));
    EXPECT(MPT_EINVAL, mpt_next_event(client, &event, -2));
    event.struct_size = 0;
    EXPECT(MPT_EINVAL, mpt_next_event(client, &event, 0));
    EXPECT(MPT_EINVAL, mpt_stats(client, 0, NULL));
    stats.struct_size = 4;
    EXPECT(MPT_EINVAL, mpt_stats(client, 0, &stats));
    EXPECT(MPT_EINVAL, mpt_metrics(client, 0, buffer, 1));
    EXPECT(MPT_EINVAL, mpt_metrics(client, MPT_JSON, NULL, 1));
    EXPECT(MPT_EINVAL, mpt_genkey(NULL, MPT_KEY_SIZE));
    CHECK(strcmp(mpt_strerror(4711), "unknown status") == 0);
    CHECK(strcmp(mpt_strerror(MPT_EBADF), "not an open handle") == 0);
    mpt_config_free(c);
}

/* ---- random sequences ---- */

enum { SLOTS = 4, TURNS = 10000, THREADS = 2 };

static mpt_t *volatile shared[SLOTS];
static mpt_config_t *volatile configs[SLOTS];
static char address[64];

static unsigned next(unsigned *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Answers are not judged, but that they are answers: a count, or a status that is known. */
static void one_call(unsigned *state, char *room, size_t size) {
    mpt_t *t = shared[next(state) % SLOTS];
    mpt_config_t *c = configs[next(state) % SLOTS];
    mpt_path_info info[3] = {MPT_PATH_INFO_INIT, MPT_PATH_INFO_INIT, MPT_PATH_INFO_INIT};
    mpt_stats_t stats = MPT_STATS_INIT;
    mpt_event event = MPT_EVENT_INIT;
    mpt_msg messages[3] = {MPT_MSG_INIT, MPT_MSG_INIT, MPT_MSG_INIT};
    mpt_count counts[3] = {MPT_COUNT_INIT};
    mpt_pair_info pairs[3] = {MPT_PAIR_INFO_INIT};
    mpt_peer_id ids[3];
    mpt_peer_id peer = next(state) % 4;
    mpt_path_id path = next(state) % 4;
    int timeout = (int)(next(state) % 2), i;
    size_t n = next(state) % 4, len = next(state) % 3000;
    ptrdiff_t answer = 0;
    for (i = 0; i < 3; i++) {
        messages[i].buf = room;
        messages[i].len = len;
        messages[i].cap = size;
        messages[i].peer = peer;
        messages[i].path = path;
        messages[i].copies = (uint8_t)(next(state) % 4);
    }
    switch (next(state) % 32) {
    case 0: answer = mpt_send(t, room, len, timeout); break;
    case 1: answer = mpt_recv(t, room, size, timeout); break;
    case 2: answer = mpt_send_to(t, peer, room, len, timeout); break;
    case 3: answer = mpt_recv_from(t, &peer, room, size, timeout); break;
    case 4: answer = mpt_sendv(t, messages, n % 4, timeout); break;
    case 5: answer = mpt_recvv(t, messages, n % 4, timeout); break;
    case 6: answer = mpt_wait_ready(t, timeout); break;
    case 7: answer = mpt_interrupt(t); break;
    case 8: answer = mpt_set(t, "idle-interval", n % 2 ? "1s" : "nonsense"); break;
    case 9: answer = mpt_get(t, mpt_option_name(len % 40), room, n); break;
    case 10: answer = mpt_path_add(t, n % 2 ? "to=127.0.0.1:9" : address, &path); break;
    case 11: answer = mpt_path_set(t, path, "role", n % 2 ? "backup" : "active"); break;
    case 12: answer = mpt_path_remove(t, path); break;
    case 13: answer = mpt_path_list(t, peer, info, n % 4, &n); break;
    case 14: answer = mpt_next_event(t, &event, timeout); break;
    case 15: answer = mpt_stats(t, peer, &stats); break;
    case 16: answer = mpt_metrics(t, (int)(n % 3), room, size); break;
    case 17: answer = mpt_fd(t); break;
    case 18: answer = (ptrdiff_t)mpt_max_payload(t); break;
    case 19: answer = mpt_config_set(c, mpt_option_name(len % 40), n % 2 ? "1" : "on"); break;
    case 20: answer = mpt_config_get(c, mpt_option_name(len % 40), room, n); break;
    case 21: answer = mpt_local_addr(t, room, n); break;
    case 22: answer = mpt_genkey(room, n * 20); break;
    case 23:
        /* Rarely, or all of the time goes to opening and closing. */
        if (next(state) % 20 == 0) {
            char uri[900];
            mpt_t *opened = NULL, **to = n % 4 ? &opened : NULL;
            size_t slot = next(state) % SLOTS;
            snprintf(uri, sizeof uri, n % 2 ? "mpt-listen://127.0.0.1:0?key-file=%s"
                                            : "mpt://127.0.0.1:9?key-file=%s", key_file);
            answer = mpt_open(uri, NULL, to);
            if (answer == 0) {
                mpt_close(shared[slot]);
                shared[slot] = opened;
            }
        }
        break;
    case 25: answer = mpt_pair_list(t, peer, pairs, n % 4, &n); break;
    case 26: answer = mpt_drop_list(t, counts, n % 4, &n); break;
    case 27: answer = mpt_error_list(t, path, counts, n % 4, &n); break;
    case 28: answer = mpt_peer_list(t, ids, n % 4, &n); break;
    case 29: answer = mpt_key_ids(t, room, n); break;
    case 30: answer = mpt_peer_dismiss(t, peer); break;
    case 24:
        mpt_config_free(c);
        configs[next(state) % SLOTS] = mpt_config_new();
        break;
    default:
        if (next(state) % 40 == 0)
            mpt_close(t);
        break;
    }
    CHECK(answer >= 0 || strcmp(mpt_strerror((int)answer), "unknown status") != 0);
    CHECK(answer != MPT_EPANIC);
    CHECK(mpt_last_error() != NULL);
}

static void *random_calls(void *seed) {
    unsigned state = (unsigned)(uintptr_t)seed;
    char *room = malloc(65507);
    int turn;
    memset(room, 'x', 65507);
    for (turn = 0; turn < TURNS / THREADS; turn++)
        one_call(&state, room, 65507);
    free(room);
    return NULL;
}

static void random_sequences(void) {
    pthread_t threads[THREADS];
    mpt_t *server = open_server(NULL);
    char at[50];
    size_t i;
    CHECK(mpt_local_addr(server, at, sizeof at) > 0);
    snprintf(address, sizeof address, "to=%s", at);
    shared[0] = server;
    shared[1] = open_client(server, NULL);
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, random_calls, (void *)(uintptr_t)(i + 1)) == 0);
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (i = 0; i < SLOTS; i++) {
        mpt_close(shared[i]);
        mpt_config_free(configs[i]);
    }
    mpt_close(server);
}

int main(int argc, char **argv) {
    mpt_t *server, *client;
    CHECK(argc == 2);
    make_key(argv[1]);
    handles();
    server = open_server(NULL);
    client = open_client(server, NULL);
    arguments(server, client);
    mpt_close(client);
    mpt_close(server);
    random_sequences();
    unlink(key_file);
    puts("misuse: ok");
    return 0;
}
