/* SPDX-License-Identifier: BSD-2-Clause */
/* What the test programs share. Each takes the directory for its files as its only argument. */
#ifndef TEST_H
#define TEST_H

#include <mptunnel.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n  last error: %s\n", __FILE__, __LINE__, #condition,       \
                    mpt_last_error());                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* A call and the number that it has to answer. */
#define EXPECT(status, call)                                                                       \
    do {                                                                                           \
        long long expect_got = (long long)(call);                                                  \
        if (expect_got != (long long)(status)) {                                                   \
            fprintf(stderr, "%s:%d: %s\n  answered %lld (%s), not %s: %s\n", __FILE__, __LINE__,   \
                    #call, expect_got, mpt_strerror((int)expect_got), #status, mpt_last_error());  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* More options for all endpoints, such as "&cipher=chacha20". */
static inline const char *options_too(void) {
    const char *options = getenv("MPT_TEST_OPTIONS");
    return options != NULL ? options : "";
}

enum { SOON = 15000 }; /* ms: what must happen happens within this, on a busy machine as well */

static char key_file[512];

static inline void make_key(const char *directory) {
    char key[MPT_KEY_SIZE];
    int fd;
    snprintf(key_file, sizeof key_file, "%s/psk-%ld", directory, (long)getpid());
    EXPECT(0, mpt_genkey(key, sizeof key));
    fd = open(key_file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, key, strlen(key)) == (ssize_t)strlen(key));
    close(fd);
}

static inline mpt_t *open_server(const mpt_config_t *config) {
    char uri[700];
    mpt_t *t = NULL;
    snprintf(uri, sizeof uri, "mpt-listen://127.0.0.1:0?key-file=%s%s", key_file,
             options_too());
    EXPECT(0, mpt_open(uri, config, &t));
    return t;
}

/* A client of `server` with two paths, both up. */
static inline mpt_t *open_client(mpt_t *server, const mpt_config_t *config) {
    char uri[900], at[64];
    mpt_t *t = NULL;
    size_t n = 0, up = 0, turn;
    CHECK(mpt_local_addr(server, at, sizeof at) > 0);
    snprintf(uri, sizeof uri, "mpt://%s?key-file=%s&path=name=first&path=name=second%s", at, key_file,
             options_too());
    EXPECT(0, mpt_open(uri, config, &t));
    EXPECT(0, mpt_wait_ready(t, SOON));
    for (turn = 0; up < 2; turn++) {
        mpt_path_info paths[2] = {MPT_PATH_INFO_INIT, MPT_PATH_INFO_INIT};
        struct timespec pause = {0, 2000000};
        CHECK(turn < SOON / 2);
        EXPECT(0, mpt_path_list(t, 0, paths, 2, &n));
        CHECK(n == 2);
        up = (size_t)paths[0].up + paths[1].up;
        nanosleep(&pause, NULL);
    }
    return t;
}

static inline double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

#endif
