"""Tokens a second over the latency of the link to servers, beside what arithmetic allows.

    python benchmarks/rpc_latency.py                 two minutes
    python benchmarks/rpc_latency.py --write-docs    and renew docs/pictures/rpc-latency.svg

A link of so many milliseconds one way lies between the client and each server (by
`hotplug_rpc.testing.Link`, which works on every system). All share the cores of one machine.

*One sequence*: a token is one round trip for each server that has layers of the model, and the next
token needs it: the bound is the computation's time and twice the latency for each server.
*Four sequences* of one server: each waits for its own round trips while the others compute:
four times that rate at most, and what they reach without latency at most.
*A prompt* in micro-batches through two servers: layer by layer each waits for both trips; in a
pipeline only the first does, if enough are on their way, and the rest of the time is computation.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
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


def one_sequence(servers: Servers, count: int, rounds: int) -> dict[float, float]:
    """Latency in ms -> tokens a second of one sequence over so many servers."""
    servers.delay(0)
    model = Divided(servers.selectors[:count])
    model.decode(TOKENS)
    found = {}
    for latency in LATENCIES_MS:
        servers.delay(latency)
        found[latency] = TOKENS / min(model.decode(TOKENS) for _ in range(rounds))
    servers.delay(0)
    model.close()
    return found


class Divided(Hotplug):
    """The demo model, equal shares of it on each of several devices."""

    def __init__(self, selectors: Sequence[str]) -> None:
        devices, split = ",".join(selectors), [1.0] * len(selectors)
        self.model = hotplug_llm.load(demo_model(), devices, context=CONTEXT, split=split)


def sequences(servers: Servers, count: int, rounds: int) -> dict[float, float]:
    """Latency in ms -> tokens a second of several clients of one server together."""
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
    return found


def at_once(models: Sequence[Hotplug]) -> float:
    threads = [threading.Thread(target=model.decode, args=(TOKENS,)) for model in models]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def prompt(servers: Servers, mode: Literal["layer", "pipeline"], rounds: int) -> dict[float, float]:
    """Latency in ms -> tokens a second of a prompt in micro-batches through both servers."""
    found = {}
    for latency in LATENCIES_MS:
        servers.delay(latency)  # before connecting: the cost model knows links by how they are
        with session_of(servers, mode) as (session, decoder):
            graph = decoder.graph(WIDTH)
            batch = [micro_batch(number) for number in range(BATCHES)]
            session.run_all(graph, batch)
            seconds = min(timed(session, graph, batch) for _ in range(rounds))
            servers.delay(0)
        found[latency] = BATCHES * WIDTH / seconds
    return found


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


def bounds(rates: dict[str, dict[float, float]]) -> dict[str, dict[float, float]]:
    """What the figures without latency, and arithmetic, allow at most."""

    def after(name: str, tokens: int, trips: int) -> dict[float, float]:
        computing = tokens / rates[name][0.0]
        return {ms: tokens / (computing + trips * 2 * ms / 1000) for ms in LATENCIES_MS}

    alone = after("one server", 1, 1)
    together = rates["four sequences"][0.0]
    return {
        "one server": alone,
        "two servers": after("two servers", 1, 2),
        "four sequences": {ms: min(together, SEQUENCES * alone[ms]) for ms in LATENCIES_MS},
        "prompt, layer": after("prompt, layer", BATCHES * WIDTH, 2 * BATCHES),
        "prompt, pipeline": after("prompt, pipeline", BATCHES * WIDTH, 2),
    }


COLOURS = {
    "one server": "#1b6ca8",
    "two servers": "#7a4fa3",
    "four sequences": "#2a7f3f",
    "prompt, layer": "#b3541e",
    "prompt, pipeline": "#a31e39",
}


def picture(rates: dict[str, dict[float, float]], most: dict[str, dict[float, float]]) -> str:
    chart = Chart(
        "Tokens a second over latency; dashed: what arithmetic allows",
        Axis("latency one way, ms", 0.1, 50, (0.1, 0.5, 1, 5, 10, 50)),
        Axis("tokens per second", 3, 3000, (3, 10, 30, 100, 300, 1000, 3000)),
    )
    for name, found in rates.items():
        shown = [ms for ms in LATENCIES_MS if ms]
        bound = [(ms, most[name][ms]) for ms in shown]
        chart.line(bound, COLOURS[name], "", marked=False, dashed=True)
        chart.line([(ms, found[ms]) for ms in shown], COLOURS[name], name)
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
        rates = {
            "one server": one_sequence(servers, 1, rounds),
            "two servers": one_sequence(servers, 2, rounds),
            "four sequences": sequences(servers, SEQUENCES, rounds),
            "prompt, layer": prompt(servers, "layer", rounds),
            "prompt, pipeline": prompt(servers, "pipeline", rounds),
        }
    most = bounds(rates)
    answer = {
        name: {
            f"{ms:g} ms": {"tokens_per_second": round(rate, 1), "bound": round(most[name][ms], 1)}
            for ms, rate in found.items()
        }
        for name, found in rates.items()
    }
    print(json.dumps(answer, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    if arguments.write_docs:
        PICTURE.write_text(picture(rates, most), encoding="utf-8")


if __name__ == "__main__":
    main()
