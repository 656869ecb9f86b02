"""The vocabulary of kernels: loads and stores, vector arithmetic, atomics.

Addresses are int64. Nothing needs alignment but words that threads share. A vector has 8 floats or
32 bytes on every machine; where registers are narrower, LLVM uses several. `u7` means bytes 0..127.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import cgutils, types

from hotplug_cpu.jit import forms
from hotplug_cpu.jit.vectors import (
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    address,
    broadcast,
    call,
    concatenate,
    f32,
    f32x8,
    i8x32,
    i32x8,
    instruction,
    lanes,
    load,
    shuffle,
    splat,
    store,
    vector,
)

F32X8, I32X8, I16X8, I16X16 = vector(F32, 8), vector(I32, 8), vector(I16, 8), vector(I16, 16)
I8X8, I8X16, I8X32 = vector(I8, 8), vector(I8, 16), vector(I8, 32)
two_f32 = types.containers.UniTuple(f32, 2)
four_f32x8 = types.containers.UniTuple(f32x8, 4)
eight_f32x8 = types.containers.UniTuple(f32x8, 8)

inline = njit(forceinline=True, error_model="numpy", nogil=True)
"""Decorator of functions that kernels are made of."""


# --- words and numbers in memory


@instruction(types.int64, address)
def load_i64(builder: Any, at: Any) -> Any:
    return load(builder, at, I64)


@instruction(types.int32, address)
def load_i32(builder: Any, at: Any) -> Any:
    return load(builder, at, I32)


@instruction(types.int64, address)
def load_u8(builder: Any, at: Any) -> Any:
    return builder.zext(load(builder, at, I8), I64)


@instruction(types.int64, address)
def load_i8(builder: Any, at: Any) -> Any:
    return builder.sext(load(builder, at, I8), I64)


@instruction(types.none, address, types.int64)
def store_i64(builder: Any, at: Any, value: Any) -> None:
    store(builder, at, value)


@instruction(types.none, address, types.int32)
def store_i32(builder: Any, at: Any, value: Any) -> None:
    store(builder, at, value)


@instruction(f32, address)
def load_f32(builder: Any, at: Any) -> Any:
    return load(builder, at, F32)


@instruction(types.none, address, f32)
def store_f32(builder: Any, at: Any, value: Any) -> None:
    store(builder, at, value)


@instruction(types.float64, address)
def load_f64(builder: Any, at: Any) -> Any:
    return load(builder, at, F64)


@instruction(f32, types.int64)
def float_of(builder: Any, bits: Any) -> Any:
    """The f32 whose bits are the low half of a word: how a plan's row holds a float."""
    return builder.bitcast(builder.trunc(bits, I32), F32)


@instruction(f32, address)
def load_f16(builder: Any, at: Any) -> Any:
    """One f16 as f32."""
    half = load(builder, at, I16)
    wide = builder.insert_element(splat(0, I16, 8), half, ir.Constant(I32, 0))
    return builder.extract_element(forms.half_to_float(builder, wide), ir.Constant(I32, 0))


@instruction(f32, address)
def load_bf16(builder: Any, at: Any) -> Any:
    """One bf16 as f32."""
    bits = builder.zext(load(builder, at, I16), I32)
    return builder.bitcast(builder.shl(bits, ir.Constant(I32, 16)), F32)


def prefetch_at(builder: Any, at: Any) -> None:
    """What `prefetch` writes."""
    pointer = builder.inttoptr(at, I8.as_pointer())
    name = "llvm.prefetch.p0"
    read, keep, data = (ir.Constant(I32, value) for value in (0, 3, 1))
    call(builder, name, ir.VoidType(), pointer, read, keep, data)


@instruction(types.none, address)
def prefetch(builder: Any, at: Any) -> None:
    """Have a line brought into the cache; any address may be given."""
    prefetch_at(builder, at)


def room_at(builder: Any, kind: Any) -> Any:
    """Address of memory of a call's own. It is not cleared: that may take a call of `memset`."""
    with builder.goto_entry_block():
        room = builder.alloca(kind)
    return builder.ptrtoint(room, I64)


# --- vectors in memory


def f32_at(builder: Any, at: Any, count: int) -> Any:
    """So many f32."""
    return load(builder, at, vector(F32, count))


def f32x8_at(builder: Any, at: Any) -> Any:
    """What `load_f32x8` writes."""
    return f32_at(builder, at, 8)


@instruction(f32x8, address)
def load_f32x8(builder: Any, at: Any) -> Any:
    return f32x8_at(builder, at)


