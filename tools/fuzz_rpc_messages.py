"""Damaged messages for an RPC server's dispatcher; tools/fuzz_rpc.py sends them.

Messages of every kind are built as a client builds them, then damaged: bytes flipped, cut and
doubled, numbers of the head exchanged for treacherous ones, frames dropped and added, graphs
rewritten under a right checksum.
"""

from __future__ import annotations

import copy
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import hotplug
from hotplug import ops, serialize
from hotplug.errors import SerializationError
from hotplug.graph import Graph
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc import requests as rq
from hotplug_rpc.contents import digest_of
from hotplug_rpc.errors import ProtocolError, SessionError
from hotplug_rpc.server.graphs import GraphStore
from hotplug_rpc.server.lent import Lent
from hotplug_rpc.server.limits import Limits
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


def _nowhere(endpoint: str, key: str, ticket: str, nbytes: int, nearby: bool) -> list[memoryview]:
    raise SessionError(f"{endpoint}, {key}, {ticket} and {nearby} lead to no {nbytes} bytes here")


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
            (Offer(FakeDevice("fake:0", memory_bytes=MEMORY), MEMORY, idle_seconds=1),),
            self._limits,
            GraphStore(self._limits.nodes, (32, 1 << 20)),
            WeightStore(),
            Peers(_nowhere),
            Lent(),
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
            # As the server tells of what was raised and is no error of ours.
            if re.match(r"\w*(Error|Exception): ", str(head.body.get("message"))):
                self.broken.append(f"the server failed with {head.body['message']!r:.200}")
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
        offer = self.service.shared.offers[0]
        if not (offer.taken >= 0 and 0 <= offer.idle.nbytes <= MEMORY - offer.taken):
            self.broken.append(f"{offer.taken} bytes are taken, and {offer.idle.nbytes} idle")

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
                self.service.shared.offers[0].idle.expire()
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
        """A graph's key and bytes, or the key alone."""
        graph = self.random.choice(GRAPHS)
        if self.random.random() < 0.5:
            return graph.key, []
        if self.random.random() < 0.5:
            return graph.key, [SERIALISED[graph]]
        # Under a key that the server knows it would not look at the bytes.
        data = self._damaged(graph)
        try:
            key = serialize.load(data).key
        except SerializationError:
            key = f"{self.random.getrandbits(128):032x}"
        return key, [data]

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
        if self.random.random() < 0.2:
            return rq.Want(0, [(digest, len(data))]), []
        cut = self.random.choice((0, 0, len(data) // 2))
        return rq.Content(digest, len(data), cut), [data[cut:]]

    def handle(self) -> int:
        """One of few, so that many are there."""
        return self.random.randrange(8)

    def _damaged(self, graph: Graph) -> bytes:
        data = SERIALISED[graph]
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
    lambda f: (rq.AllocateAll(0, [(f.handle(), 64), (f.handle(), f.handle() << 16)]), []),
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
    lambda _: (rq.Redeem("0" * 64, None), []),
    lambda f: (rq.Lend("0" * 64, [("0" * 64, f.handle(), f.handle())]), []),
    lambda f: (rq.Fetch(0, f.handle(), "127.0.0.1:1", "0" * 64, "0" * 64), []),
    Fuzzer._compile,  # noqa: SLF001 - its own table
    Fuzzer._supports,  # noqa: SLF001
    Fuzzer._weight,  # noqa: SLF001
)
