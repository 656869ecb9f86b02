"""PTX's fundamental types and the NumPy types that hold them (PTX ISA, "Types")."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["DTYPES", "HOMES", "SIZES", "Lanes", "Value", "is_float", "is_signed"]

Value: TypeAlias = Any
"""A register of many threads: an array with one element per thread, or a NumPy scalar that all of
them share."""

Lanes: TypeAlias = "npt.NDArray[np.intp] | None"
"""Threads of a batch by index; None for all of them."""

DTYPES: dict[str, str] = {
    "pred": "?",
    "b8": "u1", "u8": "u1", "s8": "i1",
    "b16": "i2", "u16": "u2", "s16": "i2", "f16": "f2", "bf16": "u2",
    "b32": "i4", "u32": "u4", "s32": "i4", "f32": "f4",
    "b64": "i8", "u64": "u8", "s64": "i8", "f64": "f8",
}  # fmt: skip
"""Type -> NumPy's letter and size. bf16, which NumPy lacks, is its bits."""

SIZES: dict[str, int] = {
    name: 1 if name == "pred" else int(code[1:]) for name, code in DTYPES.items()
}
"""Bytes of a type."""

HOMES: dict[str, str] = {
    name: code if name in ("pred", "f32", "f64") else f"i{SIZES[name]}"
    for name, code in DTYPES.items()
}
"""Declared type of a register -> the NumPy type it is kept in between basic blocks. Integers are
kept signed, since most instructions on them are of type s32 or do not care."""


def is_float(name: str) -> bool:
    """Whether a type is one that NumPy computes in floating point."""
    return name in ("f16", "f32", "f64")


def is_signed(name: str) -> bool:
    """Whether an integer type has a sign."""
    return name.startswith("s")
