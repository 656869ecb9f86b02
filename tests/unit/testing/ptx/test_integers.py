"""Integer arithmetic against Python's integers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

EDGES = {
    "s16": [0, 1, -1, 2, 7, -8, 12345, 32767, -32768],
    "u16": [0, 1, 2, 7, 12345, 32768, 65535],
    "s32": [0, 1, -1, 2, -3, 7, 65537, -65536, 2**31 - 1, -(2**31)],
    "u32": [0, 1, 2, 3, 7, 65537, 2**31, 2**32 - 1],
    "s64": [0, 1, -1, 5, -(2**40) - 3, 2**32 + 1, 2**63 - 1, -(2**63)],
    "u64": [0, 1, 5, 2**32 - 1, 2**32 + 1, 2**40 + 7, 2**63, 2**64 - 1],
}


def code(type_):
    return f"{'i' if type_[0] == 's' else 'u'}{int(type_[1:]) // 8}"


def pairs(type_):
    both = list(itertools.product(EDGES[type_], repeat=2))
    return [np.array(column, code(type_)) for column in zip(*both, strict=True)]


def wrap(value, type_):
    bits = int(type_[1:])
    value %= 1 << bits
    return value - (1 << bits) if type_[0] == "s" and value >> (bits - 1) else value


def truncated(a, b):
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


TWO = {
    "add.{t}": lambda a, b, t: wrap(a + b, t),
    "sub.{t}": lambda a, b, t: wrap(a - b, t),
    "mul.lo.{t}": lambda a, b, t: wrap(a * b, t),
    "mul.hi.{t}": lambda a, b, t: wrap(a * b >> int(t[1:]), t),
    "min.{t}": lambda a, b, t: min(a, b),
    "max.{t}": lambda a, b, t: max(a, b),
    "div.{t}": lambda a, b, t: wrap(truncated(a, b), t) if b else wrap(-1, t),
    "rem.{t}": lambda a, b, t: wrap(a - b * truncated(a, b), t) if b else a,
}


@pytest.mark.parametrize("type_", EDGES)
@pytest.mark.parametrize("name", TWO)
def test_arithmetic(compute, name, type_):
    a, b = pairs(type_)
    got = compute(f"{name.format(t=type_)} %d, %x0, %x1;", a, b, result=code(type_))
    want = [TWO[name](x, y, type_) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert got.tolist() == want


@pytest.mark.parametrize("type_", ["s16", "u16", "s32", "u32"])
def test_wide_products(compute, type_):
    a, b = pairs(type_)
    wide = f"{type_[0]}{2 * int(type_[1:])}"
    got = compute(f"mul.wide.{type_} %d, %x0, %x1;", a, b, result=code(wide))
    assert got.tolist() == [x * y for x, y in zip(a.tolist(), b.tolist(), strict=True)]


@pytest.mark.parametrize("part", ["lo", "hi"])
@pytest.mark.parametrize("type_", ["s32", "u32", "s64", "u64"])
def test_mad(compute, part, type_):
    a, b = pairs(type_)
    got = compute(f"mad.{part}.{type_} %d, %x0, %x1, %x0;", a, b, result=code(type_))
    shift = int(type_[1:]) if part == "hi" else 0
    want = [wrap((x * y >> shift) + x, type_) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert got.tolist() == want


def test_mad_wide(compute):
    a, b = pairs("s32")
    c = np.arange(a.size, dtype="i8") << 40
    got = compute("mad.wide.s32 %d, %x0, %x1, %x2;", a, b, c, result="i8")
    assert got.tolist() == (a.astype("i8") * b + c).tolist()


def test_saturating_sums(compute):
    a, b = pairs("s32")
    got = compute("add.sat.s32 %d, %x0, %x1;", a, b, result="i4")
    assert got.tolist() == np.clip(a.astype("i8") + b, -(2**31), 2**31 - 1).tolist()


@pytest.mark.parametrize("type_", ["s16", "s32", "s64"])
def test_neg_and_abs(compute, type_):
    values = np.array(EDGES[type_], code(type_))
    assert compute(f"neg.{type_} %d, %x0;", values, result=code(type_)).tolist() == [
        wrap(-value, type_) for value in EDGES[type_]
    ]
    assert compute(f"abs.{type_} %d, %x0;", values, result=code(type_)).tolist() == [
        wrap(abs(value), type_) for value in EDGES[type_]
    ]


def test_sums_with_carry_make_128_bits(compute):
    a, b = pairs("u64")
    text = """
        mov.b64 {%r0, %r1}, %x0;
        mov.b64 {%r2, %r3}, %x1;
        OP.cc.u32 %r4, %r0, %r2;
        OPc.cc.u32 %r5, %r1, %r3;
        OPc.u32 %r6, 0, 0;
        mov.b64 %d, {%r5, %r6};
    """
    for opcode, exact in (("add", int.__add__), ("sub", int.__sub__)):
        got = compute(text.replace("OP", opcode), a, b, result="u8")
        want = [(exact(x, y) >> 32) % 2**64 for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        assert got.tolist() == want, opcode


def test_products_with_carry_make_64_bits(compute):
    """The chain that compilers write for an upper half."""
    a, b = pairs("u32")
    text = """
        mad.lo.cc.u32 %r0, %x0, %x1, %x1;
        madc.hi.cc.u32 %r1, %x0, %x1, %x0;
        madc.hi.u32 %r2, 0, 0, 0;
        mov.b64 %d, {%r1, %r2};
    """
    got = compute(text, a, b, result="u8")
    want = [(x * y + y + (x << 32)) >> 32 for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert got.tolist() == want


SIGNS = {
    ("s32", "s32"): ("i1", "i1"), ("u32", "u32"): ("u1", "u1"),
    ("s32", "u32"): ("i1", "u1"), ("u32", "s32"): ("u1", "i1"),
}  # fmt: skip


@pytest.mark.parametrize("types", SIGNS)
def test_dp4a(compute, types):
    random = np.random.default_rng(1)
    a, b = random.integers(0, 2**32, (2, 50), dtype="u4")
    c = random.integers(-(2**20), 2**20, 50, dtype="i4")
    got = compute(f"dp4a.{types[0]}.{types[1]} %d, %x0, %x1, %x2;", a, b, c, result="i4")
    x, y = (
        value.view(dtype).reshape(-1, 4).astype("i8")
        for value, dtype in zip((a, b), SIGNS[types], strict=True)
    )
    assert got.tolist() == ((x * y).sum(1) + c).tolist()


def test_dp2a(compute):
    random = np.random.default_rng(1)
    a, b = random.integers(0, 2**32, (2, 50), dtype="u4")
    c = np.zeros(50, "i4")
    for half in ("lo", "hi"):
        got = compute(f"dp2a.{half}.s32.s32 %d, %x0, %x1, %x2;", a, b, c, result="i4")
        bytes_ = b.view("i1").reshape(-1, 4)[:, 2 * (half == "hi") :][:, :2].astype("i8")
        assert got.tolist() == (a.view("i2").reshape(-1, 2) * bytes_).sum(1).tolist()


@pytest.mark.parametrize("type_", EDGES)
@pytest.mark.parametrize(
    ("relation", "function"),
    [("eq", int.__eq__), ("ne", int.__ne__), ("lt", int.__lt__), ("le", int.__le__),
     ("gt", int.__gt__), ("ge", int.__ge__)],
)  # fmt: skip
def test_comparisons(compute, type_, relation, function):
    a, b = pairs(type_)
    text = f"setp.{relation}.{type_} %p0, %x0, %x1; selp.u32 %d, 1, 0, %p0;"
    got = compute(text, a, b, result="u4")
    assert got.tolist() == [function(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]


def test_comparisons_are_combined_with_predicates(compute):
    a, b = pairs("s32")
    text = """
        setp.lt.s32 %p0, %x0, 0;
        setp.lt.and.s32 %p1|%p2, %x0, %x1, !%p0;
        selp.u32 %r0, 1, 0, %p1;
        selp.u32 %r1, 2, 0, %p2;
        or.b32 %d, %r0, %r1;
    """
    got = compute(text, a, b, result="u4")
    less, positive = a < b, a >= 0
    assert got.tolist() == ((less & positive) + 2 * (~less & positive)).tolist()


def test_set_and_slct_and_sad(compute):
    a, b = pairs("s32")
    assert compute("set.lt.u32.s32 %d, %x0, %x1;", a, b, result="u4").tolist() == [
        2**32 - 1 if less else 0 for less in a < b
    ]
    assert compute("slct.s32.s32 %d, %x0, %x1, %x1;", a, b, result="i4").tolist() == (
        np.where(b >= 0, a, b).tolist()
    )
    near = a // 8, b // 8
    assert (
        compute("sad.s32 %d, %x0, %x1, 1;", *near, result="i4").tolist()
        == (np.abs(near[0] - near[1]) + 1).tolist()
    )
