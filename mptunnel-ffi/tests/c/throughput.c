/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How many datagrams pass through mpt_sendv() and mpt_recvv(), both ends in this process: a thread
 * sends batches for SECONDS, and the other end counts what arrives.
 *
 *     throughput KEY_FILE SECONDS BYTES BATCH PATHS
 *
 * Prints "sent N/s received M/s".
 */
#include "test.h"

#include <pthread.h>
#include <stdint.h>

enum { MOST = 256 };

static mpt_t *server;
static size_t size, batch;
static unsigned long long received;

static void *receive(void *unused) {
    static char rooms[MOST][2048];
    mpt_msg in[MOST];
    ptrdiff_t n;
    size_t i;
    (void)unused;
    for (i = 0; i < batch; i++) {
        mpt_msg message = MPT_MSG_INIT;
        message.buf = rooms[i];
        message.cap = sizeof rooms[i];
        in[i] = message;
    }
    while ((n = mpt_recvv(server, in, batch, -1)) >= 0)
        received += (unsigned long long)n;
    EXPECT(MPT_EINTR, n);
    return NULL;
}

int main(int argc, char **argv) {
    mpt_msg out[MOST];
    static char bytes[2048];
    char uri[900], at[64];
    unsigned long long sent = 0;
    double start, seconds, took;
    pthread_t thread;
    mpt_t *client;
    size_t i, paths;
    CHECK(argc == 6);
    seconds = atof(argv[2]);
    size = (size_t)atoi(argv[3]);
    batch = (size_t)atoi(argv[4]);
    paths = (size_t)atoi(argv[5]);
    CHECK(size <= sizeof bytes && batch >= 1 && batch <= MOST && paths >= 1 && paths <= 8);
    snprintf(uri, sizeof uri, "mpt-listen://127.0.0.1:0?key-file=%s", argv[1]);
    EXPECT(0, mpt_open(uri, NULL, &server));
    CHECK(mpt_local_addr(server, at, sizeof at) > 0);
    snprintf(uri, sizeof uri, "mpt://%s?key-file=%s", at, argv[1]);
    for (i = 0; i < paths; i++)
        snprintf(uri + strlen(uri), sizeof uri - strlen(uri), "&path=name=p%u", (unsigned)i);
    EXPECT(0, mpt_open(uri, NULL, &client));
    EXPECT(0, mpt_wait_ready(client, SOON));
    CHECK(pthread_create(&thread, NULL, receive, NULL) == 0);
    for (i = 0; i < batch; i++) {
        mpt_msg message = MPT_MSG_INIT;
        message.buf = bytes;
        message.len = size;
        out[i] = message;
    }

    start = now_ms();
    do {
        ptrdiff_t n = mpt_sendv(client, out, batch, SOON);
        CHECK(n > 0);
        sent += (unsigned long long)n;
        took = now_ms() - start;
    } while (took < seconds * 1e3);
    /* What is still on the way belongs to the time of sending. */
    usleep(100000);
    EXPECT(0, mpt_interrupt(server));
    CHECK(pthread_join(thread, NULL) == 0);
    printf("sent %.0f/s received %.0f/s\n", (double)sent / took * 1e3, (double)received / took * 1e3);
    mpt_close(client);
    mpt_close(server);
    return 0;
}
