"""Reference of the ops that treat every element alike: unary, gated, arithmetic, comparison."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hotplug.testing.oracle.table import Array, Floats, reference

__all__: list[str] = []

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Floats) -> Floats:
    decay: Floats = np.exp(-x)
    return 1 / (1 + decay)


def _gelu(x: Floats) -> Floats:
    inner: Floats = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    bent: Floats = np.tanh(inner)
    return 0.5 * x * (1 + bent)


def _gelu_erf(x: Floats) -> Floats:
    error: Floats = _erf(x / math.sqrt(2))
    return 0.5 * x * (1 + error)


def _gelu_quick(x: Floats) -> Floats:
    return x * _sigmoid(1.702 * x)


def _silu(x: Floats) -> Floats:
    return x * _sigmoid(x)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def _hardsigmoid(x: Array) -> Array:
    return np.clip((x + 3) / 6, 0, 1)


def _round_half_away(x: Floats) -> Floats:
    whole = np.trunc(x)
    rest: Floats = np.where(np.isinf(x), 0, x - whole)
    away: Floats = np.trunc(2 * rest)
    return whole + away


_UNARY: dict[str, Callable[[Array], Array]] = {
    "abs": np.abs,
    "sign": np.sign,
    "neg": np.negative,
    "step": lambda x: np.where(x > 0, 1.0, 0.0),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "relu": _relu,
    "sigmoid": _sigmoid,
    "gelu": _gelu,
    "gelu_erf": _gelu_erf,
    "gelu_quick": _gelu_quick,
    "silu": _silu,
    "hardswish": lambda x: x * _hardsigmoid(x),
    "hardsigmoid": _hardsigmoid,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "softplus": lambda x: np.logaddexp(0, x),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": _round_half_away,
    "trunc": np.trunc,
    "square": np.square,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
}

_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "reglu": lambda gate, up: _relu(gate) * up,
    "geglu": lambda gate, up: _gelu(gate) * up,
    "geglu_erf": lambda gate, up: _gelu_erf(gate) * up,
    "geglu_quick": lambda gate, up: _gelu_quick(gate) * up,
    "swiglu": lambda gate, up: _silu(gate) * up,
}

for _name, _unary in _UNARY.items():
    reference(_name)(_unary)
for _name, _binary in _BINARY.items():
    reference(_name)(_binary)


@reference("div")
def _div(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    a, b = np.broadcast_arrays(a, b)
    divisor = np.where(b == 0, 1, b)
    # Floor division rounds down; where it was not exact and the signs differ, that is one too low.
    quotient = a // divisor
    inexact = quotient * divisor != a
    quotient = quotient + (inexact & ((a < 0) != (divisor < 0)))
    return np.where(b == 0, 0, quotient)


@reference("pow")
def _pow(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.power(a, b)
    return np.where(b < 0, 0, np.power(a, np.maximum(b, 0)))


@reference("leaky_relu")
def _leaky_relu(x: Array, *, slope: float) -> Array:
    return np.where(x > 0, x, slope * x)


@reference("xielu")
def _xielu(x: Array, *, alpha_n: float, alpha_p: float, beta: float, eps: float) -> Array:
    above = alpha_p * x * x + beta * x
    below = (np.expm1(np.minimum(x, eps)) - x) * alpha_n + beta * x
    return np.where(x > 0, above, below)


@reference("clamp")
def _clamp(x: Array, *, low: float, high: float) -> Array:
    return np.minimum(np.maximum(x, low), high)


@reference("swiglu_clamped")
def _swiglu_clamped(gate: Array, up: Array, *, alpha: float, limit: float, shift: float) -> Array:
    g = np.minimum(gate, limit)
    u = np.clip(up, -limit, limit)
    return g * _sigmoid(alpha * g) * (u + shift)


@reference("logical_not")
def _logical_not(x: Array) -> Array:
    return ~x


@reference("scale")
def _scale(x: Array, *, factor: float, offset: float) -> Array:
    return factor * x + offset


@reference("where")
def _where(condition: Array, a: Array, b: Array) -> Array:
    return np.where(condition, a, b)


@reference("add_rows_by_id")
def _add_rows_by_id(x: Array, bias: Array, ids: Array) -> Array:
    result = x.copy()
    for at in np.ndindex(ids.shape):
        if 0 <= ids[at] < len(bias):
            result[at] += bias[ids[at]]
    return result
