/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How many datagrams pass through mpt_sendv() and mpt_recvv(), both ends in this process: a thread
 * sends batches of 64 and waits while more than 1,024 datagrams are on the way, so that next to none
 * is lost; another one counts what arrives. What it does is what `mptunnel-bench library` does in
 * Rust, so that the figures can be compared.
 *
 *     throughput KEY_FILE [--paths N] [--size BYTES] [--seconds S] [--cipher WORD]
 *
 * Prints the datagrams delivered per second.
 */
#include "test.h"

#include <pthread.h>
#include <stdint.h>

enum { BATCH = 64, ON_THE_WAY = 1024 };

static mpt_t *server;
/* Written by the receiver, read by the sender. */
static unsigned long long received;
/* Set by the sender. */
static int over;
/* The sender's own. */
static unsigned long long lost;

static void *receive(void *unused) {
    /* Not a power of two apart, which would put all of them into the same few lines of the cache. */
    static char rooms[BATCH][2048 + 64];
    mpt_msg in[BATCH];
    ptrdiff_t n;
    size_t i;
    (void)unused;
    for (i = 0; i < BATCH; i++) {
        mpt_msg message = MPT_MSG_INIT;
        message.buf = rooms[i];
        message.cap = sizeof rooms[i];
        in[i] = message;
    }
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
        n = mpt_recvv(server, in, BATCH, 50);
        if (n >= 0)
            __atomic_fetch_add(&received, (unsigned long long)n, __ATOMIC_RELAXED);
        else
            EXPECT(MPT_ETIMEDOUT, n);
    }
    return NULL;
}

/* What std::hint::spin_loop() is in Rust: the other hyperthread of this core may be the receiver. */
static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

static unsigned long long on_the_way(unsigned long long sent) {
    return sent - lost - __atomic_load_n(&received, __ATOMIC_RELAXED);
}

/* Waits until only half of the most are on the way; what has not come after 20 ms is lost. */
static void wait_for_receiver(unsigned long long sent) {
    double start = now_ms();
    while (on_the_way(sent) > ON_THE_WAY / 2) {
        pause_briefly();
        if (now_ms() - start > 20)
            lost += on_the_way(sent);
    }
}

int main(int argc, char **argv) {
    mpt_msg out[BATCH];
    static char bytes[2048];
    char uri[900], at[64];
    const char *cipher = "auto";
    unsigned long long sent = 0;
    double start, took, seconds = 1;
    pthread_t thread;
    mpt_t *client;
    size_t paths = 1, size = 1400;
    int i;
    CHECK(argc >= 2 && argc % 2 == 0);
    for (i = 2; i < argc; i += 2) {
        if (strcmp(argv[i], "--paths") == 0)
            paths = (size_t)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--size") == 0)
            size = (size_t)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = atof(argv[i + 1]);
        else if (strcmp(argv[i], "--cipher") == 0)
            cipher = argv[i + 1];
        else
            CHECK(!"a known option");
    }
    CHECK(size <= sizeof bytes && paths >= 1 && paths <= 8);
    snprintf(uri, sizeof uri, "mpt-listen://127.0.0.1:0?key-file=%s&cipher=%s", argv[1], cipher);
    EXPECT(0, mpt_open(uri, NULL, &server));
    CHECK(mpt_local_addr(server, at, sizeof at) > 0);
    snprintf(uri, sizeof uri, "mpt://%s?key-file=%s&cipher=%s", at, argv[1], cipher);
    for (i = 0; i < (int)paths; i++)
        snprintf(uri + strlen(uri), sizeof uri - strlen(uri), "&path=name=p%d", i);
    EXPECT(0, mpt_open(uri, NULL, &client));
    EXPECT(0, mpt_wait_ready(client, SOON));
    /* Until the other paths have answered as well. */
    usleep(300000);
    CHECK(pthread_create(&thread, NULL, receive, NULL) == 0);
    for (i = 0; i < BATCH; i++) {
        mpt_msg message = MPT_MSG_INIT;
        message.buf = bytes;
        message.len = size;
        out[i] = message;
    }

    start = now_ms();
    do {
        ptrdiff_t n = mpt_sendv(client, out, BATCH, 0);
        CHECK(n > 0);
        sent += (unsigned long long)n;
        if (on_the_way(sent) > ON_THE_WAY)
            wait_for_receiver(sent);
        took = now_ms() - start;
    } while (took < seconds * 1e3);
    printf("%.0f\n", (double)__atomic_load_n(&received, __ATOMIC_RELAXED) / took * 1e3);
    for (start = now_ms(); on_the_way(sent) > 0 && now_ms() - start < 20;)
        pause_briefly();
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    CHECK(pthread_join(thread, NULL) == 0);
    /* What drops is fast. */
    CHECK((lost + on_the_way(sent)) * 1000 <= sent);
    mpt_close(client);
    mpt_close(server);
    return 0;
}
