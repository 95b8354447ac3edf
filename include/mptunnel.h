/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libmptunnel: a multipath UDP socket.
 *
 * An application opens one endpoint over several paths (links, interfaces, relays). Each datagram is
 * encrypted once and goes over all of them; the first copy that arrives is delivered and the others
 * are removed; paths that break heal by themselves; either end may be restarted at any time.
 *
 *     mpt_t *t;
 *     if (mpt_open("mpt://vpn.example.org:4000?key-file=psk", NULL, &t) < 0)
 *         return fprintf(stderr, "%s\n", mpt_last_error()), 1;
 *     mpt_wait_ready(t, 5000);
 *     mpt_send(t, "hello", 5, 0);
 *     ptrdiff_t n = mpt_recv(t, buffer, sizeof buffer, 1000);
 *     mpt_close(t);
 *
 * This file is a manual to be read from top to bottom: what holds everywhere, then the types, then
 * the functions, the most common ones first. It is made by cbindgen from the library's sources.
 *
 *
 * What holds everywhere
 * ---------------------
 *
 * Names.     Everything begins with mpt_ or MPT_. The object comes first, results last.
 *
 * Errors.    A function answers 0 or a count, or a negative number from mpt_status, which never
 *            change. mpt_strerror() has a few words for the number; mpt_last_error() says in this
 *            thread's last failure's own words what was wrong with what, for a log or a person. What
 *            goes wrong with a path or a peer is not an error of a call: it comes as an event. Each
 *            function lists the statuses that it is known for; all may answer MPT_EINVAL (a pointer
 *            that must not be NULL is), MPT_EBADF (the handle is not open), MPT_EFORKED, MPT_EBUSY
 *            and MPT_EPANIC.
 *
 * Handles.   mpt_t and mpt_config_t are opaque, and not pointers to anything: a handle that was
 *            closed, or belongs to something else, is MPT_EBADF (NULL: MPT_EINVAL), never a crash.
 *
 * Results.   What a function gives back through a pointer is written on success only.
 *
 * Memory.    Buffers stay the caller's, and are free again when the call returns. A buffer to send
 *            from is only read. Pointers have to be what C says they are: this library cannot know
 *            how much memory there is behind one.
 *
 * Text.      Strings are UTF-8, end with a NUL, and are borrowed for the call.
 *
 * Time.      timeout_ms counts in milliseconds: -1 waits for ever, 0 not at all (MPT_EAGAIN), else
 *            it is a bound (MPT_ETIMEDOUT). Signals do not end a wait; mpt_interrupt() does.
 *
 * Datagrams. A datagram arrives once, whole and unaltered, or not at all, in any order. One without
 *            bytes is one, too. Up to 65507 bytes.
 *
 * Threads.   Every function may be called by any thread at any time, on the same handle too. Of
 *            calls with a handle on which mpt_close() is called, those that wait return MPT_ECLOSED,
 *            and those that begin later MPT_EBADF: this ends the loops of other threads for good,
 *            wherever they are. The library has threads of its own, with all signals blocked, for
 *            each endpoint, and no state that is not an endpoint's.
 *
 * fork().    In the child, the handles of the parent answer MPT_EFORKED, and the parent goes on
 *            unaffected. Open new ones in the child. (A child of vfork() may only exec.)
 *
 * Panics.    If the library finds itself broken, the call answers MPT_EPANIC, and so do later ones
 *            with this handle, which can still be closed. Other handles are not affected.
 *
 * Growth.    A struct begins with struct_size, so that it can get new members at its end: set it to
 *            sizeof, which the MPT_..._INIT macros do. A program and a library of different
 *            versions then use what both know; what an older library does not know reads as 0.
 */


#ifndef MPTUNNEL_H
#define MPTUNNEL_H

#include <stddef.h>
#include <stdint.h>

/* Values to begin with: `mpt_event ev = MPT_EVENT_INIT;` */
#define MPT_MSG_INIT {sizeof(mpt_msg), 0, NULL, 0, 0, 0, 0, 0, {0, 0, 0}, 0, 0}
#define MPT_EVENT_INIT {sizeof(mpt_event), 0, 0, 0, 0, {0}, {0}}
#define MPT_PATH_INFO_INIT                                                                         \
    {sizeof(mpt_path_info), 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, 0, -1, -1, 0, 0, 0, 0, 0, 0, 0,    \
     {0}, {0}, {0}, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 0, 0, 0, -1, 0, 0, {0},   \
     {0}, {0}, {0}, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0}
