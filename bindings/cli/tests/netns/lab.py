# SPDX-License-Identifier: BSD-2-Clause
"""A laboratory of network namespaces: hosts, links, firewall rules and processes.

Every command is printed before it runs. `Lab` is a context: at its end all processes are stopped
and all namespaces removed, and it is an error if a process or a namespace is left that should not
be.
"""

import contextlib
import ctypes
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000  # sched.h
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
LIBC = ctypes.CDLL(None, use_errno=True)

# How long a set-up command may take, in seconds: ip, nft and tc take milliseconds.
COMMAND_S = 10
# How long a process may take to end after SIGTERM, in seconds: mpclient and mpserver promise 3.
STOP_S = 4


class Failure(Exception):
    """What was to be shown is not so."""


def check(holds: bool, claim: str) -> None:
    """States a claim; ends the scenario if it does not hold."""
    print(f"    {'ok' if holds else 'NOT SO'}: {claim}", flush=True)
    if not holds:
        raise Failure(claim)


def note(text: str) -> None:
    """Says what happens next, and when."""
    print(f"  # {text}", flush=True)


class Process:
    """A running program. Its output goes to a file, which is shown if the scenario fails."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str], log: Path, cwd: Path):
        self.name = name
        self.log_file = log
        self.started = time.monotonic()
        with log.open("wb") as out:
            self.popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,  # so that a signal reaches its children, too
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def is_alive(self) -> bool:
        return self.popen.poll() is None

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_log(self, pattern: str, timeout: float) -> float:
        """Waits for a line of its output and returns the seconds since the start."""
        while not re.search(pattern, self.log(), re.MULTILINE):
            if time.monotonic() - self.started > timeout:
                raise Failure(f"{self.name} did not say {pattern!r} within {timeout} s")
            if not self.is_alive():
                raise Failure(f"{self.name} ended with {self.popen.returncode}")
            time.sleep(0.01)
        return time.monotonic() - self.started

    def wait(self, timeout: float) -> int:
        """Waits for its end and returns its exit status."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} did not end within {timeout} s") from None

    def send(self, what: signal.Signals) -> None:
        """Sends a signal to the program and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, what)

    def kill(self) -> None:
        """kill -9, without a chance to clean up."""
        print(f"  $ kill -9 {self.pid}  # {self.name}", flush=True)
        self.send(signal.SIGKILL)
        self.popen.wait()

    def freeze(self) -> None:
        """Lets it take no more datagrams, and tell nobody."""
        print(f"  $ kill -STOP {self.pid}  # {self.name}", flush=True)
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        print(f"  $ kill -CONT {self.pid}  # {self.name}", flush=True)
        self.send(signal.SIGCONT)

    def end(self) -> None:
        """Asks it to end; `wait` tells whether it did."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)


