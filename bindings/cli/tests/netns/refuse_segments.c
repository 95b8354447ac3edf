// SPDX-License-Identifier: BSD-2-Clause
// Preloaded, it refuses what the kernel is to cut (UDP_SEGMENT), with EIO, as kernels before 6.11 do
// for devices that compute no checksums, and any kernel for packets that IPsec transforms.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

static int is_run(const struct msghdr *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR((struct msghdr *)message, c))
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_SEGMENT)
            return 1;
    return 0;
}

// As the kernel does: messages before the refused one are sent, and the error is told if there are
// none.
int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    int (*real)(int, struct mmsghdr *, unsigned, int) = dlsym(RTLD_NEXT, "sendmmsg");
    unsigned good = 0;
    while (good < count && !is_run(&messages[good].msg_hdr))
        good++;
    if (good == 0 && count > 0) {
        errno = EIO;
        return -1;
    }
    return real(fd, messages, good, flags);
}
