"""Mean negative log-likelihood of real text: exact, as by default, and by llama.cpp.

Exact precision is the float32 result: it is tested against an independent implementation.
"""

from __future__ import annotations

from pathlib import Path

from bench import NO_PEER, Bench, Outcome, Section
from figures import Row, at_most, rounded
from programs import Llama, peer_python

import hotplug_llm

__all__ = ["SECTIONS"]

_TOKENS = 1001  # a thousand are predicted
_TEXT = Path(__file__).parents[2] / "tests" / "inference" / "data" / "workshop.txt"


def measure_accuracy(bench: Bench) -> Outcome:
    text = _TEXT.read_text(encoding="utf-8")
    exact, ids = ours(bench, text, "exact")
    default, _ = ours(bench, text, "default")
    distance = rounded(abs(default - exact))
    what = f"NLL of {len(ids) - 1} tokens, distance from float32"
    detail = {"float32": f"{exact:.5f}", "hotplug": f"{default:.5f}"}
    theirs = peer_nll(bench, ids)
    if theirs is None:
        return Outcome([Row(what, distance, "nats", None, {**detail, "llama.cpp": NO_PEER})])
    target = at_most(rounded(abs(theirs - exact)))
    detail["llama.cpp"] = f"{theirs:.5f}"
    return Outcome([Row(what, distance, "nats", target, detail)])


def ours(bench: Bench, text: str, precision: str) -> tuple[float, list[int]]:
    """The figure, and the tokens it is of."""
    with hotplug_llm.load(
        bench.model, "cpu", precision, context=2048, threads=bench.threads
    ) as model:
        ids = model.tokenize(text)[:_TOKENS]
        return round(model.nll(ids), 6), ids


def peer_nll(bench: Bench, ids: list[int]) -> float | None:
    python = peer_python()
    if python is None:
        return None
    peer = Llama(python, bench.model, bench.threads, 2048)
    nll = peer.nll(ids)
    peer.close()
    return round(nll, 6)


SECTIONS = (Section("accuracy", "negative log-likelihood of real text", measure_accuracy),)
