// SPDX-License-Identifier: BSD-2-Clause
//
// libmptunnel for C++17: mptunnel.h in classes that close themselves, and nothing to link but the
// same library. What a call does, and which threads may call what, is said there; here is how it
// looks in C++.
//
//     mpt::config config;
//     config.set("key-file", "psk");
//     mpt::socket socket("mpt://vpn.example.org:4000", config);
//     socket.wait_ready(5s);
//     socket.send("hello");
//     char buffer[2048];
//     std::size_t len = socket.recv(buffer, 1s);
//
// Errors.  A call that fails throws mpt::error, a std::system_error whose code() is one of
//          mpt::errc and also compares with std::errc (timed_out, operation_would_block, ...), and
//          whose what() says what was wrong. What a program does all the time (opening, options of
//          a config, waiting, sending, receiving, news) has a form that throws nothing and takes a
//          std::error_code & as its last argument. Destructors never throw.
//
// Time.    Timeouts are std::chrono::milliseconds; mpt::forever is the default.
//
// Bytes.   mpt::view and mpt::room stand for what can be read and written: arrays, std::string,
//          std::string_view, std::vector and std::array of char, unsigned char or std::byte, and
//          what else has data() and size(), such as std::span.
//
// Without exceptions (-fno-exceptions) the forms with a std::error_code & work, and so do
//          constructors that open nothing; whatever would throw ends the program instead.

#ifndef MPTUNNEL_HPP
#define MPTUNNEL_HPP

#include <mptunnel.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace mpt {

using path_id = mpt_path_id;
using peer_id = mpt_peer_id;
using path_info = mpt_path_info;
using path_state = mpt_path_state;
using pair_info = mpt_pair_info;
using count = mpt_count;
using event = mpt_event;
using event_type = mpt_event_type;
using stats = mpt_stats_t;
using message = mpt_msg;

/// Waits as long as it takes.
inline constexpr std::chrono::milliseconds forever{-1};

/// The statuses of mptunnel.h, as an error code of the standard library.
enum class errc {
    again = MPT_EAGAIN,
    timed_out = MPT_ETIMEDOUT,
    interrupted = MPT_EINTR,
    message_size = MPT_EMSGSIZE,
    invalid_argument = MPT_EINVAL,
    bad_handle = MPT_EBADF,
    config = MPT_ECONFIG,
    not_supported = MPT_ENOTSUP,
    busy = MPT_EBUSY,
    not_connected = MPT_ENOTCONN,
    no_path = MPT_ENOPATH,
    unknown_peer = MPT_EPEER,
    unknown_path = MPT_EPATH,
    refused = MPT_EREFUSED,
    closed = MPT_ECLOSED,
    forked = MPT_EFORKED,
    panic = MPT_EPANIC,
    system = MPT_ESYSTEM,
};

namespace detail {

class category_type final : public std::error_category {
public:
    const char *name() const noexcept override { return "mptunnel"; }

    std::string message(int code) const override { return mpt_strerror(code); }

    std::error_condition default_error_condition(int code) const noexcept override {
        switch (code) {
        case MPT_EAGAIN: return std::errc::operation_would_block;
        case MPT_ETIMEDOUT: return std::errc::timed_out;
        case MPT_EINTR: return std::errc::interrupted;
        case MPT_EMSGSIZE: return std::errc::message_size;
        case MPT_EINVAL:
        case MPT_ECONFIG:
        case MPT_EPATH: return std::errc::invalid_argument;
        case MPT_EBADF: return std::errc::bad_file_descriptor;
        case MPT_ENOTSUP: return std::errc::operation_not_supported;
        case MPT_EBUSY: return std::errc::device_or_resource_busy;
        case MPT_ENOTCONN:
        case MPT_EPEER:
        case MPT_ECLOSED: return std::errc::not_connected;
        case MPT_ENOPATH: return std::errc::network_unreachable;
        case MPT_EREFUSED: return std::errc::connection_refused;
        default: return std::error_condition(code, *this);
        }
    }
};

} // namespace detail

/// The category of mpt::errc.
inline const std::error_category &category() noexcept {
    static const detail::category_type instance;
    return instance;
}

