/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What programs were compiled against stays as it is: numbers, sizes, offsets (of 64-bit systems).
 * A line here is added and never changed. And structs of other lengths than this library's work.
 */
#include "test.h"

#include <stddef.h>
#include <stdint.h>

#define FROZEN(name, condition) typedef char frozen_##name[(condition) ? 1 : -1]

FROZEN(again, MPT_EAGAIN == -1);
FROZEN(timedout, MPT_ETIMEDOUT == -2);
FROZEN(intr, MPT_EINTR == -3);
FROZEN(msgsize, MPT_EMSGSIZE == -4);
FROZEN(inval, MPT_EINVAL == -10);
FROZEN(badf, MPT_EBADF == -11);
FROZEN(config, MPT_ECONFIG == -12);
FROZEN(notsup, MPT_ENOTSUP == -13);
FROZEN(busy, MPT_EBUSY == -14);
FROZEN(notconn, MPT_ENOTCONN == -20);
FROZEN(nopath, MPT_ENOPATH == -21);
FROZEN(peer, MPT_EPEER == -22);
FROZEN(path, MPT_EPATH == -23);
FROZEN(refused, MPT_EREFUSED == -24);
FROZEN(closed, MPT_ECLOSED == -30);
FROZEN(forked, MPT_EFORKED == -31);
FROZEN(panic, MPT_EPANIC == -32);
FROZEN(system, MPT_ESYSTEM == -40);
FROZEN(formats, MPT_JSON == 1 && MPT_PROMETHEUS == 2);
FROZEN(events_of_clients, MPT_EVENT_OTHER == 0 && MPT_EVENT_CONNECTED == 1 &&
       MPT_EVENT_DISCONNECTED == 2 && MPT_EVENT_SERVER_SILENT == 3 &&
       MPT_EVENT_SERVER_RESTARTED == 4 && MPT_EVENT_SERVER_GOING_AWAY == 5 &&
       MPT_EVENT_REFUSED == 6 && MPT_EVENT_SERVER_UNDER_LOAD == 7 && MPT_EVENT_CLOSED == 8 &&
       MPT_EVENT_PATH_UP == 9 && MPT_EVENT_PATH_DOWN == 10 && MPT_EVENT_FLOW_CLOSED == 11 &&
       MPT_EVENT_REKEYED == 12);
FROZEN(events_of_servers, MPT_EVENT_PEER_UP == 20 && MPT_EVENT_PEER_RESTARTED == 21 &&
       MPT_EVENT_PEER_GONE == 22 && MPT_EVENT_PEER_PATH_UP == 23 &&
       MPT_EVENT_PEER_PATH_MOVED == 24 && MPT_EVENT_PEER_PATH_SILENT == 25 &&
       MPT_EVENT_UNKNOWN_KEY == 26 && MPT_EVENT_PEER_REFUSED == 27);
FROZEN(path_states, MPT_PATH_UNKNOWN == 0 && MPT_PATH_STARTING == 1 && MPT_PATH_UP == 2 &&
       MPT_PATH_DOWN == 3 && MPT_PATH_NO_SOCKET == 4);
FROZEN(abi_version, MPT_ABI_VERSION == 1 && MPT_KEY_SIZE == 45);

#if UINTPTR_MAX == UINT64_MAX
FROZEN(msg, sizeof(mpt_msg) == 64);
FROZEN(msg_members, offsetof(mpt_msg, flags) == 4 && offsetof(mpt_msg, buf) == 8 &&
       offsetof(mpt_msg, len) == 16 && offsetof(mpt_msg, cap) == 24 &&
       offsetof(mpt_msg, peer) == 32 && offsetof(mpt_msg, path) == 40 &&
       offsetof(mpt_msg, copies) == 44 && offsetof(mpt_msg, deadline_us) == 48 &&
       offsetof(mpt_msg, time_ns) == 56);
FROZEN(event, sizeof(mpt_event) == 352);
FROZEN(event_members, offsetof(mpt_event, type) == 4 && offsetof(mpt_event, peer) == 8 &&
       offsetof(mpt_event, path) == 16 && offsetof(mpt_event, code) == 20 &&
       offsetof(mpt_event, name) == 24 && offsetof(mpt_event, text) == 96);
FROZEN(path_info, sizeof(mpt_path_info) == 1304);
FROZEN(path_info_members, offsetof(mpt_path_info, id) == 4 && offsetof(mpt_path_info, peer) == 8 &&
       offsetof(mpt_path_info, slot) == 16 && offsetof(mpt_path_info, up) == 17 &&
       offsetof(mpt_path_info, backup) == 18 && offsetof(mpt_path_info, max_packet) == 20 &&
       offsetof(mpt_path_info, since_us) == 24 && offsetof(mpt_path_info, rtt_us) == 32 &&
       offsetof(mpt_path_info, jitter_us) == 56 && offsetof(mpt_path_info, loss_out) == 64 &&
       offsetof(mpt_path_info, loss_in) == 72 && offsetof(mpt_path_info, sent) == 80 &&
       offsetof(mpt_path_info, duplicates) == 128 && offsetof(mpt_path_info, name) == 136 &&
       offsetof(mpt_path_info, remote) == 208 && offsetof(mpt_path_info, words) == 280);
