/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A server with many peers: what one of them sends goes to all others. It takes and sends datagrams
 * in batches, says who comes and goes, and prints a table of all paths at the end of its standard
 * input.
 *
 *     cc peers_server.c -o peers_server $(pkg-config --cflags --libs mptunnel)
 *     ./peers_server 'mpt-listen://[::]:2000?key-file=psk'
 */
#include <mptunnel.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 64, ROOM = 2048, MOST_PEERS = 1024, MOST_PATHS = 32 };

static mpt_peer_id peers[MOST_PEERS];
static size_t peer_count;

static void forget(mpt_peer_id peer) {
    size_t i;
    for (i = 0; i < peer_count; i++)
        if (MPT_PEER_OF(peers[i]) == MPT_PEER_OF(peer))
            peers[i--] = peers[--peer_count];
}

static void remember(mpt_peer_id peer) {
    size_t i;
    for (i = 0; i < peer_count; i++)
        if (peers[i] == peer)
            return;
    if (peer_count < MOST_PEERS)
        peers[peer_count++] = peer;
}

static void pass_on(mpt_t *t, const mpt_msg *batch, size_t n) {
    mpt_msg out[BATCH];
    size_t i, p;
    for (p = 0; p < peer_count; p++) {
        size_t count = 0;
        for (i = 0; i < n; i++) {
            mpt_msg message = MPT_MSG_INIT;
            if (batch[i].peer == peers[p])
                continue;
            message.buf = batch[i].buf;
            message.len = batch[i].len;
            message.peer = peers[p];
            out[count++] = message;
        }
        if (count > 0 && mpt_sendv(t, out, count, 0) < 0)
            fprintf(stderr, "to %llu: %s\n", (unsigned long long)peers[p], mpt_last_error());
    }
}

static void receive(mpt_t *t) {
    static char rooms[BATCH][ROOM];
    mpt_msg batch[BATCH];
    ptrdiff_t n, i;
    do {
        for (i = 0; i < BATCH; i++) {
            mpt_msg message = MPT_MSG_INIT;
            message.buf = rooms[i];
            message.cap = ROOM;
            batch[i] = message;
        }
        n = mpt_recvv(t, batch, BATCH, 0);
        for (i = 0; i < n; i++)
            remember(batch[i].peer);
        if (n > 0)
            pass_on(t, batch, (size_t)n);
    } while (n == BATCH);
}

static void news(mpt_t *t) {
    mpt_event event = MPT_EVENT_INIT;
    while (mpt_next_event(t, &event, 0) == 0) {
        printf("%s\n", event.text);
        if (event.type == MPT_EVENT_PEER_UP)
            remember(event.peer);
        if (event.type == MPT_EVENT_PEER_GONE)
            forget(event.peer);
    }
    fflush(stdout);
}

static void table(mpt_t *t) {
    size_t p, i, n;
    for (p = 0; p < peer_count; p++) {
        mpt_path_info paths[MOST_PATHS];
        mpt_path_info first = MPT_PATH_INFO_INIT;
        paths[0] = first;
        if (mpt_path_list(t, peers[p], paths, MOST_PATHS, &n) < 0)
            continue;
        for (i = 0; i < n && i < MOST_PATHS; i++)
            printf("peer %llu  path %u  %-9s %-24s  rtt %.1f ms  won %llu of %llu\n",
                   (unsigned long long)peers[p], paths[i].id, mpt_path_state_name(paths[i].state),
                   paths[i].remote, (double)paths[i].rtt_us / 1000.0,
                   (unsigned long long)paths[i].wins, (unsigned long long)paths[i].received);
    }
}

int main(int argc, char **argv) {
    mpt_t *t = NULL;
    char address[64], ignored[256];
    struct pollfd fds[2];

    if (argc != 2) {
        fprintf(stderr, "usage: peers_server URI\n");
        return 2;
    }
    if (mpt_open(argv[1], NULL, &t) < 0) {
        fprintf(stderr, "peers_server: %s\n", mpt_last_error());
        return 1;
    }
    mpt_local_addr(t, address, sizeof address);
    printf("listening on %s\n", address);
    news(t);

    memset(fds, 0, sizeof fds);
    fds[0].fd = (int)mpt_fd(t);
    fds[0].events = POLLIN;
    fds[1].fd = STDIN_FILENO;
    fds[1].events = POLLIN;
    while (poll(fds, 2, -1) >= 0) {
        if (fds[0].revents != 0) {
            receive(t);
            news(t);
        }
        if (fds[1].revents != 0 && read(STDIN_FILENO, ignored, sizeof ignored) <= 0)
            break;
    }
    table(t);
    mpt_close(t);
    return 0;
}
