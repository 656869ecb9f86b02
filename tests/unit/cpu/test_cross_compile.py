"""Kernels compiled for processors that are not here: what their assembly must and must not hold.

LLVM marks innermost loops and what it keeps on the stack in comments, by which both are found.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotplug_cpu.catalog import KERNELS
from hotplug_cpu.jit.target import OTHERS
from hotplug_cpu.products import QUANTISED

BYTES = {
    "avx2": "vpmaddubsw",
    "avx512": "vpmaddubsw",
    "windows": "vpmaddubsw",
    "avx512vnni": "vpdpbusd",
    "avxvnni": r"\{vex\}\s+vpdpbusd",
    "neon": "smull2?",
    "neon_dot": "sdot",
    "neon_i8mm": "sdot",
    "apple": "sdot",
}
"""The product of bytes of each target, as a pattern; other targets have only generic code."""

FLOATS = {name: "vfn?madd" if "x86" in OTHERS[name].triple else "fmla" for name in BYTES}
"""The fused multiplication and addition of floats."""

WORDS = {"avx512vnni": "vpdpwssd", "avxvnni": r"\{vex\}\s+vpdpwssd"}
"""The product of words of 16 bits, of targets that have one. Where LLVM finds it slow it writes two
other instructions (vpmaddwd, vpaddd) for some."""

OF_WIDEST = {"gemm_f32": "vfn?madd", "gemm_i16": "vpdpwssd|vpmaddwd"}
"""Products that have the widest vectors there are (`Target.lanes`)."""

ONE_TOKEN = [f"matvec_{name}" for name in QUANTISED]
WIDE = ["gemm_u4", "gemm_u5", "gemm_i8", "gemm_halves"]
PRODUCTS = [name for name in KERNELS if name.startswith(("matvec", "gemm"))]
ATTENTION = ["attention_f16", "attention_f32", "attention_split_f16", "attention_split_f32"]

# Wide products have more sums than most processors have registers, and leave some of them on the
# stack while they multiply a block. Vectors stored there, as a part of a loop's instructions:
ON_STACK = {"one token": 0.06, "wide": 0.21}

_COMMENT = re.compile(r"\s*(#|//|;).*")
_LABEL = re.compile(r"^([\w.$]+):")
_CALL = re.compile(r"^\s+(?:bl|callq?|jal|call)\s+(?:ra,\s*)?([\w.$@]+)", re.MULTILINE)
_VECTOR_SPILL = re.compile(r"^(v?mov\w*\s+%[xyz]mm|st[rp]\s+q).*Spill")
_OF_ONE_LANE = re.compile(r"^(v?p(extr|insr)[bwdq]|[us]mov|mov\s+v\d+\.[bhsd]\[\d\], [wx]\d)")
_MOST_OF_ONE_LANE = 0.1


def compiled(target: str, kernels: list[str], folder: Path) -> dict[str, str]:
    """Assembly of kernels by name."""
    command = [sys.executable, "-m", "hotplug_cpu.jit.cross", target, *kernels]
    subprocess.run([*command, "--assembly", str(folder)], check=True, capture_output=True)
    return {name: (folder / f"{name}.s").read_text() for name in kernels}


def loops(text: str) -> Iterator[list[str]]:
    """Instructions of each innermost loop: from its first block to the last that jumps there."""
    header, blocks = "", [["", ""]]
    for line in text.splitlines():
        label = _LABEL.match(line)
        if label:
            blocks.append([label[1], ""])
        if "This Inner Loop Header" in line:
            header = blocks[-1][0]
            blocks[-1][0] = f"!{header}"
        elif not label and line.startswith("\t") and not line.startswith("\t."):
            blocks[-1][1] += line.strip() + "\n"
    for number, (name, _) in enumerate(blocks):
        if name.startswith("!"):
            jump = re.compile(re.escape(name[1:]) + r"\b")
            last = max(
                (n for n, (_, code) in enumerate(blocks) if n >= number and jump.search(code)),
                default=number,
            )
            lines = "".join(code for _, code in blocks[number : last + 1]).splitlines()
            yield [line for line in lines if not _COMMENT.fullmatch(line)]


def count(pattern: re.Pattern[str] | str, loop: list[str]) -> int:
    return sum(re.match(pattern, line) is not None for line in loop)


def loops_with(pattern: str, text: str) -> list[list[str]]:
    return [loop for loop in loops(text) if count(pattern, loop)]


def check(target: str, name: str, text: str) -> None:
    """What holds of every kernel, and of those that matter most."""
    outside = [to for to in _CALL.findall(text) if not re.search(rf"^{re.escape(to)}:", text, re.M)]
    assert not outside, f"{name} calls {outside}"
    if target not in BYTES:
        return
    if name in WIDE:  # products of bytes may be a loop of their own, within that of floats
        assert re.search(rf"^\s+({FLOATS[target]})", text, re.M), f"{name} has no fused products"
    elif name in PRODUCTS or name in ATTENTION:
        assert loops_with(FLOATS[target], text), f"{name} has no fused products in any loop"
    if name in ONE_TOKEN or name in WIDE:
        check_bytes(target, name, text)
    if name == "gemm_i16" and target in WORDS:
        assert loops_with(WORDS[target], text), f"{name} has no {WORDS[target]} in any loop"
    if name in OF_WIDEST and OTHERS[target].lanes == 16:
        check_width(OF_WIDEST[name], text)


def check_width(products: str, text: str) -> None:
    """Every product has registers of 512 bits, in the loops of all four micro-kernels."""
    found = loops_with(products, text)
    assert len(found) == 4
    for loop in found:
        assert count(f"({products}).*%zmm", loop) == count(products, loop), "\n".join(loop)


def check_bytes(target: str, name: str, text: str) -> None:
    wide = name in WIDE
    pattern = "smmla" if wide and target == "neon_i8mm" else BYTES[target]
    found = loops_with(pattern, text)
    assert found, f"{name} has no {pattern} in any loop"
    for loop in found:
        assert count(_OF_ONE_LANE, loop) <= _MOST_OF_ONE_LANE * len(loop), "\n".join(loop)
    if not wide:
        found = [min(found, key=lambda loop: count(pattern, loop))]  # several tokens have more
    for loop in found:
        share = ON_STACK["wide" if wide else "one token"]
        assert count(_VECTOR_SPILL, loop) <= share * len(loop), "\n".join(loop)


@pytest.mark.parametrize("target", ["avx2", "neon_i8mm"])
def test_products_of_bytes(target: str, tmp_path: Path) -> None:
    for name, text in compiled(target, ["gemm_u4", "matvec_q4_1"], tmp_path).items():
        check(target, name, text)


def test_products_of_words_and_floats_have_512_bits(tmp_path: Path) -> None:
    for name, text in compiled("avx512vnni", [*OF_WIDEST], tmp_path).items():
        check("avx512vnni", name, text)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("target", OTHERS)
def test_all_kernels(target: str, tmp_path: Path) -> None:
    for name, text in compiled(target, list(KERNELS), tmp_path).items():
        check(target, name, text)


@pytest.mark.slow
@pytest.mark.parametrize("target", BYTES)
def test_float_products_stay_in_registers(target: str, tmp_path: Path) -> None:
    text = compiled(target, ["gemm_f32"], tmp_path)["gemm_f32"]
    for loop in loops_with(FLOATS[target], text):
        assert not count(_VECTOR_SPILL, loop), "\n".join(loop)


def test_loops_are_found() -> None:
    text = """
f:
	mov	x1, x2
.L1:                                    // =>This Loop Header: Depth=1
.L2:                                    //   Parent Loop BB0_1 Depth=1
                                        // =>  This Inner Loop Header: Depth=2
	.loc	1
	fmla	v0.4s, v1.4s, v2.4s
	str	q0, [sp, #16]                   // 16-byte Spill
	b.ne	.L2
.L3:
	b.ne	.L1
"""
    (loop,) = loops(text)
    assert [line.split()[0] for line in loop] == ["fmla", "str", "b.ne"]
    assert count(_VECTOR_SPILL, loop) == 1
