/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sends datagrams to an echo server and prints what comes back. The simplest use: calls that wait.
 *
 *     cc echo_client.c -o echo_client $(pkg-config --cflags --libs mptunnel)
 *     ./echo_client 'mpt://server.example:2000?key-file=psk' 5
 *
 * More paths: &path=if=eth0&path=to=bridge.example:4000,if=wwan0. A third argument sends to one of
 * the flows of an mpserver, whose target then has to be an echo server.
 */
#include <mptunnel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(mpt_t *t, const char *what) {
    fprintf(stderr, "echo_client: %s: %s\n", what, mpt_last_error());
    mpt_close(t);
    return 1;
}

int main(int argc, char **argv) {
    mpt_t *t = NULL;
    mpt_peer_id to = 0;
    char sent[64], got[65507];
    int n, count;

    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: echo_client URI COUNT [FLOW]\n");
        return 2;
    }
    count = atoi(argv[2]);
    if (argc == 4)
        to = MPT_FLOW(atoi(argv[3]));
    if (mpt_open(argv[1], NULL, &t) < 0)
        return fail(t, "open");
    /* Until then, sending says MPT_ENOTCONN. */
    if (mpt_wait_ready(t, 10000) < 0)
        return fail(t, "connect");

    for (n = 0; n < count; n++) {
        int len = snprintf(sent, sizeof sent, "datagram %d", n);
        ptrdiff_t back;
        if (mpt_send_to(t, to, sent, (size_t)len, 1000) < 0)
            return fail(t, "send");
        back = mpt_recv(t, got, sizeof got, 5000);
        if (back < 0)
            return fail(t, "receive");
        if (back != len || memcmp(sent, got, (size_t)len) != 0) {
            fprintf(stderr, "echo_client: this is not what was sent: %.*s\n", (int)back, got);
            mpt_close(t);
            return 1;
        }
        printf("%.*s came back\n", (int)back, got);
    }
    mpt_close(t);
    return 0;
}
