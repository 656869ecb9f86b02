"""Elementwise arithmetic, comparison and choice, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import AnyArray, TensorView

__all__: list[str] = []


def _div(a: AnyArray, b: AnyArray) -> AnyArray:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    by_zero = b == 0
    divisor = np.where(by_zero, b.dtype.type(1), b)
    # fmod takes the sign of the dividend, as truncation toward zero wants it.
    quotient: AnyArray = (a - np.fmod(a, divisor)) // divisor
    return np.where(by_zero, a.dtype.type(0), quotient)


def _pow(a: AnyArray, b: AnyArray) -> AnyArray:
    if a.dtype.kind == "f":
        return np.asarray(np.power(a, b))
    powers: AnyArray = np.power(a, np.maximum(b, b.dtype.type(0)))
    return np.where(np.less(b, 0), a.dtype.type(0), powers)


_BINARY: dict[str, Callable[[AnyArray, AnyArray], AnyArray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _div,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "pow": _pow,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
}


def _binary_kernel(function: Callable[[AnyArray, AnyArray], AnyArray]) -> Callable[..., None]:
    def compute(out: TensorView, a: TensorView, b: TensorView) -> None:
        out.store(function(a.numbers(), b.numbers()))

    return compute


for _name, _function in _BINARY.items():
    kernel(_name)(_binary_kernel(_function))


@kernel("logical_not")
def _logical_not(out: TensorView, x: TensorView) -> None:
    out.store(np.logical_not(x.array))


@kernel("scale")
def _scale(out: TensorView, x: TensorView, *, factor: float, offset: float) -> None:
    scaled = x.numbers() * factor
    out.store(scaled + offset if offset else scaled)


@kernel("where")
def _where(out: TensorView, condition: TensorView, a: TensorView, b: TensorView) -> None:
    np.copyto(out.array, np.where(condition.array, a.array, b.array))


@kernel("add_rows_by_id")
def _add_rows_by_id(out: TensorView, x: TensorView, bias: TensorView, ids: TensorView) -> None:
    known = (ids.array >= 0) & (ids.array < bias.shape[0])
    result = x.numbers().copy()
    result[known] += bias.numbers()[ids.array[known]]
    out.store(result)
