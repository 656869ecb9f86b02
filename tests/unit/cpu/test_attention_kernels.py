"""Attention, against the oracle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.unit.cpu.guarded import guarded

from hotplug.testing.oracle import attention  # noqa: F401 - fills the table
from hotplug.testing.oracle.table import REFERENCES
from hotplug_cpu.kernels import panels

oracle = REFERENCES["scaled_dot_product_attention"].compute


def guarded_nan(nbytes: int) -> npt.NDArray[np.float32]:
    memory = guarded(nbytes).view(np.float32)
    memory[:] = np.nan
    return memory


def bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


@dataclass
class Case:
    tokens: int = 5
    heads: int = 6
    kv_heads: int = 2
    width: int = 16
    value_width: int = 16
    rows: int = 40
    start: int = 20
    dtype: str = "f16"
    causal: bool = True
    window: int = 0
    softcap: float = 0.0
    sinks: bool = False
    padding: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        element: Any = {"f16": np.float16, "f32": np.float32}[self.dtype]

        def normal(*shape: int) -> npt.NDArray[np.float32]:
            return rng.standard_normal(shape).astype(np.float32)

        self.q = 2 * normal(self.tokens, self.heads, self.width)
        self.k = normal(self.rows, self.kv_heads, self.width).astype(element)
        self.v = normal(self.rows, self.kv_heads, self.value_width).astype(element)
        self.positions: Any = np.arange(self.start, self.start + self.tokens, dtype=np.int32)
        if self.padding:
            self.positions[-self.padding :] = -1
        if self.causal:
            # What lies behind the last position was never written.
            self.k[self.positions.max() + 1 :] = np.nan
            self.v[self.positions.max() + 1 :] = np.nan
        self.sink_scores = normal(self.heads) if self.sinks else None
        self.out = np.full((self.tokens, self.heads, self.value_width), np.nan, np.float32)
        self.scale = 1 / math.sqrt(self.width)

    def common(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "width": self.width,
            "value_width": self.value_width,
            "rows": self.rows,
            "scale": bits(self.scale),
            "softcap": bits(self.softcap),
            "window": self.window,
            "causal": self.causal,
        }

    def operands(self) -> dict[str, Any]:
        return {
            "q": self.q,
            "q_stride": self.q.strides[0],
            "k": self.k,
            "k_stride": self.k.strides[0],
            "v": self.v,
            "v_stride": self.v.strides[0],
            "positions": self.positions,
        }

    def results(self) -> dict[str, Any]:
        return {
            "sinks": 0 if self.sink_scores is None else self.sink_scores,
            "out": self.out,
            "out_stride": self.out.strides[0],
        }

    def scratch(self, threads: int, size: int) -> dict[str, Any]:
        return {"scratch": guarded_nan(threads * size), "scratch_stride": size}

    def whole(self, runner: Any, threads: int) -> npt.NDArray[np.float32]:
        runner(
            f"attention_{self.dtype}",
            threads=threads,
            **self.operands(),
            **self.results(),
            **self.common(),
            **self.scratch(threads, panels.attention_scratch(self.width, self.value_width)),
        )
        return self.out

    def split(self, runner: Any, threads: int, splits: int) -> npt.NDArray[np.float32]:
        nbytes = panels.attention_partials(self.tokens, self.heads, splits, self.value_width)
        partials = guarded_nan(nbytes)
        runner(
            f"attention_split_{self.dtype}",
            threads=threads,
            **self.operands(),
            **self.common(),
            splits=splits,
            partials=partials,
            **self.scratch(threads, panels.attention_split_scratch(self.heads, self.width)),
        )
        runner(
            "attention_combine",
            threads=threads,
            partials=partials,
            **self.results(),
            tokens=self.tokens,
            heads=self.heads,
            value_width=self.value_width,
            splits=splits,
        )
        return self.out

    def expected(self) -> npt.NDArray[np.float64]:
        seen = np.isfinite(self.k).all(axis=(1, 2))
        result = np.zeros(self.out.shape)
        result[...] = oracle(
            self.q.astype(np.float64),
            np.where(seen[:, None, None], self.k, 0).astype(np.float64),
            np.where(seen[:, None, None], self.v, 0).astype(np.float64),
            None,
            self.positions,
            None if self.sink_scores is None else self.sink_scores.astype(np.float64),
            scale=self.scale,
            causal=self.causal,
            window=self.window,
            softcap=self.softcap,
            max_bias=0.0,
        )
        return result


CASES = {
    "plain": Case(),
    "f32": Case(dtype="f32"),
    "one head": Case(heads=1, kv_heads=1),
    "many heads of one key head": Case(heads=32, kv_heads=1, tokens=4),
    "four heads of a key head": Case(heads=8, kv_heads=2, tokens=2),
    "five heads of a key head": Case(heads=5, kv_heads=1, tokens=2, rows=150, start=140),
    "a key head for each": Case(heads=7, kv_heads=7, tokens=3),
    "model": Case(tokens=70, heads=9, kv_heads=3, width=64, value_width=64, rows=256, start=90),
    "from the start": Case(tokens=33, rows=64, start=0),
    "widths of eight": Case(width=24, value_width=40),
    "wide": Case(width=128, value_width=128, rows=150, start=140),
    "window": Case(window=7, tokens=20),
    "window and blocks": Case(window=70, tokens=40, rows=300, start=200),
    "window over the start": Case(window=9, start=0, tokens=12),
    "soft cap": Case(softcap=3.0),
    "sinks": Case(sinks=True),
    "padding": Case(padding=2),
    "only padding": Case(tokens=3, padding=3),
    "not causal": Case(causal=False),
    "not causal, padding": Case(causal=False, padding=1, rows=33),
    "one token": Case(tokens=1, heads=9, kv_heads=3, rows=500, start=400),
    "first token": Case(tokens=1, start=0),
    "all": Case(
        tokens=30, heads=12, kv_heads=4, rows=200, start=120, window=100, softcap=5.0, sinks=True
    ),
}
for _name, _case in CASES.items():
    if _name == "only padding":
        _case.k[:] = _case.v[:] = 0


def assert_close(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> None:
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() <= 2e-5


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("name", CASES)
def test_many_queries(run_kernel: Any, name: str, threads: int) -> None:
    case = CASES[name]
    case.out[:] = np.nan
    assert_close(case.whole(run_kernel, threads), case.expected())


@pytest.mark.parametrize("splits", [1, 3, 8])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_few_queries(run_kernel: Any, name: str, threads: int, splits: int) -> None:
    case = CASES[name]
    case.out[:] = np.nan
    assert_close(case.split(run_kernel, threads, splits), case.expected())


def test_without_positions_queries_stand_at_the_end(run_kernel: Any) -> None:
    case = Case(tokens=4, start=36)
    expected = case.expected()
    case.positions = 0
    assert_close(case.whole(run_kernel, 2), expected)
    case.out[:] = np.nan
    assert_close(case.split(run_kernel, 2, 2), expected)


def test_large_scores_do_not_overflow(run_kernel: Any) -> None:
    case = Case(tokens=9, rows=200, start=150)
    case.q *= 1000
    case.k *= 20
    # Scores of 10^5 are known to about 10^-2 only.
    assert np.abs(case.whole(run_kernel, 2) - case.expected()).max() < 0.1
    assert np.abs(case.split(run_kernel, 2, 3) - case.expected()).max() < 0.1


def test_sinks_above_all_scores(run_kernel: Any) -> None:
    case = Case(sinks=True)
    assert case.sink_scores is not None
    case.sink_scores += 8
    assert_close(case.whole(run_kernel, 2), case.expected())
    case.out[:] = np.nan
    assert_close(case.split(run_kernel, 2, 3), case.expected())
