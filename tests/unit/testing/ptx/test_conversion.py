"""cvt against NumPy, struct and Python's integers."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

INF, NAN = float("inf"), float("nan")
FLOATS = [0.0, -0.0, 0.4, 0.5, 1.5, 2.5, -0.5, -1.5, -2.7, 127.5, 128.0, 255.6, 3e4, -4e4, 7e4,
          2147483520.0, 2147483648.0, -2147483648.0, -2147483904.0, 4294967040.0, 4294967296.0,
          9.2e18, 9.3e18, -9.3e18, 1.8e19, 1.9e19, 1e30, -1e30, INF, -INF, NAN]  # fmt: skip
ROUND = {"rni": lambda x: float(round(x)), "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}


def code(type_):
    return f"{'i' if type_[0] == 's' else type_[0]}{int(type_[1:]) // 8}"


def saturated(value, rounding, type_, source):
    bits = int(type_[1:])
    least, most = (
        (-(1 << bits - 1), (1 << bits - 1) - 1) if type_[0] == "s" else (0, (1 << bits) - 1)
    )
    if math.isnan(value):
        # PTX ISA, cvt: zero, unless one of the types has 64 bits.
        highest = -(1 << bits - 1) if type_[0] == "s" else 1 << bits - 1
        return 0 if source == "f32" and bits < 64 else highest
    if math.isinf(value):
        return most if value > 0 else least
    return min(max(int(ROUND[rounding](value)), least), most)


@pytest.mark.parametrize("rounding", ROUND)
@pytest.mark.parametrize("source", ["f32", "f64"])
@pytest.mark.parametrize("type_", ["s16", "u16", "s32", "u32", "s64", "u64"])
def test_floats_to_integers_saturate(compute, type_, source, rounding):
    values = np.array(FLOATS, code(source))
    got = compute(f"cvt.{rounding}.{type_}.{source} %d, %x0;", values, result=code(type_))
    assert got.tolist() == [saturated(value, rounding, type_, source) for value in values.tolist()]


@pytest.mark.parametrize("rounding", ROUND)
@pytest.mark.parametrize("type_", ["f32", "f64"])
def test_floats_to_integral_floats(compute, type_, rounding):
    values = np.array(FLOATS, code(type_))
    got = compute(f"cvt.{rounding}.{type_}.{type_} %d, %x0;", values, result=code(type_))
    want = [ROUND[rounding](value) if math.isfinite(value) else value for value in values.tolist()]
    np.testing.assert_array_equal(got, np.array(want, got.dtype))
    assert np.signbit(got[1])


INTEGERS = {
    "s8": [0, 1, -1, 127, -128], "s16": [0, -1, 32767, -32768, 129],
    "s32": [0, -1, 2**31 - 1, -(2**31), 16777217, 33554435],
    "u32": [0, 1, 2**32 - 1, 2**31 + 129],
    "s64": [0, -1, 2**63 - 1, -(2**63), 2**53 + 1, 2**60 + 2**36 + 1],
    "u64": [0, 2**64 - 1, 2**63 + 2**39 + 1],
}  # fmt: skip


@pytest.mark.parametrize("to", ["f32", "f64"])
@pytest.mark.parametrize("type_", ["s16", "s32", "u32", "s64", "u64"])
def test_integers_to_floats(compute, type_, to):
    values = np.array(INTEGERS[type_], code(type_))
    got = compute(f"cvt.rn.{to}.{type_} %d, %x0;", values, result=code(to))
    assert got.tolist() == values.astype(code(to)).tolist()


@pytest.mark.parametrize("type_", ["s32", "u32", "s64", "u64"])
def test_integers_to_floats_in_directions(compute, type_):
    values = np.array(INTEGERS[type_], code(type_))
    exact = values.tolist()
    lower = compute(f"cvt.rm.f32.{type_} %d, %x0;", values, result="f4").tolist()
    upper = compute(f"cvt.rp.f32.{type_} %d, %x0;", values, result="f4").tolist()
    inward = compute(f"cvt.rz.f32.{type_} %d, %x0;", values, result="f4").tolist()
    for value, low, high, zero in zip(exact, lower, upper, inward, strict=True):
        assert low <= value <= high
        assert low == high or np.nextafter(np.float32(low), np.float32(INF)) == high
        assert zero == (low if value > 0 else high)


@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("to", ["s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64"])
def test_between_integers(compute, source, to):
    """Narrower ones wrap around, or with .sat are the nearest; they are extended by type."""
    values = np.array(INTEGERS[source], code(source))
    result = to if to[1:] != "8" else f"{to[0]}16"
    got = compute(f"cvt.{to}.{source} %d, %x0;", values, result=code(result))
    assert got.tolist() == values.astype(code(to)).tolist()
    limits = np.iinfo(code(to))
    got = compute(f"cvt.sat.{to}.{source} %d, %x0;", values, result=code(result))
    assert got.tolist() == [min(max(value, limits.min), limits.max) for value in values.tolist()]


def test_all_halves_to_singles(compute):
    halves = np.arange(65536, dtype="u2")
    got = compute("cvt.f32.f16 %d, %x0;", halves, result="f4")
    want = np.frombuffer(halves.tobytes(), "<f2").astype("f4")
    np.testing.assert_array_equal(got, want)
    assert got[:31744].tolist() == [
        struct.unpack("<e", half.tobytes())[0] for half in halves[:31744]
    ]


@pytest.mark.parametrize("source", ["f32", "f64"])
def test_floats_to_halves(compute, source):
    random = np.random.default_rng(2)
    values = (random.standard_normal(500) * np.exp2(random.integers(-26, 17, 500))).astype(
        code(source)
    )
    ties = np.array([1 + 2**-11, 1 + 3 * 2**-11, 65519.99, 65520.0, 2**-25, 2**-24 * 1.5, INF, NAN])
    values = np.concatenate(
        [values, ties.astype(code(source)), np.nextafter(ties[:6], 2).astype(code(source))]
    )
    got = compute(f"cvt.rn.f16.{source} %d, %x0;", values, result="u2").view("f2")
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got, values.astype("f2"))
    inward = compute(f"cvt.rz.f16.{source} %d, %x0;", values, result="u2").view("f2")
    finite = np.isfinite(values)
    assert (np.abs(inward[finite].astype("f8")) <= np.abs(values[finite].astype("f8"))).all()


def test_doubles_to_singles(compute):
    values = np.array([0.1, 1 + 2**-24, 1 + 2**-24 + 2**-50, -0.1, 1e-46, 1e39, NAN], "f8")
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(
            compute("cvt.rn.f32.f64 %d, %x0;", values, result="f4"), values.astype("f4")
        )
    lower = compute("cvt.rm.f32.f64 %d, %x0;", values[:4], result="f4")
    upper = compute("cvt.rp.f32.f64 %d, %x0;", values[:4], result="f4")
    assert (lower < values[:4]).all()
    assert (upper > values[:4]).all()
    assert (np.nextafter(lower, np.float32(INF)) == upper).all()


def test_saturation_and_flushing(compute):
    values = np.array([-3, 0.5, 3, NAN, 1e-40], "f4")
    got = compute("cvt.sat.f32.f32 %d, %x0;", values, result="f4")
    assert got.tolist() == [0, 0.5, 1, 0, np.float32(1e-40)]
    got = compute("cvt.ftz.f64.f32 %d, %x0;", values, result="f8")
    assert got[4] == 0


def test_bf16(compute):
    bits = np.arange(65536, dtype="u2")
    got = compute("cvt.f32.bf16 %d, %x0;", bits, result="f4")
    want = (bits.astype("u4") << 16).view("f4")
    np.testing.assert_array_equal(got, want)
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 3.4e38, NAN, -INF], "f4")
    got = compute("cvt.rn.bf16.f32 %d, %x0;", values, result="u2")
    assert got.tolist() == [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x7FFF, 0xFF80]
    got = compute("cvt.rz.bf16.f32 %d, %x0;", values[:5], result="u2")
    assert got.tolist() == [0x3F80, 0x3F80, 0x3F81, 0x3F80, 0x7F7F]
