// SPDX-License-Identifier: BSD-2-Clause
// The C++ classes: ownership, errors, views, waiting.

#include <mptunnel.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

using namespace std::chrono_literals;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                   \
            std::abort();                                                                          \
        }                                                                                          \
    } while (0)

static_assert(!std::is_copy_constructible_v<mpt::socket> && !std::is_copy_assignable_v<mpt::socket>);
static_assert(!std::is_copy_constructible_v<mpt::config> && !std::is_copy_assignable_v<mpt::config>);
static_assert(std::is_nothrow_move_constructible_v<mpt::socket>);
static_assert(std::is_nothrow_move_assignable_v<mpt::socket>);
static_assert(std::is_nothrow_destructible_v<mpt::socket>);
static_assert(std::is_base_of_v<std::system_error, mpt::error>);
static_assert(!std::is_constructible_v<mpt::room, const char (&)[4]>);

template <typename Call> std::error_code thrown_by(Call call) {
    try {
        call();
    } catch (const mpt::error &error) {
        CHECK(std::strlen(error.what()) > 0);
        return error.code();
    }
    return {};
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    mpt::config config;
    config.set("key-file", argv[1]).set("idle-interval", "2s");
    mpt::config moved_config(std::move(config));
    config = mpt::config();
    CHECK(moved_config.get("idle-interval") == "2s" && config.get("idle-interval") != "2s");
    CHECK(thrown_by([&] { config.get("wndow"); }) == mpt::errc::config);
    CHECK(thrown_by([&] { config.set("wndow", "1"); }) == mpt::errc::config);
    CHECK(thrown_by([&] { config.set("wndow", "1"); }) == std::errc::invalid_argument);

    mpt::config with_key;
    with_key.set_key(mpt::genkey());
    CHECK(mpt::socket("mpt-listen://127.0.0.1:0", with_key).key_ids().size() == 16);
    CHECK(thrown_by([&] { with_key.set_key("short"); }) == mpt::errc::config);

    mpt::socket server("mpt-listen://127.0.0.1:0", moved_config);
    mpt::socket client("mpt://" + server.local_addr() + "?path=name=a&path=name=b", moved_config);
    CHECK(thrown_by([&] { client.wait_ready(15s); }) == std::error_code());
    CHECK(client.get("idle-interval") == "2s" && client.max_payload() == 65507);
    client.set("idle-interval", "1s");
    CHECK(client.get("idle-interval") == "1s");

    // Everything that is bytes.
    std::array<std::byte, 3> three{};
    std::vector<unsigned char> two(2);
    client.send("literal");
    client.send(std::string("string"));
    client.send(std::string_view("view"));
    client.send(three);
    client.send(two, 0ms);
    client.send({nullptr, 0});
    std::vector<char> buffer(server.max_payload());
    for (std::size_t expected : {7, 6, 4, 3, 2, 0})
        CHECK(server.recv(buffer, 15s) == expected);
    CHECK(!server.try_recv(buffer));

    // A batch, and an answer to whom it came from.
    mpt::message batch[2] = {MPT_MSG_INIT, MPT_MSG_INIT};
    char rooms[2][8];
    for (auto &message : batch) {
        message.buf = rooms[&message - batch];
        message.len = message.cap = sizeof rooms[0];
    }
    CHECK(client.send(batch, 2) == 2);
    auto [len, peer] = server.recv_from(buffer);
    CHECK(len == sizeof rooms[0] && peer != 0);
    CHECK(server.recv(batch, 2) == 1);
    server.send_to(peer, "back");
    CHECK(client.recv(buffer, 15s) == 4);

    // Errors, thrown and returned.
    char small[1];
    std::error_code code;
    client.send("too long for it");
    CHECK(thrown_by([&] { server.recv(small, 15s); }) == std::errc::message_size);
    CHECK(server.recv(small, 0ms, code) == 0 && code == mpt::errc::message_size);
    CHECK(server.recv(buffer) == 15);
    CHECK(thrown_by([&] { server.recv(buffer, 0ms); }) == std::errc::operation_would_block);
    CHECK(thrown_by([&] { server.recv(buffer, 1ms); }) == std::errc::timed_out);
    CHECK(thrown_by([&] { server.send_to(4711, "x"); }) == mpt::errc::unknown_peer);
    CHECK(code.category() == mpt::category() && code.message() == mpt_strerror(MPT_EMSGSIZE));
    mpt::socket none("mpt://127.0.0.1:9", mpt::config(), code);
    CHECK(code == mpt::errc::config && !none);
    CHECK(thrown_by([&] { none.send("x"); }) == std::errc::invalid_argument);
    none.close();

    // Paths, news, text.
    CHECK(client.paths().size() == 2 && std::string_view(client.paths()[1].name) == "b");
    auto id = client.add_path("to=127.0.0.1:9 name=c");
    client.set_path(id, "role", "backup");
    CHECK(client.paths()[2].backup == 1);
    client.remove_path(id);
    CHECK(thrown_by([&] { client.remove_path(id); }) == mpt::errc::unknown_path);
    auto news = client.next_event(15s);
    CHECK(mpt::type(*news) == MPT_EVENT_CONNECTED || mpt::type(*news) == MPT_EVENT_PATH_UP);
    CHECK(std::string(mpt_event_type_name(news->type)) != "unknown");
    CHECK(server.stats().peers == 1 && server.stats(peer).received > 0);

    // What is measured, and what is not.
    auto paths = client.paths();
    CHECK(mpt::state(paths[0]) == MPT_PATH_UP && mpt::micros(paths[0].rtt_us) >= 1us);
    CHECK(!mpt::micros(paths[0].queue_us) && mpt::fraction(0.5) == 0.5 && !mpt::fraction(-1));
    CHECK(!mpt::correlation(mpt::pair_info MPT_PAIR_INFO_INIT));
    CHECK(client.pairs().size() <= 1 && client.errors(paths[0].id).empty());
    auto drops = server.drops();
    CHECK(drops.size() > 10);
    for (const auto &drop : drops)
        CHECK(drop.name[0] != '\0' && drop.code == 0);
    CHECK(server.peers() == std::vector<mpt::peer_id>{peer} && client.peers().empty());
    CHECK(thrown_by([&] { server.dismiss(4711); }) == mpt::errc::unknown_peer);
    while (client.next_event(0ms, code)) {
    }
    CHECK(code == std::errc::operation_would_block);
    CHECK(client.key_ids() == server.key_ids() && client.key_ids().size() == 16);
    CHECK(thrown_by([&] { client.errors(4711); }) == mpt::errc::unknown_path);
    CHECK(client.metrics(MPT_JSON).front() == '{');
    CHECK(client.metrics(MPT_PROMETHEUS).find("mptunnel_path_up") != std::string::npos);
    CHECK(mpt::genkey().size() == 44 && client.fd() >= 0);

    // Moving leaves a closed one behind, and the new one goes on.
    mpt::socket taken(std::move(client));
    CHECK(!client && taken);
    CHECK(thrown_by([&] { client.send("x"); }) == mpt::errc::invalid_argument);
    taken.send("moved");
    CHECK(server.recv(buffer, 15s) == 5);
    none = std::move(taken);

    std::atomic<bool> returned{false};
    std::thread waiting([&] {
        std::error_code why;
        none.recv(buffer, mpt::forever, why);
        CHECK(why == std::errc::interrupted);
        returned = true;
    });
    // An interruption ends the waits of its moment: again, until it met one.
    for (int turn = 0; turn < 1000 && !returned; turn++) {
        std::this_thread::sleep_for(5ms);
        none.interrupt();
    }
    CHECK(returned);
    waiting.join();

    // A thread that waits, and one that was elsewhere, are ended by closing.
    std::atomic<bool> begun{false}, shut{false};
    std::thread one([&] {
        std::error_code why;
        begun = true;
        none.recv(buffer, mpt::forever, why);
        CHECK(why == mpt::errc::closed || why == mpt::errc::bad_handle);
    });
    std::thread other([&] {
        while (!shut) {
        }
        CHECK(thrown_by([&] { none.recv(buffer); }) == mpt::errc::bad_handle);
    });
    while (!begun) {
    }
    none.shutdown();
    shut = true;
    one.join();
    other.join();
    std::puts("classes: ok");
}
