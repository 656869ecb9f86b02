"""Products with weights: which kernel, which form of activations.

blocks    activations as blocks of bytes, few tokens            `kernels.matvec`
floats    activations as they are, few tokens                   `kernels.matvec`
tiles     activations as tiles of bytes, many tokens            `kernels.gemm`
words     activations as blocks of words, many tokens           `kernels.gemm_wide`
rows      activations as they are, many tokens                  `kernels.gemm_wide`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hotplug.node import Node
from hotplug_cpu.jit.target import multiplies_words
from hotplug_cpu.kernels import panels
from hotplug_cpu.kernels.sizes import BLOCK
from hotplug_cpu.program import Address, Argument, KernelAddress, Rows, Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotplug_cpu.lowering import Lowering

__all__ = ["COPIES", "LEGACY", "QUANTISED", "SUPER", "TYPES", "emit", "form", "lay_out"]

LEGACY = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl")
"""Quantised types with blocks of 32 that have kernels."""

SUPER = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs")
"""Those with super-blocks of 256."""

QUANTISED = (*LEGACY, *SUPER)

_FEW_BYTES, _FEW_FLOATS = 5, 4
"""Tokens up to which weights are read as they lie; from there on unpacking them pays."""

_GRAIN = 4
"""Rows that a thread takes at once."""

COPIES = "copies"
"""How threads share a store in which each has a copy of its own."""

_PLAIN = ("f32", "f16", "bf16")
_PAGE = 4096
"""Bytes; rows a multiple of it apart fall on the same few lines of the first cache."""

_LANES = 8
_FOR_BYTES = {
    "q4_0": "gemm_u4",
    "q4_1": "gemm_u4",
    "q4_k": "gemm_u4",
    "q5_0": "gemm_u5",
    "q5_1": "gemm_u5",
    "q5_k": "gemm_u5",
    "q8_0": "gemm_i8",
    "iq4_nl": "gemm_i8",
    "q3_k": "gemm_halves",
    "iq4_xs": "gemm_i8",
    "q2_k": "gemm_halves",
    "q6_k": "gemm_halves",
}
TYPES = (*_PLAIN, *QUANTISED)
"""Types that weights and tables may have."""


def form(node: Node) -> str | None:
    """How a matmul wants its activations; None if no kernel computes it."""
    x, weights = node.operands if len(node.operands) == 2 else (node.operands[0],) * 2
    name = weights.dtype.name
    if (
        x.dtype.name != "f32"
        or len(weights.shape) != 2
        or not node.param("transpose_b")
        or node.type.size * x.type.size == 0
        or name not in TYPES
    ):
        return None
    tokens = x.type.size // x.shape[-1]
    rounds = node.param("precision") == "default"
    if rounds and tokens >= multiplies_words().get(name, tokens + 1) and x.shape[-1] % BLOCK == 0:
        return "words"
    if weights.dtype.quantised and rounds:
        return "blocks" if tokens <= _FEW_BYTES else "tiles"
    fits = weights.dtype.quantised or x.shape[-1] % _LANES == 0
    return "floats" if tokens <= _FEW_FLOATS and fits else "rows"


def lay_out(low: Lowering, kind: str, rows: Rows, x: Node) -> Rows:
    """Activations in a form for many tokens; a step if they do not lie so."""
    number, count = rows.number, rows.count
    if kind == "tiles":
        name, length, stride, chunk = "quantise_tiles", count // BLOCK, 0, 0
        store = Store(panels.quantised_bytes(number, count))
    elif kind == "words":
        name, length = "quantise_words", count // BLOCK
        stride, chunk = length * panels.WORDS_BLOCK, panels.CHUNK_WORDS * panels.WORDS_BLOCK
        store = Store(panels.words_bytes(number, count))
    elif rows.stride % _PAGE:
        return Rows(rows.start, rows.stride, number, count, chunk=4 * panels.CHUNK_FLOATS)
    else:
        name, length = "pack_rows", count
        stride, chunk = panels.PACKED_STRIDE, number * panels.PACKED_STRIDE
        store = Store(panels.packed_bytes(number, count))
    low.emit(name, (rows.start, rows.stride, number, length, Address(store)), store, (x,))
    return Rows(Address(store), stride, number, count, chunk=chunk)


def emit(
    low: Lowering, node: Node, x: Rows, out: Address, add: Rows | None, nodes: Sequence[Node]
) -> None:
    """The step of a product.

    Args:
        low: where the step goes.
        node: the matmul.
        x: its activations in the form that `form` says.
        out: where the result goes, contiguous.
        add: rows that are added, or None.
        nodes: the nodes that the step computes.
    """
    weights = node.inputs[1]
    assert weights is not None
    kind, dtype, rows = form(node), weights.dtype, weights.shape[0]
    plus: tuple[Argument, ...] = (0, 0) if add is None else (add.start, add.stride)
    source = (low.address(weights), weights.type.row_bytes, rows)
    if kind in {"blocks", "floats"}:
        count = x.count // (BLOCK if dtype.quantised else _LANES)
        grain = BLOCK if _feeds_gate(low, nodes[-1]) else _GRAIN
        words = (*source, count, x.start, x.stride, x.number, out, 4 * rows, *plus, x.copies, grain)
        own: dict[Store, object] = {out.store: (grain, rows)}
        if x.copies:
            own[x.start.store] = COPIES
        suffix = "_f32" if kind == "floats" else ""
        low.emit(f"matvec_{dtype.name}{suffix}", words, out.store, nodes, own=own)
        return
    at: tuple[Argument, ...] = (x.start, x.stride, x.chunk)
    if kind == "tiles":
        kernel, unpack = _FOR_BYTES[dtype.name], f"weights_{dtype.name}"
        count, size = x.count // BLOCK, panels.gemm_int8_scratch()
        chunk, at = panels.CHUNK_BLOCKS * BLOCK, (x.start,)
    elif kind == "words":
        kernel, unpack = "gemm_i16", f"words_{dtype.name}"
        count, size = x.count // BLOCK, panels.gemm_i16_scratch()
        chunk = panels.CHUNK_WORDS * BLOCK
    else:
        kernel, unpack = "gemm_f32", f"floats_{dtype.name}"
        count, size, chunk = x.count, panels.gemm_f32_scratch(), panels.CHUNK_FLOATS
    scratch = Store(size * low.threads)
    words = (KernelAddress(unpack), *source, count, dtype.nbytes(chunk), *at, x.number)
    rest = (out, 4 * rows, *plus, Address(scratch), size)
    low.emit(kernel, (*words, *rest), out.store, nodes, scratch)


def _feeds_gate(low: Lowering, node: Node) -> bool:
    """Whether a gate takes the result whose threads share columns in whole blocks."""
    users = low.graph.consumers[node]
    return node.shape[-1] % BLOCK == 0 and any(
        user.op == "swiglu" and user in low.left for user in users
    )
