// SPDX-License-Identifier: BSD-2-Clause
// What mptunnel.hpp promises to those who compile with -fno-exceptions.

#include <mptunnel.hpp>

#include <chrono>
#include <string>

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    std::error_code code;
    mpt::config config;
    config.set("key-file", argv[1], code);
    mpt::socket server("mpt-listen://127.0.0.1:0", config, code);
    if (code)
        return 3;
    mpt::socket client("mpt://" + server.local_addr(), config, code);
    client.wait_ready(std::chrono::seconds(5), code);
    if (code)
        return 4;
    client.send("x", mpt::forever, code);
    char buffer[8];
    if (code || server.recv(buffer, std::chrono::seconds(5), code) != 1 || code)
        return 5;
    server.recv(buffer, std::chrono::milliseconds(0), code);
    return code == std::errc::operation_would_block ? 0 : 6;
}
