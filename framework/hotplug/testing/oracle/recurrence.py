"""Reference of the recurrences: one head at a time, the formulas as matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from hotplug.testing.oracle.table import Floats, reference

__all__: list[str] = []


def _scan(
    state: Floats,
    tokens: int,
    step: Callable[[Floats, tuple[int, int, int]], tuple[Floats, Floats]],
) -> Floats:
    """Outputs and the last state; `step` takes S and (batch, token, head), gives y and S."""
    batch, n, heads, d = state.shape
    result = np.zeros((batch, tokens + n, heads, d))
    for row, head in np.ndindex(batch, heads):
        matrix = state[row, :, head]
        for token in range(tokens):
            result[row, token, head], matrix = step(matrix, (row, token, head))
        result[row, tokens:, head] = matrix
    return result


def _at(place: tuple[int, int, int], *operands: Floats) -> Iterator[Floats]:
    return (operand[place] for operand in operands)


@reference("selective_scan")
def _selective_scan(
    x: Floats, dt: Floats, a: Floats, b: Floats, c: Floats, state: Floats
) -> Floats:
    share = x.shape[2] // b.shape[2]

    def step(matrix: Floats, place: tuple[int, int, int]) -> tuple[Floats, Floats]:
        row, token, head = place
        span = np.log1p(np.exp(dt[place]))
        decay = np.exp(span * a[head]) * np.ones(len(matrix))
        group = (row, token, head // share)
        matrix = decay[:, None] * matrix + span * np.outer(b[group], x[place])
        return c[group] @ matrix, matrix

    return _scan(state, x.shape[1], step)


@reference("wkv6")
def _wkv6(r: Floats, k: Floats, v: Floats, u: Floats, w: Floats, state: Floats) -> Floats:
    def step(matrix: Floats, place: tuple[int, int, int]) -> tuple[Floats, Floats]:
        now = np.outer(k[place], v[place])
        result = r[place] @ (u[place[2]][:, None] * now + matrix)
        return result, w[place][:, None] * matrix + now

    return _scan(state, v.shape[1], step)


@reference("wkv7")
def _wkv7(
    r: Floats, w: Floats, k: Floats, v: Floats, a: Floats, b: Floats, state: Floats
) -> Floats:
    def step(matrix: Floats, place: tuple[int, int, int]) -> tuple[Floats, Floats]:
        removed = a[place] @ matrix
        matrix = (
            w[place][:, None] * matrix + np.outer(k[place], v[place]) + np.outer(b[place], removed)
        )
        return r[place] @ matrix, matrix

    return _scan(state, v.shape[1], step)


@reference("gated_linear_attention")
def _gated_linear_attention(
    q: Floats, k: Floats, v: Floats, g: Floats, state: Floats, *, scale: float
) -> Floats:
    factor = scale or 1 / math.sqrt(q.shape[-1])

    def step(matrix: Floats, place: tuple[int, int, int]) -> tuple[Floats, Floats]:
        matrix = g[place][:, None] * matrix + np.outer(k[place], v[place])
        return factor * (q[place] @ matrix), matrix

    return _scan(state, v.shape[1], step)


@reference("gated_delta_rule")
def _gated_delta_rule(
    q: Floats, k: Floats, v: Floats, g: Floats, beta: Floats, state: Floats, *, scale: float
) -> Floats:
    factor = scale or 1 / math.sqrt(q.shape[-1])

    def step(matrix: Floats, place: tuple[int, int, int]) -> tuple[Floats, Floats]:
        matrix = np.exp(g[place])[:, None] * matrix
        change = beta[place] * (v[place] - k[place] @ matrix)
        matrix = matrix + np.outer(k[place], change)
        return factor * (q[place] @ matrix), matrix

    return _scan(state, v.shape[1], step)
