"""Single kernels: matrices times one token beside reading them, f32 products beside OpenBLAS."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import cpu_gemm
import cpu_gemv
import numpy as np
from bench import Bench, Outcome, Section
from compiled import fastest
from figures import Row, at_least, geometric_mean, rounded
from programs import take_turns

from hotplug_cpu import threads as teams

__all__ = ["SECTIONS"]

_TYPES = (*cpu_gemv.BYTES, "f16_f32", "bf16_f32", "f32_f32")
_UNDER_FOUR_BITS = {"q2_k", "q3_k"}
_MEMORY = 128 << 20
_REPEATS = 5

_SIZES = (
    *((size, size, size) for size in (64, 128, 256, 512, 1024, 2048, 4096)),
    *((size, size, size) for size in (65, 127, 333, 777, 1501, 3001)),
    *((512, 576, 1536), (512, 1536, 576), (100, 4096, 1000), (4096, 64, 64), (64, 4096, 64)),
)
"""Rows of activations, their width, rows of weights."""

_TURN_SECONDS = 0.05
_GUESSED_SPEED = 1e11


def measure_matvec(bench: Bench) -> Outcome:
    return Outcome([matvec_row(bench, name) for name in _TYPES])


def matvec_row(bench: Bench, name: str) -> Row:
    """One type's share of the read bandwidth."""
    case, reader = cpu_gemv.Case(name, _MEMORY), bench.reader
    multiply = partial(teams.team(bench.threads).run, case.plan)
    actions = [
        partial(best_speed, reader.read, reader.nbytes),
        partial(best_speed, multiply, case.weights.nbytes),
    ]
    turns = take_turns(actions, bench.rounds)
    share = rounded(statistics.median(ours / read for read, ours in turns))
    target = at_least(0.7 if name in _UNDER_FOUR_BITS else 0.85)
    what = f"matrix-vector {cpu_gemv.WIDTH}x{cpu_gemv.ROWS}, {name.removesuffix('_f32')}"
    detail = {"GB/s": rounded(statistics.median(turn[1] for turn in turns) / 1e9)}
    return Row(what, share, "of bandwidth", target, detail)


def best_speed(work: Callable[[], None], nbytes: int) -> float:
    """Bytes per second in the fastest of a few turns."""
    return nbytes / fastest([work], _REPEATS)[0]


def measure_gemm(bench: Bench) -> Outcome:
    ratios, speeds = {}, {}
    for size in _SIZES:
        name = "x".join(map(str, size))
        turns = take_turns(gemm_actions(*size, bench.threads), bench.rounds)
        ratios[name] = statistics.median(ours / theirs for ours, theirs in turns)
        speeds[name] = [rounded(statistics.median(column) / 1e9) for column in zip(*turns)]  # noqa: B905
    mean = rounded(geometric_mean(list(ratios.values())))
    worst = min(ratios, key=lambda name: ratios[name])
    best = {"best GFLOP/s": max(ours for ours, _ in speeds.values()), "sizes": len(_SIZES)}
    shown = dict(zip(("GFLOP/s", "OpenBLAS"), speeds[worst], strict=True))
    rows = [
        Row("f32 GEMM, geometric mean", mean, "x OpenBLAS", at_least(1), best),
        Row(
            f"f32 GEMM, worst: {worst}", rounded(ratios[worst]), "x OpenBLAS", at_least(0.9), shown
        ),
    ]
    return Outcome(rows, {"gflops": speeds})


def gemm_actions(
    tokens: int, width: int, rows: int, threads: int
) -> tuple[Callable[[], float], Callable[[], float]]:
    """Operations per second of hotplug and of OpenBLAS; neither allocates its result.

    Both are called from Python: a graph of one node is run, and `numpy.matmul`.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((tokens, width)).astype(np.float32)
    weights = rng.standard_normal((rows, width)).astype(np.float32)
    out = np.empty((tokens, rows), np.float32)
    ours = cpu_gemm.Product(x, weights, rows, threads, "default").run

    def theirs() -> None:
        np.matmul(x, weights.T, out=out)

    operations = 2 * tokens * width * rows
    return partial(rate, ours, operations), partial(rate, theirs, operations)


def rate(work: Callable[[], None], operations: int) -> float:
    """Operations per second over some time, after one turn for waking threads up."""
    times = max(1, round(_TURN_SECONDS * _GUESSED_SPEED / operations))
    work()
    began = time.perf_counter()
    for _ in range(times):
        work()
    return times * operations / (time.perf_counter() - began)


SECTIONS = (
    Section("matvec", "matrix times vector, beside reading", measure_matvec),
    Section("gemm", "f32 matrix products, beside OpenBLAS", measure_gemm),
)