@instruction(types.none, address, f32x8)
def store_f32x8(builder: Any, at: Any, value: Any) -> None:
    store(builder, at, value)


def f16_at(builder: Any, at: Any, count: int) -> Any:
    """So many f16 as f32, eight or as many as `forms.LANES`."""
    return forms.half_to_float(builder, load(builder, at, vector(I16, count)))


def f16x8_at(builder: Any, at: Any) -> Any:
    """What `load_f16x8` writes."""
    return f16_at(builder, at, 8)


@instruction(f32x8, address)
def load_f16x8(builder: Any, at: Any) -> Any:
    """8 f16 as f32."""
    return f16x8_at(builder, at)


@instruction(f32x8, types.containers.UniTuple(types.int64, 8))
def gather_f16(builder: Any, places: Any) -> Any:
    """8 f16, each from its own address, as f32."""
    halves = splat(0, I16, 8)
    for lane in range(8):
        half = load(builder, builder.extract_value(places, lane), I16)
        halves = builder.insert_element(halves, half, ir.Constant(I32, lane))
    return forms.half_to_float(builder, halves)


@instruction(types.none, address, f32x8)
def store_f16x8(builder: Any, at: Any, value: Any) -> None:
    """8 f32 rounded to f16."""
    store(builder, at, forms.float_to_half(builder, value))


def bf16x8_at(builder: Any, at: Any) -> Any:
    """What `load_bf16x8` writes."""
    bits = builder.zext(load(builder, at, I16X8), I32X8)
    return builder.bitcast(builder.shl(bits, splat(16, I32, 8)), F32X8)


@instruction(f32x8, address)
def load_bf16x8(builder: Any, at: Any) -> Any:
    """8 bf16 as f32."""
    return bf16x8_at(builder, at)


@instruction(i8x32, address)
def load_i8x32(builder: Any, at: Any) -> Any:
    return load(builder, at, I8X32)


@instruction(types.none, address, i8x32)
def store_i8x32(builder: Any, at: Any, value: Any) -> None:
    store(builder, at, value)


def nibbles_at(builder: Any, at: Any) -> Any:
    """What `load_nibbles` writes."""
    packed = load(builder, at, I8X16)
    both = shuffle(builder, packed, packed, [*range(16), *range(16)])
    # Shifted as words: no processor shifts each byte by its own number of bits.
    words = builder.bitcast(both, I32X8)
    shifted = builder.lshr(words, ir.Constant(I32X8, [0] * 4 + [4] * 4))
    return builder.and_(builder.bitcast(shifted, I8X32), splat(15, I8, 32))


@instruction(i8x32, address)
def load_nibbles(builder: Any, at: Any) -> Any:
    """16 bytes as 32: their low halves, then their high halves."""
    return nibbles_at(builder, at)


