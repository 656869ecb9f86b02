"""Scaled dot-product attention: which kernels, with which arguments."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hotplug.node import Node
from hotplug_cpu.kernels import panels
from hotplug_cpu.program import Address, Argument, Store

if TYPE_CHECKING:
    from hotplug_cpu.lowering import Lowering

__all__ = ["attention"]

_LANES = 8
_FEW = 5
"""Tokens up to which threads share the rows of the cache, and not the queries alone."""

_SPLITS_PER_THREAD = 4


def attention(low: Lowering, node: Node) -> bool:
    """Rule of `scaled_dot_product_attention`."""
    q, k, v, mask, positions, sinks = node.inputs
    assert q is not None
    assert k is not None
    assert v is not None
    if mask is not None or not _fits(q, k, v, positions, sinks):
        return False
    if not all(_heads_together(low, x) for x in (q, k, v)):
        return False
    if not low.is_contiguous(*(x for x in (positions, sinks) if x is not None)):
        return False
    words: list[Argument] = []
    for x in (q, k, v):
        words += [low.address(x), low.places[x].layout.strides[0] * x.dtype.block_bytes]
    words.append(0 if positions is None else low.address(positions))
    out = Address(low.new(node).store)
    result = (0 if sinks is None else low.address(sinks), out, node.type.size * 4 // q.shape[0])
    heads, dtype = q.shape[1], k.dtype.name
    if q.shape[0] > _FEW:
        size = panels.attention_scratch(q.shape[2], v.shape[2])
        scratch = Store(size * low.threads)
        words += (*result, *_shape_words(node), Address(scratch), size)
        low.emit(f"attention_{dtype}", words, out.store, (node,), scratch)
        return True
    splits = _splits(low.threads, k)
    size = panels.attention_split_scratch(heads, q.shape[2])
    scratch = Store(size * low.threads)
    partials = Store(panels.attention_partials(q.shape[0], heads, splits, v.shape[2]))
    words += (*_shape_words(node), splits, Address(partials), Address(scratch), size)
    low.emit(f"attention_split_{dtype}", words, partials, (node,), scratch)
    combine = (Address(partials), *result, q.shape[0], heads, v.shape[2], splits)
    low.emit("attention_combine", combine, out.store, (node,))
    return True


def _fits(q: Node, k: Node, v: Node, positions: Node | None, sinks: Node | None) -> bool:
    return (
        len(q.shape) == len(k.shape) == len(v.shape) == 3
        and q.dtype.name == "f32"
        and k.dtype.name in {"f16", "f32"}
        and v.dtype == k.dtype
        and k.type.size * v.type.size > 0
        and q.shape[2] % _LANES == v.shape[2] % _LANES == 0
        and (positions is None or positions.dtype.name == "i32")
        and (sinks is None or sinks.dtype.name == "f32")
    )


def _heads_together(low: Lowering, x: Node) -> bool:
    strides = low.places[x].layout.strides
    return strides[2] == 1 and (strides[1] == x.shape[2] or x.shape[1] == 1)


def _shape_words(node: Node) -> tuple[int, ...]:
    q, k, v = node.operands[:3]
    get = dict(node.params).__getitem__
    scale = float(get("scale") or 0) or 1 / math.sqrt(q.shape[2])  # type: ignore[arg-type]
    shape = (*q.shape[:2], k.shape[1], q.shape[2], v.shape[2], k.shape[0])
    softcap = float(get("softcap"))  # type: ignore[arg-type]
    return (*shape, _bits(scale), _bits(softcap), int(get("window")), int(bool(get("causal"))))  # type: ignore[arg-type]


def _splits(threads: int, k: Node) -> int:
    """Parts of the context: all threads get as many of them."""
    if threads == 1:
        return 1
    return threads * max(1, min(_SPLITS_PER_THREAD, k.shape[0] // (panels.KEYS * threads)))


def _bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))