#define MPT_STATS_INIT                                                                             \
    {sizeof(mpt_stats_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,   \
     -1, 0, 0, {0}, {0}, -1}
#define MPT_COUNT_INIT {sizeof(mpt_count), 0, 0, {0}}
#define MPT_PAIR_INFO_INIT {sizeof(mpt_pair_info), 0, 0, 0, 0, 0, 0, 0, -2}

/*
 * One of the applications behind an mpclient or an mpserver, as part of an mpt_peer_id: at a client,
 * MPT_FLOW(1) to MPT_FLOW(65534) reach the target of an mpserver, each number by a socket of its
 * own. At a server, MPT_FLOW_OF tells the number, 0 for a client that uses this library, and
 * MPT_PEER_OF the client alone.
 */
#define MPT_FLOW(n) ((mpt_peer_id)(n) << 48)
#define MPT_FLOW_OF(peer) ((uint16_t)((mpt_peer_id)(peer) >> 48))
#define MPT_PEER_OF(peer) ((mpt_peer_id)(peer) & 0xffffffffffffu)


/**
 * What a program is compiled against: the library must answer the same to mpt_abi_version().
 */
#define MPT_ABI_VERSION 1

/**
 * Bytes that mpt_genkey() needs, with the NUL.
 */
#define MPT_KEY_SIZE 45

/**
 * What a call answers: 0, or a negative number from this list. A number keeps its meaning for
 * ever; new ones may be added, so treat one that you do not know as a failure.
 */
typedef enum mpt_status {
    /**
     * Done.
     */
    MPT_OK = 0,
    /**
     * There is nothing now, or all sockets are full, and the timeout was 0.
     */
    MPT_EAGAIN = -1,
    /**
     * Nothing happened within the timeout.
     */
    MPT_ETIMEDOUT = -2,
    /**
     * Another thread called mpt_interrupt().
     */
    MPT_EINTR = -3,
    /**
     * Receiving: the next datagram is longer than the buffer; it is kept. Sending: the datagram is
     * longer than mpt_max_payload(); nothing was sent. mpt_genkey(): the buffer is too small.
     */
    MPT_EMSGSIZE = -4,
    /**
     * An argument is NULL or has a value that makes no sense.
     */
    MPT_EINVAL = -10,
    /**
     * The handle is not open: it was closed, is of another type, or never was a handle.
     */
    MPT_EBADF = -11,
    /**
     * A setting is wrong, missing, does not go with another, or cannot change now.
     */
    MPT_ECONFIG = -12,
    /**
     * This kind of endpoint, or this build of the library, cannot do that.
     */
    MPT_ENOTSUP = -13,
    /**
     * A callback of the library called back into it.
     */
    MPT_EBUSY = -14,
    /**
     * There is no session (yet, or not any more): nothing was sent. Attempts go on by themselves.
     */
    MPT_ENOTCONN = -20,
    /**
     * No path is usable now, or the chosen one is down: nothing was sent. Paths heal by themselves.
     */
    MPT_ENOPATH = -21,
    /**
     * No such peer is connected.
     */
    MPT_EPEER = -22,
    /**
     * There is no such path.
     */
    MPT_EPATH = -23,
    /**
     * The server refused this client; mpt_last_error() says why.
     */
    MPT_EREFUSED = -24,
    /**
     * The endpoint is closed: by mpt_close() in another thread, or by the other end for good.
     */
    MPT_ECLOSED = -30,
    /**
     * The handle was inherited through fork(): open a new one in the child.
     */
    MPT_EFORKED = -31,
    /**
     * The library found itself broken and stopped this endpoint. Please report it.
     */
    MPT_EPANIC = -32,
    /**
     * The system refused; mpt_last_error() says what and why.
     */
    MPT_ESYSTEM = -40,
} mpt_status;

/**
 * What happened. A number keeps its meaning for ever; new ones may be added, so ignore one that
 * you do not know.
 */
typedef enum mpt_event_type {
    /**
     * Something that this header does not know; `text` says what.
     */
    MPT_EVENT_OTHER = 0,
    /**
     * The client has a session where it had none.
     */
    MPT_EVENT_CONNECTED = 1,
    /**
     * The client lost its session, and goes on trying.
     */
    MPT_EVENT_DISCONNECTED = 2,
    /**
     * Nothing has come from the server for a while: it is down, all paths are blocked, or the keys
     * differ. `code`: for how many milliseconds.
     */
    MPT_EVENT_SERVER_SILENT = 3,
    /**
     * The server is another process than before.
     */
    MPT_EVENT_SERVER_RESTARTED = 4,
    /**
     * The server is going away and may come back.
     */
    MPT_EVENT_SERVER_GOING_AWAY = 5,
    /**
     * The server refused the client, for the reason in `text`.
     */
    MPT_EVENT_REFUSED = 6,
    /**
     * The server is under load and checks addresses.
     */
    MPT_EVENT_SERVER_UNDER_LOAD = 7,
    /**
     * The other end ended the session for good, or the endpoint failed.
     */
    MPT_EVENT_CLOSED = 8,
    /**
     * A path of the client answers: `path`, `name`.
     */
    MPT_EVENT_PATH_UP = 9,
    /**
     * A path of the client does not answer, or has no socket, for the reason in `text`.
     */
    MPT_EVENT_PATH_DOWN = 10,
    /**
     * A flow has ended: `peer` with its flow; `code` 2: there was no room for it.
     */
    MPT_EVENT_FLOW_CLOSED = 11,
    /**
     * Keys were renewed; nothing was lost.
     */
    MPT_EVENT_REKEYED = 12,
    /**
     * A client connected: `peer`.
     */
    MPT_EVENT_PEER_UP = 20,
    /**
     * A client's process is another one than before.
     */
    MPT_EVENT_PEER_RESTARTED = 21,
    /**
     * A client is gone, for the reason in `text`.
     */
    MPT_EVENT_PEER_GONE = 22,
    /**
     * A path of a client is in use.
     */
    MPT_EVENT_PEER_PATH_UP = 23,
    /**
     * A path of a client moved to another address.
     */
    MPT_EVENT_PEER_PATH_MOVED = 24,
    /**
     * A path of a client has gone quiet.
     */
    MPT_EVENT_PEER_PATH_SILENT = 25,
    /**
     * Somebody tried with a key that is not ours; its id is in `text`.
     */
    MPT_EVENT_UNKNOWN_KEY = 26,
    /**
     * A client was refused, for the reason in `text`.
     */
    MPT_EVENT_PEER_REFUSED = 27,
} mpt_event_type;

/**
 * A form of text for mpt_metrics().
 */
typedef enum mpt_format {
    /**
     * One JSON object.
     */
    MPT_JSON = 1,
    /**
     * The text exposition format of Prometheus, 0.0.4.
     */
    MPT_PROMETHEUS = 2,
} mpt_format;

/**
 * What state a path is in. A number keeps its meaning for ever; new ones may be added.
 */
typedef enum mpt_path_state {
    /**
     * The library is older than this header, or knows a state that this header does not.
     */
    MPT_PATH_UNKNOWN = 0,
    /**
     * Nothing has answered on it yet; at a server: its address is not proven yet.
     */
    MPT_PATH_STARTING = 1,
    /**
     * It is in use, or ready to be.
     */
    MPT_PATH_UP = 2,
    /**
     * It has fallen silent, and is tried again and again.
     */
    MPT_PATH_DOWN = 3,
    /**
     * A client's path that cannot be tried: its name does not resolve, its interface is missing, a
     * socket hook refused its socket. That is tried again and again.
     */
    MPT_PATH_NO_SOCKET = 4,
} mpt_path_state;

/**
 * A bag of options for any number of endpoints; opaque.
 */
typedef struct mpt_config mpt_config;

/**
 * One endpoint, client or server; opaque. (The tag is not `mpt`, which is the namespace in C++.)
 */
typedef struct mpt_endpoint mpt_endpoint;

/**
 * A bag of options for any number of endpoints; opaque.
 */
typedef struct mpt_config mpt_config_t;

/**
 * One endpoint, client or server; opaque.
 */
typedef struct mpt_endpoint mpt_t;

/**
 * Names who a datagram is from or for. 0: "the" peer of a client, its server. At a server it names
 * a client, and in its upper 16 bits (MPT_FLOW) one of the applications behind an `mpclient`, so
 * that an answer to the same id reaches the same application. A client is never given the number
 * of another one.
 */
typedef uint64_t mpt_peer_id;

/**
 * Called with each new socket before it is bound and connected: the descriptor, which stays the
 * library's, and words that say what it is for (at a client those of the path, at a server
 * "listen=ADDR:PORT"). `user` is what was given to mpt_config_set_socket_hook(). Answer 0 to have
 * the socket used, or an errno to refuse it: a path waits and tries again, mpt_open() of a server
 * fails with MPT_ESYSTEM.
 *
 * A client calls it on a thread of its own whenever a path gets a socket, and while it asks the
 * system from which address it would send now; a server calls it within mpt_open(). It must not
 * wait long, call this library, or throw. It is not called any more once mpt_close() returned.
 */
typedef int (*mpt_socket_hook)(void *user, intptr_t fd, const char *path_spec);

/**
 * Called with each message of an endpoint: level 1 error, 2 warning, 3 information, 4 debug,
 * 5 trace; the part of the library that it comes from, such as "mptunnel::path"; and the message,
 * without a line end. The strings are gone after the call.
 *
 * It is called on any thread of the library or on one that is in a call, several at a time. It
 * must not wait long, call this library, or throw. It is not called any more once mpt_close() of
 * the last endpoint that has it returned.
 */
typedef void (*mpt_log_fn)(void *user, int level, const char *target, const char *message);

/**
 * Names a path of an endpoint; never used again while that exists, except that at a server the
 * paths of each peer are numbered from 1 to 32. 0: none, or the choice of the policy.
 */
typedef uint32_t mpt_path_id;

/**
 * One datagram of a batch. Begin with MPT_MSG_INIT.
 */
typedef struct mpt_msg {
    /**
     * sizeof(mpt_msg). All elements of an array have the same.
     */
    uint32_t struct_size;
    /**
     * 0.
     */
    uint32_t flags;
    /**
     * Sending: the datagram, which is only read. Receiving: room for it.
     */
    void *buf;
    /**
     * Bytes: sending, of the datagram; receiving, its length is put here.
     */
    size_t len;
    /**
     * Bytes of room, for receiving.
     */
    size_t cap;
    /**
     * From or to whom.
     */
    mpt_peer_id peer;
    /**
     * Receiving: the path of the first copy, 0 if it is not known. Sending: this path only;
     * 0: the policy chooses.
     */
    mpt_path_id path;
    /**
     * Sending: over the so many best of the paths that are fit, by their round trip, in any
     * mode; 0: over those that the mode chooses.
     */
    uint8_t copies;
    /**
     * 0.
     */
    uint8_t reserved[3];
    /**
     * Sending: microseconds after which it is useless, 0: never. A datagram is not queued at this
     * end, so this only bounds how long the call waits for room for it.
     */
    uint32_t deadline_us;
    /**
     * Receiving: when the first copy arrived, in nanoseconds of CLOCK_MONOTONIC.
     */
    int64_t time_ns;
} mpt_msg;

/**
 * One path as it is now. Begin with MPT_PATH_INFO_INIT.
 */
typedef struct mpt_path_info {
    /**
     * sizeof(mpt_path_info). All elements of an array have the same.
     */
    uint32_t struct_size;
    /**
     * Its name for calls.
     */
    mpt_path_id id;
    /**
     * Whose it is: 0 at a client.
     */
    mpt_peer_id peer;
    /**
     * Its number on the wire, 0 to 31.
     */
    uint8_t slot;
    /**
     * 1: it answers.
     */
    uint8_t up;
    /**
     * 1: it waits until no other path is up.
     */
    uint8_t backup;
    /**
     * 0.
     */
    uint8_t reserved;
    /**
     * The largest packet that fits it, in bytes of UDP payload; 0 while it has no socket.
     */
    uint32_t max_packet;
    /**
     * Microseconds since `up` changed.
     */
    int64_t since_us;
    /**
     * Smoothed round trip in microseconds; -1: not measured yet.
     */
    int64_t rtt_us;
    /**
     * The latest round trip in microseconds, or -1.
     */
    int64_t last_rtt_us;
    /**
     * The shortest round trip in microseconds, or -1.
     */
    int64_t min_rtt_us;
    /**
     * Jitter of what arrives, in microseconds.
     */
    int64_t jitter_us;
    /**
     * Fraction lost on the way out, 0 to 1; -1: not measured yet.
     */
    double loss_out;
    /**
     * Fraction lost on the way in, 0 to 1, or -1.
     */
    double loss_in;
    /**
     * Packets sent, copies and control included, handshakes not.
     */
    uint64_t sent;
    /**
     * Bytes of these.
     */
    uint64_t sent_bytes;
    /**
     * Packets that its socket did not take.
     */
    uint64_t send_dropped;
    /**
     * Packets received.
     */
    uint64_t received;
    /**
     * Bytes of these.
     */
    uint64_t received_bytes;
    /**
     * Packets that it brought first: received without duplicates.
     */
    uint64_t wins;
    /**
     * Packets that another path had brought before.
     */
    uint64_t duplicates;
    /**
     * What the user calls it, cut to what fits; NUL-terminated.
     */
    char name[72];
    /**
     * The other end of its socket, as ADDR:PORT; "" without one.
     */
    char remote[72];
    /**
     * The words that describe it, cut to what fits; "" at a server.
     */
    char words[256];
    /**
     * Fraction lost on the way out, 0 to 1, as told within the last second; -1: nothing was, as on
     * a path that carries nothing but probes.
     */
    double loss_out_1s;
    /**
     * The same within the last ten seconds.
     */
    double loss_out_10s;
    /**
     * Fraction lost on the way in, 0 to 1, as told within the last second, or -1.
     */
    double loss_in_1s;
    /**
     * The same within the last ten seconds.
     */
    double loss_in_10s;
    /**
     * Packets sent of which the other end has told how many arrived.
     */
    uint64_t known_out;
    /**
     * Of these, packets that did not arrive.
     */
    uint64_t lost_out;
    /**
     * Packets of the other end of which is known how many arrived here.
     */
    uint64_t known_in;
    /**
     * Of these, packets that did not arrive.
     */
    uint64_t lost_in;
    /**
     * Packets that wait to leave at the rate of the path, known or learnt (its word `rate`, at a
     * server its client's `rate-down`); 0 without one.
     */
    uint64_t queue_packets;
    /**
     * Bytes of these, UDP payload.
     */
    uint64_t queue_bytes;
    /**
     * Microseconds that a packet would wait that is sent now; -1 without a rate.
     */
    int64_t queue_us;
    /**
     * Datagrams of a sample that were sent on it, of those of which the other end has told what
     * became of them. There is a sample if there are several paths.
     */
    uint64_t samples_out;
    /**
     * Of these, datagrams that came on it.
     */
    uint64_t arrived_out;
    /**
     * Datagrams that came on it first.
     */
    uint64_t first_out;
    /**
     * Datagrams that came on no other path, though they were sent on others as well.
     */
    uint64_t only_out;
    /**
     * How much earlier than the second copy the first one came, of those that came on it first:
     * the mean in microseconds, or -1.
     */
    int64_t lead_out_us;
    /**
     * Datagrams of a sample that came here on it.
     */
    uint64_t samples_in;
    /**
     * Of these, datagrams that came on it first.
     */
    uint64_t first_in;
    /**
     * Datagrams that came on no other path.
     */
    uint64_t only_in;
    /**
     * As `lead_out_us`, of what came here.
     */
    int64_t lead_in_us;
    /**
     * What state it is in: one of mpt_path_state.
     */
    int32_t state;
    /**
     * 0.
     */
    uint32_t reserved2;
    /**
     * Why it is in that state, in words for a person, cut to what fits; NUL-terminated.
     */
    char reason[256];
    /**
     * What a client's path sends from, as ADDR:PORT; "" while it has no socket, and at a server.
     */
    char local[72];
    /**
     * Where `remote` was before it last changed; "" if it never did.
     */
    char remote_before[72];
    /**
     * What `local` was before it last changed, or "".
     */
    char local_before[72];
    /**
     * Errors that its socket reported; mpt_error_list() has them by errno. 0 at a server, whose
     * sockets are no path's own.
     */
    uint64_t errors;
    /**
     * Of how many packets `loss_out_1s` tells; 0: of none.
     */
    uint64_t known_out_1s;
    /**
     * Of how many `loss_out_10s` tells.
     */
    uint64_t known_out_10s;
    /**
     * Of how many `loss_in_1s` tells.
     */
    uint64_t known_in_1s;
    /**
     * Of how many `loss_in_10s` tells.
     */
    uint64_t known_in_10s;
    /**
     * The second that ends now is so long, in microseconds, 900,000 to 2,500,000; -1: nobody has
     * looked at the paths about a second ago, which mpt_path_list() and mpt_metrics() do, and the
     * four below are 0.
     */
    int64_t last_1s_us;
    /**
     * Packets sent within it.
     */
    uint64_t sent_1s;
    /**
     * Bytes of these.
     */
    uint64_t sent_bytes_1s;
    /**
     * Packets received within it.
     */
    uint64_t received_1s;
    /**
     * Bytes of these.
     */
    uint64_t received_bytes_1s;
    /**
     * The ten seconds that end now are so long, in microseconds, 9,500,000 to 13,000,000, or -1,
     * likewise.
     */
    int64_t last_10s_us;
    /**
     * Packets sent within them.
     */
    uint64_t sent_10s;
    /**
     * Bytes of these.
     */
    uint64_t sent_bytes_10s;
    /**
     * Packets received within them.
     */
    uint64_t received_10s;
    /**
     * Bytes of these.
     */
    uint64_t received_bytes_10s;
    /**
     * Bytes per second at which packets leave, told or learnt, headers of IPv4 and UDP included;
     * 0: there is no bound, or it is not learnt yet.
     */
    uint64_t rate_bytes_per_s;
} mpt_path_info;

/**
 * A piece of news. Begin with MPT_EVENT_INIT.
 */
typedef struct mpt_event {
    /**
     * sizeof(mpt_event).
     */
    uint32_t struct_size;
    /**
     * What happened: one of mpt_event_type.
     */
    int32_t type;
    /**
     * To which client; 0 at a client.
     */
    mpt_peer_id peer;
    /**
     * To which path; 0 if to none.
     */
    mpt_path_id path;
    /**
     * A number that belongs to some types.
     */
    uint32_t code;
    /**
     * The name of the path, cut to what fits; NUL-terminated.
     */
    char name[72];
    /**
     * All of it in words, as one line for a log, cut to what fits; NUL-terminated.
     */
    char text[256];
} mpt_event;

/**
 * Counters. None of them is cleared by reading. Begin with MPT_STATS_INIT.
 */
typedef struct mpt_stats_t {
    /**
     * sizeof(mpt_stats_t).
     */
    uint32_t struct_size;
    /**
     * 1: there is a session; at a server, any client.
     */
    uint32_t connected;
    /**
     * Clients that are connected; 0 at a client.
     */
    uint64_t peers;
    /**
     * Over all paths, those that are gone included: packets sent, copies and control included,
     * handshakes not.
     */
    uint64_t sent;
    /**
     * Bytes of these.
     */
    uint64_t sent_bytes;
    /**
     * Packets that sockets did not take.
     */
    uint64_t send_dropped;
    /**
     * Packets received.
     */
    uint64_t received;
    /**
     * Bytes of these.
     */
    uint64_t received_bytes;
    /**
     * Packets that were the first of their copies.
     */
    uint64_t wins;
    /**
     * Packets that another path had brought before.
     */
    uint64_t duplicates;
    /**
     * Of the endpoint, 0 for a single peer: packets removed or refused for any reason but being a
     * copy. mpt_drop_list() has them by reason, and the copies.
     */
    uint64_t dropped;
    /**
     * Of the endpoint: packets from an address that is no path's.
     */
    uint64_t unattributed;
    /**
     * Of the endpoint: datagrams that the application did not fetch in time.
     */
    uint64_t queue_dropped;
    /**
     * Of the endpoint: events that the application did not fetch in time.
     */
    uint64_t events_dropped;
    /**
     * Of the endpoint: errors that sockets reported. mpt_error_list() has them by errno.
     */
    uint64_t socket_errors;
    /**
     * Of the endpoint: arrivals dropped by the kernel because a receive buffer was full.
     */
    uint64_t kernel_dropped;
    /**
     * Of the endpoint: bytes of receive buffer that the system granted to its first socket.
     */
    uint64_t receive_buffer;
    /**
     * How often the process of this peer, or at a client that of the server, was restarted.
     */
    uint64_t restarts;
    /**
     * Of the endpoint, with option `reorder`: datagrams that waited for an earlier one.
     */
    uint64_t reorder_held;
    /**
     * Of the endpoint: datagrams that waited in vain.
     */
    uint64_t reorder_given_up;
    /**
     * Of the endpoint: datagrams that came after their turn, and were delivered at once.
     */
    uint64_t reorder_late;
    /**
     * This and all below: of one tunnel, at a client or of a single peer; not of a server as a
     * whole. Packets received for the first time, on all paths together.
     */
    uint64_t first_packets;
    /**
     * Bytes of these. Its growth is the goodput, heads of mptunnel and control included.
     */
    uint64_t first_bytes;
    /**
     * Packets that came when the window had passed them.
     */
    uint64_t late;
    /**
     * How often keys were renewed.
     */
    uint64_t rekeys;
    /**
     * Fraction of the datagrams sent that came on no path, 0 to 1, as the peer tells of the latest
     * 4,096 of a sample; -1: it has not told, as with a single path.
     */
    double residual_loss_out;
    /**
     * Datagrams sent of which the peer has told what became of them.
     */
    uint64_t samples_out;
    /**
     * Of a single peer: packets that its receive window remembers; 0 at a client.
     */
    uint64_t window;
    /**
     * The option `mode` that counts in both directions, which may have been set at the other end;
     * "" at a client under the legacy protocol.
     */
    char mode[24];
    /**
     * What packets are sealed with: "chacha20-poly1305" or "aes-256-gcm"; "" while there is no
     * session, "none" under the legacy protocol. (By which code: "backend" of mpt_build_info().)
     */
    char cipher[32];
    /**
     * Of a client: microseconds for which the server has not answered on any path, from 5 s on; -1
     * while it does, and under the legacy protocol. A session outlives about three minutes of this.
     */
    int64_t silent_us;
} mpt_stats_t;

/**
 * One of several counters. Begin with MPT_COUNT_INIT.
 */
typedef struct mpt_count {
    /**
     * sizeof(mpt_count). All elements of an array have the same.
     */
    uint32_t struct_size;
    /**
     * Of errors: the errno. Of drops: 0.
     */
    int32_t code;
    /**
     * How often. It only grows.
     */
    uint64_t count;
    /**
     * Of errors: what errno(3) calls it, such as "ECONNREFUSED", or the number. Of drops: the
     * reason, a word such as "auth_fail". NUL-terminated.
     */
    char name[48];
} mpt_count;

/**
 * How much two paths lose together of what this end sends, by a sample of the latest datagrams
 * that went on both. Begin with MPT_PAIR_INFO_INIT.
 */
typedef struct mpt_pair_info {
    /**
     * sizeof(mpt_pair_info). All elements of an array have the same.
     */
    uint32_t struct_size;
    /**
     * One of the paths.
     */
    mpt_path_id one;
    /**
     * The other one.
     */
    mpt_path_id other;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * How many datagrams that is, 1 or more; older ones count less.
     */
    double samples;
    /**
     * Fraction of these that `one` lost, 0 to 1.
     */
    double lost_one;
    /**
     * Fraction that `other` lost, 0 to 1.
     */
    double lost_other;
    /**
     * Fraction that both lost, 0 to 1.
     */
    double lost_both;
    /**
     * The correlation of their losses (phi of the 2x2 table), -1 to 1: 0 where they fail
     * independently, 1 where always together; -2: not known until each has lost something.
     */
    double correlation;
} mpt_pair_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * A few words for a status: static, never NULL, also for numbers that are none.
 * mpt_last_error() says more about the last failure.
 */
const char *mpt_strerror(int code);

/**
 * == Life cycle ==
 *
 * Opens the endpoint that `uri` describes:
 *
 *     mpt://HOST:PORT?KEY=VALUE&path=WORDS&path=WORDS     a client of the server at HOST:PORT
 *     mpt-listen://ADDR:PORT?KEY=VALUE                    a server (port 0: one is chosen)
 *
 * KEY is one of mpt_option_name(), and WORDS describe a path, such as
 * `to=bridge1.example:4000,if=wwan0,role=backup`: see mpt_path_add(). Without a path a client goes
 * straight to HOST:PORT. Characters that would be mistaken are written %XX. What the URI says goes
 * before what `cfg` says (which may be NULL); the paths of both are used. At least a key is
 * needed: the option key-file, say, with the name of a file that `mptunnel genpsk` made or that
 * holds what mpt_genkey() did, or mpt_config_set_key().
 *
 * A client begins to connect and this returns at once: see mpt_wait_ready(). A path that cannot be
 * opened now is no error: it waits and tries again.
 *
 * On success `*out` is the handle; close it with mpt_close().
 *
 * MPT_ECONFIG: the URI or an option is wrong, or there is no usable key. MPT_ESYSTEM: a server
 * cannot listen there, or descriptors, threads or memory have run out. MPT_EINVAL.
 */
int mpt_open(const char *uri, const mpt_config_t *cfg, mpt_t **out);

/**
 * Waits until there are keys and at least one path is usable; at a server, until one client is
 * that far.
 *
 * MPT_EREFUSED, MPT_ENOTCONN (a client's time is over; the message says what is known of the
 * reason), MPT_ETIMEDOUT (a server's), MPT_EINTR, MPT_ECLOSED.
 */
int mpt_wait_ready(mpt_t *t, int timeout_ms);

/**
 * Makes every call that waits on this endpoint at present return MPT_EINTR; later ones wait again,
 * also that of a thread which was on its way into it. So, to have a thread look at a flag, set it
 * and interrupt again and again until the thread has seen it; to end it for good, mpt_close().
 * Not for signal handlers: write to a pipe of your own there.
 */
int mpt_interrupt(mpt_t *t);

/**
 * Says goodbye to the other end, stops the threads and closes the sockets, within three seconds at
 * most. Calls that wait in other threads return MPT_ECLOSED at once; the handle is MPT_EBADF from
 * now on. Datagrams that were not fetched are gone, and so is the descriptor of mpt_fd().
 *
 * NULL, and what is not an open endpoint, is ignored. In a child of fork() nothing happens to what
 * it inherited.
 */
void mpt_close(mpt_t *t);

/**
 * Ends the session of one client of a server, for good: it is told, its calls answer MPT_ECLOSED,
 * and it does not try again. MPT_EVENT_PEER_GONE follows. Does nothing under the legacy protocol,
 * which has no goodbye.
 *
 * MPT_EPEER: no such client is connected. MPT_ENOTSUP at a client: mpt_close().
 */
int mpt_peer_dismiss(mpt_t *t, mpt_peer_id peer);

/**
 * Changes an option while the endpoint runs. At a client: receive-queue, idle-interval,
 * mode, target-loss, max-copies, budget, failback, of which the last five count at both ends. At a
 * server: these and sessions, session-timeout, handshake-rate, cookie-threshold, source-rate,
 * source-burst.
 *
 * MPT_ECONFIG: there is no such option, the value is wrong, or it counts only at the start.
 */
int mpt_set(mpt_t *t, const char *key, const char *value);

/**
 * The value of an option in force, as text; "" if it has none.
 *
 * Writes as much as fits into `buf` of `cap` bytes, always with a NUL if `cap` is not 0, and
 * returns the length of the whole text without it, as snprintf does.
 *
 * MPT_ECONFIG: this end has no such option.
 */
ptrdiff_t mpt_get(mpt_t *t, const char *key, char *buf, size_t cap);

/**
 * The address that a server listens on, as ADDR:PORT: for one that was opened with port 0. In the
 * manner of mpt_get(). "" at a client.
 */
ptrdiff_t mpt_local_addr(mpt_t *t, char *buf, size_t cap);

/**
 * The ids of the keys in use, for comparing both ends; not secret. A client has one, a server one
 * for each key that it takes, with a space between two. In the manner of mpt_get().
 */
ptrdiff_t mpt_key_ids(mpt_t *t, char *buf, size_t cap);

/**
 * The largest datagram that can be sent, in bytes, at most 65507: what both ends accept, or what
 * this one does while there is no session, and always at a server. 0 if the handle is not open.
 */
size_t mpt_max_payload(mpt_t *t);

/**
 * A descriptor for poll, select, epoll and every event loop: readable while mpt_recv() would not
 * wait, and, once mpt_next_event() has been called, while that would not wait. Level-triggered.
 * When it is readable, call them with timeout 0 until MPT_EAGAIN.
 *
 * It belongs to the endpoint: neither read, write nor close it. It is valid until mpt_close().
 * Returns the descriptor, or a negative status.
 */
intptr_t mpt_fd(mpt_t *t);

/**
 * == Options ==
 *
 * Makes an empty bag of options. Every option that is not set has its default. Free it with
 * mpt_config_free(). Returns NULL if memory has run out, or in a callback.
 */
mpt_config_t *mpt_config_new(void);

/**
 * Frees a config. Endpoints that were opened with it are not affected. NULL, and what is not an
 * open config, is ignored.
 */
void mpt_config_free(mpt_config_t *config);

/**
 * Sets an option, or adds a path with the key "path", up to 32 of them. The last value of an
 * option counts.
 *
 * mpt_option_name() lists the keys, mpt_option_help() explains each, with units, range and
 * default. Values are text, such as "2s", "256KiB", "on".
 *
 * MPT_ECONFIG: no such option, or the value has the wrong form or is out of range (the message
 * says what was expected); nothing has changed. Whether the option belongs to this end is checked
 * by mpt_open().
 */
int mpt_config_set(mpt_config_t *config, const char *key, const char *value);

/**
 * The key that both ends share itself, in place of the file that the option key-file names: the 44
 * characters that mpt_genkey() made. It is copied; wipe your own copy when you like.
 *
 * MPT_ECONFIG: this is no key; nothing has changed. (The text is in no message.)
 */
int mpt_config_set_key(mpt_config_t *config, const char *key);

/**
 * Takes the options and paths of a configuration file: lines `KEY = VALUE`, and for a client
 * `HOST PORT WORDS`.
 *
 * MPT_ECONFIG: the file cannot be read, or some of its lines are not understood, of which the
 * first 20 are in the message; then nothing of it is taken.
 */
int mpt_config_load(mpt_config_t *config, const char *file);

/**
 * The value of an option in a config as text, its default if it was not set, "" without either;
 * in the manner of mpt_get().
 *
 * MPT_ECONFIG: there is no such option.
 */
ptrdiff_t mpt_config_get(mpt_config_t *config, const char *key, char *buf, size_t cap);

/**
 * Has every socket of endpoints that are opened with this config shown to `hook` before it is
 * used; NULL: none. See mpt_socket_hook.
 */
int mpt_config_set_socket_hook(mpt_config_t *config, mpt_socket_hook hook, void *user);

/**
 * Has the messages of endpoints that are opened with this config, up to `max_level` (0 none,
 * 1 errors, to 5 everything), passed to `hook`; NULL: none, which is the default. The library
 * itself never prints. See mpt_log_fn.
 *
 * MPT_ENOTSUP: the program is written in Rust and has a logger already, which gets the messages.
 */
int mpt_config_set_log(mpt_config_t *config, mpt_log_fn hook, void *user, int max_level);

/**
 * The key of the option number `index`, from 0; NULL behind the last one. Static strings.
 */
const char *mpt_option_name(size_t index);

/**
 * What the option number `index` means, for the help of a program: whose it is, whether mpt_set()
 * takes it, what a value looks like with unit and range, and the default, in one line; NULL behind
 * the last one. Static strings.
 */
const char *mpt_option_help(size_t index);

/**
 * == Datagrams ==
 *
 * Sends one datagram of up to mpt_max_payload() bytes, 0 included, to the server. It is sealed
 * before this returns, so `buf` is free again.
 *
 * Never waits for the network. While all sockets are full it waits up to `timeout_ms`.
 *
 * Returns `len`. MPT_ENOTCONN, MPT_EREFUSED, MPT_ENOPATH, MPT_EMSGSIZE, MPT_EAGAIN or
 * MPT_ETIMEDOUT: nothing was sent. MPT_EPEER at a server, which has no "the" peer. MPT_EINTR,
 * MPT_ECLOSED.
 */
ptrdiff_t mpt_send(mpt_t *t, const void *buf, size_t len, int timeout_ms);

/**
 * Takes the next datagram into `buf` of `cap` bytes: of any client, at a server. Waits up to
 * `timeout_ms`.
 *
 * Returns its length, which may be 0. MPT_EMSGSIZE: it is longer than `cap`; it is kept, and
 * nothing was written. MPT_EAGAIN, MPT_ETIMEDOUT, MPT_EINTR, MPT_ECLOSED.
 */
ptrdiff_t mpt_recv(mpt_t *t, void *buf, size_t cap, int timeout_ms);

/**
 * As mpt_send(), to `peer`: at a server the client that mpt_recv_from() told; at a client 0, or
 * MPT_FLOW(n) for the target behind an `mpserver`.
 *
 * In addition MPT_EPEER: no such client is connected.
 */
ptrdiff_t mpt_send_to(mpt_t *t, mpt_peer_id peer, const void *buf, size_t len, int timeout_ms);

/**
 * As mpt_recv(), and tells in `*peer` whom the datagram is from.
 */
ptrdiff_t mpt_recv_from(mpt_t *t, mpt_peer_id *peer, void *buf, size_t cap, int timeout_ms);

/**
 * Sends `n` datagrams in order, each with wishes of its own; many at once cost a fraction of as
 * many calls of mpt_send(). Waits up to `timeout_ms` in all while all sockets are full.
 *
 * Returns how many were taken, from the first one on. If it is fewer than `n`, the next one would
 * fail: call again with the rest to learn why. A negative status if that is the first one: as
 * mpt_send_to(), and MPT_EPATH for a path that does not exist. 0 only if `n` is 0.
 */
ptrdiff_t mpt_sendv(mpt_t *t, const struct mpt_msg *v, size_t n, int timeout_ms);

/**
 * Waits up to `timeout_ms` for a datagram and takes as many as there are, up to `n`, each into
 * `buf` of `cap` bytes, and tells its `len`, `peer`, `path` and `time_ns`.
 *
 * Returns how many were filled, from the first one on; the others are untouched. A datagram that
 * does not fit its element stays for the next call, and is MPT_EMSGSIZE only if it is the first.
 * MPT_EAGAIN, MPT_ETIMEDOUT, MPT_EINTR, MPT_ECLOSED. 0 only if `n` is 0.
 */
ptrdiff_t mpt_recvv(mpt_t *t, struct mpt_msg *v, size_t n, int timeout_ms);

/**
 * == Paths ==
 *
 * An application never has to look after paths: the library heals what it can. These are for those
 * who want to.
 *
 * Adds a path to a client while it runs. `*id` is its name; `id` may be NULL. `spec` describes it
 * by words such as `to=bridge1.example:4000 if=wwan0 role=backup`, between blanks or commas, in
 * any order, each of which may be left out:
 *
 *     to=HOST:PORT           the bridge, or the server itself, which is the default
 *     if=NAME                send through this interface only
 *     src=ADDR               send from this local IP address
 *     mark=NUMBER            firewall mark of the packets, up to 32 bits
 *     weight=NUMBER|auto     share in mode weighted, 1 to 65535; auto: as it is measured [1]
 *     role=active|backup     backup: only when no active path is up [active]
 *     rate=MBIT|auto|none    what the link carries upwards, Mbit/s: packets leave no faster;
 *                            auto: it is found out [none]
 *     rate-down=MBIT|auto|none
 *                            what it carries to here, Mbit/s: the server sends no faster [none]
 *     cost=NUMBER            what it costs to use, 0 to 255: modes fastest and adaptive take
 *                            cheaper paths first [0]
 *     name=TEXT              what logs and mpt_path_info call it, 1 to 64 bytes [HOST:PORT]
 *     mtu=BYTES              largest IP packet, 576 to 65535, if it is known
 *     rotate=on|off          legacy protocol: off keeps its port [on]
 *
 * MPT_ECONFIG: wrong words, a name that another path has, or there are 32 paths. MPT_ENOTSUP at a
 * server, which learns the paths of its clients.
 */
int mpt_path_add(mpt_t *t, const char *spec, mpt_path_id *id);

/**
 * Changes one word of a client's path while it runs: see mpt_path_add() for the words. `to`, `if`,
 * `src` and `mark` give the path a new socket; the others take effect in place, `rate-down` as
 * soon as the server has heard of it.
 *
 * MPT_ECONFIG: a wrong word or value, or a name that another path has. MPT_EPATH. MPT_ENOTSUP at a
 * server.
 */
int mpt_path_set(mpt_t *t, mpt_path_id id, const char *key, const char *value);

/**
 * Removes a path of a client. Its id is never used again.
 *
 * MPT_EPATH. MPT_ENOTSUP at a server.
 */
int mpt_path_remove(mpt_t *t, mpt_path_id id);

/**
 * Lists the paths of a peer: at a client its own, and `peer` is 0; at a server those of one of its
 * clients. Fills the first `cap` elements of `array`, whose first one tells the struct_size of
 * all, and sets `*n` to how many paths there are, which may be more. `array` may be NULL if `cap`
 * is 0.
 *
 * MPT_EPEER.
 */
int mpt_path_list(mpt_t *t, mpt_peer_id peer, struct mpt_path_info *array, size_t cap, size_t *n);

/**
 * One word for an mpt_path_state: "starting", "up", "down", "no_socket", as mpt_metrics() has it;
 * "unknown" for any other number. Static, never NULL.
 */
const char *mpt_path_state_name(int state);

/**
 * == Events ==
 *
 * Takes the next piece of news; waits up to `timeout_ms`. Up to 1024 are kept, then the oldest
 * ones go. From the first call on, news make mpt_fd() readable; who never asks is not woken.
 *
 * MPT_EAGAIN, MPT_ETIMEDOUT, MPT_EINTR. MPT_ECLOSED once there will be no more.
 */
int mpt_next_event(mpt_t *t, struct mpt_event *ev, int timeout_ms);

/**
 * One word for an mpt_event_type, as `mptunnel events --json` has it: the name of the constant
 * without MPT_EVENT_, in lower case, such as "path_up"; "unknown" for any other number. Static,
 * never NULL.
 */
const char *mpt_event_type_name(int type);

/**
 * == Observation ==
 *
 * Counters of the whole endpoint (`peer` 0), or of one client of a server. They only grow: paths
 * that were removed still count, and in those of a server the clients that are gone.
 *
 * MPT_EPEER.
 */
int mpt_stats(mpt_t *t, mpt_peer_id peer, struct mpt_stats_t *out);

/**
 * Everything that can be seen of the endpoint, with all peers and paths, as text in one of the
 * forms of mpt_format. In the manner of mpt_get(): the answer is the length of the whole text,
 * which may be larger than `cap`, and another one at the next call.
 */
ptrdiff_t mpt_metrics(mpt_t *t, int format, char *buf, size_t cap);

/**
 * Why packets were removed or refused, over the whole endpoint: every reason that there is, in the
 * same order each time, those that never happened with 0. Copies are among them, as "duplicate".
 * In the manner of mpt_path_list(): fills `cap` elements at most, and tells in `*n` how many there
 * are.
 */
int mpt_drop_list(mpt_t *t, struct mpt_count *array, size_t cap, size_t *n);

/**
 * Errors that sockets reported, by errno: those of a client's path, or with 0 for `path` all that
 * the endpoint ever met, on paths that are gone as well. In the manner of mpt_path_list(). What
 * never happened is not in the list.
 *
 * MPT_EPATH. MPT_ENOTSUP for a path at a server, whose sockets are no path's own.
 */
int mpt_error_list(mpt_t *t, mpt_path_id path, struct mpt_count *array, size_t cap, size_t *n);

/**
 * Each pair of paths that datagrams of the sample went on: at a client with 0 for `peer`, at a
 * server for one of its clients. In the manner of mpt_path_list(). With 32 paths there are up to
 * 496 pairs; with one, or while each datagram goes over one path only, there are none.
 *
 * MPT_EPEER.
 */
int mpt_pair_list(mpt_t *t, mpt_peer_id peer, struct mpt_pair_info *array, size_t cap, size_t *n);

/**
 * The clients of a server that are connected, in the order in which they came; none at a client.
 * Fills the first `cap` elements of `array`, and sets `*n` to how many there are, which may be
 * more. `array` may be NULL if `cap` is 0.
 */
int mpt_peer_list(mpt_t *t, mpt_peer_id *array, size_t cap, size_t *n);

/**
 * == Keys and versions ==
 *
 * Makes a new key from the system's randomness, as the 44 characters of base64 that a key file
 * holds, and a NUL: `cap` is at least MPT_KEY_SIZE. Write it to a file that only its owner can
 * read, and give both ends the same.
 *
 * MPT_EMSGSIZE: `cap` is too small. MPT_ESYSTEM: the system has no randomness.
 */
int mpt_genkey(char *buf, size_t cap);

/**
 * The version of the ABI that the library has: MPT_ABI_VERSION of its own header. It changes only
 * together with the soname.
 */
uint32_t mpt_abi_version(void);

/**
 * The version of the library, such as "0.1.0". Static.
 */
const char *mpt_version(void);

/**
 * How the library was built, as JSON: version, abi, target, backend (of the cipher), features.
 * Static.
 */
const char *mpt_build_info(void);

/**
 * The last failure of a call in this thread, in words and with its causes; "" if none failed.
 *
 * Returns a string of the library's, never NULL, valid until the next call of this function in
 * the same thread. A call that succeeds does not clear it. Thread-safe: each thread has its own.
 */
const char *mpt_last_error(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MPTUNNEL_H */
