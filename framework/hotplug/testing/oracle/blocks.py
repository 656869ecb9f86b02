"""Quantised values as the blocks they are made of, through the ops that move blocks.

An array of blocks has one element a block: its last axis is shorter by the block length.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hotplug.dtypes import DType
from hotplug.node import Node
from hotplug.tensor import HostTensor
from hotplug.testing.oracle.table import Array
from hotplug.testing.oracle.values import to_bytes

__all__ = ["moved_blocks"]


def moved_blocks(
    node: Node, values: Mapping[Node, Array], leaves: Mapping[str, HostTensor]
) -> Array:
    """The blocks of a quantised node: those of its operand where it moves them, else new ones.

    Args:
        node: quantised.
        values: of every node of its graph.
        leaves: by name; a state that is absent is zeros.
    """
    if node.is_leaf:
        given = leaves.get(node.name)
        data = to_bytes(values[node], node.dtype) if given is None else given.data
        return _as_blocks(data, node.dtype, node.shape)
    if node.op == "index_select":
        return _selected(moved_blocks(node.operands[0], values, leaves), values[node.operands[1]])
    source = node.operands[-1]
    if source.dtype == node.dtype:
        blocks = moved_blocks(source, values, leaves)
    else:
        encoded = to_bytes(values[source], node.dtype)
        blocks = _as_blocks(encoded, node.dtype, source.shape)
    if node.op == "scatter_rows":
        table = moved_blocks(node.operands[0], values, leaves)
        return _scattered(table, values[node.operands[1]], blocks)
    return _moved(node, blocks)


def _as_blocks(data: npt.NDArray[np.uint8], dtype: DType, shape: tuple[int, ...]) -> Array:
    return data.view(f"V{dtype.block_bytes}").reshape(*shape[:-1], shape[-1] // dtype.block)


def _selected(table: Array, indices: Array) -> Array:
    result = np.zeros((len(indices), *table.shape[1:]), table.dtype)
    for row, index in enumerate(indices):
        if 0 <= index < len(table):
            result[row] = table[index]
    return result


def _scattered(table: Array, indices: Array, rows: Array) -> Array:
    result = table.copy()
    for row, index in enumerate(indices):
        if 0 <= index < len(result):
            result[index] = rows[row]
    return result


def _moved(node: Node, blocks: Array) -> Array:
    """Views by their rules; casts and copies leave blocks where they are."""
    block = node.dtype.block
    params = dict(node.params)
    if node.op == "reshape":
        return blocks.reshape(*node.shape[:-1], node.shape[-1] // block)
    if node.op == "permute":
        return blocks.transpose(params["axes"])  # type: ignore[arg-type]
    if node.op == "transpose":
        return np.swapaxes(blocks, params["axis0"], params["axis1"])  # type: ignore[arg-type]
    if node.op == "slice":
        return blocks[_box(node, block)]
    return blocks


def _box(node: Node, block: int) -> tuple[slice, ...]:
    starts, stops, steps = (dict(node.params)[name] for name in ("starts", "stops", "steps"))
    assert isinstance(starts, tuple)
    assert isinstance(stops, tuple)
    steps = steps if isinstance(steps, tuple) else (1,) * len(node.shape)
    box = [slice(*edges) for edges in zip(starts, stops, steps, strict=True)]
    return (*box[:-1], slice(int(starts[-1]) // block, int(stops[-1]) // block))
