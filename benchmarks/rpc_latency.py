"""Tokens a second over the latency of the link to a server.

    python benchmarks/rpc_latency.py [--json FILE]

A link of so many milliseconds one way lies between the client and each server (by
`hotplug_rpc.testing.Link`, which works on every system). A token is one round trip for each server
that has layers of the model, so that it takes the time of the computation, and at least twice the
latency for each of them: that is the bound beside which the figures stand. One sequence cannot do
better, since its next token needs the last one; several at once fill each other's gaps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from demo import demo_model
from programs import Hotplug
from rpc import OurServer, end, own_settings

from hotplug_rpc.testing import Link

LATENCIES_MS = (0.0, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0)
CONTEXT = 256
TOKENS = 12


def measure(links: list[Link], selectors: list[str], rounds: int) -> list[dict[str, float]]:
    program = Hotplug(demo_model(), None, CONTEXT, device=",".join(selectors))
    program.decode(TOKENS)
    rows = []
    for latency in LATENCIES_MS:
        for link in links:
            link.seconds = latency / 1000
        seconds = min(program.decode(TOKENS) / TOKENS for _ in range(rounds))
        rows.append({"latency_ms": latency, "ms_per_token": round(1000 * seconds, 3)})
    program.close()
    for row in rows:
        bound = rows[0]["ms_per_token"] + 2 * row["latency_ms"] * len(links)
        row["bound_ms"] = round(bound, 3)
        row["tokens_per_second"] = round(1000 / row["ms_per_token"], 2)
        row["share_of_bound"] = round(bound / row["ms_per_token"], 3)
    return rows


def several(link: Link, selector: str, sequences: int, latency_ms: float) -> dict[str, float]:
    """Sequences of one server's clients at the same time."""
    link.seconds = 0.0
    programs = [Hotplug(demo_model(), None, CONTEXT, device=selector) for _ in range(sequences)]
    for program in programs:
        program.decode(TOKENS)
    link.seconds = latency_ms / 1000
    began = time.perf_counter()
    threads = [threading.Thread(target=program.decode, args=(TOKENS,)) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    for program in programs:
        program.close()
    rate = sequences * TOKENS / seconds
    return {
        "sequences": sequences, "latency_ms": latency_ms, "tokens_per_second": round(rate, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    answer: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        own_settings(Path(name))
        server = OurServer(Path(name))
        stack.callback(end, server.process)
        host, _, device = server.address.partition("/")
        link = stack.enter_context(Link(int(host.rpartition(":")[2])))
        selector = f"rpc://127.0.0.1:{link.port}/{device}"
        answer["one server"] = measure([link], [selector], arguments.rounds)
        answer["several sequences"] = [several(link, selector, count, 10.0) for count in (1, 2, 4)]
    print(json.dumps(answer, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