def bits_at(builder: Any, at: Any) -> Any:
    """What `load_bits` writes."""
    bits = load(builder, at, I32)
    spread = builder.bitcast(broadcast(builder, bits, 8), I8X32)
    spread = shuffle(builder, spread, spread, [lane // 8 for lane in range(32)])
    wanted = ir.Constant(I8X32, [1 << (lane % 8) for lane in range(32)])
    missing = builder.icmp_unsigned("==", builder.and_(spread, wanted), splat(0, I8, 32))
    return builder.select(missing, splat(0, I8, 32), splat(16, I8, 32))


@instruction(i8x32, address)
def load_bits(builder: Any, at: Any) -> Any:
    """32 bits as 32 bytes, 16 where the bit is set: the fifth bit of 5-bit numbers."""
    return bits_at(builder, at)


# --- bytes


@instruction(i8x32, types.int64)
def splat_i8(builder: Any, value: Any) -> Any:
    return broadcast(builder, builder.trunc(value, I8), 32)


@instruction(i8x32, i8x32, types.int64)
def shift_right(builder: Any, value: Any, bits: Any) -> Any:
    """Each byte, unsigned, shifted by the same number of bits."""
    return builder.lshr(value, broadcast(builder, builder.trunc(bits, I8), 32))


@instruction(i8x32, i8x32, types.int64)
def shift_left(builder: Any, value: Any, bits: Any) -> Any:
    """Each byte shifted by the same number of bits."""
    return builder.shl(value, broadcast(builder, builder.trunc(bits, I8), 32))


@instruction(four_f32x8, i8x32)
def floats_of_i8(builder: Any, value: Any) -> Any:
    """32 signed bytes as four vectors of floats."""
    parts = [lanes(builder, value, 8 * k, 8) for k in range(4)]
    floats = [builder.sitofp(builder.sext(part, I32X8), F32X8) for part in parts]
    return cgutils.pack_array(builder, floats)


# --- products of bytes


@instruction(i32x8, i8x32, i8x32)
def dot_u7(builder: Any, unsigned: Any, signed: Any) -> Any:
    """Products of bytes 0..127 with signed ones, summed by four."""
    return forms.dot_u7(builder, unsigned, signed)


# --- floats


@instruction(f32x8)
def zero(_builder: Any) -> Any:
    return splat(0.0, F32, 8)


@instruction(f32x8, f32)
def splat_f32(builder: Any, value: Any) -> Any:
    return broadcast(builder, value, 8)


@instruction(f32x8, i32x8)
def to_f32(builder: Any, value: Any) -> Any:
    return builder.sitofp(value, F32X8)


@instruction(f32x8, f32x8, f32x8, f32x8)
def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c."""
    return forms.fused_multiply_add(builder, a, b, c)


@instruction(f32x8, f32x8)
def swap_pairs(builder: Any, value: Any) -> Any:
    """Each even element exchanged with the next."""
    return shuffle(builder, value, value, [1, 0, 3, 2, 5, 4, 7, 6])


@instruction(f32, f32)
def sqrt_f32(builder: Any, value: Any) -> Any:
    return call(builder, "llvm.sqrt.f32", F32, value)


ROUNDER = 1.5 * 2.0**23
"""Added to a float of magnitude under 2^22 it leaves the nearest integer in the low bits."""


@instruction(i8x32, four_f32x8)
def round_to_i8(builder: Any, values: Any) -> Any:
    """32 floats in -127..127 to the nearest bytes."""
    parts = []
    for index in range(4):
        raised = builder.fadd(builder.extract_value(values, index), splat(ROUNDER, F32, 8))
        parts.append(builder.trunc(builder.bitcast(raised, I32X8), I8X8))
    return concatenate(builder, parts)


_EXP_LIMITS = (-87.33654, 88.72284)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
# Minimax polynomial of (e^r - 1 - r) / r^2 on |r| <= ln(2)/2 (Cephes expf).
_EXP_TERMS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    0.16666665459,
    0.5,
)


def exp_of(builder: Any, value: Any, *, positive: bool = True) -> Any:
    """What `exp` writes, for vectors of any length; shorter where no element is positive."""
    count = value.type.count
    words = vector(I32, count)

    def constant(number: float) -> Any:
        return splat(number, F32, count)

    def fma_constants(a: Any, b: Any, c: Any) -> Any:
        b, c = (constant(x) if isinstance(x, float) else x for x in (b, c))
        return forms.fused_multiply_add(builder, a, b, c)

    low, high = map(constant, _EXP_LIMITS)
    x = builder.select(builder.fcmp_ordered("<", value, low), low, value)
    if positive:
        x = builder.select(builder.fcmp_ordered(">", x, high), high, x)
    raised = builder.fadd(builder.fmul(x, constant(1.44269504088896341)), constant(ROUNDER))
    whole = builder.fsub(raised, constant(ROUNDER))
    rest = fma_constants(whole, -_LN2_HIGH, x)
    rest = fma_constants(whole, -_LN2_LOW, rest)
    series = constant(_EXP_TERMS[0])
    for term in _EXP_TERMS[1:]:
        series = fma_constants(series, rest, term)
    result = fma_constants(builder.fmul(series, rest), rest, builder.fadd(rest, constant(1.0)))
    bits = builder.sub(builder.bitcast(raised, words), splat(0x4B400000, I32, count))
    powers = [bits]
    if positive:
        # 2^n in two factors, so that n = 128 does not overflow before the product is known.
        first = builder.ashr(bits, splat(1, I32, count))
        powers = [first, builder.sub(bits, first)]
    for power in powers:
        biased = builder.shl(builder.add(power, splat(127, I32, count)), splat(23, I32, count))
        result = builder.fmul(result, builder.bitcast(biased, vector(F32, count)))
    result = builder.select(builder.fcmp_ordered("<", value, low), constant(0.0), result)
    if positive:
        endless = builder.fcmp_ordered(">", value, high)
        result = builder.select(endless, constant(float("inf")), result)
    return result


@instruction(f32x8, f32x8)
def exp(builder: Any, value: Any) -> Any:
    """e^x within 2 units in the last place; 0 below -87.34, infinity above 88.73, NaN kept."""
    return exp_of(builder, value)
