// SPDX-License-Identifier: BSD-2-Clause
//
// Echo, both ends in one program: a server that sends everything back, on a thread of its own, and
// a client that asks it. Whatever goes wrong is an exception, and everything is closed by itself.
//
//     c++ -std=c++17 echo.cpp -o echo $(pkg-config --cflags --libs mptunnel) -pthread
//     ./echo psk

#include <mptunnel.hpp>

#include <chrono>
#include <exception>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

namespace {

void serve(mpt::socket &server) {
    std::vector<char> buffer(server.max_payload());
    try {
        for (;;) {
            auto [len, peer] = server.recv_from(buffer);
            server.send_to(peer, {buffer.data(), len});
        }
    } catch (const mpt::error &error) {
        // The end, as main() wants it: during a call, or between two.
        if (error.code() != mpt::errc::closed && error.code() != mpt::errc::bad_handle)
            std::cerr << "server: " << error.what() << '\n';
    }
}

} // namespace

int main(int argc, char **argv) try {
    if (argc != 2) {
        std::cerr << "usage: echo KEY_FILE\n";
        return 2;
    }
    mpt::config config;
    config.set("key-file", argv[1]);

    mpt::socket server("mpt-listen://127.0.0.1:0", config);
    std::thread thread(serve, std::ref(server));
    struct joiner {
        mpt::socket &server;
        std::thread &thread;
        ~joiner() {
            server.shutdown();
            thread.join();
        }
    } joiner{server, thread};

    mpt::socket client("mpt://" + server.local_addr(), config);
    client.wait_ready(5s);
    for (const std::string text : {"one", "two", "three"}) {
        client.send(text);
        char buffer[64];
        auto len = client.recv(buffer, 5s);
        std::cout << std::string(buffer, len) << " came back\n";
    }
    for (const auto &path : client.paths())
        std::cout << path.name << ": " << path.rtt_us << " us, won " << path.wins << '\n';
    return 0;
} catch (const std::exception &error) {
    std::cerr << "echo: " << error.what() << '\n';
    return 1;
}
