"""Send an RPC server broken messages, by the million.

    python tools/fuzz_rpc.py --messages 2000000 --handshakes 2000 --seed 1

Messages of every kind are built as a client builds them, then damaged: bytes flipped, cut and
doubled, numbers of the head exchanged for treacherous ones, frames dropped and added, graphs
rewritten under a right checksum. They go straight into the server's dispatcher, whose device is a
fake with a megabyte of memory. Nothing may be raised, no request may hang, what a session holds
must stay within its limits, and after every thousand messages another session's run must give the
right result.

Handshakes go over real sockets, some cut short and left open, while a client with a key goes on
computing. Prints what happened as JSON; the exit status is 1 if a rule was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import hotplug
from hotplug import ops, serialize
from hotplug.graph import Graph
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc import requests as rq
from hotplug_rpc.addresses import Address
from hotplug_rpc.contents import digest_of
from hotplug_rpc.errors import ProtocolError, SessionError
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.server.build import Options, build
from hotplug_rpc.server.graphs import GraphStore
from hotplug_rpc.server.limits import Limits
from hotplug_rpc.server.loop import Server
from hotplug_rpc.server.offers import Offer
from hotplug_rpc.server.peers import Peers
from hotplug_rpc.server.service import Service
from hotplug_rpc.server.session import Shared
from hotplug_rpc.server.weights import WeightStore
from hotplug_rpc.wire import VERSION, Kind, make_head, parse_head

MEMORY = 1 << 20
BATCH = 100
CHECK = 1000
TREACHEROUS = [0, 1, -1, 2, 255, 256, 65_535, 65_536, 2**31, 2**32, 2**40, 2**62, 2**63 - 1]
ODD: list[Any] = [
    *TREACHEROUS,
    2**63,
    2**64,
    10**400,
    1.5,
    True,
    None,
    "",
    "x" * 5000,
    [],
    {},
    [[]],
]
HELLO = rq.Hello(VERSION, hotplug.__version__, ops.fingerprint())


def doubled() -> Graph:
    x = ops.input(name="x", dtype="f32", shape=(8,))
    return Graph.build({"y": ops.add(x, x)}, {})


def stateful() -> Graph:
    state = ops.state(name="s", dtype="f32", shape=(4, 8))
    rows = ops.input(name="rows", dtype="f32", shape=(2, 8))
    at = ops.input(name="at", dtype="i32", shape=(2,))
    table = ops.scatter_rows(state, at, rows)
    weight = ops.weight(name="w", dtype="f32", shape=(8, 8))
    return Graph.build({"y": ops.softmax(ops.matmul(table, weight))}, {"s": table})


GRAPHS = (doubled(), stateful())
SERIALISED = {graph: serialize.dump(graph) for graph in GRAPHS}
CONTENTS = [(data, digest_of(memoryview(data))) for data in (b"", b"a" * 8, b"b" * 256, b"c" * 999)]
NAMES = ("x", "output:y", "s", "rows", "at", "w")


def _nowhere(endpoint: str, key: str, ticket: str) -> list[memoryview]:
    raise SessionError(f"{endpoint}, {key} and {ticket} lead nowhere here")


class Fuzzer:
    """A service and one peer that sends nonsense, beside one that does not.

    Attributes:
        broken: rules that were broken.
        answers: how often each kind of answer came.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.broken: list[str] = []
        self.answers: Counter[str] = Counter()
        self._limits = Limits(handles=64, nodes=100, waiting=2 * BATCH)
        shared = Shared(
            (Offer(FakeDevice("fake:0", memory_bytes=MEMORY), MEMORY),),
            self._limits,
            GraphStore(self._limits.nodes, (32, 1 << 20)),
            WeightStore(),
            Peers(_nowhere),
        )
        self.service = Service(shared, self._post)
        self._canary: list[bytes] = []
        self._came = threading.Condition()
        self._number = 0
        self._prepare_canary()

    def _post(self, peer: bytes, frames: Sequence[bytes | bytearray]) -> None:
        head = parse_head(bytes(frames[0]))
        with self._came:
            if peer == b"canary":
                self._canary = [head.kind.name.encode(), *(bytes(f) for f in frames[1:])]
                self._came.notify_all()
            name = str(head.body.get("error")) if head.kind is Kind.FAILED else head.kind.name
            self.answers[name] += 1

    def _send(self, peer: bytes, request: rq.Request, frames: Sequence[bytes] = ()) -> None:
        self._number += 1
        head = make_head(request.kind, self._number, request.body())
        self.service.handle(peer, "f" * 64, [head, *frames])

    def _canary_does(self, request: rq.Request, frames: Sequence[bytes] = ()) -> list[bytes]:
        with self._came:
            self._canary = []
        self._send(b"canary", request, frames)
        with self._came:
            if not self._came.wait_for(lambda: self._canary, 20):
                self.broken.append("another client got no answer within 20 seconds")
            return self._canary

    def _prepare_canary(self) -> None:
        graph = doubled()
        self._canary_does(HELLO)
        for handle in (1, 2):
            self._canary_does(rq.Allocate(0, handle, 32))
        self._canary_does(rq.Compile(0, 1, graph.key, 0, None), [serialize.dump(graph)])
        self._canary_does(rq.Bind(0, 1, {"x": 1, "output:y": 2}))

    def check(self) -> None:
        """What must hold after any number of messages."""
        x = np.arange(8, dtype=np.float32)
        answer = self._canary_does(rq.Run(0, 1, [(1, 0)], [2]), [x.tobytes()])
        if answer != [b"DONE", (2 * x).tobytes()]:
            self.broken.append(f"another client's run gave {answer!r:.100}")
        session = self.service._sessions.get(b"fuzz")  # noqa: SLF001 - the tool looks inside
        if session is not None and max(session.holdings.counts) > self._limits.handles:
            self.broken.append(f"a session holds {session.holdings.counts}")
        if not 0 <= self.service.shared.offers[0].taken <= MEMORY:
            self.broken.append(f"{self.service.shared.offers[0].taken} bytes are taken")

    def run(self, messages: int) -> None:
        """Send so many."""
        for number in range(messages):
            frames = self.message()
            try:
                self.service.handle(b"fuzz", "f" * 64, frames)
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                self.broken.append(f"handle raised {error!r:.200} for {frames!r:.400}")
            if number % BATCH == 0:
                self._catch_up()
            if number % CHECK == 0:
                self.check()
            if len(self.broken) > 20:
                return
        self._catch_up()
        self.check()

    def _catch_up(self) -> None:
        deadline = time.monotonic() + 60
        while self.service.waiting and time.monotonic() < deadline:
            time.sleep(0.0001)
        if self.service.waiting:
            self.broken.append("requests hang")
        if b"fuzz" not in self.service.peers:
            self._send(b"fuzz", HELLO)

    # Messages

    def message(self) -> list[bytes]:
        """A message: right, or damaged in one of many ways."""
        request, frames = self._request()
        body = dict(request.body())
        for _ in range(self.random.choice((0, 0, 0, 1, 2))):
            self._damage_body(body)
        self._number += 1
        try:
            head = make_head(request.kind, self._number, body, self.random.choice((0, 0, 1, 5000)))
        except (ValueError, ProtocolError):
            head = make_head(request.kind, self._number)
        parts = [head, *frames]
        if self.random.random() < 0.1:
            self._damage_frames(parts)
        if self.random.random() < 0.3:
            at = 0 if self.random.random() < 0.7 else self.random.randrange(len(parts))
            parts[at] = self._damage_bytes(parts[at])
        return parts

    def _request(self) -> tuple[rq.Request, list[bytes]]:
        number = self.random.randrange
        if number(500) == 0:
            return (rq.Bye(), []) if number(10) == 0 else (HELLO, [])
        return self.random.choice(_MAKERS)(self)

    def _graph(self) -> tuple[str, list[bytes]]:
        graph = self.random.choice(GRAPHS)
        return graph.key, [self._graph_bytes(graph)] if self.random.random() < 0.5 else []

    def _compile(self) -> tuple[rq.Request, list[bytes]]:
        key, frames = self._graph()
        return rq.Compile(0, self.handle(), key, self.random.randrange(100), None), frames

    def _supports(self) -> tuple[rq.Request, list[bytes]]:
        key, frames = self._graph()
        return rq.Supports(0, key), frames

    def _weight(self) -> tuple[rq.Request, list[bytes]]:
        data, digest = self.random.choice(CONTENTS)
        if self.random.random() < 0.5:
            return rq.Weights(0, [(self.handle(), digest, len(data))]), []
        cut = self.random.choice((0, 0, len(data) // 2))
        return rq.Content(digest, len(data), cut), [data[cut:]]

    def handle(self) -> int:
        """One of few, so that many are there."""
        return self.random.randrange(8)

    def _graph_bytes(self, graph: Graph) -> bytes:
        data = SERIALISED[graph]
        if self.random.random() < 0.5:
            return data
        body = json.loads(data[serialize._HEAD.size :])  # noqa: SLF001 - to get past the checksum
        for _ in range(self.random.randrange(1, 4)):
            self._damage_json(body)
        text = json.dumps(body).replace("Infinity", "1e999").encode()
        checksum = serialize._checksum(text)  # noqa: SLF001 - as above
        return serialize._HEAD.pack(b"hotplug\0", 1, 0, checksum) + text  # noqa: SLF001

    def _damage_json(self, value: Any) -> None:
        """Replace something somewhere inside."""
        while isinstance(value, list | dict) and value:
            keys = range(len(value)) if isinstance(value, list) else list(value)
            key = self.random.choice(keys)
            inner = value[key]
            if not isinstance(inner, list | dict) or not inner or self.random.random() < 0.2:
                value[key] = copy.deepcopy(self.random.choice(ODD))
                return
            value = inner

    def _damage_body(self, body: dict[str, Any]) -> None:
        if body and self.random.random() < 0.9:
            self._damage_json(body)  # its lists are the request's own, and that is not used again
        else:
            body[self.random.choice(("device", "x", "buffers"))] = self.random.choice(TREACHEROUS)

    def _damage_frames(self, parts: list[bytes]) -> None:
        action = self.random.randrange(4)
        if action == 0 and len(parts) > 1:
            del parts[self.random.randrange(len(parts))]
        elif action == 1:
            parts.append(bytes(self.random.randrange(50)))
        elif action == 2:
            parts.insert(0, self.random.choice(parts))
        else:
            self.random.shuffle(parts)

    def _damage_bytes(self, data: bytes) -> bytes:
        damaged = bytearray(data)
        for _ in range(self.random.choice((1, 1, 2, 8))):
            at = self.random.randrange(len(damaged) + 1)
            action = self.random.randrange(4)
            if action == 0 and at < len(damaged):
                damaged[at] ^= 1 << self.random.randrange(8)
            elif action == 1:
                del damaged[at : at + self.random.randrange(9)]
            elif action == 2:
                damaged[at:at] = damaged[at : at + self.random.randrange(9)]
            elif at + 8 <= len(damaged):
                number = self.random.choice(TREACHEROUS) % (1 << 64)
                damaged[at : at + 8] = number.to_bytes(8, "little")
        return bytes(damaged)


_MAKERS: tuple[Callable[[Fuzzer], tuple[rq.Request, list[bytes]]], ...] = (
    lambda f: (rq.Allocate(0, f.handle(), f.random.choice((0, 32, 64, 128, 256, 1 << 19))), []),
    lambda f: (rq.Write(0, f.handle(), f.random.randrange(64)), [bytes(f.random.randrange(64))]),
    lambda f: (rq.Read(0, f.handle(), f.random.randrange(64), f.random.randrange(64)), []),
    lambda f: (rq.Copy(0, f.handle(), f.handle()), []),
    lambda f: (rq.Bind(0, f.handle(), {name: f.handle() for name in NAMES}), []),
    lambda f: (rq.Run(0, f.handle(), [(f.handle(), 0)], [f.handle()]), [bytes(32)]),
    lambda f: (rq.Free(0, [f.handle()], [f.handle()] * (f.random.random() < 0.3)), []),
    lambda f: (rq.Memory(f.random.randrange(2)), []),
    lambda f: (rq.Explain(0, f.handle()), []),
    lambda f: (rq.Profile(0, f.handle()), []),
    lambda f: (rq.Cancel(f.random.randrange(1 << 20)), []),
    lambda f: (rq.Ping(), [bytes(f.random.randrange(100))]),
    lambda f: (rq.Ticket(0, f.handle(), "f" * 64), []),
    lambda _: (rq.Redeem("0" * 64), []),
    lambda f: (rq.Fetch(0, f.handle(), "127.0.0.1:1", "0" * 64, "0" * 64), []),
    Fuzzer._compile,  # noqa: SLF001 - its own table
    Fuzzer._supports,  # noqa: SLF001
    Fuzzer._weight,  # noqa: SLF001
)


# Handshakes


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A real server with a fake device, in a thread."""
    options = Options(bind=Address("127.0.0.1", 0))
    server = build(options, [FakeDevice("fake:0", memory_bytes=MEMORY)], KeyRing(folder))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.drain(0)
        thread.join(20)


def greeting(random_: random.Random, mechanism: bytes = b"CURVE") -> bytes:
    """ZMTP 3.1's greeting and the beginning of CURVE's HELLO. Source: https://rfc.zeromq.org/spec/37/"""
    head = b"\xff" + bytes(7) + b"\x01\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes(32)
    hello = b"\x05HELLO" + b"\x01\x00" + bytes(72) + random_.randbytes(32 + 8 + 80)
    return head + b"\x04" + bytes([len(hello)]) + hello


def handshakes(address: Address, count: int, half_open: int, seed: int) -> None:
    """Broken handshakes one after the other, beside many that are begun and left open."""
    random_ = random.Random(seed)
    with contextlib.ExitStack() as stack:
        for _ in range(half_open):
            raw = stack.enter_context(socket.create_connection((address.host, address.port), 10))
            raw.sendall(greeting(random_)[: random_.randrange(64)])
        for _ in range(count):
            data = bytearray(greeting(random_, random_.choice((b"CURVE", b"NULL", b"PLAIN", b"X"))))
            for _ in range(random_.randrange(4)):
                data[random_.randrange(len(data))] = random_.randrange(256)
            with (
                contextlib.suppress(OSError),
                socket.create_connection((address.host, address.port), 10) as raw,
            ):
                raw.settimeout(0.01)
                raw.sendall(bytes(data[: random_.randrange(1, len(data) + 1)]))
                with contextlib.suppress(TimeoutError):
                    raw.recv(4096)


def fuzz_handshakes(count: int, half_open: int, seed: int) -> dict[str, Any]:
    """Rounds that a client with a key made meanwhile, and what came of memory and files."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "keys") as server:
        ring = KeyRing(Path(folder) / "keys")
        with contextlib.closing(_Client(server.address, ring)) as client:
            client.round()
            before = open_files()
            attack = threading.Thread(
                target=handshakes, args=(server.address, count, half_open, seed), daemon=True
            )
            attack.start()
            rounds = 0
            while attack.is_alive():
                client.round()
                rounds += 1
            deadline = time.monotonic() + 20
            while open_files() > before and time.monotonic() < deadline:
                client.round()
                time.sleep(0.1)
            return {
                "handshakes": count,
                "half_open": half_open,
                "rounds_of_another_client": rounds,
                "files_left": max(0, open_files() - before),
            }


class _Client:
    """Doubles numbers over there."""

    def __init__(self, address: Address, ring: KeyRing) -> None:
        from hotplug_rpc.client.connection import Connection
        from hotplug_rpc.client.device import RemoteDevice

        identity = ring.identity()
        self._connection = Connection(address, identity.public, identity, 20)
        info = self._connection.describe(0, 0)
        self._device = RemoteDevice(info, self._connection, 0, self._connection.leave)
        graph = doubled()
        from hotplug.backend import Partition

        self._executable = self._device.compile(Partition(graph))
        allocate = self._device.buffers.allocate
        self._bindings = {"x": allocate(32), "output:y": allocate(32)}
        self._x = np.arange(8, dtype=np.float32)

    def round(self) -> None:
        self._bindings["x"].write(0, self._x.data)
        self._executable.run(self._bindings)
        got = np.empty(8, np.float32)
        self._bindings["output:y"].read(0, got.data)
        assert (got == 2 * self._x).all(), "another client's result is wrong"

    def close(self) -> None:
        self._device.close()


def open_files() -> int:
    process = psutil.Process()
    return int(process.num_handles() if sys.platform == "win32" else process.num_fds())


def fuzz_messages(count: int, seed: int) -> dict[str, Any]:
    fuzzer = Fuzzer(seed)
    warm = min(count // 10, 100_000)
    fuzzer.run(warm)
    process = psutil.Process()
    before, began = process.memory_info().rss, time.perf_counter()
    fuzzer.run(count - warm)
    seconds = time.perf_counter() - began
    fuzzer.service.close()
    return {
        "messages": count,
        "messages_per_second": round((count - warm) / seconds) if seconds else 0,
        "answers": dict(fuzzer.answers.most_common()),
        "growth_bytes": process.memory_info().rss - before,
        "broken": fuzzer.broken,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=2_000_000)
    parser.add_argument("--handshakes", type=int, default=2000)
    parser.add_argument("--half-open", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    answer = {
        "dispatcher": fuzz_messages(arguments.messages, arguments.seed),
        "sockets": fuzz_handshakes(arguments.handshakes, arguments.half_open, arguments.seed),
    }
    print(json.dumps(answer, indent=1))
    return 1 if answer["dispatcher"]["broken"] or answer["sockets"]["files_left"] else 0


if __name__ == "__main__":
    sys.exit(main())
