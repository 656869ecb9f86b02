"""Instructions on bits against Python's integers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

WORDS = np.array([0, 1, 2, 3, 0x80000000, 0xFFFFFFFF, 0x12345678, 0xDEADBEEF, 0x7FFFFFFF], "u4")
LONGS = np.array(
    [0, 1, 2**32, 2**63, 2**64 - 1, 0x123456789ABCDEF0, 0xFFFFFFFF, 2**53 + 1, 2**63 - 1], "u8"
)


def crossed(*columns):
    rows = list(itertools.product(*(column.tolist() for column in columns)))
    listed = list(zip(*rows, strict=True))
    return [np.array(row, column.dtype) for row, column in zip(listed, columns, strict=True)]


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("opcode", ["and", "or", "xor"])
def test_logic(compute, opcode, bits):
    a, b = crossed(*2 * [LONGS.astype(f"u{bits // 8}")])
    got = compute(f"{opcode}.b{bits} %d, %x0, %x1;", a, b, result=a.dtype)
    assert got.tolist() == getattr(np, f"bitwise_{opcode}")(a, b).tolist()


def test_not_and_cnot(compute):
    assert compute("not.b32 %d, %x0;", WORDS, result="u4").tolist() == (~WORDS).tolist()
    assert compute("cnot.b32 %d, %x0;", WORDS, result="u4").tolist() == (WORDS == 0).tolist()


def test_logic_of_predicates(compute):
    a, b = crossed(np.array([0, 1], "u4"), np.array([0, 1], "u4"))
    text = """
        setp.ne.u32 %p0, %x0, 0;
        setp.ne.u32 %p1, %x1, 0;
        OP
        selp.u32 %d, 1, 0, %p2;
    """
    for line, want in {
        "and.pred %p2, %p0, %p1;": a & b,
        "or.pred %p2, %p0, %p1;": a | b,
        "xor.pred %p2, %p0, %p1;": a ^ b,
        "not.pred %p2, %p0;": 1 - a,
        "mov.pred %p2, 0;": 0 * a,
    }.items():
        assert compute(text.replace("OP", line), a, b, result="u4").tolist() == want.tolist(), line


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("opcode", ["shl.b", "shr.u", "shr.s", "shr.b"])
def test_shifts_by_any_amount(compute, opcode, bits):
    """From the width on, nothing is left, or the sign (amounts are not taken modulo the width)."""
    amounts = np.array([0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 2**31, 2**32 - 1], "u4")
    values, amount = crossed(LONGS.astype(f"u{bits // 8}"), amounts)
    kind = "i" if opcode == "shr.s" else "u"
    got = compute(f"{opcode}{bits} %d, %x0, %x1;", values, amount, result=f"{kind}{bits // 8}")
    signed = values.view(f"{kind}{bits // 8}").tolist()
    if opcode == "shl.b":
        want = [
            v << min(n, 64) & (1 << bits) - 1 for v, n in zip(signed, amount.tolist(), strict=True)
        ]
    else:
        want = [v >> min(n, 64) for v, n in zip(signed, amount.tolist(), strict=True)]
    assert got.tolist() == want


def test_shifts_by_constants(compute):
    assert compute("shl.b32 %d, %x0, 5;", WORDS, result="u4").tolist() == (WORDS << 5).tolist()
    assert compute("shl.b32 %d, %x0, 32;", WORDS, result="u4").tolist() == [0] * WORDS.size
    signed = WORDS.view("i4")
    assert compute("shr.s32 %d, %x0, 40;", signed, result="i4").tolist() == (signed >> 31).tolist()


def test_counts(compute):
    for bits, values in ((32, WORDS), (64, LONGS)):
        listed = values.tolist()
        assert compute(f"popc.b{bits} %d, %x0;", values, result="u4").tolist() == [
            value.bit_count() for value in listed
        ]
        assert compute(f"clz.b{bits} %d, %x0;", values, result="u4").tolist() == [
            bits - value.bit_length() for value in listed
        ]
        assert compute(f"bfind.u{bits} %d, %x0;", values, result="u4").tolist() == [
            (value.bit_length() - 1) % 2**32 for value in listed
        ]
        assert compute(f"brev.b{bits} %d, %x0;", values, result=values.dtype).tolist() == [
            int(f"{value:0{bits}b}"[::-1], 2) for value in listed
        ]


def test_bfind_of_signed_numbers(compute):
    values = np.array([0, -1, 1, -2, 5, -(2**31), 2**31 - 1], "i4")
    got = compute("bfind.s32 %d, %x0;", values, result="i4")
    assert got.tolist() == [-1, -1, 0, 0, 2, 30, 30]
    got = compute("bfind.shiftamt.u32 %d, %x0;", np.array([0, 1, 2**31], "u4"), result="i4")
    assert got.tolist() == [-1, 31, 0]


def field(value, start, length, bits, *, signed):
    """The pseudo code of the manual."""
    most = bits - 1
    position, length = start & 255, length & 255
    sign = 0 if not signed or length == 0 else value >> min(position + length - 1, most) & 1
    result = 0
    for index in range(bits):
        inside = index < length and position + index <= most
        bit = value >> (position + index) & 1 if inside else sign
        result |= bit << index
    return result


@pytest.mark.parametrize("type_", ["u32", "s32", "u64", "s64"])
def test_bfe(compute, type_):
    values = WORDS if type_.endswith("32") else LONGS
    starts = np.array([0, 1, 7, 31, 32, 40, 63, 64, 255, 256], "u4")
    value, start, length = crossed(values, starts, starts)
    bits = int(type_[1:])
    got = compute(f"bfe.{type_} %d, %x0, %x1, %x2;", value, start, length, result=values.dtype)
    want = [
        field(*row, bits, signed=type_[0] == "s")
        for row in zip(value.tolist(), start.tolist(), length.tolist(), strict=True)
    ]
    assert got.tolist() == want


@pytest.mark.parametrize("bits", [32, 64])
def test_bfi(compute, bits):
    values = WORDS if bits == 32 else LONGS
    starts = np.array([0, 4, 31, 32, 60, 64, 255], "u4")
    a, start, length = crossed(values, starts, starts)
    b = ~a * 3
    got = compute(f"bfi.b{bits} %d, %x0, %x1, %x2, %x3;", a, b, start, length, result=a.dtype)
    want = []
    for x, y, s, n in zip(a.tolist(), b.tolist(), start.tolist(), length.tolist(), strict=True):
        mask = ((1 << n) - 1) << s & (1 << bits) - 1
        want.append(y & ~mask | (x << s) & mask)
    assert got.tolist() == want


def test_prmt(compute):
    selectors = np.array([0x3210, 0x7654, 0x0123, 0x7604, 0xBA98, 0xFFFF, 0x8888, 0x5410], "u4")
    a, b, selector = crossed(WORDS, WORDS[::-1], selectors)
    got = compute("prmt.b32 %d, %x0, %x1, %x2;", a, b, selector, result="u4")
    want = []
    for x, y, s in zip(a.tolist(), b.tolist(), selector.tolist(), strict=True):
        both = (x | y << 32).to_bytes(8, "little")
        chosen = [both[s >> 4 * i & 7] for i in range(4)]
        signs = [s >> 4 * i & 8 for i in range(4)]
        picked = [(255 if c & 128 else 0) if n else c for c, n in zip(chosen, signs, strict=True)]
        want.append(int.from_bytes(bytes(picked), "little"))
    assert got.tolist() == want


@pytest.mark.parametrize("table", [0x00, 0xC0, 0x96, 0xE8, 0x1A, 0xFF])
def test_lop3(compute, table):
    a, b, c = crossed(WORDS, WORDS, WORDS[::3])
    got = compute(f"lop3.b32 %d, %x0, %x1, %x2, {table};", a, b, c, result="u4")
    want = np.zeros_like(a)
    for bit in range(32):
        index = (a >> bit & 1) * 4 + (b >> bit & 1) * 2 + (c >> bit & 1)
        want |= (table >> index & 1).astype("u4") << np.uint32(bit)
    assert got.tolist() == want.tolist()


@pytest.mark.parametrize("mode", ["clamp", "wrap"])
@pytest.mark.parametrize("direction", ["l", "r"])
def test_shf(compute, direction, mode):
    amounts = np.array([0, 1, 31, 32, 33, 100], "u4")
    low, high, amount = crossed(WORDS, WORDS, amounts)
    text = f"shf.{direction}.{mode}.b32 %d, %x0, %x1, %x2;"
    got = compute(text, low, high, amount, result="u4")
    want = []
    for x, y, n in zip(low.tolist(), high.tolist(), amount.tolist(), strict=True):
        shift = min(n, 32) if mode == "clamp" else n & 31
        both = x | y << 32
        want.append((both << shift >> 32 if direction == "l" else both >> shift) & 0xFFFFFFFF)
    assert got.tolist() == want