inline std::error_code make_error_code(errc code) noexcept {
    return {static_cast<int>(code), category()};
}

} // namespace mpt

template <> struct std::is_error_code_enum<mpt::errc> : std::true_type {};

namespace mpt {

/// What a call that failed throws.
class error : public std::system_error {
public:
    error(std::error_code code, const std::string &why) : std::system_error(code, why) {}
};

namespace detail {

/// A negative status as an error code, and 0 or a count as none.
template <typename Status> std::error_code code_of(Status status) noexcept {
    return status < 0 ? std::error_code(static_cast<int>(status), category()) : std::error_code();
}

[[noreturn]] inline void raise(const std::error_code &code) {
#if defined(__cpp_exceptions)
    throw error(code, mpt_last_error());
#else
    (void)code;
    std::abort();
#endif
}

inline void check(const std::error_code &code) {
    if (code)
        raise(code);
}

/// A text that may be longer at the next call than it was at the last.
template <typename Print> std::string text(Print print) {
    std::string buffer(256, '\0');
    for (;;) {
        std::ptrdiff_t len = print(&buffer[0], buffer.size() + 1);
        check(code_of(len));
        auto size = static_cast<std::size_t>(len);
        bool whole = size <= buffer.size();
        buffer.resize(whole ? size : size + size / 4);
        if (whole)
            return buffer;
    }
}

/// For the C functions, whose longest bounded wait is 24 days.
inline int ms(std::chrono::milliseconds time) noexcept {
    constexpr auto most = std::numeric_limits<int>::max();
    return time.count() > most ? most : static_cast<int>(time.count());
}

template <typename T>
inline constexpr bool is_byte = std::is_same_v<std::remove_cv_t<T>, char> ||
                                std::is_same_v<std::remove_cv_t<T>, unsigned char> ||
                                std::is_same_v<std::remove_cv_t<T>, std::byte>;

template <typename C>
using element = std::remove_pointer_t<decltype(std::data(std::declval<C &>()))>;

} // namespace detail

/// Bytes to read, which belong to somebody else. A string literal is its characters without the
/// NUL.
class view {
public:
    constexpr view() noexcept = default;
    constexpr view(const void *data, std::size_t size) noexcept : data_(data), size_(size) {}
    view(const char *text) noexcept : view(text, std::char_traits<char>::length(text)) {}
    template <typename C, typename = std::enable_if_t<detail::is_byte<detail::element<const C>> &&
                                                      !std::is_array_v<C>>>
    constexpr view(const C &bytes) noexcept : data_(std::data(bytes)), size_(std::size(bytes)) {}

