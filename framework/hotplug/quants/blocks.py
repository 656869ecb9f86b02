"""What the block formats share: bit planes, scales, rounding, and the record of one format.

A format stores one tensor as an array of equal blocks. Here every block is one element of a NumPy
structured array (`Records`), so that a field of all blocks is one strided array. Fields have no
padding and are little-endian, as GGUF files are on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "BlockCodec",
    "Bytes",
    "Floats",
    "Records",
    "column",
    "extreme_values",
    "join_planes",
    "new_records",
    "reciprocal",
    "round_half_away",
    "split_planes",
]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.float32]
Records: TypeAlias = npt.NDArray[np.void]

_EVERY_BYTE = 0x0101010101010101


@dataclass(frozen=True, slots=True)
class BlockCodec:
    """How one block format is read and written.

    Attributes:
        layout: structured dtype of one block.
        decode: records [n] -> float32 [n, block].
        encode: finite float32 [n, block] -> records [n]; None if the format is only read. It may
            leave scales that are not finite, which the caller has to refuse.
    """

    layout: np.dtype[np.void]
    decode: Callable[[Records], Floats]
    encode: Callable[[Floats], Records] | None = None


def new_records(count: int, layout: np.dtype[np.void]) -> Records:
    """Uninitialised blocks."""
    return np.empty(count, layout)


def column(field: npt.NDArray[np.generic]) -> Floats:
    """A field with one number a block as float32 [n, 1], ready to scale [n, block]."""
    return field.astype(np.float32)[:, np.newaxis]


def split_planes(packed: Bytes, bits: int) -> Bytes:
    """Unpack bytes whose bit fields belong to elements that lie `width` apart.

    Args:
        packed: [n, groups, width], `width` a multiple of 8.
        bits: width of a bit field: 1, 2 or 4.

    Returns:
        [n, groups, 8 // bits, width]: plane k holds bits k * bits and up of every byte.
    """
    # Eight bytes at a time: what a shift carries over from the next byte is masked off, so the
    # byte order of the machine does not matter.
    words = np.ascontiguousarray(packed).view(np.uint64)
    count, groups, width = words.shape
    planes = np.empty((count, groups, 8 // bits, width), np.uint64)
    for index in range(8 // bits):
        np.right_shift(words, np.uint64(index * bits), out=planes[:, :, index])
    planes &= np.uint64(_EVERY_BYTE * ((1 << bits) - 1))
    return planes.view(np.uint8)


def join_planes(planes: Bytes) -> Bytes:
    """Pack [n, groups, 8 // bits, width] into [n, groups, width]; undoes `split_planes`."""
    words = np.ascontiguousarray(planes).view(np.uint64)
    bits = 8 // words.shape[2]
    packed = words[:, :, 0].copy()
    for index in range(1, words.shape[2]):
        packed |= words[:, :, index] << np.uint64(index * bits)
    return packed.view(np.uint8)


def reciprocal(scale: Floats) -> Floats:
    """1 / scale, and 0 where that is no finite number.

    A scale of 0 belongs to a block of zeros. A scale so small that its reciprocal overflows is 0
    as f16; ggml multiplies by infinity there, whose result as an integer depends on the machine.
    """
    inverse = np.float32(1) / scale
    inverse[~np.isfinite(inverse)] = 0
    return inverse


def round_half_away(values: Floats) -> Floats:
    """Round to whole numbers, halves away from zero, as C's roundf does."""
    whole = np.trunc(values)
    # The fraction is exact, so that doubling and truncating it decides exactly.
    whole += np.trunc((values - whole) * np.float32(2))
    return whole


def extreme_values(values: Floats) -> Floats:
    """The element of largest magnitude along the last axis, with its sign; the first of equals."""
    index = np.abs(values).argmax(axis=-1, keepdims=True)
    return np.take_along_axis(values, index, axis=-1)
