"""The table of NumPy kernels, and the decorator that fills it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

__all__ = ["KERNELS", "Kernel", "kernel"]

Kernel: TypeAlias = Callable[..., None]
"""Called as `kernel(out, *operands, **params)`: a TensorView to be written, one per operand (None
where an optional one is absent), and the op's parameters by name. It is run with NumPy's
floating-point warnings off."""

KERNELS: dict[str, Kernel] = {}
"""Kernels by op name, of every op but the leaves. Filled when `hotplug_cpu.numpy_kernels` is
imported."""

F = TypeVar("F", bound=Callable[..., Any])


def kernel(op: str) -> Callable[[F], F]:
    """Make a function the kernel of an op."""

    def register(compute: F) -> F:
        assert op not in KERNELS, f"op {op} has two kernels"
        KERNELS[op] = compute
        return compute

    return register
