"""Mean negative log-likelihood of real text: exact, as by default, and by llama.cpp.

Exact precision is the float32 result: it is tested against an independent implementation.
"""

from __future__ import annotations

from pathlib import Path

from bench import NO_PEER, Bench, Outcome, Section
from figures import Row, at_most, rounded
from programs import Llama, peer_python, requantised

import hotplug_llm
from sections.generation import TYPES

__all__ = ["SECTIONS"]

_TOKENS = 1001  # a thousand are predicted
_TEXT = Path(__file__).parents[2] / "tests" / "inference" / "data" / "workshop.txt"


def measure_accuracy(bench: Bench) -> Outcome:
    """The model itself, and all other types of weights or those that are asked for."""
    rows = [row_of("", bench, bench.model)]
    for kind in bench.types or TYPES:
        path = requantised(kind)
        if path is not None:
            rows.append(row_of(f"{kind.upper()}: ", bench, path))
    return Outcome(rows)


def row_of(name: str, bench: Bench, path: Path) -> Row:
    text = _TEXT.read_text(encoding="utf-8")
    exact, ids = ours(bench, path, text, "exact")
    default, _ = ours(bench, path, text, "default")
    what = f"{name}NLL of {len(ids) - 1} tokens, distance from float32"
    distance = rounded(abs(default - exact))
    detail = {"float32": f"{exact:.6f}", "hotplug": f"{default:.6f}"}
    theirs = peer_nll(bench, path, ids)
    if theirs is None:
        return Row(what, distance, "nats", None, {**detail, "llama.cpp": NO_PEER})
    target = at_most(rounded(abs(theirs - exact)))
    return Row(what, distance, "nats", target, {**detail, "llama.cpp": f"{theirs:.6f}"})


def ours(bench: Bench, path: Path, text: str, precision: str) -> tuple[float, list[int]]:
    """The figure, and the tokens it is of."""
    with hotplug_llm.load(path, "cpu", precision, context=2048, threads=bench.threads) as model:
        ids = model.tokenize(text)[:_TOKENS]
        return model.nll(ids), ids


def peer_nll(bench: Bench, path: Path, ids: list[int]) -> float | None:
    python = peer_python()
    if python is None:
        return None
    peer = Llama(python, path, bench.threads, 2048)
    nll = peer.nll(ids)
    peer.close()
    return nll


SECTIONS = (Section("accuracy", "negative log-likelihood of real text", measure_accuracy),)