    constexpr const void *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

private:
    const void *data_ = nullptr;
    std::size_t size_ = 0;
};

/// Bytes to write, which belong to somebody else.
class room {
public:
    constexpr room(void *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <typename C, typename = std::enable_if_t<detail::is_byte<detail::element<C>> &&
                                                      !std::is_const_v<detail::element<C>>>>
    constexpr room(C &&bytes) noexcept : data_(std::data(bytes)), size_(std::size(bytes)) {}

    constexpr void *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

private:
    void *data_;
    std::size_t size_;
};

/// A time in microseconds of mpt::path_info, of which -1 stands for one that is not known.
inline std::optional<std::chrono::microseconds> micros(std::int64_t time) noexcept {
    if (time < 0)
        return std::nullopt;
    return std::chrono::microseconds(time);
}

/// A fraction of mpt::path_info or mpt::stats, of which -1 stands for one that is not known.
inline std::optional<double> fraction(double part) noexcept {
    if (part < 0)
        return std::nullopt;
    return part;
}

/// The correlation of a pair, if it is known.
inline std::optional<double> correlation(const pair_info &pair) noexcept {
    if (pair.correlation < -1)
        return std::nullopt;
    return pair.correlation;
}

/// What state a path is in; mpt_path_state_name() has one word for it.
inline path_state state(const path_info &path) noexcept {
    return static_cast<path_state>(path.state);
}

/// What happened; mpt_event_type_name() has one word for it.
inline event_type type(const event &news) noexcept { return static_cast<event_type>(news.type); }

/// A bag of options for any number of sockets.
class config {
public:
    config() : handle_(mpt_config_new()) {
        if (handle_ == nullptr)
            detail::raise(make_error_code(errc::system));
    }
    config(config &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    config &operator=(config &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    config(const config &) = delete;
    config &operator=(const config &) = delete;
    ~config() { mpt_config_free(handle_); }

    /// Sets an option; the key "path" adds a path.
    config &set(const std::string &key, const std::string &value) {
        std::error_code code;
        set(key, value, code);
        detail::check(code);
        return *this;
    }
    void set(const std::string &key, const std::string &value, std::error_code &code) noexcept {
        code = detail::code_of(mpt_config_set(handle_, key.c_str(), value.c_str()));
    }

    /// The value of an option, its default if it was not set: see mpt_config_get().
    std::string get(const std::string &key) const {
        return detail::text([&](char *buf, std::size_t cap) {
            return mpt_config_get(handle_, key.c_str(), buf, cap);
        });
    }

    /// The key itself, in place of a file: see mpt_config_set_key().
    config &set_key(const std::string &key) {
        std::error_code code;
        set_key(key, code);
        detail::check(code);
        return *this;
    }
    void set_key(const std::string &key, std::error_code &code) noexcept {
        code = detail::code_of(mpt_config_set_key(handle_, key.c_str()));
    }

    /// Takes the options and paths of a file.
    config &load(const std::string &file) {
        std::error_code code;
        load(file, code);
        detail::check(code);
        return *this;
    }
    void load(const std::string &file, std::error_code &code) noexcept {
        code = detail::code_of(mpt_config_load(handle_, file.c_str()));
    }

    /// Has every socket shown to `hook` before it is used.
    config &set_socket_hook(mpt_socket_hook hook, void *user) {
        detail::check(detail::code_of(mpt_config_set_socket_hook(handle_, hook, user)));
        return *this;
    }

    /// Has messages passed to `hook`.
    config &set_log(mpt_log_fn hook, void *user, int max_level) {
        detail::check(detail::code_of(mpt_config_set_log(handle_, hook, user, max_level)));
        return *this;
    }

    const mpt_config_t *handle() const noexcept { return handle_; }
    mpt_config_t *handle() noexcept { return handle_; }

private:
    mpt_config_t *handle_;
};

/// A datagram that was received: how long it is, and from whom.
struct received {
    std::size_t len;
    peer_id peer;
};

/// One endpoint, client or server. Moved and not copied; closed at the end of its life. One that was
/// moved from, or made without arguments, is closed, and every call answers errc::invalid_argument.
class socket {
public:
    socket() noexcept = default;
    /// Opens an endpoint: see mpt_open().
    explicit socket(const std::string &uri) { detail::check(open(uri, nullptr)); }
    socket(const std::string &uri, const config &options) {
        detail::check(open(uri, options.handle()));
    }
    socket(const std::string &uri, const config &options, std::error_code &code) noexcept {
        code = open(uri, options.handle());
    }
    socket(socket &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    socket &operator=(socket &&other) noexcept {
        if (this != &other) {
            close();
            handle_ = std::exchange(other.handle_, nullptr);
        }
        return *this;
    }
    socket(const socket &) = delete;
    socket &operator=(const socket &) = delete;
    ~socket() { close(); }

    /// Closes it now: see mpt_close(). Not while other threads use the object: shutdown().
    void close() noexcept { mpt_close(std::exchange(handle_, nullptr)); }
    /// Closes it under the hands of other threads, so that they end: what waits fails with
    /// errc::closed, and what begins later with errc::bad_handle. Join them, and then destroy the
    /// object, which must outlive its use.
    void shutdown() noexcept { mpt_close(handle_); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }
    mpt_t *handle() const noexcept { return handle_; }

    /// Waits until a path is usable.
    void wait_ready(std::chrono::milliseconds timeout = forever) {
        std::error_code code;
        wait_ready(timeout, code);
        detail::check(code);
    }
    void wait_ready(std::chrono::milliseconds timeout, std::error_code &code) noexcept {
        code = detail::code_of(mpt_wait_ready(handle_, detail::ms(timeout)));
    }

    /// Sends a datagram; waits only while all sockets are full.
    void send(view datagram, std::chrono::milliseconds timeout = forever) {
        std::error_code code;
        send(datagram, timeout, code);
        detail::check(code);
    }
    void send(view datagram, std::chrono::milliseconds timeout, std::error_code &code) noexcept {
        send_to(0, datagram, timeout, code);
    }
    void send_to(peer_id peer, view datagram, std::chrono::milliseconds timeout = forever) {
        std::error_code code;
        send_to(peer, datagram, timeout, code);
        detail::check(code);
    }
    void send_to(peer_id peer, view datagram, std::chrono::milliseconds timeout,
                 std::error_code &code) noexcept {
        code = detail::code_of(
            mpt_send_to(handle_, peer, datagram.data(), datagram.size(), detail::ms(timeout)));
    }

    /// Takes the next datagram, and returns its length.
    std::size_t recv(room buffer, std::chrono::milliseconds timeout = forever) {
        return recv_from(buffer, timeout).len;
    }
    std::size_t recv(room buffer, std::chrono::milliseconds timeout,
                     std::error_code &code) noexcept {
        return recv_from(buffer, timeout, code).len;
    }
    received recv_from(room buffer, std::chrono::milliseconds timeout = forever) {
        std::error_code code;
        auto result = recv_from(buffer, timeout, code);
        detail::check(code);
        return result;
    }
    received recv_from(room buffer, std::chrono::milliseconds timeout,
                       std::error_code &code) noexcept {
        peer_id peer = 0;
        auto len =
            mpt_recv_from(handle_, &peer, buffer.data(), buffer.size(), detail::ms(timeout));
        code = detail::code_of(len);
        return {len < 0 ? 0 : static_cast<std::size_t>(len), peer};
    }
    /// The next datagram if there is one now.
    std::optional<received> try_recv(room buffer) {
        std::error_code code;
        auto result = recv_from(buffer, std::chrono::milliseconds(0), code);
        if (code == errc::again)
            return std::nullopt;
        detail::check(code);
        return result;
    }

    /// Sends a batch: see mpt_sendv(). Returns how many were taken.
    std::size_t send(message *batch, std::size_t n, std::chrono::milliseconds timeout = forever) {
        std::error_code code;
        auto taken = send(batch, n, timeout, code);
        detail::check(code);
        return taken;
    }
    std::size_t send(message *batch, std::size_t n, std::chrono::milliseconds timeout,
                     std::error_code &code) noexcept {
        auto taken = mpt_sendv(handle_, batch, n, detail::ms(timeout));
        code = detail::code_of(taken);
        return taken < 0 ? 0 : static_cast<std::size_t>(taken);
    }

    /// Receives a batch: see mpt_recvv(). Returns how many were filled.
    std::size_t recv(message *batch, std::size_t n, std::chrono::milliseconds timeout = forever) {
        std::error_code code;
        auto filled = recv(batch, n, timeout, code);
        detail::check(code);
        return filled;
    }
    std::size_t recv(message *batch, std::size_t n, std::chrono::milliseconds timeout,
                     std::error_code &code) noexcept {
        auto filled = mpt_recvv(handle_, batch, n, detail::ms(timeout));
        code = detail::code_of(filled);
        return filled < 0 ? 0 : static_cast<std::size_t>(filled);
    }

    std::size_t max_payload() const noexcept { return mpt_max_payload(handle_); }

    /// Makes every call that waits at present fail with errc::interrupted; later ones wait again,
    /// also that of a thread which was on its way into it: see mpt_interrupt().
    void interrupt() noexcept { (void)mpt_interrupt(handle_); }

    /// For event loops: see mpt_fd(). Negative if there is none.
    std::intptr_t fd() const noexcept { return mpt_fd(handle_); }

    /// The next piece of news; none if nothing happened in time.
    std::optional<event> next_event(std::chrono::milliseconds timeout = forever) {
        std::error_code code;
        auto news = next_event(timeout, code);
        if (code != errc::again && code != errc::timed_out)
            detail::check(code);
        return news;
    }
    std::optional<event> next_event(std::chrono::milliseconds timeout,
                                    std::error_code &code) noexcept {
        event news = MPT_EVENT_INIT;
        code = detail::code_of(mpt_next_event(handle_, &news, detail::ms(timeout)));
        if (code)
            return std::nullopt;
        return news;
    }

    void set(const std::string &key, const std::string &value) {
        detail::check(detail::code_of(mpt_set(handle_, key.c_str(), value.c_str())));
    }
    std::string get(const std::string &key) const {
        return detail::text([&](char *buf, std::size_t cap) {
            return mpt_get(handle_, key.c_str(), buf, cap);
        });
    }
    std::string local_addr() const {
        return detail::text(
            [&](char *buf, std::size_t cap) { return mpt_local_addr(handle_, buf, cap); });
    }
    /// MPT_JSON or MPT_PROMETHEUS.
    std::string metrics(mpt_format format) const {
        return detail::text([&](char *buf, std::size_t cap) {
            return mpt_metrics(handle_, format, buf, cap);
        });
    }

    path_id add_path(const std::string &spec) {
        path_id id = 0;
        detail::check(detail::code_of(mpt_path_add(handle_, spec.c_str(), &id)));
        return id;
    }
    void set_path(path_id id, const std::string &key, const std::string &value) {
        detail::check(detail::code_of(mpt_path_set(handle_, id, key.c_str(), value.c_str())));
    }
    void remove_path(path_id id) { detail::check(detail::code_of(mpt_path_remove(handle_, id))); }
    std::vector<path_info> paths(peer_id peer = 0) const {
        return list(path_info MPT_PATH_INFO_INIT, [&](path_info *array, std::size_t cap, auto n) {
            return mpt_path_list(handle_, peer, array, cap, n);
        });
    }

    /// Each pair of paths, and how much they lose together: see mpt_pair_list().
    std::vector<pair_info> pairs(peer_id peer = 0) const {
        return list(pair_info MPT_PAIR_INFO_INIT, [&](pair_info *array, std::size_t cap, auto n) {
            return mpt_pair_list(handle_, peer, array, cap, n);
        });
    }
    /// The errors of a path by errno, or of all sockets: see mpt_error_list().
    std::vector<count> errors(path_id path = 0) const {
        return list(count MPT_COUNT_INIT, [&](count *array, std::size_t cap, auto n) {
            return mpt_error_list(handle_, path, array, cap, n);
        });
    }
    /// Why packets were removed or refused: see mpt_drop_list().
    std::vector<count> drops() const {
        return list(count MPT_COUNT_INIT, [&](count *array, std::size_t cap, auto n) {
            return mpt_drop_list(handle_, array, cap, n);
        });
    }
    /// The clients of a server that are connected.
    std::vector<peer_id> peers() const {
        return list(peer_id(0), [&](peer_id *array, std::size_t cap, auto n) {
            return mpt_peer_list(handle_, array, cap, n);
        });
    }
    /// Ends the session of a client, for good: see mpt_peer_dismiss().
    void dismiss(peer_id peer) { detail::check(detail::code_of(mpt_peer_dismiss(handle_, peer))); }
    /// For comparing both ends: see mpt_key_ids().
    std::string key_ids() const {
        return detail::text(
            [&](char *buf, std::size_t cap) { return mpt_key_ids(handle_, buf, cap); });
    }

    mpt::stats stats(peer_id peer = 0) const {
        mpt::stats all = MPT_STATS_INIT;
        detail::check(detail::code_of(mpt_stats(handle_, peer, &all)));
        return all;
    }

private:
    std::error_code open(const std::string &uri, const mpt_config_t *options) noexcept {
        return detail::code_of(mpt_open(uri.c_str(), options, &handle_));
    }

    /// A list that may be longer at the next call than it was at the last.
    template <typename T, typename Fill> static std::vector<T> list(const T &begin, Fill fill) {
        // As many paths as a session has at most.
        std::vector<T> all(32, begin);
        for (;;) {
            std::size_t n = 0;
            detail::check(detail::code_of(fill(all.data(), all.size(), &n)));
            bool whole = n <= all.size();
            all.resize(whole ? n : n + n / 4, begin);
            if (whole)
                return all;
        }
    }

    mpt_t *handle_ = nullptr;
};

/// A new key: what a key file holds.
inline std::string genkey() {
    char buffer[MPT_KEY_SIZE];
    detail::check(detail::code_of(mpt_genkey(buffer, sizeof buffer)));
    return buffer;
}

} // namespace mpt

#endif
