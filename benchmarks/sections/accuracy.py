"""Negative log-likelihoods of real text: exact, as by default, and by llama.cpp.

Exact precision is the float32 result: it is tested against an independent implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench import NO_PEER, Bench, Outcome, Section
from figures import Row, Target, at_most, rounded
from programs import Llama, peer_python, requantised

import hotplug_llm
from sections.generation import TYPES

__all__ = ["SECTIONS"]

Losses = npt.NDArray[np.float64]
"""Of each token, in nats."""

_TOKENS = 1001  # a thousand are predicted
_TEXT = Path(__file__).parents[2] / "tests" / "inference" / "data" / "workshop.txt"


def measure_accuracy(bench: Bench) -> Outcome:
    """The model itself, and all other types of weights or those that are asked for."""
    rows = rows_of("", bench, bench.model)
    for kind in bench.types or TYPES:
        path = requantised(kind)
        if path is not None:
            rows += rows_of(f"{kind.upper()}: ", bench, path)
    return Outcome(rows)


def rows_of(name: str, bench: Bench, path: Path) -> list[Row]:
    """The distance of the mean, in which tokens' errors cancel, and the distance of a token."""
    text = _TEXT.read_text(encoding="utf-8")
    exact, ids = ours(bench, path, text, "exact")
    default, _ = ours(bench, path, text, "default")
    theirs = peer_losses(bench, path, ids)
    means = {"float32": mean_of(exact), "hotplug": mean_of(default), "llama.cpp": mean_of(theirs)}
    chance = float(np.std(default - exact)) / len(exact) ** 0.5
    of_mean = f"{name}NLL of {len(exact)} tokens, distance from float32"
    of_token = f"{name}NLL of one token, distance from float32 (RMS)"
    return [
        Row(*measured(of_mean, mean_distance, exact, default, theirs), means | {"chance": chance}),
        Row(*measured(of_token, token_distance, exact, default, theirs)),
    ]


def measured(
    what: str,
    distance: Callable[[Losses, Losses], float],
    exact: Losses,
    default: Losses,
    theirs: Losses | None,
) -> tuple[str, float, str, Target | None]:
    target = None if theirs is None else at_most(rounded(distance(theirs, exact)))
    return what, rounded(distance(default, exact)), "nats", target


def mean_of(losses: Losses | None) -> str:
    return NO_PEER if losses is None else f"{losses.mean():.6f}"


def mean_distance(losses: Losses, exact: Losses) -> float:
    return abs(float(losses.mean() - exact.mean()))


def token_distance(losses: Losses, exact: Losses) -> float:
    return float(np.sqrt(np.mean((losses - exact) ** 2)))


def ours(bench: Bench, path: Path, text: str, precision: str) -> tuple[Losses, list[int]]:
    """The figures, and the tokens they are of."""
    with hotplug_llm.load(path, "cpu", precision, context=2048, threads=bench.threads) as model:
        ids = model.tokenize(text)[:_TOKENS]
        return model.token_nlls(ids), ids


def peer_losses(bench: Bench, path: Path, ids: list[int]) -> Losses | None:
    python = peer_python()
    if python is None:
        return None
    peer = Llama(python, path, bench.threads, 2048)
    losses = peer.nlls(ids)
    peer.close()
    return np.asarray(losses)


SECTIONS = (Section("accuracy", "negative log-likelihood of real text", measure_accuracy),)
