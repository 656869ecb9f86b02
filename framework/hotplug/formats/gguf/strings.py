"""Where the strings of an array lie: each is a length of eight bytes, and its bytes.

Each length has to be read to find the next, and vocabularies have hundreds of thousands. Nearly all
are below 256, so that one byte is enough to go on; whether that was right is looked at afterwards,
for many at once.
"""

from __future__ import annotations

import struct
from itertools import repeat

import numpy as np
import numpy.typing as npt

from hotplug.formats.gguf.values import U64

__all__ = ["string_bounds"]

_AT_ONCE = 1 << 16


def string_bounds(data: memoryview, start: int, count: int) -> npt.NDArray[np.int64]:
    """Where `count` strings begin, the first at `start`; and the end of the last.

    Raises:
        ValueError: they do not lie within `data`.
    """
    bounds = np.empty(count + 1, np.int64)
    bounds[0] = start
    for at in range(0, count, _AT_ONCE):
        ends = bounds[at + 1 : at + 1 + _AT_ONCE]
        if not _found_short(data, int(bounds[at]), ends):
            ends[:] = _ends(data, int(bounds[at]), len(ends))
    return bounds


def _found_short(data: memoryview, start: int, ends: npt.NDArray[np.int64]) -> bool:
    """Fill in where strings end; False unless all of them have less than 256 bytes."""
    position = start
    try:
        ends[:] = [position := position + 8 + data[position] for _ in repeat(None, len(ends))]
    except IndexError:
        return False
    if position > data.nbytes:
        return False
    starts = np.concatenate(([start], ends[:-1]))
    lengths = np.ndarray((data.nbytes - 7,), "<u8", data, strides=(1,))[starts]
    return bool((lengths == ends - starts - 8).all())


def _ends(data: memoryview, start: int, count: int) -> list[int]:
    ends, position = [], start
    try:
        for _ in repeat(None, count):
            position += U64.unpack_from(data, position)[0] + 8
            ends.append(position)
    except (struct.error, OverflowError):
        position = data.nbytes + 1
    if position > data.nbytes:
        raise ValueError("the strings go beyond the data")
    return ends
