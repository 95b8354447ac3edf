# SPDX-License-Identifier: BSD-2-Clause
"""The policies between one path and all, over real sockets: what they carry, how fast they follow a
change, how many copies they make, and that one bad path spoils nothing.

The simulator shows the same in seconds, with seeds; what takes minutes here runs by name only.
"""

import struct
import threading
import time
from collections.abc import Callable

from lab import Host, Lab, check, note
from meter import Application, Reader, Service, percentile
from scenario import SERVICE_PORT, Network, scenario

SIZE = 700  # of datagrams, in bytes: nothing else on the links has packets of this size
LENGTHS = "728-868"  # of the IP packets that carry them


class Passing:
    """Counts the packets with datagrams on their way from c to s, by way."""

    def __init__(self, net: Network):
        self.middle = net.middle
        for host in self.middle:
            host.nft(
                "add table ip passing\n"
                "add chain ip passing in { type filter hook prerouting priority -300; }\n"
                f'add rule ip passing in iifname "c" ip length {LENGTHS} counter comment "up"'
            )

    def now(self) -> list[int]:
        return [host.dropped("up") for host in self.middle]

    def during(self, seconds: float) -> list[int]:
        before = self.now()
        time.sleep(seconds)
        return [now - then for now, then in zip(self.now(), before, strict=True)]


class Sink(Reader):
    """The application's server, where only the way there counts."""

    def __init__(self, host: Host):
        super().__init__(host.udp("0.0.0.0", SERVICE_PORT))
        self.numbers: set[int] = set()
        host.lab.closing.callback(self.close)
        self.start()

    def take(self) -> None:
        self.numbers.add(NUMBER.unpack_from(self.udp.recv(2_048))[0])


NUMBER = struct.Struct("<Q")


class Flood:
    """Sends numbered datagrams at a steady rate, from the thread that calls."""

    def __init__(self, host: Host, sink: Sink, size: int, rate: float):
        self.udp = host.udp()
        self.udp.connect(("127.0.0.1", 3000))
        host.lab.closing.callback(self.udp.close)
        self.sink, self.rate = sink, rate
        self.filler = bytes(size - NUMBER.size)
        self.sent = 0

    def run_for(self, seconds: float) -> range:
        """The numbers of what was sent."""
        begin, first = time.monotonic(), self.sent
        while (passed := time.monotonic() - begin) < seconds:
            while self.sent - first < passed * self.rate:
                self.udp.send(NUMBER.pack(self.sent) + self.filler)
                self.sent += 1
            time.sleep(0.001)
        return range(first, self.sent)

    def loss(self, numbers: range) -> float:
        """The share of these that did not arrive."""
        return 1 - sum(number in self.sink.numbers for number in numbers) / len(numbers)


RATES = [10, 20, 30]  # Mbit/s
# Of the sum, in datagrams of 1,400 bytes: 95 %, which are 98 % with all headers; and what the first
# two carry.
FULL_RATE = 0.95 * 60e6 / 8 / 1_400
PART_RATE = 0.9 * 30e6 / 8 / 1_400


@scenario(limit_s=60, alone=True, on_demand=True)
def weighted_sum(lab: Lab) -> None:
    """Mode weighted carries the sum of three paths, and one that drops to a tenth disturbs nobody.

      c                                                   s
      flood ─ mpclient ─┬─ b1: 10 Mbit/s, weight 1 ─┬─ mpserver ─ sink
                        ├─ b2: 20 Mbit/s, weight 2 ─┤
                        └─ b3: 30 Mbit/s, weight 3 ─┘
    """
    net = Network(lab, ways=3)
    net.route()
    for way, rate in enumerate(RATES, 1):
        shape(net.middle[way - 1], "s", rate)
    sink = Sink(net.server_host)
    net.server()
    paths = net.routed_paths().splitlines()
    client = net.client(
        "\n".join(f"{path} weight={way}" for way, path in enumerate(paths, 1)), "--mode weighted"
    )
    for way in 1, 2, 3:
        client.wait_log(f"path way{way} is up", 5)

    flood = Flood(net.client_host, sink, 1_400, FULL_RATE)
    flood.run_for(2)
    numbers = flood.run_for(5)
    time.sleep(0.3)
    loss = flood.loss(numbers)
    carried = len(numbers) * (1 - loss) * 1_400 * 8 / 5e6
    check(carried >= 0.93 * 60, f"the three carry {carried:.1f} of 60 Mbit/s")
    check(loss < 0.005, f"{100 * loss:.3f} % are lost")

    flood.rate = PART_RATE
    flood.run_for(1)
    note("way 3 drops to a tenth")
    shape(net.middle[2], "s", 3, "change")
    first, rest = flood.run_for(2), flood.run_for(5)
    time.sleep(0.3)
    loss = flood.loss(rest)
    check(loss < 0.005, f"after 2 s {100 * loss:.3f} % are lost; before {100 * flood.loss(first):.2f} %")


