"""What steps of a plan have to do at least: bytes to move and operations, by the nodes' shapes.

Bytes are those of operands and results, each once, as if caches held nothing between steps and
everything within one. Operations are the multiplications and additions of products and attention;
of other steps they are too few to matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hotplug.node import Node

__all__ = ["Roof", "Work", "work_of"]

_BYTES_PER_FLOAT = {"bytes": 1.125, "words": 2.125, "floats": 4}
"""Of activations in each form: 32 bytes with a scale and a sum, or 32 words with a scale."""


@dataclass(frozen=True, slots=True)
class Work:
    """Bytes to move, operations, and whether these are on bytes, words or floats."""

    nbytes: float
    operations: float
    on: str = "floats"

    def __add__(self, other: Work) -> Work:
        on = other.on if self.on == "floats" else self.on
        return Work(self.nbytes + other.nbytes, self.operations + other.operations, on)


@dataclass(frozen=True, slots=True)
class Roof:
    """What a machine can do in a second at most: bytes read, operations on floats and on bytes."""

    bandwidth: float
    peak_f32: float
    peak_i8: float

    def seconds(self, work: Work) -> float:
        """The least time that some work can take."""
        peaks = {"bytes": self.peak_i8, "words": self.peak_i8 / 2, "floats": self.peak_f32}
        return max(work.nbytes / self.bandwidth, work.operations / peaks[work.on])


def work_of(kernel: str, nodes: Sequence[Node], start: int) -> Work:
    """What a step has to do.

    Args:
        kernel: the step's.
        nodes: what it computes.
        start: tokens in the cache before the first of this batch.
    """
    for node in nodes:
        if node.op == "matmul":
            return _product(kernel, node, nodes[-1])
        if node.op == "scaled_dot_product_attention":
            combines = kernel == "attention_combine"
            return Work(2 * node.type.nbytes, 0) if combines else _attention(node, start)
    if kernel.startswith(("quantise", "pack")):
        x = nodes[-1]
        return Work(x.type.nbytes + _laid_out(kernel, x), 0)
    return _simple(kernel, nodes)


def _product(kernel: str, node: Node, last: Node) -> Work:
    x, weights = node.operands
    tokens = node.type.size // node.shape[-1]
    added = last.type.nbytes if last is not node else 0
    on = "floats" if kernel.endswith("_f32") else "words" if kernel == "gemm_i16" else "bytes"
    activations = _BYTES_PER_FLOAT[on] * x.type.size
    nbytes = weights.type.nbytes + activations + node.type.nbytes + added
    return Work(nbytes, 2.0 * tokens * weights.type.size, on)


def _attention(node: Node, start: int) -> Work:
    q, keys, values = node.operands[:3]
    tokens, heads, width = q.shape
    seen = [start + index + 1 for index in range(tokens)]
    row = keys.type.nbytes // keys.shape[0] + values.type.nbytes // values.shape[0]
    operations = 2.0 * heads * (width + values.shape[-1]) * sum(seen)
    return Work(q.type.nbytes + node.type.nbytes + row * seen[-1], operations)


def _simple(kernel: str, nodes: Sequence[Node]) -> Work:
    """Operands from outside and the result, of tables and caches only the rows that are touched."""
    last = nodes[-1]
    inside = set(nodes)
    total = 0.0
    for node in nodes:
        for operand in node.operands:
            if operand in inside or node.op in {"take", "scatter_rows"}:
                continue
            total += operand.type.nbytes
    if last.op == "scatter_rows":
        rows = last.operands[2]
        read = 0 if rows in inside else rows.type.nbytes
        return Work(total + read + last.dtype.nbytes(rows.type.size), 0)
    if last.op == "take":
        total += last.operands[0].dtype.nbytes(last.type.size)
    return Work(total + (_laid_out(kernel, last) or last.type.nbytes), 0)


def _laid_out(kernel: str, x: Node) -> float:
    """Bytes of activations that a kernel lays out for a product; 0 if it does not."""
    if "quantise" in kernel:
        form = "words" if kernel == "quantise_words" else "bytes"
        return _BYTES_PER_FLOAT[form] * x.type.size
    return x.type.nbytes if kernel.startswith("pack") else 0
