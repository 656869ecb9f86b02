"""What a model's loading over RPC on loopback spends its time on, step by step; prints JSON.

    python benchmarks/rpc_timeline.py [--loads 4]

Functions of client, session and model are timed where they stand. Of several loads of each kind
(weights that the server has never seen, lent or sent; and weights that it has) the fastest is
shown: when each step began, how long it took, and in which thread. Steps lie within one another.
`without` has medians, in turns, of loads that lack one of the things that make them fast.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import rpc
from demo import demo_model

from hotplug.session import Session
from hotplug.session.compiled import Compiled
from hotplug_llm.decoder import Decoder
from hotplug_llm.model import Model
from hotplug_rpc.backend import RPCBackend
from hotplug_rpc.client import hashes, weights
from hotplug_rpc.client.buffers import RemoteBufferType
from hotplug_rpc.client.device import RemoteDevice
from hotplug_rpc.client.exchange import Exchange

STEPS: tuple[tuple[Any, str], ...] = (
    (Model, "_read"),
    (Session, "_open"),
    (RPCBackend, "find"),
    (Decoder, "_build"),
    (Session, "plan"),
    (Compiled, "_add_part"),
    (RemoteDevice, "supports_graph"),
    (RemoteDevice, "compile"),
    (RemoteBufferType, "wrap_all"),
    (weights.Ahead, "_run"),
    (weights, "_hashed"),
    (weights, "_deliver"),
    (Session, "_compute"),
    (Exchange, "request"),
)
LEAST_MS = 0.5


class Timeline:
    """Times of steps, while it is on."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self._began = 0.0
        for owner, name in STEPS:
            setattr(owner, name, self._timed(getattr(owner, name), name))

    def _timed(self, work: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(work)
        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*arguments, **options)
            finally:
                what = f"{name} {type(arguments[1]).__name__}" if name == "request" else name
                self._note(what, began, time.perf_counter())

        return timed

    def _note(self, what: str, began: float, ended: float) -> None:
        at, ms = 1000 * (began - self._began), 1000 * (ended - began)
        thread = threading.current_thread().name
        if ms >= LEAST_MS:
            step = {"at_ms": round(at, 1), "ms": round(ms, 1), "what": what, "thread": thread}
            self.steps.append(step)

    def of(self, load: Callable[[], float]) -> dict[str, Any]:
        """One load."""
        self.steps, self._began = [], time.perf_counter()
        seconds = load()
        steps = [step for step in self.steps if step["at_ms"] < 1000 * seconds]
        return {"ms": round(1000 * seconds, 1), "steps": sorted(steps, key=lambda s: s["at_ms"])}


def without(folder: Path, server: rpc.OurServer, loads: int) -> dict[str, dict[str, float]]:
    """Milliseconds of loads, of weights unseen and of weights cached, with one thing left out."""
    own = folder / "nothing kept"
    own.mkdir()
    forgetful = rpc.OurServer(own, "--keep", "0")
    nothing = contextlib.nullcontext
    ways: dict[str, tuple[rpc.OurServer, Callable[[], Any]]] = {
        "nothing": (server, nothing),
        "bringing weights while planning": (
            server,
            lambda: patch.object(RemoteBufferType, "expect", lambda *_: None),
        ),
        "hashes kept beside the file": (
            server,
            lambda: patch.object(hashes, "_kept", lambda *_: {}),
        ),
        "weights and graphs kept on the server": (forgetful, nothing),
        "lending the file": (server, rpc.encrypted),
    }

    def load(name: str, *, cold: bool) -> float:
        used, left_out = ways[name]
        with left_out():
            if not cold:
                return 1000 * rpc.load_ours(used, demo_model())
            with rpc.unseen(folder) as path:
                return 1000 * rpc.load_ours(used, path)

    times: dict[tuple[str, bool], list[float]] = {}
    for turn in range(loads + 1):
        for key in itertools.product(ways, (False, True)):
            ms = load(key[0], cold=key[1])
            if turn:  # the first is for warming up
                times.setdefault(key, []).append(ms)
    rpc.end(forgetful.process)
    return {
        name: {
            "unseen": round(statistics.median(times[name, True]), 1),
            "cached": round(statistics.median(times[name, False]), 1),
        }
        for name in ways
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loads", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        rpc.own_settings(folder)
        server = rpc.OurServer(folder)
        stack.callback(rpc.end, server.process)
        left_out = without(folder, server, arguments.loads)
        timeline = Timeline()

        def unseen() -> dict[str, Any]:
            with rpc.unseen(folder) as path:
                return timeline.of(lambda: rpc.load_ours(server, path))

        def sent() -> dict[str, Any]:
            with rpc.encrypted():
                return unseen()

        kinds: dict[str, Callable[[], dict[str, Any]]] = {
            "lent": unseen,
            "sent": sent,
            "cached": lambda: timeline.of(lambda: rpc.load_ours(server, demo_model())),
        }
        answer = {
            kind: min((load() for _ in range(arguments.loads)), key=lambda one: float(one["ms"]))
            for kind, load in kinds.items()
        }
    print(json.dumps({"without": left_out, **answer}, indent=1))


if __name__ == "__main__":
    main()
