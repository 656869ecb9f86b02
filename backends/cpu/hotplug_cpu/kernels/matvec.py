"""Products of few tokens with a matrix of weights: out[T, R] = x[T, K] w[R, K]^T + add[T, R].

Weights are read once for up to five tokens, as they lie in the file and in that order: four rows at
a time would save loads of activations, but memory is read at half the speed. Kernels:

    matvec_<dtype>          x as blocks of bytes, see `legacy`; count = K / 32
    matvec_<dtype>_f32      x as f32; count = K / 32 for quantised weights, else K / 8

Arguments: `row_bytes`, `x_stride`, `out_stride` and `add_stride` are bytes from one row or token to
the next. `add` is 0 if nothing is to be added; a bias has the stride 0. `x_copies` are bytes from
one thread's own x to the next one's, 0 if there is one for all. Threads share rows in pieces of
`grain`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.types.containers import UniTuple

from hotplug_cpu.jit import reductions, simd
from hotplug_cpu.jit.vectors import F32, I64, f32x8, instruction, load, store
from hotplug_cpu.kernels import dots, superblocks
from hotplug_cpu.kernels.dots import MOST
from hotplug_cpu.kernels.legacy import BLOCK_BYTES
from hotplug_cpu.kernels.superblock_formats import FORMATS

__all__ = ["KERNELS"]

_inline = simd.inline


def _writer(tokens: int) -> Any:
    @instruction(types.none, UniTuple(f32x8, tokens), *[types.int64] * 4)
    def write(
        builder: Any, sums: Any, out: Any, out_stride: Any, add: Any, add_stride: Any
    ) -> None:
        """The sum of each vector, plus a float at `add` if that is not 0."""
        adds = builder.icmp_unsigned("!=", add, ir.Constant(I64, 0))
        for token in range(tokens):
            total = reductions.sum_elements(builder, builder.extract_value(sums, token))
            result = cgutils.alloca_once_value(builder, total)
            builder.store(total, result)
            with builder.if_then(adds):
                place = builder.add(add, builder.mul(add_stride, ir.Constant(I64, token)))
                builder.store(builder.fadd(total, load(builder, place, F32)), result)
            place = builder.add(out, builder.mul(out_stride, ir.Constant(I64, token)))
            store(builder, place, builder.load(result))

    return write


_WRITERS = {tokens: _writer(tokens) for tokens in range(1, MOST + 1)}


def _kernel(products: Any) -> Any:
    """A kernel made of products of a row with 1 to MOST tokens, see `dots`."""
    one, two, three, four, five = (products[tokens] for tokens in range(1, MOST + 1))
    write1, write2, write3, write4, write5 = (_WRITERS[tokens] for tokens in range(1, MOST + 1))

    @_inline
    def matvec(
        thread: int,
        threads: int,
        weights: int,
        row_bytes: int,
        rows: int,
        count: int,
        x: int,
        x_stride: int,
        tokens: int,
        out: int,
        out_stride: int,
        add: int,
        add_stride: int,
        x_copies: int,
        grain: int,
    ) -> None:
        groups = (rows + grain - 1) // grain
        first = groups * thread // threads * grain
        last = min(rows, groups * (thread + 1) // threads * grain)
        x += thread * x_copies
        if tokens == 1:
            for row in range(first, last):
                plus = add + 4 * row if add != 0 else 0
                sums = one(weights + row * row_bytes, x, 0, count)
                write1(sums, out + 4 * row, 0, plus, 0)
            last = first
        for row in range(first, last):
            w = weights + row * row_bytes
            for token in range(0, tokens, MOST):
                source = x + token * x_stride
                at = out + token * out_stride + 4 * row
                plus = add + token * add_stride + 4 * row if add != 0 else 0
                left = tokens - token
                if left == 1:
                    write1(one(w, source, x_stride, count), at, out_stride, plus, add_stride)
                elif left == 2:
                    write2(two(w, source, x_stride, count), at, out_stride, plus, add_stride)
                elif left == 3:
                    write3(three(w, source, x_stride, count), at, out_stride, plus, add_stride)
                elif left == 4:
                    write4(four(w, source, x_stride, count), at, out_stride, plus, add_stride)
                else:
                    write5(five(w, source, x_stride, count), at, out_stride, plus, add_stride)

    return matvec


KERNELS = {
    **{f"matvec_{name}": _kernel(dots.of_bytes(name)) for name in BLOCK_BYTES},
    **{f"matvec_{name}_f32": _kernel(dots.of_floats(name)) for name in BLOCK_BYTES},
    **{f"matvec_{name}": _kernel(superblocks.of_bytes(name)) for name in FORMATS},
    **{f"matvec_{name}_f32": _kernel(superblocks.of_floats(name)) for name in FORMATS},
    "matvec_f16_f32": _kernel(dots.of_plain(16, simd.f16x8_at)),
    "matvec_bf16_f32": _kernel(dots.of_plain(16, simd.bf16x8_at)),
    "matvec_f32_f32": _kernel(dots.of_plain(32, simd.f32x8_at)),
}
