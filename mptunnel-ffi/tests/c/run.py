#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The C and C++ interface as its users meet it.

Installs the built library into a directory of its own, compiles against that in every way that the
README names, and runs the test programs beside this file, plain, under AddressSanitizer with
LeakSanitizer, and under valgrind; then examples in C, C++ and Rust and the programs against each
other. Prints one line per check, and stops at the first that fails.
"""

import argparse
import contextlib
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
C99 = ["-std=c99", *STRICT]
SANITIZE = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g"]
PROGRAMS = ["abi", "basic", "observe", "misuse", "waiting", "forked"]
VALGRIND = ["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full",
            "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite",
            "--fair-sched=try"]
# Under valgrind, what AES-GCM makes of a short block counts as uninitialized: memcheck takes the
# result of PCLMULQDQ for undefined as a whole if one bit of its operands is, masked later or not.
PLAIN_CIPHER = "&cipher=chacha20"
MINUTE = 60


class Failed(Exception):
    pass


def run(command, timeout=2 * MINUTE, **more):
    """Runs a command that has to succeed; what it printed."""
    command = [str(word) for word in command]
    more.setdefault("stdin", subprocess.DEVNULL)
    try:
        done = subprocess.run(command, timeout=timeout, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, **more)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"no end after {timeout} s: {' '.join(command)}\n{late.output}") from late
    if done.returncode != 0:
        raise Failed(f"status {done.returncode}: {' '.join(command)}\n{done.stdout}")
    return done.stdout


class Setup:
    """The library as installed, and where things are put."""

    def __init__(self, target, directory):
        self.bin = target / "release"
        self.work = directory
        self.prefix = directory / "prefix"
        self.lib = self.prefix / "lib"
        self.env = dict(os.environ, LD_LIBRARY_PATH=str(self.lib),
                        PKG_CONFIG_PATH=str(self.lib / "pkgconfig"),
                        # A leak or a wrong access ends the program with this status.
                        ASAN_OPTIONS="detect_leaks=1:exitcode=98", UBSAN_OPTIONS="halt_on_error=1")
        self.files = directory / "files"
        self.files.mkdir()
        self.key = self.files / "psk"
        run([self.bin / "mptunnel", "genpsk", "--output", self.key])

    def flags(self, *what):
        return run(["pkg-config", *what, "mptunnel"], env=self.env).split()

    def compile(self, compiler, source, name, *flags):
        out = self.work / name
        run([*compiler.split(), source, "-o", out, *flags], env=self.env)
        return out

    def program(self, source, *flags):
        """A test program or an example in C, as a user compiles it."""
        out = self.work / source.stem
        if not out.exists():
            self.compile("cc", source, out.name, *C99, "-D_GNU_SOURCE", *flags,
                         *self.flags("--cflags", "--libs"), "-pthread")
        return out

    def example(self, name):
        return self.program(ROOT / f"examples/c/{name}.c")

    def test(self, program, *arguments, under=(), timeout=2 * MINUTE, **env):
        return run([*under, program, *arguments], timeout=timeout, env={**self.env, **env})


def install(s):
    run(["make", "-s", "install", f"PREFIX={s.prefix}", "CARGO=true"], cwd=ROOT)
    staged = s.work / "staged"
    run(["make", "-s", "install", "PREFIX=/usr", f"DESTDIR={staged}", "CARGO=true"], cwd=ROOT)
    pc = (staged / "usr/lib/pkgconfig/mptunnel.pc").read_text()
    if "libdir=/usr/lib\n" not in pc or str(staged) in pc:
        raise Failed(f"DESTDIR shows in mptunnel.pc:\n{pc}")


def exports(s):
    library = s.lib / "libmptunnel.so.0"
    lines = run(["nm", "-D", "--defined-only", library]).splitlines()
    names = {line.split()[-1] for line in lines}
    header = (ROOT / "include/mptunnel.h").read_text()
    declared = set(re.findall(r"\b(mpt_\w+)\(", re.sub(r"/\*.*?\*/", "", header, flags=re.S)))
    declared -= {"mpt_peer_id"}
    if names != declared:
        raise Failed(f"exported and not declared: {names - declared}; "
                     f"declared and not exported: {declared - names}")
    if "libmptunnel.so.0" not in run(["readelf", "-d", library]):
        raise Failed("the soname is not libmptunnel.so.0")


def readme_code():
    readme = (ROOT / "README.md").read_text()
    code = re.search(r"<!-- examples/c/hello.c -->\n```c\n(.*?)```\n", readme, re.S).group(1)
    if len(code.splitlines()) > 30:
        raise Failed("the hello-world of the README has more than 30 lines")
    if code != (ROOT / "examples/c/hello.c").read_text():
        raise Failed("README.md and examples/c/hello.c differ")
    return code


class Echo:
    """One of the echo servers, on a port that it chose, until the end of its input."""

    def __init__(self, s, command, pattern=r"listening on .*?:(\d+)"):
        self.process = subprocess.Popen([str(word) for word in command], env=s.env, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        match = re.search(pattern, self.process.stdout.readline())
        if not match:
            raise Failed(f"{command} does not say where it listens")
        self.port = match.group(1)
        self.rest = threading.Thread(target=self.process.stdout.read)
        self.rest.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.status = self.process.wait(5)
        except subprocess.TimeoutExpired:
            # The ones in Rust end with a signal.
            self.process.kill()
            self.status = self.process.wait()
        self.rest.join()


def hello(s):
    """The README's program: as C and as C++, shared and static, by pkg-config and by CMake."""
    source = s.work / "hello.c"
    source.write_text(readme_code())
    shared = s.flags("--cflags", "--libs")
    include = s.flags("--cflags")
    private = [flag for flag in s.flags("--libs", "--static") if flag != "-lmptunnel"]
    static = ["-Wl,-Bstatic", "-lmptunnel", "-Wl,-Bdynamic", *private]
    built = {
        "c99": s.compile("cc", source, "hello-c99", *C99, *shared),
        "c++": s.compile("c++ -x c++", source, "hello-cxx", "-std=c++17", *STRICT, *shared),
        "static": s.compile("cc", source, "hello-static", *C99, *include, *private, *static),
        "asan": s.compile("cc", source, "hello-asan", *C99, *SANITIZE, *shared),
    }
    if "libmptunnel" in run(["ldd", built["static"]], env=s.env):
        raise Failed("hello-static needs the shared library")
    cmake = s.work / "cmake"
    cmake.mkdir()
    (cmake / "CMakeLists.txt").write_text(f"""
cmake_minimum_required(VERSION 3.13)
project(hello C)
find_package(mptunnel 0.1 REQUIRED)
add_executable(hello {source})
target_link_libraries(hello mptunnel::mptunnel)
add_executable(hello_static {source})
target_link_libraries(hello_static mptunnel::mptunnel-static)
""")
    run(["cmake", "-S", cmake, "-B", cmake / "build", f"-DCMAKE_PREFIX_PATH={s.prefix}"])
    run(["cmake", "--build", cmake / "build"])
    built["cmake"] = cmake / "build/hello"
    built["cmake-static"] = cmake / "build/hello_static"
    server = s.example("echo_server")
    with Echo(s, [server, f"mpt-listen://127.0.0.1:0?key-file={s.key}"]) as echo:
        uri = f"mpt://127.0.0.1:{echo.port}?key-file={s.key}"
        for name, program in built.items():
            if s.test(program, uri) != "hello\n":
                raise Failed(f"hello-{name} did not say hello")
        s.test(built["c99"], uri + PLAIN_CIPHER, under=VALGRIND)
    if echo.status != 0:
        raise Failed(f"the echo server ended with status {echo.status}")


