"""Unary functions and gated linear units."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev

from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import AnyArray, TensorView

__all__: list[str] = []

_FARTHEST = 6.0
"""Beyond, erfc is below 3e-17, and its scaled form is nearly level."""

_TERMS = 28

_VANISHED = 30.0
"""Beyond, erfc is 0 in float64."""


@functools.cache
def _scaled_erfc() -> Chebyshev:
    """exp(x^2) erfc(x) for 0 <= x <= _FARTHEST as a polynomial in 2 / (2 + x).

    In this variable the function is smooth (Numerical Recipes, section 6.2), so that
    interpolation at Chebyshev points is good to a few units in float64's last place. NumPy's own
    interpolation loses a digit more, as it makes the polynomials' values by recurrence.
    """
    domain = np.array([2 / (2 + _FARTHEST), 1])
    angles: AnyArray = (np.arange(_TERMS) + 0.5) * (np.pi / _TERMS)
    points: AnyArray = 2 / (domain.mean() + np.cos(angles) * (domain[1] - domain[0]) / 2) - 2
    values = np.array([math.erfc(x) for x in points]) / _exp_minus_square(points)
    coefficients = np.cos(np.outer(np.arange(_TERMS), angles)) @ values * (2 / _TERMS)
    coefficients[0] /= 2
    return Chebyshev(coefficients, domain=domain)


def _exp_minus_square(x: AnyArray) -> AnyArray:
    """exp(-x^2) without what the rounding of x^2 does to it."""
    head: AnyArray = np.round(16 * x) / 16  # few enough bits that its square is exact
    return np.asarray(np.exp(-head * head) * np.exp((head - x) * (head + x)))


def _erfc(x: AnyArray) -> AnyArray:
    """1 - erf(x) in float64, to 3e-17 of 1, and to some units in the last place up to _FARTHEST."""
    distance: AnyArray = np.abs(x)
    scaled = _scaled_erfc()(2 / (2 + np.minimum(distance, _FARTHEST)))
    right = scaled * _exp_minus_square(np.minimum(distance, _VANISHED))
    return np.where(x < 0, 2 - right, right)


def _sigmoid(x: AnyArray) -> AnyArray:
    decay: AnyArray = np.exp(-x)
    return np.asarray(1 / (1 + decay))


def _silu(x: AnyArray) -> AnyArray:
    return x * _sigmoid(x)


def _gelu(x: AnyArray) -> AnyArray:
    bent: AnyArray = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
    return np.asarray(0.5 * x * (1 + bent))


def _gelu_erf(x: AnyArray) -> AnyArray:
    return 0.5 * x * _erfc(x.astype(np.float64) * -math.sqrt(0.5))


def _gelu_quick(x: AnyArray) -> AnyArray:
    return x * _sigmoid(1.702 * x)


def _relu(x: AnyArray) -> AnyArray:
    return np.maximum(x, 0)


def _step(x: AnyArray) -> AnyArray:
    positive: AnyArray = np.greater(x, 0)
    return positive.astype(x.dtype)


def _elu(x: AnyArray) -> AnyArray:
    return np.where(x > 0, x, np.expm1(x))


def _hardsigmoid(x: AnyArray) -> AnyArray:
    return np.clip((x + 3) / 6, 0, 1)


def _hardswish(x: AnyArray) -> AnyArray:
    return x * _hardsigmoid(x)


def _softplus(x: AnyArray) -> AnyArray:
    return np.asarray(np.logaddexp(x, x.dtype.type(0)))


def _round(x: AnyArray) -> AnyArray:
    whole: AnyArray = np.trunc(x)
    # Not trunc(x + 0.5): the sum of 0.5 and the number before it is rounded up to 1.
    return np.where(np.abs(x - whole) >= 0.5, whole + np.copysign(x.dtype.type(1), x), whole)


_UNARY: dict[str, Callable[[AnyArray], AnyArray]] = {
    "abs": np.abs,
    "sign": np.sign,
    "neg": np.negative,
    "step": _step,
    "tanh": np.tanh,
    "elu": _elu,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "gelu": _gelu,
    "gelu_erf": _gelu_erf,
    "gelu_quick": _gelu_quick,
    "silu": _silu,
    "hardswish": _hardswish,
    "hardsigmoid": _hardsigmoid,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "softplus": _softplus,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": _round,
    "trunc": np.trunc,
    "square": np.square,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
}

_GATES: dict[str, Callable[[AnyArray], AnyArray]] = {
    "reglu": _relu,
    "geglu": _gelu,
    "geglu_erf": _gelu_erf,
    "geglu_quick": _gelu_quick,
    "swiglu": _silu,
}


def _unary_kernel(function: Callable[[AnyArray], AnyArray]) -> Callable[..., None]:
    def compute(out: TensorView, x: TensorView) -> None:
        out.store(function(x.numbers()))

    return compute


def _gated_kernel(function: Callable[[AnyArray], AnyArray]) -> Callable[..., None]:
    def compute(out: TensorView, gate: TensorView, up: TensorView) -> None:
        out.store(function(gate.numbers()) * up.numbers())

    return compute


for _name, _function in _UNARY.items():
    kernel(_name)(_unary_kernel(_function))
for _name, _function in _GATES.items():
    kernel(_name)(_gated_kernel(_function))


@kernel("leaky_relu")
def _leaky_relu(out: TensorView, x: TensorView, *, slope: float) -> None:
    values = x.numbers()
    out.store(np.where(values > 0, values, slope * values))


@kernel("xielu")
def _xielu(
    out: TensorView, x: TensorView, *, alpha_n: float, alpha_p: float, beta: float, eps: float
) -> None:
    values = x.numbers()
    below: AnyArray = np.expm1(np.minimum(values, eps))
    bent = np.where(values > 0, alpha_p * values * values, (below - values) * alpha_n)
    out.store(bent + beta * values)


@kernel("clamp")
def _clamp(out: TensorView, x: TensorView, *, low: float, high: float) -> None:
    out.store(_between(x.numbers(), low, high))


@kernel("swiglu_clamped")
def _swiglu_clamped(
    out: TensorView, gate: TensorView, up: TensorView, *, alpha: float, limit: float, shift: float
) -> None:
    g: AnyArray = np.minimum(gate.numbers(), limit)
    u = _between(up.numbers(), -limit, limit)
    out.store(g * _sigmoid(alpha * g) * (u + shift))


def _between(x: AnyArray, low: float, high: float) -> Any:
    return np.minimum(np.maximum(x, low), high)