FROZEN(path_info_losses, offsetof(mpt_path_info, loss_out_1s) == 536 &&
       offsetof(mpt_path_info, loss_out_10s) == 544 &&
       offsetof(mpt_path_info, loss_in_1s) == 552 && offsetof(mpt_path_info, loss_in_10s) == 560 &&
       offsetof(mpt_path_info, known_out) == 568 && offsetof(mpt_path_info, lost_out) == 576 &&
       offsetof(mpt_path_info, known_in) == 584 && offsetof(mpt_path_info, lost_in) == 592);
FROZEN(path_info_worth, offsetof(mpt_path_info, queue_packets) == 600 &&
       offsetof(mpt_path_info, queue_bytes) == 608 && offsetof(mpt_path_info, queue_us) == 616 &&
       offsetof(mpt_path_info, samples_out) == 624 && offsetof(mpt_path_info, arrived_out) == 632 &&
       offsetof(mpt_path_info, first_out) == 640 && offsetof(mpt_path_info, only_out) == 648 &&
       offsetof(mpt_path_info, lead_out_us) == 656 && offsetof(mpt_path_info, samples_in) == 664 &&
       offsetof(mpt_path_info, first_in) == 672 && offsetof(mpt_path_info, only_in) == 680 &&
       offsetof(mpt_path_info, lead_in_us) == 688);
FROZEN(path_info_state, offsetof(mpt_path_info, state) == 696 &&
       offsetof(mpt_path_info, reason) == 704 && offsetof(mpt_path_info, local) == 960 &&
       offsetof(mpt_path_info, remote_before) == 1032 &&
       offsetof(mpt_path_info, local_before) == 1104 && offsetof(mpt_path_info, errors) == 1176);
FROZEN(path_info_lately, offsetof(mpt_path_info, known_out_1s) == 1184 &&
       offsetof(mpt_path_info, known_out_10s) == 1192 &&
       offsetof(mpt_path_info, known_in_1s) == 1200 &&
       offsetof(mpt_path_info, known_in_10s) == 1208 &&
       offsetof(mpt_path_info, last_1s_us) == 1216 && offsetof(mpt_path_info, sent_1s) == 1224 &&
       offsetof(mpt_path_info, sent_bytes_1s) == 1232 &&
       offsetof(mpt_path_info, received_1s) == 1240 &&
       offsetof(mpt_path_info, received_bytes_1s) == 1248 &&
       offsetof(mpt_path_info, last_10s_us) == 1256 &&
       offsetof(mpt_path_info, received_bytes_10s) == 1288 &&
       offsetof(mpt_path_info, rate_bytes_per_s) == 1296);
FROZEN(stats, sizeof(mpt_stats_t) == 280);
FROZEN(stats_members, offsetof(mpt_stats_t, connected) == 4 && offsetof(mpt_stats_t, peers) == 8 &&
       offsetof(mpt_stats_t, sent) == 16 && offsetof(mpt_stats_t, duplicates) == 64 &&
       offsetof(mpt_stats_t, dropped) == 72 && offsetof(mpt_stats_t, receive_buffer) == 120 &&
       offsetof(mpt_stats_t, restarts) == 128);
FROZEN(stats_session, offsetof(mpt_stats_t, reorder_held) == 136 &&
       offsetof(mpt_stats_t, reorder_given_up) == 144 &&
       offsetof(mpt_stats_t, reorder_late) == 152 && offsetof(mpt_stats_t, first_packets) == 160 &&
       offsetof(mpt_stats_t, first_bytes) == 168 && offsetof(mpt_stats_t, late) == 176 &&
       offsetof(mpt_stats_t, rekeys) == 184 && offsetof(mpt_stats_t, residual_loss_out) == 192 &&
       offsetof(mpt_stats_t, samples_out) == 200);
FROZEN(stats_words, offsetof(mpt_stats_t, window) == 208 && offsetof(mpt_stats_t, mode) == 216 &&
       offsetof(mpt_stats_t, cipher) == 240 && offsetof(mpt_stats_t, silent_us) == 272);
FROZEN(count, sizeof(mpt_count) == 64 && offsetof(mpt_count, code) == 4 &&
       offsetof(mpt_count, count) == 8 && offsetof(mpt_count, name) == 16);
FROZEN(pair_info, sizeof(mpt_pair_info) == 56 && offsetof(mpt_pair_info, one) == 4 &&
       offsetof(mpt_pair_info, other) == 8 && offsetof(mpt_pair_info, samples) == 16 &&
       offsetof(mpt_pair_info, lost_one) == 24 && offsetof(mpt_pair_info, lost_other) == 32 &&
       offsetof(mpt_pair_info, lost_both) == 40 && offsetof(mpt_pair_info, correlation) == 48);
#endif

