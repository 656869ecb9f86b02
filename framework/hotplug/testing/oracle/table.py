"""The oracle's functions by op name, and the decorator that puts them there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["REFERENCES", "Array", "Floats", "Reference", "reference"]

Array: TypeAlias = "npt.NDArray[Any]"
Floats: TypeAlias = "npt.NDArray[np.float64]"

F = TypeVar("F", bound=Callable[..., Array])


@dataclass(frozen=True, slots=True)
class Reference:
    """How one op is computed.

    Attributes:
        compute: operands by position (floats as float64, integers as int64, bool; None where an
            optional operand is absent) and parameters by name -> the result, not yet rounded.
        typed: whether `compute` takes the node first, because it needs dtypes.
    """

    compute: Callable[..., Array]
    typed: bool


REFERENCES: dict[str, Reference] = {}


def reference(op: str, *, typed: bool = False) -> Callable[[F], F]:
    """Make a function the reference of an op."""

    def register(compute: F) -> F:
        if op in REFERENCES:
            raise ValueError(f"op {op} has two references")
        REFERENCES[op] = Reference(compute, typed)
        return compute

    return register
