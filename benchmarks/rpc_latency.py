"""Tokens a second over the latency of the link to servers, beside what arithmetic allows.

    python benchmarks/rpc_latency.py                 two minutes
    python benchmarks/rpc_latency.py --write-docs    and renew docs/pictures/rpc-latency.svg

A link of so many milliseconds one way lies between the client and each server (by
`hotplug_rpc.testing.Link`, which works on every system). All share the cores of one machine.

*One sequence*: a token is one round trip for each part of the plan, and the next token needs it.
The demo model's embedding is its last weight, too, so that over two servers it has three parts.
*Four sequences* of one server: each waits for its own round trips while the others compute:
four times that rate at most, and what they reach without latency at most.
*A prompt* in micro-batches through two servers: layer by layer each waits for all its round trips.
In a pipeline a device has one run at a time, but both are at work: the round trips of the device
with the most parts remain, and those of the other once, to fill the pipeline.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from demo import demo_model
from pictures import Axis, Chart
from programs import Hotplug
from rpc import OurServer, end, own_settings

import hotplug_llm
from hotplug.formats.gguf import GGUFFile
from hotplug.session import Session
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder
from hotplug_rpc.testing import Link

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "rpc-latency.svg"
LATENCIES_MS = (0.0, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0)
CONTEXT = 256
TOKENS = 12
SEQUENCES = 4
BATCHES, WIDTH = 12, 32
"""Micro-batches of the prompt, and tokens of each."""


@dataclass(frozen=True)
class Measured:
    """Tokens a second by latency in ms, and what round trips they wait for.

    Attributes:
        tokens: of one piece of work.
        trips: round trips that it waits for.
        sequences: that many at the same time, none of which waits for another.
    """

    rates: dict[float, float]
    tokens: int
    trips: int
    sequences: int = 1

    def bound(self, milliseconds: float, alone: Measured | None = None) -> float:
        """What the rate without latency, and arithmetic, allow at most."""
        if alone is not None:
            return min(self.rates[0.0], self.sequences * alone.bound(milliseconds))
        computing = self.tokens / self.rates[0.0]
        return self.tokens / (computing + self.trips * 2 * milliseconds / 1000)


class Servers:
    """Two servers, each behind a link of its own."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.links: list[Link] = []
        self.selectors: list[str] = []
        for number in range(2):
            own = folder / str(number)
            own.mkdir()
            server = OurServer(own)
            stack.callback(end, server.process)
            host, _, device = server.address.partition("/")
            link = stack.enter_context(Link(int(host.rpartition(":")[2])))
            self.links.append(link)
            self.selectors.append(f"rpc://127.0.0.1:{link.port}/{device}")

    def delay(self, milliseconds: float) -> None:
        for link in self.links:
            link.seconds = milliseconds / 1000


def one_sequence(servers: Servers, count: int, rounds: int) -> Measured:
    """One sequence over so many servers."""
    servers.delay(0)
    model = Divided(servers.selectors[:count])
    model.decode(TOKENS)
    found = {}
    for latency in LATENCIES_MS:
        servers.delay(latency)
        found[latency] = TOKENS / min(model.decode(TOKENS) for _ in range(rounds))
    servers.delay(0)
    parts = re.findall(r"^part \d+ on \S+:$", model.model.explain(), re.MULTILINE)
    model.close()
    return Measured(found, 1, len(parts))


class Divided(Hotplug):
    """The demo model, equal shares of it on each of several devices."""

    def __init__(self, selectors: Sequence[str]) -> None:
        devices, split = ",".join(selectors), [1.0] * len(selectors)
        self.model = hotplug_llm.load(demo_model(), devices, context=CONTEXT, split=split)


def sequences(servers: Servers, count: int, rounds: int) -> Measured:
    """Several clients of one server at the same time."""
    servers.delay(0)
    models = [Divided(servers.selectors[:1]) for _ in range(count)]
    for model in models:
        model.decode(TOKENS)
    found = {}
    for latency in LATENCIES_MS:
        servers.delay(latency)
        found[latency] = count * TOKENS / min(at_once(models) for _ in range(rounds))
    servers.delay(0)
    for model in models:
        model.close()
    return Measured(found, 1, 1, count)