class Host:
    """A network namespace, with a home directory of its own."""

    def __init__(self, lab: "Lab", name: str):
        self.lab = lab
        self.name = name
        self.home = lab.directory / name
        self.home.mkdir()
        lab.command(f"ip netns add {name}")
        lab.command(f"ip -n {name} link set lo up")

    def ip(self, words: str) -> None:
        """`ip` in this namespace."""
        self.lab.command(f"ip -n {self.name} {words}")

    def run(self, words: str, timeout: float = COMMAND_S, ok: tuple[int, ...] = (0,)) -> str:
        """Runs a command to its end and returns what it printed."""
        print(f"  $ ip netns exec {self.name} {words}", flush=True)
        command = ["ip", "netns", "exec", self.name, *shlex.split(words)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.lab.environment(self),
                cwd=self.home,
                timeout=timeout,
                text=True,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise Failure(f"{words!r} took more than {timeout} s: {late.stdout!r}") from None
        if done.returncode not in ok:
            raise Failure(f"{words!r} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def spawn(self, words: str, name: str | None = None, **env: str) -> Process:
        """Starts a program that goes on running. Relative names are in the host's home."""
        argv = shlex.split(words)
        name = name or f"{Path(argv[0]).name}@{self.name}"
        shown = "".join(f"{key}={value} " for key, value in env.items())
        print(f"  $ {shown}ip netns exec {self.name} {words} &", flush=True)
        number = len(self.lab.processes) + 1
        log = self.lab.directory / f"{number:02d}-{name.replace('/', '-')}.log"
        command = ["ip", "netns", "exec", self.name, *argv]
        environment = self.lab.environment(self) | env
        process = Process(name, command, environment, log, self.home)
        self.lab.processes.append(process)
        return process

    def nft(self, rules: str) -> None:
        """Adds firewall rules; several lines take effect at once."""
        for line in rules.strip().splitlines():
            print(f"  $ ip netns exec {self.name} nft {shlex.quote(line.strip())}", flush=True)
        self.lab.feed(["ip", "netns", "exec", self.name, "nft", "-f", "-"], rules)

    def dropped(self, comment: str) -> int:
        """How many packets the rules with this comment have matched."""
        command = ["ip", "netns", "exec", self.name, "nft", "list", "ruleset"]
        rules = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        lines = [line for line in rules.splitlines() if f'comment "{comment}"' in line]
        counts = [re.search(r"counter packets (\d+)", line) for line in lines]
        check(bool(counts) and all(counts), f"there is a rule {comment!r} that counts")
        return sum(int(count.group(1)) for count in counts if count)

    def sysctl(self, key: str, value: int | str) -> None:
        """Sets a kernel parameter of this namespace."""
        path = "/proc/sys/" + key.replace(".", "/")
        self.lab.command(f"ip netns exec {self.name} sh -c 'echo {value} > {path}'")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Opens sockets in this namespace: the calling thread is in it, and its sockets stay."""
        with (
            open("/proc/thread-self/ns/net", "rb") as here,
            open(f"/run/netns/{self.name}", "rb") as there,
        ):
            set_namespace(there.fileno())
            try:
                yield
            finally:
                set_namespace(here.fileno())

    def udp(self, address: str = "0.0.0.0", port: int = 0) -> socket.socket:
        """A UDP socket in this namespace, with room for bursts."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.entered():
            udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        udp.bind((address, port))
        return udp


def set_namespace(descriptor: int) -> None:
    if LIBC.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Lab:
    """Everything that one scenario sets up."""

    def __init__(self, directory: Path, programs: Path):
        self.directory = directory
        self.programs = programs
        self.hosts: dict[str, Host] = {}
        self.processes: list[Process] = []
        self.closing = contextlib.ExitStack()
        directory.mkdir(parents=True)
        # Children of programs that die become ours, so that none can hide from the leak check.
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.show_logs()
        self.closing.close()
        faults = self.end_all() + self.clean_up()
        # What failed first is what counts.
        if kind is None:
            if faults:
                self.show_logs()
            check(not faults, f"all ended cleanly, and nothing is left {faults or ''}")

    def end_all(self) -> list[str]:
        """Ends all processes, and tells which did not do so as they should."""
        faults = []
        running = [process for process in self.processes if process.is_alive()]
        for process in running:
            process.end()
        deadline = time.monotonic() + STOP_S
        for process in running:
            ours = process.name.startswith("mp")
            try:
                status = process.popen.wait(max(0.0, deadline - time.monotonic()))
                if ours and status != 0:
                    faults.append(f"{process.name} ended with {status} after SIGTERM")
            except subprocess.TimeoutExpired:
                faults.append(f"{process.name} did not end within {STOP_S} s of SIGTERM")
        for process in self.processes:
            process.send(signal.SIGKILL)  # to children that outlived it, as those of socat do
            process.popen.wait()
            if "panicked at" in process.log():
                faults.append(f"{process.name} panicked")
        return faults

    def clean_up(self) -> list[str]:
        """Removes all that is left, and tells what should not have been."""
        left = []
        for name in self.hosts:
            pids = subprocess.run(
                ["ip", "netns", "pids", name], stdout=subprocess.PIPE, text=True, check=True
            ).stdout.split()
            for pid in pids:
                left.append(f"process {pid} in {name}: {command_line(pid)}")
                os.kill(int(pid), signal.SIGKILL)
            self.command(f"ip netns del {name}")
        deadline = time.monotonic() + 2
        while True:
            try:
                ended, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if ended == 0 and time.monotonic() > deadline:
                left.append("a child that does not end")
                break
            time.sleep(0 if ended else 0.01)
        listed = subprocess.run(
            ["ip", "netns", "list"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        left += [f"namespace {line}" for line in listed.splitlines()]
        return left

    def show_logs(self) -> None:
        for process in self.processes:
            ended = "" if process.is_alive() else f", ended with {process.popen.returncode}"
            print(f"\n--- {process.name}{ended}", flush=True)
            print(process.log()[-8_000:] or "(silent)")
        sys.stdout.flush()

    def environment(self, host: Host) -> dict[str, str]:
        """What programs see: nothing of the user's own settings and keys."""
        return {
            "HOME": str(host.home),
            "LANG": "C.UTF-8",
            "PATH": f"{self.programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "RUST_BACKTRACE": "1",
        }

    def command(self, words: str) -> str:
        """Prints and runs a command of the set-up."""
        print(f"  $ {words}", flush=True)
        return self.feed(shlex.split(words), None)

    def feed(self, argv: list[str], text: str | None) -> str:
        done = subprocess.run(
            argv,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if done.returncode != 0:
            raise Failure(f"{shlex.join(argv)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def host(self, name: str) -> Host:
        self.hosts[name] = Host(self, name)
        return self.hosts[name]

    def names(self, addresses: dict[str, str]) -> None:
        """Sets what names resolve to. `run` has laid a file of our own over /etc/hosts."""
        text = "".join(f"{address} {name}\n" for name, address in addresses.items())
        print(f"  $ echo {shlex.quote(text.strip())} > {HOSTS}", flush=True)
        HOSTS.write_text(text)

    def link(self, a: Host, a_address: str, b: Host, b_address: str, mtu: int = 1500) -> None:
        """Lays a cable. Each end is named after the host that it leads to."""
        self.command(
            f"ip link add {b.name} mtu {mtu} netns {a.name} type veth "
            f"peer name {a.name} mtu {mtu} netns {b.name}"
        )
        for host, peer, address in (a, b, a_address), (b, a, b_address):
            # Without duplicate address detection an IPv6 address is usable at once.
            nodad = " nodad" if ":" in address else ""
            host.ip(f"addr add {address} dev {peer.name}{nodad}")
            # As on a real cable, one frame is one packet. Otherwise a batch of datagrams that goes
            # to the kernel as one crosses the link as one, and is dropped or counted as one.
            host.ip(f"link set {peer.name} gso_max_segs 1 up")


HOSTS = Path("/etc/hosts")


def command_line(pid: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return "?"
