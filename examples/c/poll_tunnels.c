/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Several tunnels in one poll(2) loop, with their news: prints what arrives on each, and sends each
 * line of standard input over all of them. Ends with the input, once nothing has come for a second.
 *
 *     cc poll_tunnels.c -o poll_tunnels $(pkg-config --cflags --libs mptunnel)
 *     ./poll_tunnels 'mpt://one.example:2000?key-file=psk' 'mpt://two.example:2000?key-file=psk'
 */
#include <mptunnel.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 16 };

/* The descriptor is readable: take everything, without waiting. */
static void drain(int number, mpt_t *t) {
    static char buffer[65507];
    mpt_event event = MPT_EVENT_INIT;
    ptrdiff_t len;

    while ((len = mpt_recv(t, buffer, sizeof buffer, 0)) >= 0)
        printf("tunnel %d: %.*s\n", number, (int)len, buffer);
    /* The first call says that this program wants to be woken by news as well. */
    while (mpt_next_event(t, &event, 0) == 0)
        fprintf(stderr, "tunnel %d: %s\n", number, event.text);
    fflush(stdout);
}

int main(int argc, char **argv) {
    mpt_t *tunnels[MOST];
    struct pollfd fds[MOST + 1];
    int count = argc - 1, input_ended = 0, status = 0, i;

    if (count < 1 || count > MOST) {
        fprintf(stderr, "usage: poll_tunnels URI... (at most %d)\n", MOST);
        return 2;
    }
    for (i = 0; i < count; i++) {
        if (mpt_open(argv[1 + i], NULL, &tunnels[i]) < 0 || mpt_wait_ready(tunnels[i], 10000) < 0) {
            fprintf(stderr, "poll_tunnels: %s: %s\n", argv[1 + i], mpt_last_error());
            return 1;
        }
        fds[i].fd = (int)mpt_fd(tunnels[i]);
        fds[i].events = POLLIN;
        drain(i, tunnels[i]);
    }
    fds[count].fd = STDIN_FILENO;
    fds[count].events = POLLIN;

    for (;;) {
        int ready = poll(fds, (nfds_t)(count + 1), input_ended ? 1000 : -1);
        if (ready < 0) {
            perror("poll");
            status = 1;
            break;
        }
        if (ready == 0)
            break;
        for (i = 0; i < count; i++)
            if (fds[i].revents != 0)
                drain(i, tunnels[i]);
        if (fds[count].revents != 0) {
            char line[1024];
            ssize_t len = read(STDIN_FILENO, line, sizeof line);
            if (len <= 0) {
                input_ended = 1;
                fds[count].fd = -1; /* poll(2) skips it */
                continue;
            }
            for (i = 0; i < count; i++)
                if (mpt_send(tunnels[i], line, (size_t)len, 0) < 0)
                    fprintf(stderr, "tunnel %d: %s\n", i, mpt_last_error());
        }
    }
    for (i = 0; i < count; i++)
        mpt_close(tunnels[i]);
    return status;
}
