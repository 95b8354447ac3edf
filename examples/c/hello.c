#include <mptunnel.h>
#include <stdio.h>

int main(int argc, char **argv) {
    char answer[2048];
    ptrdiff_t len = -1;
    mpt_t *t = NULL;
    if (argc == 2 && mpt_open(argv[1], NULL, &t) == 0  /* "mpt://HOST:PORT?key-file=FILE" */
        && mpt_wait_ready(t, 5000) == 0
        && mpt_send(t, "hello", 5, 0) == 5)
        len = mpt_recv(t, answer, sizeof answer, 5000);
    if (len >= 0)
        printf("%.*s\n", (int)len, answer);
    else
        fprintf(stderr, "hello: %s\n", mpt_last_error());
    mpt_close(t);
    return len < 0;
}