def programs(s):
    """The test programs, as a user compiles them."""
    for name in PROGRAMS:
        out = s.program(HERE / f"{name}.c")
        print("   ", s.test(out, s.files).strip().replace("\n", "\n    "))


def sanitized(s):
    for name in PROGRAMS:
        out = s.compile("cc", HERE / f"{name}.c", f"{name}-asan", *C99, *SANITIZE, "-D_GNU_SOURCE",
                        *s.flags("--cflags", "--libs"), "-pthread")
        if "__asan_init" not in run(["nm", out]):
            raise Failed("the program is without AddressSanitizer")
        s.test(out, s.files)
    # That a leak would be found is shown by one.
    leaks = s.work / "leaks.c"
    leaks.write_text("#include <stdlib.h>\nint main(void) { return malloc(7) == NULL; }\n")
    leaks = s.compile("cc", leaks, "leaks", "-O0", *SANITIZE)
    done = subprocess.run([str(leaks)], env=s.env, capture_output=True, check=False)
    if done.returncode != 98:
        raise Failed(f"LeakSanitizer did not find a leak: {done}")


def valgrind(s):
    for name in ["abi", "basic"]:
        s.test(s.program(HERE / f"{name}.c"), s.files, under=VALGRIND, timeout=3 * MINUTE,
               MPT_TEST_OPTIONS=PLAIN_CIPHER)


