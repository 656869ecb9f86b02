"""Where operands lie, in the form in which kernels take it.

An operand is a buffer and a View: bytes to its first element, and strides. What a kernel walks over
is a Shape; neighbouring axes that every operand walks in step are joined, so that most walks have
one axis and need no division.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hotplug.dtypes import DType, get
from hotplug.layout import Layout, contiguous_strides

__all__ = [
    "AXES", "LIMIT", "Place", "Tensor", "as_bytes", "contiguous", "joined", "shape_bytes",
    "view_bytes", "walk",
]  # fmt: skip

AXES = 6
"""Axes of a View and of a Shape, as common.h has them."""

LIMIT = 2**31 - 1
"""Kernels count elements of one walk in 32 bits."""


@dataclass(frozen=True, slots=True)
class Place:
    """A buffer by name, and bytes into it."""

    buffer: str
    at: int = 0


@dataclass(frozen=True, slots=True)
class Tensor:
    """An operand or result of a launch.

    Attributes:
        place: where its storage begins.
        dtype: dtype of its elements.
        layout: shape, strides and offset in that storage, in elements.
    """

    place: Place
    dtype: DType
    layout: Layout

    @property
    def shape(self) -> tuple[int, ...]:
        """Row-major shape."""
        return self.layout.shape

    @property
    def strides(self) -> tuple[int, ...]:
        """In elements."""
        return self.layout.strides

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.layout.size

    @property
    def at(self) -> int:
        """Bytes from the start of the buffer to the first element."""
        return self.place.at + self.dtype.nbytes(self.layout.offset)

    def broadcast(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Strides that walk a larger shape, 0 along stretched axes."""
        missing = len(shape) - len(self.shape)
        own = zip(self.shape, self.strides, strict=True)
        return (0,) * missing + tuple(0 if n == 1 else stride for n, stride in own)

    def byte_strides(self) -> tuple[int, ...]:
        """Strides in bytes of all axes but the last, which may be packed and counts 0."""
        scale = (self.dtype.block_bytes, self.dtype.block)
        return (*(stride * scale[0] // scale[1] for stride in self.strides[:-1]), 0)


def joined(
    shape: tuple[int, ...], strides: Sequence[tuple[int, ...]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """A walk of as few axes as possible: axes that all operands walk in step become one.

    Returns:
        The lengths, one at least, and the strides of each operand.
    """
    lengths: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, length in enumerate(shape):
        if length == 1:
            continue
        own = [stride[axis] for stride in strides]
        if lengths and all(
            kept[-1] == step * length for kept, step in zip(steps, own, strict=True)
        ):
            lengths[-1] *= length
            for kept, step in zip(steps, own, strict=True):
                kept[-1] = step
        else:
            lengths.append(length)
            for kept, step in zip(steps, own, strict=True):
                kept.append(step)
    if not lengths:
        return (1,), [(0,) for _ in strides]
    return tuple(lengths), [tuple(kept) for kept in steps]


def walk(shape: tuple[int, ...], operands: Sequence[Tensor]) -> tuple[bytes, list[bytes]]:
    """Shape and Views for operands that broadcast to a shape.

    Raises:
        ValueError: it takes more axes than a View has; `supports` asks beforehand.
    """
    lengths, strides = joined(shape, [tensor.broadcast(shape) for tensor in operands])
    views = [view_bytes(t.at, s) for t, s in zip(operands, strides, strict=True)]
    return shape_bytes(lengths), views


def view_bytes(at: int, strides: Sequence[int]) -> bytes:
    """A View: bytes to the first element, and strides."""
    return struct.pack(f"<{AXES + 1}q", at, *_filled(strides, 0))


def shape_bytes(lengths: Sequence[int]) -> bytes:
    """A Shape: number of elements, of axes, and lengths."""
    return struct.pack(f"<{AXES + 2}i", math.prod(lengths), len(lengths), *_filled(lengths, 1))


def _filled(values: Sequence[int], rest: int) -> list[int]:
    if len(values) > AXES:
        raise ValueError(f"{len(values)} axes do not fit into {AXES}")
    return [*values, *[rest] * (AXES - len(values))]


def contiguous(place: Place, dtype: DType, shape: tuple[int, ...]) -> Tensor:
    """A tensor that fills a place."""
    return Tensor(place, dtype, Layout(shape, contiguous_strides(shape)))


def as_bytes(x: Tensor) -> Tensor:
    """A quantised tensor as i8, a byte an element: blocks have odd sizes, and are moved so."""
    shape = (*x.shape[:-1], x.dtype.nbytes(x.shape[-1]))
    layout = Layout(shape, (*x.byte_strides()[:-1], 1), x.dtype.nbytes(x.layout.offset))
    return Tensor(x.place, get("i8"), layout)
