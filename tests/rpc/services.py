"""A server without sockets, for tests: messages go straight into its service."""

from __future__ import annotations

import threading
import time

import hotplug
from hotplug import ops, serialize
from hotplug.graph import Graph
from hotplug_rpc import requests as rq
from hotplug_rpc.errors import SessionError
from hotplug_rpc.server.graphs import GraphStore
from hotplug_rpc.server.limits import Limits
from hotplug_rpc.server.offers import Offer
from hotplug_rpc.server.peers import Peers
from hotplug_rpc.server.service import Service
from hotplug_rpc.server.session import Shared
from hotplug_rpc.server.weights import WeightStore
from hotplug_rpc.wire import VERSION, Kind, make_head, parse_head

__all__ = ["HELLO", "Bench", "doubled", "eventually", "ready"]

HELLO = rq.Hello(VERSION, hotplug.__version__, ops.fingerprint())


def nowhere(endpoint, key, ticket, nbytes, nearby):
    raise SessionError("no servers here")


class Bench:
    """A service, and clients that are lists of what they were sent."""

    def __init__(self, *devices, limits=None, budget=None, weights=None, fetch=nowhere):
        limits = limits or Limits()
        self.shared = Shared(
            tuple(Offer(device, budget) for device in devices),
            limits, GraphStore(limits.nodes), weights or WeightStore(), Peers(fetch),
        )  # fmt: skip
        self.service = Service(self.shared, self._post)
        self._answers = {}
        self._came = threading.Condition()
        self._last = 0

    def _post(self, peer, frames):
        with self._came:
            head = parse_head(bytes(frames[0]))
            self._answers[peer, head.id] = (head, [bytes(f) for f in frames[1:]])
            self._came.notify_all()

    def send(self, request, frames=(), peer=b"a", timeout_ms=0, client="c" * 64, **options):
        self._last += 1
        head = make_head(request.kind, self._last, request.body(), timeout_ms)
        self.service.handle(peer, client, [head, *frames], **options)
        return self._last

    def answer(self, number, peer=b"a"):
        with self._came:
            assert self._came.wait_for(lambda: (peer, number) in self._answers, 20)
            return self._answers[peer, number]

    def ask(self, request, frames=(), peer=b"a", **options):
        return self.answer(self.send(request, frames, peer, **options), peer)

    def fails(self, request, frames=(), peer=b"a", **options):
        head, _ = self.ask(request, frames, peer, **options)
        assert head.kind is Kind.FAILED, head
        return head.body["error"], head.body["message"]

    def does(self, request, frames=(), peer=b"a"):
        head, answer = self.ask(request, frames, peer)
        assert head.kind is Kind.DONE, head.body
        return head.body, answer


def doubled(count=4):
    x = ops.input(name="x", dtype="f32", shape=(count,))
    return Graph.build({"y": ops.add(x, x)})


def ready(bench, peer=b"a", graph=None):
    """A compiled and bound graph: executable 1, buffers 1 and 2."""
    graph = graph or doubled()
    node = graph.inputs["x"]
    for handle in (1, 2):
        bench.does(rq.Allocate(0, handle, node.type.nbytes), peer=peer)
    data = [serialize.dump(graph)]
    bench.does(rq.Compile(0, 1, graph.key, 0, None), data, peer=peer)
    bench.does(rq.Bind(0, 1, {"x": 1, "output:y": 2}), peer=peer)


def eventually(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()
