/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sends every datagram back to whom it came from: any number of clients, one thread, calls that
 * wait. Ends at the end of its standard input.
 *
 *     cc echo_server.c -o echo_server $(pkg-config --cflags --libs mptunnel)
 *     ./echo_server 'mpt-listen://[::]:2000?key-file=psk'
 */
#include <mptunnel.h>
#include <pthread.h>
#include <stdio.h>

/* Another thread may do anything with the same handle at any time. */
static void *until_end_of_input(void *t) {
    while (getchar() != EOF) {
    }
    mpt_close(t);
    return NULL;
}

int main(int argc, char **argv) {
    mpt_t *t = NULL;
    static char buffer[65507];
    char address[64];
    pthread_t thread;
    ptrdiff_t len;
    mpt_peer_id peer;

    if (argc != 2) {
        fprintf(stderr, "usage: echo_server URI\n");
        return 2;
    }
    if (mpt_open(argv[1], NULL, &t) < 0) {
        fprintf(stderr, "echo_server: %s\n", mpt_last_error());
        return 1;
    }
    mpt_local_addr(t, address, sizeof address);
    printf("listening on %s\n", address);
    fflush(stdout);
    if (pthread_create(&thread, NULL, until_end_of_input, t) != 0) {
        mpt_close(t);
        return 1;
    }

    while ((len = mpt_recv_from(t, &peer, buffer, sizeof buffer, -1)) >= 0)
        /* It may be lost, as any datagram may be, and the next one need not be. */
        if (mpt_send_to(t, peer, buffer, (size_t)len, 0) < 0)
            fprintf(stderr, "echo_server: to %llu: %s\n", (unsigned long long)peer,
                    mpt_last_error());

    /* It was closed while this waited, or while this was sending. */
    if (len == MPT_ECLOSED || len == MPT_EBADF) {
        pthread_join(thread, NULL);
        return 0;
    }
    fprintf(stderr, "echo_server: %s\n", mpt_last_error());
    mpt_close(t);
    return 1;
}
