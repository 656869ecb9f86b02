"""Rows of tables, such as those of token embeddings, as floats.

All strides are bytes, all counts elements. An index outside the table gives zeros.
"""

from __future__ import annotations

from typing import Any

from numba import types

from hotplug_cpu.jit import simd
from hotplug_cpu.kernels.common import index_of, share
from hotplug_cpu.kernels.floats import DECODE
from hotplug_cpu.kernels.sizes import BLOCK

__all__ = ["KERNELS"]

_inline = simd.inline
_NONE = types.float32(0.0)


def _kernel(fill: Any) -> Any:
    """A kernel of `fill(row, target, count)`, which makes floats of a row."""

    @_inline
    def take(
        thread: int,
        threads: int,
        table: int,
        table_stride: int,
        table_rows: int,
        indices: int,
        wide: int,
        rows: int,
        count: int,
        out: int,
        out_stride: int,
    ) -> None:
        first, last = share(rows, thread, threads)
        for row in range(first, last):
            index = index_of(indices, row, wide)
            target = out + row * out_stride
            if 0 <= index < table_rows:
                fill(table + index * table_stride, target, count)
            else:
                for at in range(0, 4 * count, 4):
                    simd.store_f32(target + at, _NONE)

    return take


def _plain(size: int, load_vector: Any, load_number: Any) -> Any:
    @_inline
    def fill(row: int, target: int, count: int) -> None:
        whole = count // 8 * 8
        for at in range(0, whole, 8):
            simd.store_f32x8(target + 4 * at, load_vector(row + size * at))
        for at in range(whole, count):
            simd.store_f32(target + 4 * at, load_number(row + size * at))

    return _kernel(fill)


def _blocks(decode: Any) -> Any:
    @_inline
    def fill(row: int, target: int, count: int) -> None:
        for part in range(count // BLOCK):
            decode(row, part, target + 4 * BLOCK * part)

    return _kernel(fill)


KERNELS = {
    "take_f32": _plain(4, simd.load_f32x8, simd.load_f32),
    "take_f16": _plain(2, simd.load_f16x8, simd.load_f16),
    "take_bf16": _plain(2, simd.load_bf16x8, simd.load_bf16),
    **{f"take_{name}": _blocks(decode) for name, decode in DECODE.items()},
}
