"""What differs between instruction sets: each function writes the form of the present target.

The generic forms use only what LLVM turns into code on every processor without calling a library:
no f16 and no fused multiply-add, for which it would call one where the hardware has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from hotplug_cpu.jit.target import kernel_target
from hotplug_cpu.jit.vectors import (
    F32,
    HALF,
    I8,
    I16,
    I32,
    I64,
    call,
    concatenate,
    lanes,
    shuffle,
    splat,
    vector,
)

__all__ = [
    "BY_ELEMENT",
    "ISA",
    "LANES",
    "MULTIPLIES_MATRICES",
    "SUMS_PAIRS",
    "WIDE_OFFSET",
    "WIDE_UNSIGNED",
    "X86",
    "add_dots",
    "add_dots_i8",
    "add_dots_i16",
    "add_matrix_product",
    "dot_i8",
    "dot_u7",
    "float_to_half",
    "fused_multiply_add",
    "half_to_float",
    "lookup",
    "moved",
    "pairs_u7",
    "pause",
    "sum_pairs",
    "ticks",
]

ISA = kernel_target().isa

LANES = kernel_target().lanes
"""32-bit elements of the vectors that wide products of floats and words are made of."""

X86 = ISA in {"vnni", "avx2"}

_VNNI = ISA == "vnni"
_NEON = ISA in {"neon", "neon_dot", "neon_i8mm"}
_SDOT = ISA in {"neon_dot", "neon_i8mm"}
WIDE_OFFSET = 128 if _VNNI else 0
"""What is added to signed bytes to make them the first operand of `add_dots_i8`."""

WIDE_UNSIGNED = _VNNI
"""Whether the first operand of `add_dots` may be any unsigned byte, not only 0..127."""

SUMS_PAIRS = ISA == "avx2"
"""Whether small bytes are multiplied fastest by `pairs_u7`, adding up the pairs in 16 bits."""

MULTIPLIES_MATRICES = ISA == "neon_i8mm"
"""Whether there is `add_matrix_product`."""

BY_ELEMENT = _NEON
"""Whether products take an element of a register as well as a register of equal elements."""

_NATIVE_HALF = X86 or _NEON
_PAIRS_I16 = "llvm.x86.avx2.pmadd.wd"  # products of 16 x i16, summed by two


def fused_multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, in one rounding where the processor has that."""
    if ISA == "generic":
        return builder.fadd(builder.fmul(a, b), c)
    suffix = f"v{a.type.count}f32" if isinstance(a.type, ir.VectorType) else "f32"
    return call(builder, f"llvm.fma.{suffix}", a.type, a, b, c)


def pairs_u7(builder: Any, unsigned: Any, signed: Any) -> Any:
    """32 bytes 0..127 times 32 signed ones, neighbours summed: 16 x i16."""
    if X86:
        return call(builder, "llvm.x86.avx2.pmadd.ub.sw", vector(I16, 16), unsigned, signed)
    wide = vector(I16, 32)  # both signed: that is one instruction of NEON's
    product = builder.mul(builder.sext(unsigned, wide), builder.sext(signed, wide))
    return _sum_neighbours(builder, product)


def sum_pairs(builder: Any, sums: Any) -> Any:
    """16 x i16, neighbours summed: 8 x i32."""
    if X86:
        ones = splat(1, I16, 16)
        return call(builder, _PAIRS_I16, vector(I32, 8), sums, ones)
    if _NEON:
        return _by_halves(builder, "saddlp.v4i32.v8i16", vector(I32, 4), sums)
    return _sum_neighbours(builder, builder.sext(sums, vector(I32, 16)))


def dot_u7(builder: Any, unsigned: Any, signed: Any) -> Any:
    """32 bytes 0..127 times 32 signed ones, summed by four: 8 x i32."""
    if _SDOT:
        return _sdot(builder, splat(0, I32, 8), unsigned, signed)
    if _VNNI:
        return add_dots(builder, splat(0, I32, 8), unsigned, signed)
    return sum_pairs(builder, pairs_u7(builder, unsigned, signed))