def cpp(s):
    shared = s.flags("--cflags", "--libs")
    for std in ["c++17", "c++20"]:
        out = s.compile("c++", ROOT / "examples/cpp/echo.cpp", f"echo-{std}", f"-std={std}",
                        *STRICT, *SANITIZE, *shared, "-pthread")
        said = s.test(out, s.key)
        if not said.startswith("one came back\ntwo came back\nthree came back\n"):
            raise Failed(said)
    out = s.compile("c++", HERE / "classes.cpp", "classes", "-std=c++17", *STRICT, *SANITIZE,
                    *shared, "-pthread")
    s.test(out, s.key)
    out = s.compile("c++", HERE / "no_exceptions.cpp", "no_exceptions", "-std=c++17",
                    "-fno-exceptions", *STRICT, *shared)
    s.test(out, s.key)


def udp_echo():
    """An echo server on plain UDP: the target behind an mpserver."""
    target = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    target.bind(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                data, peer = target.recvfrom(65535)
            except OSError:
                return
            if data == b"\0end":
                return
            target.sendto(data, peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return target, thread


PORTS = itertools.count(os.getpid() * 97)


def free_port():
    """A port below those that the kernel deals out: nobody else takes it meanwhile."""
    while True:
        port = 20_000 + next(PORTS) % 12_000
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, \
                contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def each_other(s):
    """Clients and servers in C and Rust, and the programs, in all pairs; payloads are compared."""
    c_client, c_server = s.example("echo_client"), s.example("echo_server")
    examples = s.bin / "examples"
    rust_client, rust_server = examples / "echo_client", examples / "echo_server"
    servers = {
        "C": [c_server, f"mpt-listen://127.0.0.1:0?key-file={s.key}"],
        "Rust": [rust_server, "0", s.key],
    }
    for name, command in servers.items():
        with Echo(s, command, r"(?:listening on .*):(\d+)") as echo:
            uri = f"mpt://127.0.0.1:{echo.port}?key-file={s.key}&path=name=a&path=name=b"
            said = s.test(c_client, uri, "20")
            if said.count("came back") != 20:
                raise Failed(f"C client, {name} server: {said}")
            run([rust_client, s.key, f"127.0.0.1:{echo.port}"], env=s.env, input="x\ny\n",
                stdin=None)
            # An application behind mpclient, answered by the library.
            port = free_port()
            paths = s.files / "mpclient.conf"
            paths.write_text(f"127.0.0.1 {echo.port}\nkey-file = {s.key}\n")
            client = subprocess.Popen([s.bin / "mpclient", str(port), paths],
                                      stderr=subprocess.DEVNULL)
            try:
                ask(port, f"mpclient, {name} server")
            finally:
                client.terminate()
                client.wait()

    target, thread = udp_echo()
    port = free_port()
    server = subprocess.Popen([s.bin / "mpserver", "--key-file", s.key, str(port), "127.0.0.1",
                               str(target.getsockname()[1])], stderr=subprocess.DEVNULL)
    try:
        uri = f"mpt://127.0.0.1:{port}?key-file={s.key}"
        said = s.test(c_client, uri, "20", "7")
        if said.count("came back") != 20:
            raise Failed(f"C client, mpserver: {said}")
    finally:
        server.terminate()
        server.wait()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"\0end", target.getsockname())
        thread.join(5)
        target.close()


def ask(port, who):
    """Exchanges datagrams with an echo server through mpclient, from two applications."""
    apps = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    try:
        for number, app in enumerate(apps):
            app.connect(("127.0.0.1", port))
            app.settimeout(0.2)
            for turn in range(5):
                payload = f"application {number} datagram {turn}".encode() * 40
                deadline = time.monotonic() + 10
                while True:
                    if time.monotonic() > deadline:
                        raise Failed(f"{who}: nothing comes back")
                    try:
                        app.send(payload)
                        back = app.recv(65535)
                    except (TimeoutError, ConnectionRefusedError):
                        continue
                    if b"application %d" % number not in back:
                        raise Failed(f"{who}: {back!r} is another application's")
                    if back == payload:
                        break
    finally:
        for app in apps:
            app.close()


def loops(s):
    """The other examples in C: several tunnels in one poll loop, a server with many peers."""
    poll, peers = s.example("poll_tunnels"), s.example("peers_server")
    listen = f"mpt-listen://127.0.0.1:0?key-file={s.key}"
    with Echo(s, [s.example("echo_server"), listen]) as one, \
         Echo(s, [s.example("echo_server"), listen]) as two:
        uris = [f"mpt://127.0.0.1:{e.port}?key-file={s.key}" for e in (one, two)]
        said = run([poll, *uris], env=s.env, input="to both\n", stdin=None)
        if "tunnel 0: to both" not in said or "tunnel 1: to both" not in said:
            raise Failed(said)
    with Echo(s, [peers, listen]) as server:
        # What the first tunnel sends, the second one gets, and the other way round.
        uri = f"mpt://127.0.0.1:{server.port}?key-file={s.key}"
        said = run([poll, uri, uri], env=s.env, input="to the others\n", stdin=None)
        if "tunnel 0: to the others" not in said or "tunnel 1: to the others" not in said:
            raise Failed(said)
    if server.status != 0:
        raise Failed(f"peers_server ended with status {server.status}")


def throughput(s):
    """Batches through the C interface. No bound: that belongs to a quiet machine."""
    out = s.program(HERE / "throughput.c", "-O2")
    print("    1400 bytes, batches of 64, 1 path:", s.test(out, s.key).strip(), "datagrams/s")


CHECKS = [install, exports, hello, programs, sanitized, valgrind, cpp, each_other, loops,
          throughput]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target-dir", type=Path, default=ROOT / "target")
    parser.add_argument("checks", nargs="*", help="only these of: " +
                        ", ".join(check.__name__ for check in CHECKS))
    arguments = parser.parse_args()
    target = arguments.target_dir.resolve()
    run(["cargo", "build", "--release", "--locked", "-p", "mptunnel-core", "--examples"],
        timeout=10 * MINUTE, cwd=ROOT, env=dict(os.environ, CARGO_TARGET_DIR=str(target)))
    directory = Path(tempfile.mkdtemp(prefix="mptunnel-c-"))
    try:
        s = Setup(target, directory)
        for check in CHECKS:
            if arguments.checks and check.__name__ not in [*arguments.checks, "install"]:
                continue
            start = time.monotonic()
            check(s)
            print(f"{check.__name__}: ok ({time.monotonic() - start:.1f} s)", flush=True)
    except Failed as why:
        print(f"FAILED: {check.__name__}: {why}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
