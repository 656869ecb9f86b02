"""Floating point arithmetic against exact rational numbers."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

INF, NAN = float("inf"), float("nan")
SINGLES = np.array(
    [0.0, -0.0, 1.0, -1.5, 3.0, 1e-45, -1e-45, 1.1754944e-38, 1e-30, 3.4028235e38, -3.4028235e38,
     0.1, 16777217.0, INF, -INF, NAN], "f4",
)  # fmt: skip
DOUBLES = np.array(
    [0.0, -0.0, 1.0, -1.5, 3.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1, 1e17,
     INF, -INF, NAN], "f8",
)  # fmt: skip


def crossed(*columns):
    rows = list(itertools.product(*(column.tolist() for column in columns)))
    listed = list(zip(*rows, strict=True))
    return [np.array(row, column.dtype) for row, column in zip(listed, columns, strict=True)]


def bits(array):
    """Bits, with all NaNs alike."""
    array = np.asarray(array)
    return (
        np.where(np.isnan(array), array.dtype.type(NAN), array).view(f"u{array.itemsize}").tolist()
    )


def rounded(exact, dtype, rounding):
    """A rational number as a floating point one: its neighbours are looked at."""
    dtype = np.dtype(dtype)
    with np.errstate(all="ignore"):
        near = dtype.type(float(exact))
        if np.isinf(near):
            near = np.copysign(np.finfo(dtype).max, near)
        candidates = sorted(
            {float(near), *(float(np.nextafter(near, dtype.type(to))) for to in (INF, -INF))}
        )
    finite = [value for value in candidates if not np.isinf(value)]
    below = [value for value in finite if Fraction(value) <= exact]
    above = [value for value in finite if Fraction(value) >= exact]
    low, high = (max(below) if below else -INF), (min(above) if above else INF)
    if rounding == "rm" or (rounding == "rz" and exact > 0):
        return dtype.type(low)
    if rounding in ("rp", "rz"):
        return dtype.type(high)
    end = 2.0 ** (np.finfo(dtype).maxexp - 1)
    low_exact, high_exact = (
        Fraction(value) if abs(value) != INF else 2 * Fraction(np.copysign(end, value))
        for value in (low, high)
    )
    distance = exact - low_exact, high_exact - exact
    if distance[0] != distance[1]:
        return dtype.type(low if distance[0] < distance[1] else high)
    even = [dtype.type(value).view(f"u{dtype.itemsize}") & 1 == 0 for value in (low, high)]
    return dtype.type(low if even[0] else high)


def check_against_rationals(got, exact, dtype, rounding):
    """Compare where the exact result is a number other than 0, whose sign it does not tell."""
    for index, value in enumerate(exact):
        if value:
            want = rounded(value, dtype, rounding)
            assert got[index] == want, (index, float(value), got[index], want)


OPERATIONS = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
              "div": lambda a, b: a / b}  # fmt: skip


@pytest.mark.parametrize("opcode", OPERATIONS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_rounding_to_nearest(compute, opcode, dtype):
    a, b = crossed(*2 * [SINGLES if dtype == "f4" else DOUBLES])
    rounding = ".rn" if opcode == "div" else ""
    got = compute(f"{opcode}{rounding}.f{8 * a.itemsize} %d, %x0, %x1;", a, b, result=dtype)
    with np.errstate(all="ignore"):
        assert bits(got) == bits(OPERATIONS[opcode](a, b))


def numbers(dtype, count=300):
    """Numbers near each other in size, so that sums cancel, and far from each other."""
    random = np.random.default_rng(5)
    scale = np.exp2(random.integers(-40, 40, (3, count)))
    return (random.standard_normal((3, count)) * scale).astype(dtype)


@pytest.mark.parametrize("rounding", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("opcode", OPERATIONS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_directed_roundings(compute, opcode, rounding, dtype):
    a, b, _ = numbers(dtype)
    text = f"{opcode}.{rounding}.f{8 * a.itemsize} %d, %x0, %x1;"
    exact = [
        OPERATIONS[opcode](Fraction(x), Fraction(y))
        for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    check_against_rationals(compute(text, a, b, result=dtype), exact, dtype, rounding)


def test_directed_roundings_at_the_end_of_the_range(compute):
    big = np.array([3.4028235e38], "f4")
    results = {
        rounding: compute(f"add.{rounding}.f32 %d, %x0, %x0;", big, result="f4")[0]
        for rounding in ("rn", "rz", "rm", "rp")
    }
    assert results == {"rn": INF, "rz": big[0], "rm": big[0], "rp": INF}


@pytest.mark.parametrize("rounding", ["rn", "rz", "rm", "rp"])
def test_fma_is_rounded_once(compute, rounding):
    a, b, c = numbers("f4", 1000)
    # Sums that lie next to the middle between two numbers, where rounding twice goes wrong.
    small = np.exp2(np.arange(-60, -10, 2)).astype("f4")
    a = np.concatenate([a, np.full(25, 1 + 2**-12, "f4"), np.ones(25, "f4"), -np.ones(25, "f4")])
    b = np.concatenate([b, np.full(25, 1 + 2**-12, "f4"), small, small])
    c = np.concatenate([c, 2.0**24 * small, np.full(50, 1 + 2**-23, "f4")])
    exact = [
        Fraction(x) * Fraction(y) + Fraction(z)
        for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    ]
    got = compute(f"fma.{rounding}.f32 %d, %x0, %x1, %x2;", a, b, c, result="f4")
    check_against_rationals(got, exact, "f4", rounding)


def test_fma_of_ties_and_subnormals(compute):
    tie = np.float32(1 + 2**-12)  # its square ends in 2**-24, half of the last bit
    rows = [
        (tie, tie, 2.0**-60), (tie, tie, -(2.0**-60)), (tie, tie, 0),
        (2.0**-75, 2.0**-75, 2.0**-149), (2.0**-75, 1.5 * 2.0**-75, 0),
        (2.0**-100, 2.0**-49, 2.0**-149),
        (1.5 * 2.0**-75, 2.0**-75, 3 * 2.0**-149), (2.0**-100, -(2.0**-50), 2.0**-148),
        (2.0**64, 2.0**64, -(2.0**100)), (2.0**100, 2.0**28, -(2.0**103)),
        (2.0**100, 2.0**28, -(2.0**103) - 2.0**80),
    ]  # fmt: skip
    a, b, c = (np.array(column, "f4") for column in zip(*rows, strict=True))
    exact = [
        Fraction(x) * Fraction(y) + Fraction(z)
        for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    ]
    got = compute("fma.rn.f32 %d, %x0, %x1, %x2;", a, b, c, result="f4")
    check_against_rationals(got, exact, "f4", "rn")


def test_fma_of_numbers_that_are_none(compute):
    a, b, c = crossed(SINGLES, SINGLES, SINGLES)
    got = compute("fma.rn.f32 %d, %x0, %x1, %x2;", a, b, c, result="f4")
    with np.errstate(all="ignore"):
        want = (a.astype("f8") * b + c).astype("f4")
    odd = ~np.isfinite(want) & ~(np.isfinite(a) & np.isfinite(b) & np.isfinite(c))
    assert bits(got[odd]) == bits(want[odd])


def test_fma_of_doubles_is_rounded_once(compute):
    a, b, c = numbers("f8", 1000)
    c[::2] = -a[::2] * b[::2] * (1 + np.exp2(-50.0 - np.arange(500) % 20))
    exact = [
        Fraction(x) * Fraction(y) + Fraction(z)
        for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    ]
    got = compute("fma.rn.f64 %d, %x0, %x1, %x2;", a, b, c, result="f8")
    check_against_rationals(got, exact, "f8", "rn")


def test_halves(compute):
    random = np.random.default_rng(4)
    a, b, c = (random.standard_normal((3, 400)) * np.exp2(random.integers(-9, 9, (3, 400)))).astype(
        "f2"
    )
    x, y, z = (value.view("u2") for value in (a, b, c))
    for opcode in ("add", "sub", "mul"):
        got = compute(f"{opcode}.f16 %d, %x0, %x1;", x, y, result="u2").view("f2")
        exact = [
            OPERATIONS[opcode](*map(Fraction, pair))
            for pair in zip(a.tolist(), b.tolist(), strict=True)
        ]
        check_against_rationals(got, exact, "f2", "rn")
    got = compute("fma.rn.f16 %d, %x0, %x1, %x2;", x, y, z, result="u2").view("f2")
    exact = [
        Fraction(p) * Fraction(q) + Fraction(r)
        for p, q, r in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    ]
    check_against_rationals(got, exact, "f2", "rn")
    got = compute("setp.lt.f16 %p0, %x0, %x1; selp.u32 %d, 1, 0, %p0;", x, y, result="u4")
    assert got.tolist() == (a < b).tolist()


def test_min_and_max(compute):
    a, b = crossed(SINGLES, SINGLES)
    x, y = a.tolist(), b.tolist()

    def least(p, q):
        if p != p or q != q:
            return q if p != p else p
        return min(p, q) if p != q else (p if np.signbit(p) else q)

    def most(p, q):
        return -least(-p, -q)

    got = compute("min.f32 %d, %x0, %x1;", a, b, result="f4")
    assert bits(got) == bits(np.array([least(p, q) for p, q in zip(x, y, strict=True)], "f4"))
    got = compute("max.f32 %d, %x0, %x1;", a, b, result="f4")
    assert bits(got) == bits(np.array([most(p, q) for p, q in zip(x, y, strict=True)], "f4"))
    got = compute("min.f32 %d, %x0, %x1, 0f3F800000;", a, b, result="f4")
    assert bits(got) == bits(
        np.array([least(least(p, q), 1.0) for p, q in zip(x, y, strict=True)], "f4")
    )
    got = compute("max.NaN.f32 %d, %x0, %x1;", a, b, result="f4")
    assert np.isnan(got).tolist() == (np.isnan(a) | np.isnan(b)).tolist()


def test_signs(compute):
    a, b = crossed(SINGLES, SINGLES)
    assert bits(compute("neg.f32 %d, %x0;", a, result="f4")) == bits(-a)
    assert bits(compute("abs.f32 %d, %x0;", a, result="f4")) == bits(np.abs(a))
    got = compute("copysign.f32 %d, %x0, %x1;", a, b, result="f4")
    assert bits(got) == bits(np.copysign(b, a))


RELATIONS = {
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b, "eq": lambda a, b: a == b,
    "ne": lambda a, b: (a < b) | (a > b),
}  # fmt: skip


def test_comparisons_tell_of_nan(compute):
    a, b = crossed(SINGLES, SINGLES)
    unordered = np.isnan(a) | np.isnan(b)
    text = "setp.{}.f32 %p0, %x0, %x1; selp.u32 %d, 1, 0, %p0;"
    for name, relation in RELATIONS.items():
        got = compute(text.format(name), a, b, result="u4")
        assert got.tolist() == relation(a, b).tolist(), name
        got = compute(text.format(f"{name}u"), a, b, result="u4")
        assert got.tolist() == (relation(a, b) | unordered).tolist(), name
    assert compute(text.format("num"), a, b, result="u4").tolist() == (~unordered).tolist()
    assert compute(text.format("nan"), a, b, result="u4").tolist() == unordered.tolist()


def test_flushing_of_subnormals(compute):
    tiny = np.array([1e-40, -1e-40, 1.1754944e-38, 0.0, 1.0], "f4")
    got = compute("add.ftz.f32 %d, %x0, 0f00000000;", tiny, result="f4")
    assert bits(got) == bits(np.array([0, 0, 1.1754944e-38, 0, 1], "f4"))
    got = compute("mul.ftz.f32 %d, %x0, 0f3f000000;", tiny, result="f4")
    assert bits(got) == bits(np.array([0, -0.0, 0, 0, 0.5], "f4"))
    got = compute(
        "setp.eq.ftz.f32 %p0, %x0, 0f00000000; selp.u32 %d, 1, 0, %p0;", tiny, result="u4"
    )
    assert got.tolist() == [1, 1, 0, 1, 0]


def test_saturation(compute):
    values = np.array([-1, 0, 0.25, 1, 7, INF, -INF, NAN], "f4")
    got = compute("add.sat.f32 %d, %x0, 0f00000000;", values, result="f4")
    assert bits(got) == bits(np.array([0, 0, 0.25, 1, 1, 1, 0, 0], "f4"))


FUNCTIONS = {
    "rcp.approx.ftz.f32": lambda x: 1 / x, "rcp.rn.f32": lambda x: 1 / x,
    "sqrt.rn.f32": np.sqrt, "sqrt.approx.f32": np.sqrt,
    "rsqrt.approx.f32": lambda x: 1 / np.sqrt(x), "sin.approx.f32": np.sin,
    "cos.approx.f32": np.cos, "lg2.approx.f32": np.log2, "ex2.approx.ftz.f32": np.exp2,
    "tanh.approx.f32": np.tanh,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(compute, name):
    values = np.array([0.1, 0.5, 1, 2, 3.7, 25.0, INF, NAN, 0.0, -0.0, -2.0], "f4")
    got = compute(f"{name} %d, %x0;", values, result="f4")
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name](values.astype("f8")).astype("f4")
    np.testing.assert_allclose(got, want, rtol=2e-7, atol=1e-7)


def test_square_roots_and_reciprocals_of_doubles(compute):
    values = np.array([0.1, 2, 3, 1e300, 5e-324, 0, INF], "f8")
    with np.errstate(all="ignore"):
        assert bits(compute("sqrt.rn.f64 %d, %x0;", values, result="f8")) == bits(np.sqrt(values))
        assert bits(compute("rcp.rn.f64 %d, %x0;", values, result="f8")) == bits(1 / values)
    got = compute("rcp.approx.ftz.f64 %d, %x0;", values[:3], result="f8")
    np.testing.assert_allclose(got, 1 / values[:3], rtol=1e-6)
    assert (got.view("u8") & 0xFFFFFFFF == 0).all()


def test_testp(compute):
    values = np.array([0, 1, 1e-40, INF, NAN], "f4")
    want = {"finite": [1, 1, 1, 0, 0], "infinite": [0, 0, 0, 1, 0], "number": [1, 1, 1, 1, 0],
            "notanumber": [0, 0, 0, 0, 1], "normal": [0, 1, 0, 0, 0],
            "subnormal": [0, 0, 1, 0, 0]}  # fmt: skip
    for kind, expected in want.items():
        text = f"testp.{kind}.f32 %p0, %x0; selp.u32 %d, 1, 0, %p0;"
        assert compute(text, values, result="u4").tolist() == expected, kind