def shape(host: Host, interface: str, mbit: float, verb: str = "add") -> None:
    """A link of so many Mbit/s with 50 ms of buffer."""
    limit = int(mbit * 125_000 / 20)
    host.lab.command(
        f"tc -n {host.name} qdisc {verb} dev {interface} root "
        f"tbf rate {mbit}mbit burst 5000 limit {limit}"
    )


@scenario(limit_s=90, alone=True, on_demand=True)
def fastest_follows(lab: Lab) -> None:
    """Mode fastest follows the faster path within a second, and noise does not move it.

      c                                                 s
      application ─ mpclient ─┬─ b1: bridge, 20 ms ─┬─ mpserver ─ service
                              └─ b2: bridge, 30 ms ─┘
    """
    net = Network(lab, ways=2)
    service = Service(net.server_host, SERVICE_PORT)
    bridges = [net.bridge(1, "--delay 20ms"), net.bridge(2, "--delay 30ms")]
    passing = Passing(net)
    net.server()
    net.client(net.bridged_paths(), "--mode fastest")
    application = Application(net.client_host, service, size=SIZE)
    application.wait_up(5)
    application.begin(200)
    time.sleep(2)
    used = passing.during(1)
    check(used[0] > 190 and used[1] < 20, f"way 1 carries all but the sample: {used}")

    note("way 1 becomes slower: 60 ms")
    bridges[0].kill()
    bridges[0] = net.bridge(1, "--delay 60ms")
    time.sleep(1)
    used = passing.during(1)
    check(used[1] > 190 and used[0] < 20, f"a second later way 2 carries them: {used}")

    note("both are 30 ms, give or take 5 %")
    for way in 1, 2:
        bridges[way - 1].kill()
        net.bridge(way, "--delay 30ms --jitter 1500us --in-order")
    time.sleep(4)
    leading = [used[1] > used[0] for used in (passing.during(0.5) for _ in range(30))]
    changes = sum(one != other for one, other in zip(leading, leading[1:], strict=False))
    check(changes == 0, f"in 15 s it changes {changes} times")
    application.finish()


@scenario(limit_s=90, alone=True, on_demand=True)
def backup_path(lab: Lab) -> None:
    """A backup carries one datagram in 64, takes over when it is needed, and gives way as told.

      c                                                         s
      application ─ mpclient ─┬─ b1: bridge, 10 ms ─────────┬─ mpserver ─ service
                              └─ b2: bridge, 20 ms, backup ─┘
    """
    net = Network(lab, ways=2)
    service = Service(net.server_host, SERVICE_PORT)
    passing = Passing(net)
    first, second = net.bridged_paths().splitlines()
    net.bridge(2, "--delay 20ms")
    for failback, returns in ("always", True), ("never", False):
        bridge = net.bridge(1, "--delay 10ms")
        server = net.server()
        client = net.client(f"{first}\n{second} role=backup", f"--mode fastest --failback {failback}")
        application = Application(net.client_host, service, size=SIZE)
        application.wait_up(5)
        application.begin(200)
        time.sleep(2)
        used = passing.during(3)
        check(used[0] > 580 and used[1] <= 12, f"{failback}: the backup carries {used[1]} of 600")

        cut = time.monotonic()
        bridge.freeze()
        time.sleep(3)
        lost = application.lost(cut - 0.1, cut + 2.5)
        gap = len(lost) / 200
        check(gap < 0.78, f"{failback}: way 1 dies, {gap:.2f} s of datagrams are lost")
        used = passing.during(1)
        check(used[1] > 190, f"{failback}: the backup carries {used[1]} of 200")

        back = time.monotonic()
        bridge.thaw()
        time.sleep(10)
        used = passing.during(1)
        check((used[0] > 180) == returns, f"{failback}: 10 s after it is back {used} on the two")
        application.finish()
        lost = application.lost(back)
        check(not lost, f"{failback}: nothing is lost by its return: {len(lost)}")
        for program in client, server, bridge:
            program.end()
            program.wait(5)