/* What a program of an older header, which knew less, and one of a newer header have. */
struct short_msg {
    uint32_t struct_size, flags;
    void *buf;
    size_t len, cap;
};
struct long_msg {
    mpt_msg known;
    uint64_t news[2];
};

static void messages(mpt_t *server, mpt_t *client) {
    static char rooms[3][8];
    struct short_msg less[3];
    struct long_msg more[3];
    int i;
    memset(less, 0, sizeof less);
    memset(more, 0xaa, sizeof more);
    for (i = 0; i < 3; i++) {
        mpt_msg known = MPT_MSG_INIT;
        rooms[i][0] = (char)('a' + i);
        less[i].struct_size = sizeof less[i];
        less[i].buf = rooms[i];
        less[i].len = 1;
        less[i].cap = sizeof rooms[i];
        more[i].known = known;
        more[i].known.struct_size = sizeof more[i];
        more[i].known.buf = rooms[i];
        more[i].known.cap = sizeof rooms[i];
    }
    /* Arrays of the short and of the long struct: elements are found by the caller's size. */
    EXPECT(3, mpt_sendv(client, (mpt_msg *)(void *)less, 3, SOON));
    for (i = 0; i < 3; i += (int)mpt_recvv(server, &more[i].known, (size_t)(3 - i), SOON)) {
    }
    for (i = 0; i < 3; i++) {
        CHECK(more[i].known.len == 1 && more[i].known.peer != 0 && more[i].known.path != 0);
        CHECK(more[i].known.struct_size == sizeof more[i]);
        /* What this library does not know reads as 0. */
        CHECK(more[i].news[0] == 0 && more[i].news[1] == 0);
        more[i].known.path = 0;
        more[i].known.copies = 1;
    }
    EXPECT(3, mpt_sendv(server, &more[0].known, 3, SOON));
    for (i = 0; i < 3; i += (int)mpt_recvv(client, (mpt_msg *)(void *)&less[i], (size_t)(3 - i), SOON)) {
    }
    for (i = 0; i < 3; i++)
        CHECK(less[i].len == 1 && less[i].cap == sizeof rooms[i]);
    /* Elements of one array have one size. */
    less[1].struct_size += 8;
    less[1].len = less[0].len = 1;
    EXPECT(1, mpt_sendv(client, (mpt_msg *)(void *)less, 3, SOON));
    EXPECT(MPT_EINVAL, mpt_recvv(client, (mpt_msg *)(void *)less, 3, 0));
    EXPECT(1, mpt_recv(server, rooms, 1, SOON));
}

static void others(mpt_t *server, mpt_t *client) {
    union {
        mpt_path_info info;
        mpt_stats_t stats;
        mpt_event event;
        mpt_count count;
        unsigned char bytes[1536];
    } u;
    size_t n, i;
    /* Cut in the middle: what is behind the caller's end stays untouched. */
    memset(&u, 0xaa, sizeof u);
    u.info.struct_size = 40;
    EXPECT(0, mpt_path_list(client, 0, &u.info, 1, &n));
    CHECK(n == 2 && u.info.id != 0 && u.info.struct_size == 40);
    for (i = 40; i < sizeof u; i++)
        CHECK(u.bytes[i] == 0xaa);
    memset(&u, 0xaa, sizeof u);
    u.stats.struct_size = 24;
    EXPECT(0, mpt_stats(server, 0, &u.stats));
    CHECK(u.stats.peers == 1 && u.stats.sent > 0 && u.bytes[24] == 0xaa);
    memset(&u, 0xaa, sizeof u);
    u.event.struct_size = 24;
    EXPECT(0, mpt_next_event(server, &u.event, SOON));
    CHECK(u.event.type == MPT_EVENT_PEER_UP && u.bytes[24] == 0xaa);
    /* And longer ones. */
    memset(&u, 0xaa, sizeof u);
    u.stats.struct_size = sizeof u.stats + 16;
    EXPECT(0, mpt_stats(server, 0, &u.stats));
    for (i = 0; i < 16; i++)
        CHECK(u.bytes[sizeof u.stats + i] == 0);
    CHECK(u.bytes[sizeof u.stats + 16] == 0xaa);
    memset(&u, 0xaa, sizeof u);
    u.info.struct_size = 696; /* before there were states */
    EXPECT(0, mpt_path_list(client, 0, &u.info, 1, &n));
    CHECK(u.info.lead_in_us >= -1 && u.bytes[696] == 0xaa);
    memset(&u, 0xaa, sizeof u);
    u.count.struct_size = 16;
    EXPECT(0, mpt_drop_list(client, &u.count, 1, &n));
    CHECK(u.count.code == 0 && u.count.struct_size == 16 && u.bytes[16] == 0xaa);
}

int main(int argc, char **argv) {
    mpt_t *server, *client;
    CHECK(argc == 2);
    make_key(argv[1]);
    server = open_server(NULL);
    client = open_client(server, NULL);
    messages(server, client);
    others(server, client);
    mpt_close(client);
    mpt_close(server);
    unlink(key_file);
    puts("abi: ok");
    return 0;
}