def at_once(models: Sequence[Hotplug]) -> float:
    threads = [threading.Thread(target=model.decode, args=(TOKENS,)) for model in models]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def prompt(servers: Servers, mode: Literal["layer", "pipeline"], rounds: int) -> Measured:
    """A prompt in micro-batches through both servers."""
    found, trips = {}, 0
    for latency in LATENCIES_MS:
        servers.delay(latency)  # before connecting: the cost model knows links by how they are
        with session_of(servers, mode) as (session, decoder):
            graph = decoder.graph(WIDTH)
            batch = [micro_batch(number) for number in range(BATCHES)]
            session.run_all(graph, batch)
            seconds = min(timed(session, graph, batch) for _ in range(rounds))
            parts = Counter(part.device for part in session.plan(graph).parts)
            servers.delay(0)
        found[latency] = BATCHES * WIDTH / seconds
        most = max(parts.values())
        trips = BATCHES * parts.total()
        if mode == "pipeline":
            trips = BATCHES * most + parts.total() - most
    return Measured(found, BATCHES * WIDTH, trips)


def timed(session: Session, graph: Any, batch: list[dict[str, Any]]) -> float:
    began = time.perf_counter()
    session.run_all(graph, batch)
    return time.perf_counter() - began


@contextlib.contextmanager
def session_of(servers: Servers, mode: Literal["layer", "pipeline"]) -> Iterator[Any]:
    with GGUFFile.open(demo_model()) as file:
        types = {name: info.type for name, info in file.tensors.items()}
        decoder = Decoder(read_hyperparameters(file.fields()), types, context=BATCHES * WIDTH)
        weights = {name: file.tensor(name) for name in file.tensors}
        devices = ",".join(servers.selectors)
        with Session(devices, weights, mode=mode, split=[1.0, 1.0], threads=1) as session:
            yield session, decoder


def micro_batch(number: int) -> dict[str, Any]:
    start = number * WIDTH
    positions = np.arange(start, start + WIDTH, dtype=np.int32)
    return {
        "tokens": positions % 40000 + 100,
        "positions": positions,
        "outputs": np.array([WIDTH - 1], np.int32),
    }


COLOURS = {
    "one server": "#1b6ca8",
    "two servers": "#7a4fa3",
    "four sequences": "#2a7f3f",
    "prompt, layer": "#b3541e",
    "prompt, pipeline": "#a31e39",
}


def bounds(measured: Mapping[str, Measured]) -> dict[str, dict[float, float]]:
    alone = {"four sequences": measured["one server"]}
    return {
        name: {ms: one.bound(ms, alone.get(name)) for ms in LATENCIES_MS}
        for name, one in measured.items()
    }


def picture(measured: Mapping[str, Measured]) -> str:
    chart = Chart(
        "Tokens a second over latency; dashed: what arithmetic allows",
        Axis("latency one way, ms", 0.1, 50, (0.1, 0.5, 1, 5, 10, 50)),
        Axis("tokens per second", 3, 3000, (3, 10, 30, 100, 300, 1000, 3000)),
    )
    shown = LATENCIES_MS[1:]
    most = bounds(measured)
    for name, one in measured.items():
        chart.line([(ms, one.rates[ms]) for ms in shown], COLOURS[name], name)
    for name in measured:
        bound = [(ms, most[name][ms]) for ms in shown]
        chart.line(bound, COLOURS[name], "", marked=False, dashed=True)
    return chart.svg()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write-docs", action="store_true", help="renew the picture")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        own_settings(Path(name))
        servers = Servers(Path(name), stack)
        measured = {
            "one server": one_sequence(servers, 1, rounds),
            "two servers": one_sequence(servers, 2, rounds),
            "four sequences": sequences(servers, SEQUENCES, rounds),
            "prompt, layer": prompt(servers, "layer", rounds),
            "prompt, pipeline": prompt(servers, "pipeline", rounds),
        }
    most = bounds(measured)
    answer = {
        name: {
            f"{ms:g} ms": {"tokens_per_second": round(rate, 1), "bound": round(most[name][ms], 1)}
            for ms, rate in one.rates.items()
        }
        for name, one in measured.items()
    }
    print(json.dumps(answer, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    if arguments.write_docs:
        PICTURE.write_text(picture(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