COPIES_RATE = 1_000
SETTLE_S = 35  # copies become fewer by one in ten seconds


@scenario(limit_s=240, alone=True, on_demand=True)
def adaptive_copies(lab: Lab) -> None:
    """Mode adaptive meets its target with few copies, and sees which paths lose together.

      c                                                     s
      application ─ mpclient ─┬─ b1: loses 5 % ─┬─ mpserver ─ service
                              ├─ b2: loses 5 % ─┤
                              ├─ b3: loses 5 % ─┤
                              └─ b4: loses 5 % ─┘
    """
    net = Network(lab, ways=4)
    net.route()
    service = Service(net.server_host, SERVICE_PORT)
    passing = Passing(net)
    # On the way to the server only: the answers tell what arrived there.
    for middle in net.middle:
        middle.nft(
            "add table ip lossy\n"
            "add chain ip lossy up { type filter hook forward priority 0; }\n"
        )

    def lose(ways: range, rule: str) -> None:
        for way in ways:
            middle = net.middle[way - 1]
            middle.nft(f'flush chain ip lossy up\nadd rule ip lossy up iifname "c" udp dport 2000 {rule}')

    independent = "numgen random mod 100 < 5 drop"
    # Of one datagram all copies have the same packet number, behind type and session.
    together = "jhash @th,128,32 mod 100 seed 0x5eed < 5 drop"

    def settled(words: str) -> tuple[list[int], float]:
        """What the ways carry of so many datagrams in 10 s, and the copies of each."""
        server, client = net.server(), net.client(net.routed_paths(), f"--mode adaptive {words}")
        application = Application(net.client_host, service, size=SIZE)
        application.wait_up(5)
        application.begin(COPIES_RATE)
        time.sleep(SETTLE_S)
        begin = len(application.sent)
        used = passing.during(10)
        end = len(application.sent)
        application.finish()
        there = application.there.at
        lost = sum(number not in there for number in range(begin, end))
        note(f"{lost} of {end - begin} lost, the ways carried {used}")
        for program in client, server:
            program.end()
            program.wait(5)
        copies = sum(used) / (end - begin)
        # 1e-4 of 10,000 is one; four standard deviations more.
        target = float(words.split()[-1])
        most = target * (end - begin) + 4 * (target * (end - begin)) ** 0.5
        check(lost <= most, f"{lost} are lost, where {target:g} allows {most:.0f}")
        return used, copies

    lose(range(1, 5), independent)
    _, copies = settled("--target-loss 1e-4")
    check(copies <= 3.5, f"four ways that lose 5 % each take {copies:.2f} copies")

    note("ways 1 and 2 lose the same datagrams")
    lose(range(1, 3), together)
    used, copies = settled("--target-loss 2.5e-4")
    check(min(used[:2]) < 0.2 * max(used[:2]), f"one of the two is used: {used}")

    note("no way loses anything")
    for middle in net.middle:
        middle.nft("flush chain ip lossy up")
    _, copies = settled("--target-loss 1e-4")
    check(copies <= 1.02 + 3 / 64, f"clean ways take {copies:.3f} copies, with the sample")


@scenario(limit_s=90, alone=True, on_demand=True)
def bad_full_socket(lab: Lab) -> None:
    """A path whose socket takes nothing spoils nothing in any mode.

      c                                                         s
      application ─ mpclient ─┬─ b1: router, 8 kbit/s up ─┬─ mpserver ─ service
                              └─ b2: router ──────────────┘

    At first way 1 is good.
    """
    beside_a_good_path(
        lab, lambda _: shape_raw(lab, "c b1", "8kbit burst 2000 limit 10000000"), ["c b1"]
    )