def dot_i8(builder: Any, first: Any, second: Any) -> Any:
    """32 signed bytes times 32 in -127..127, summed by four: 8 x i32."""
    if _SDOT:
        return _sdot(builder, splat(0, I32, 8), first, second)
    if X86:
        # |x| * (y with the sign of x): the product instruction wants one unsigned operand.
        kind = vector(I8, 32)
        magnitude = call(builder, "llvm.x86.avx2.psign.b", kind, first, first)
        turned = call(builder, "llvm.x86.avx2.psign.b", kind, second, first)
        return dot_u7(builder, magnitude, turned)
    # Two products of such bytes are no more than 16 bits hold.
    return sum_pairs(builder, pairs_u7(builder, first, second))


def add_dots(builder: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    """8 x i32 plus `dot_u7` of two vectors of 32 bytes."""
    if _VNNI:
        # The form of both AVX-512 and AVX-VNNI. It takes words; LLVM 22 reads that as bytes.
        words = [builder.bitcast(value, vector(I32, 8)) for value in (unsigned, signed)]
        return call(builder, "llvm.x86.avx512.vpdpbusd.256", vector(I32, 8), sums, *words)
    if _SDOT:
        return _sdot(builder, sums, unsigned, signed)
    return builder.add(sums, dot_u7(builder, unsigned, signed))


def add_dots_i8(builder: Any, sums: Any, first: Any, second: Any) -> Any:
    """8 x i32 plus `dot_i8` of two vectors of 32 bytes, the first with WIDE_OFFSET added."""
    if _VNNI:
        return add_dots(builder, sums, first, second)
    if _SDOT:
        return _sdot(builder, sums, first, second)
    return builder.add(sums, dot_i8(builder, first, second))


def add_matrix_product(builder: Any, sums: Any, first: Any, second: Any) -> Any:
    """2 x 2 numbers, 4 x i32, plus products of two rows of 8 signed bytes with two others."""
    name = "llvm.aarch64.neon.smmla.v4i32.v16i8"
    return call(builder, name, vector(I32, 4), sums, first, second)


def add_dots_i16(builder: Any, sums: Any, first: Any, second: Any) -> Any:
    """LANES x i32 plus products of twice as many i16, summed by two; no sum may overflow."""
    if _VNNI:
        name, kind = f"llvm.x86.avx512.vpdpwssd.{32 * LANES}", vector(I32, LANES)
        # It takes words; LLVM 22 reads that as pairs.
        words = [builder.bitcast(value, kind) for value in (first, second)]
        return call(builder, name, kind, sums, *words)
    if ISA == "avx2" and LANES == 8:
        return builder.add(sums, call(builder, _PAIRS_I16, vector(I32, 8), first, second))
    wide = vector(I32, 2 * LANES)
    product = builder.mul(builder.sext(first, wide), builder.sext(second, wide))
    return builder.add(sums, _sum_neighbours(builder, product))


def moved(levels: Sequence[int]) -> list[int]:
    """Signed bytes with WIDE_OFFSET added, modulo 256."""
    return [(level + WIDE_OFFSET) & 255 for level in levels]


def lookup(builder: Any, table: Sequence[int], indices: Any) -> Any:
    """Each of 32 bytes 0..15 replaced by that entry of a table of 16."""
    if X86:
        values = ir.Constant(vector(I8, 32), [*table, *table])
        return call(builder, "llvm.x86.avx2.pshuf.b", vector(I8, 32), values, indices)
    if _NEON:
        values = ir.Constant(vector(I8, 16), [*table])
        return _by_halves(builder, "tbl1.v16i8", vector(I8, 16), indices, first=values)
    result = splat(table[0], I8, 32)
    for index, value in enumerate(table):
        here = builder.icmp_unsigned("==", indices, splat(index, I8, 32))
        result = builder.select(here, splat(value, I8, 32), result)
    return result


def half_to_float(builder: Any, half_bits: Any) -> Any:
    """8 x i16 holding f16 as 8 x f32; where there are wider registers, LANES of them."""
    if _NATIVE_HALF:
        count = half_bits.type.count
        return builder.fpext(builder.bitcast(half_bits, vector(HALF, count)), vector(F32, count))
    bits = builder.zext(half_bits, vector(I32, 8))
    magnitude = builder.shl(builder.and_(bits, splat(0x7FFF, I32, 8)), splat(13, I32, 8))
    # Moving the exponent by a product makes normal numbers of the denormal ones.
    scaled = builder.fmul(builder.bitcast(magnitude, vector(F32, 8)), splat(2.0**112, F32, 8))
    endless = builder.icmp_unsigned(">=", magnitude, splat(0x7C00 << 13, I32, 8))
    special = builder.or_(magnitude, splat(0x7F800000, I32, 8))
    value = builder.select(endless, special, builder.bitcast(scaled, vector(I32, 8)))
    sign = builder.shl(builder.and_(bits, splat(0x8000, I32, 8)), splat(16, I32, 8))
    return builder.bitcast(builder.or_(value, sign), vector(F32, 8))


def float_to_half(builder: Any, values: Any) -> Any:
    """8 x f32 rounded to nearest, ties to even, as 8 x i16 holding f16."""
    if _NATIVE_HALF:
        return builder.bitcast(builder.fptrunc(values, vector(HALF, 8)), vector(I16, 8))
    whole = vector(I32, 8)
    bits = builder.bitcast(values, whole)
    sign = builder.and_(builder.lshr(bits, splat(16, I32, 8)), splat(0x8000, I32, 8))
    magnitude = builder.and_(bits, splat(0x7FFFFFFF, I32, 8))
    is_nan = builder.icmp_unsigned(">", magnitude, splat(0x7F800000, I32, 8))
    too_large = builder.icmp_unsigned(">=", magnitude, splat(0x477FF000, I32, 8))
    small = builder.icmp_unsigned("<", magnitude, splat(0x38800000, I32, 8))
    # Normal: move the exponent, add just under half a unit plus the lowest kept bit.
    odd = builder.and_(builder.lshr(magnitude, splat(13, I32, 8)), splat(1, I32, 8))
    moved = builder.sub(magnitude, splat((112 << 23) - 0xFFF, I32, 8))
    normal = builder.lshr(builder.add(moved, odd), splat(13, I32, 8))
    # Denormal: adding 0.5 puts the rounded mantissa into the lowest bits.
    raised = builder.fadd(builder.bitcast(magnitude, vector(F32, 8)), splat(0.5, F32, 8))
    tiny = builder.sub(builder.bitcast(raised, whole), splat(0x3F000000, I32, 8))
    result = builder.select(small, tiny, normal)
    result = builder.select(too_large, splat(0x7C00, I32, 8), result)
    result = builder.select(is_nan, splat(0x7E00, I32, 8), result)
    return builder.trunc(builder.or_(result, sign), vector(I16, 8))


def pause(builder: Any) -> None:
    """Tell the processor that this is a loop that waits for another thread."""
    machine = kernel_target().machine
    if machine == "x86_64":
        call(builder, "llvm.x86.sse2.pause", ir.VoidType())
    elif machine == "aarch64":
        call(builder, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(I32, 1))


def ticks(builder: Any) -> Any:
    """A clock that goes on whatever the thread does, in units of its own."""
    machine = kernel_target().machine
    if machine == "x86_64":
        return call(builder, "llvm.readcyclecounter", I64)
    if machine == "aarch64":
        # Inline assembly would need LLVM's parser of it, which no process has loaded.
        name = builder.module.add_metadata([ir.MetaDataString(builder.module, "cntvct_el0")])
        return call(builder, "llvm.read_volatile_register.i64", I64, name)
    return ir.Constant(I64, 0)


def _sum_neighbours(builder: Any, values: Any) -> Any:
    count = values.type.count
    even = shuffle(builder, values, values, list(range(0, count, 2)))
    return builder.add(even, shuffle(builder, values, values, list(range(1, count, 2))))


def _sdot(builder: Any, sums: Any, first: Any, second: Any) -> Any:
    """NEON's signed dot product."""
    return _by_halves(builder, "sdot.v4i32.v16i8", vector(I32, 4), sums, first, second)


def _by_halves(builder: Any, name: str, result: Any, *operands: Any, first: Any = None) -> Any:
    """A NEON instruction, which takes registers of 16 bytes, on each half of vectors of 32.

    `first` is an operand before the others that both halves share.
    """
    shared = [] if first is None else [first]
    halves = []
    for half in (0, 1):
        own = [
            lanes(builder, value, half * value.type.count // 2, value.type.count // 2)
            for value in operands
        ]
        halves.append(call(builder, f"llvm.aarch64.neon.{name}", result, *shared, *own))
    return concatenate(builder, halves)
