"""Recurrences along tokens: a work-group for some columns of a head's state, or for some heads."""

from __future__ import annotations

from collections.abc import Sequence

from hotplug.gpu.catalog.table import (
    Lowering,
    Part,
    i32,
    i64,
    number,
    plain_type,
    present,
    real,
    row,
)
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import LIMIT, Tensor, view_bytes
from hotplug.node import Node

__all__: list[str] = []

_OPERANDS = {
    "selective_scan": (4, 3, 0, 2, 1),
    "wkv6": (0, 1, 2, 4, 3),
    "wkv7": (0, 2, 3, 1, 4, 5),
    "gated_linear_attention": (0, 1, 2, 3),
    "gated_delta_rule": (0, 1, 2, 3, 4),
}
"""Positions of query, key, value, decay, and up to two more that a rule has of its own."""

_LONGEST_KEY = 1024  # of whose rows a group's items hold 64 each


def _check(node: Node, capabilities: Capabilities) -> str:
    _, n, heads, d = node.operands[-1].shape
    if n > _LONGEST_KEY:
        return f"keys of more than {_LONGEST_KEY} elements"
    if node.shape[0] * heads * d > LIMIT:
        return f"{node.type} has too many heads"
    return plain_type(node, capabilities)


@row(*_OPERANDS, check=_check)
def _recurrence(
    lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor
) -> None:
    tensors = present(*operands)
    state = tensors[-1]
    batch, n, heads, d = state.shape
    roles = [tensors[position] for position in _OPERANDS[node.op]]
    arguments: list[Part] = []
    for tensor in (*roles, *[state] * (6 - len(roles))):
        arguments += [tensor.place, _view(tensor)]
    geometry = _geometry(n, heads, d, is_cpu=lowering.capabilities.is_cpu)
    across = -(-d // (geometry["LANES"] * geometry["COLUMNS"]))
    down = -(-heads // geometry["HEADS"])
    defines = {"TYPE": roles[2].dtype.name, "STATE": y.dtype.name, node.op.upper(): 1, **geometry}
    lowering.launch(
        Variant.of("recurrence", defines), batch * across * down, geometry["ITEMS"],
        *arguments, state.place, view_bytes(state.at, state.strides), y.place, i64(y.at),
        i32(y.shape[1] - n), i32(heads), i32(heads // roles[1].shape[2]), i32(n), i32(d),
        i32(across), i32(down), number(y.dtype.name, _scale(node)),
    )  # fmt: skip


def _view(tensor: Tensor) -> bytes:
    """A View over batch, token, head and row of an operand that may lack some of them."""
    strides = [0 if n == 1 else s for n, s in zip(tensor.shape, tensor.strides, strict=True)]
    if len(strides) < 3:
        strides = [0, 0, *strides]
    return view_bytes(tensor.at, strides)


def _scale(node: Node) -> float:
    if node.op not in {"gated_linear_attention", "gated_delta_rule"}:
        return 1.0
    return real(node, "scale") or float(node.operands[0].shape[-1] ** -0.5)


def _geometry(n: int, heads: int, d: int, *, is_cpu: bool) -> dict[str, int]:
    """How a head's n x d state is shared out; powers of two, so that there are few variants."""
    if is_cpu:
        columns = 1 if d == 1 else min(16, max(4, _power(d)))  # a vector, or none
        return _sizes(rows=_power(n), columns=columns, lanes=1, split=1, heads=1)
    split = min(16, max(1, _power(n) // 4))
    rows = _power(n) // split
    columns = min(4, _power(d), max(1, 64 // rows))
    lanes = min(8, max(1, _power(d) // columns))
    return _sizes(
        rows=rows, columns=columns, lanes=lanes, split=split,
        heads=max(1, min(_power(heads), 128 // (lanes * split))),
    )  # fmt: skip


def _sizes(*, rows: int, columns: int, lanes: int, split: int, heads: int) -> dict[str, int]:
    return {
        "ROWS": rows, "COLUMNS": columns, "LANES": lanes, "SPLIT": split, "HEADS": heads,
        "ITEMS": lanes * split * heads,
    }  # fmt: skip


def _power(number_of: int) -> int:
    """The least power of two that is not below a count."""
    return 1 << max(0, number_of - 1).bit_length()
