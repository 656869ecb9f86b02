"""Recurrences along tokens: all batches and heads of one token at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import AnyArray, TensorView

__all__: list[str] = []


def _scan(out: TensorView, state: TensorView, step: Callable[[AnyArray, int], AnyArray]) -> None:
    """Write outputs and the last state.

    Args:
        out: (batch, tokens + n, heads, d).
        state: (batch, n, heads, d).
        step: changes the matrices (batch, heads, n, d) in place for one token and gives its outputs
            (batch, heads, d).
    """
    matrices = state.array.swapaxes(1, 2).copy()
    tokens = out.shape[1] - state.shape[1]
    for token in range(tokens):
        out.array[:, token] = step(matrices, token)
    out.array[:, tokens:] = matrices.swapaxes(1, 2)


def _values(out: TensorView, *operands: TensorView) -> list[AnyArray]:
    """Operands in the dtype of the result."""
    return [operand.numbers().astype(out.array.dtype, copy=False) for operand in operands]


def _read(query: AnyArray, matrices: AnyArray) -> AnyArray:
    """Products of queries (batch, heads, n) with matrices (batch, heads, n, d)."""
    products: AnyArray = (query[..., None, :] @ matrices)[..., 0, :]
    return products


def _outer(key: AnyArray, value: AnyArray) -> AnyArray:
    products: AnyArray = key[..., :, None] * value[..., None, :]
    return products


@kernel("selective_scan")
def _selective_scan(
    out: TensorView,
    x: TensorView,
    dt: TensorView,
    a: TensorView,
    b: TensorView,
    c: TensorView,
    state: TensorView,
) -> None:
    xs, dts, rates, bs, cs = _values(out, x, dt, a, b, c)
    spans = np.logaddexp(dts, 0, dtype=dts.dtype)[..., None]
    decays = np.exp(spans * rates.reshape(len(rates), -1))[..., None]
    xs = xs * spans
    share = x.shape[2] // b.shape[2]

    def step(matrices: AnyArray, token: int) -> AnyArray:
        matrices *= decays[:, token]
        matrices += _outer(bs[:, token].repeat(share, axis=1), xs[:, token])
        return _read(cs[:, token].repeat(share, axis=1), matrices)

    _scan(out, state, step)


@kernel("wkv6")
def _wkv6(
    out: TensorView,
    r: TensorView,
    k: TensorView,
    v: TensorView,
    u: TensorView,
    w: TensorView,
    state: TensorView,
) -> None:
    rs, ks, vs, bonus, ws = _values(out, r, k, v, u, w)
    own = (rs * bonus * ks).sum(axis=-1, keepdims=True) * vs

    def step(matrices: AnyArray, token: int) -> AnyArray:
        result = _read(rs[:, token], matrices)
        result += own[:, token]
        matrices *= ws[:, token, ..., None]
        matrices += _outer(ks[:, token], vs[:, token])
        return result

    _scan(out, state, step)


@kernel("wkv7")
def _wkv7(
    out: TensorView,
    r: TensorView,
    w: TensorView,
    k: TensorView,
    v: TensorView,
    a: TensorView,
    b: TensorView,
    state: TensorView,
) -> None:
    rs, ws, ks, vs, removing, replacing = _values(out, r, w, k, v, a, b)

    def step(matrices: AnyArray, token: int) -> AnyArray:
        removed = _read(removing[:, token], matrices)
        matrices *= ws[:, token, ..., None]
        matrices += _outer(ks[:, token], vs[:, token])
        matrices += _outer(replacing[:, token], removed)
        return _read(rs[:, token], matrices)

    _scan(out, state, step)


@kernel("gated_linear_attention")
def _gated_linear_attention(
    out: TensorView,
    q: TensorView,
    k: TensorView,
    v: TensorView,
    g: TensorView,
    state: TensorView,
    *,
    scale: float,
) -> None:
    qs, ks, vs, gates = _values(out, q, k, v, g)
    qs = qs * qs.dtype.type(scale or 1 / math.sqrt(q.shape[-1]))

    def step(matrices: AnyArray, token: int) -> AnyArray:
        matrices *= gates[:, token, ..., None]
        matrices += _outer(ks[:, token], vs[:, token])
        return _read(qs[:, token], matrices)

    _scan(out, state, step)


@kernel("gated_delta_rule")
def _gated_delta_rule(
    out: TensorView,
    q: TensorView,
    k: TensorView,
    v: TensorView,
    g: TensorView,
    beta: TensorView,
    state: TensorView,
    *,
    scale: float,
) -> None:
    qs, ks, vs, gates, shares = _values(out, q, k, v, g, beta)
    qs = qs * qs.dtype.type(scale or 1 / math.sqrt(q.shape[-1]))
    decays = np.exp(gates)[..., None]

    def step(matrices: AnyArray, token: int) -> AnyArray:
        matrices *= decays[:, token]
        change = vs[:, token] - _read(ks[:, token], matrices)
        change *= shares[:, token, ..., None]
        matrices += _outer(ks[:, token], change)
        return _read(qs[:, token], matrices)

    _scan(out, state, step)