@scenario(limit_s=90, alone=True, on_demand=True)
def bad_deep_buffer(lab: Lab) -> None:
    """A path with a queue of 2 s, which others keep full, spoils nothing in any mode.

      c                                                                     s
      application ─ mpclient ─┬─ b1: router, 0.8 Mbit/s, 2 s of buffer ─┬─ mpserver ─ service
                              └─ b2: router ────────────────────────────┘

    At first way 1 is good.
    """
    shaped = ["b1 c", "b1 s"]

    def spoil(_: Host) -> None:
        for place in shaped:
            shape_raw(lab, place, "800kbit burst 5000 limit 200000")
        time.sleep(1.5)  # until it is full

    ends = (("c", "10.0.1.1"), ("s", "10.1.1.2"))

    def others() -> None:
        sockets = [(lab.hosts[name].udp(address, 5_000), address) for name, address in ends]
        datagram = bytes(1_200)
        try:
            while not over.wait(0.005):
                for udp, _ in sockets:
                    for _, address in sockets:
                        udp.sendto(datagram, (address, 5_000))
        finally:
            for udp, _ in sockets:
                udp.close()

    over = threading.Event()
    thread = threading.Thread(target=others, daemon=True)

    def end() -> None:
        over.set()
        thread.join()

    lab.closing.callback(lambda: thread.is_alive() and end())
    beside_a_good_path(lab, spoil, shaped, thread.start)


@scenario(limit_s=90, alone=True, on_demand=True)
def bad_loss(lab: Lab) -> None:
    """A path that loses every second packet spoils nothing in any mode.

      c                                                   s
      application ─ mpclient ─┬─ b1: router, 50 % loss ─┬─ mpserver ─ service
                              └─ b2: router ────────────┘

    At first way 1 is good.
    """
    beside_a_good_path(
        lab, lambda bad: bad.nft("add rule ip bad both numgen random mod 100 < 50 drop"), []
    )


def shape_raw(lab: Lab, place: str, words: str) -> None:
    host, interface = place.split()
    lab.command(f"tc -n {host} qdisc add dev {interface} root tbf rate {words}")


def beside_a_good_path(
    lab: Lab,
    spoil: Callable[[Host], None],
    shaped: list[str],
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Compares each mode with the good path alone, from a second after `spoil` on."""
    net = Network(lab, ways=2)
    net.route()
    service = Service(net.server_host, SERVICE_PORT)
    bad = net.middle[0]
    bad.nft("add table ip bad\nadd chain ip bad both { type filter hook forward priority 0; }")
    prepare()
    good = net.routed_paths().splitlines()[1]
    alone, _ = measure(net, service, good, "", lambda: None)
    note(f"the good path alone: 99 of 100 come back within {alone:.1f} ms")
    for mode in "redundant", "fastest", "adaptive", "weighted":
        slowest, lost = measure(
            net, service, net.routed_paths(), f"--mode {mode}", lambda: spoil(bad)
        )
        most = 0.005 if mode == "weighted" else 0.0
        check(lost <= most, f"{mode}: {100 * lost:.2f} % are lost")
        # Routers take no time: there is little but what this machine does, and a datagram on the bad
        # path would take a second, or not come.
        check(slowest < 1.1 * alone + 20, f"{mode}: 99 of 100 come back within {slowest:.1f} ms")
        for place in shaped:
            host, interface = place.split()
            lab.command(f"tc -n {host} qdisc del dev {interface} root")
        bad.nft("flush chain ip bad both")


def measure(
    net: Network, service: Service, paths: str, words: str, spoil: Callable[[], None]
) -> tuple[float, float]:
    """Milliseconds within which 99 of 100 come back, and the share that does not, from a second
    after `spoil` on."""
    server, client = net.server(), net.client(paths, words)
    application = Application(net.client_host, service, size=SIZE)
    application.wait_up(5)
    application.begin(400)
    time.sleep(1.5)
    spoil()
    time.sleep(1)
    begin = time.monotonic()
    time.sleep(4)
    end = time.monotonic()
    application.finish()
    for program in client, server:
        program.end()
        program.wait(5)
    lost = len(application.lost(begin, end)) / (400 * (end - begin))
    return percentile(application.round_trips(begin), 0.99), lost
