"""What compiled kernels can do: patterns of nodes, and the steps that they become.

A node may be *left to its users*, who then compute both: a norm or a gate whose result goes to
products as bytes, a product whose result is added to something, a rotation whose result goes into a
cache, rows of a table that are cast. A rule returns False where its kernels do not fit, before it
has made any step.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hotplug.graph import Graph
from hotplug.layout import Layout
from hotplug.node import Node
from hotplug.patterns import products_in_sum
from hotplug.verify import reads_state
from hotplug_cpu import mixing, products, rotation
from hotplug_cpu.kernels.sizes import BLOCK, x_row_bytes
from hotplug_cpu.program import Address, Argument, Place, Rows, Store

if TYPE_CHECKING:
    from hotplug_cpu.lowering import Lowering

__all__ = ["RULES", "left_to_users"]

_LANES = 8
_LONG = 8192  # elements; from there on threads had better share even a single row
_INDICES = ("i32", "i64")


def left_to_users(graph: Graph) -> set[Node]:
    """Nodes that get no step of their own, views of them included."""
    results = graph.results
    left: set[Node] = set()
    for node in graph.nodes:
        fits = _LEAVE.get(node.op)
        if fits is not None and node not in results and not reads_state(node):
            left.update(fits(graph, node))
    return left


def _leave_for_bytes(graph: Graph, node: Node) -> tuple[Node, ...]:
    """A value that only products use, and only as bytes."""
    users = graph.consumers[node]
    fits = _is_f32(*node.operands) and all(
        user.op == "matmul" and user.inputs[1] != node and products.form(user) == "blocks"
        for user in users
    )
    return (node,) if fits and users else ()


def _leave_take(graph: Graph, node: Node) -> tuple[Node, ...]:
    """Rows of a table in fewer bits that are only used as f32."""
    users = graph.consumers[node]
    fits = len(users) == 1 and users[0].op == "cast" and _is_f32(users[0])
    return (node,) if fits and node.dtype.name in {"f16", "bf16"} else ()


def _leave_product(graph: Graph, node: Node) -> tuple[Node, ...]:
    """A product that is only used in a sum."""
    users = graph.consumers[node]
    pair = _added(users[0]) if len(users) == 1 else None
    return (node,) if pair is not None and pair[0] == node else ()


def _added(node: Node) -> tuple[Node, Node] | None:
    """A sum as the product that it belongs to and what is added to that."""
    pairs = products_in_sum(node)
    return next((pair for pair in pairs if products.form(pair[0]) is not None), None)


def _leave_rotation(graph: Graph, node: Node) -> tuple[Node, ...]:
    """A rotation that only goes into a cache, maybe reshaped on the way."""
    users = graph.consumers[node]
    path = [node]
    if len(users) == 1 and users[0].op == "reshape" and users[0] not in graph.results:
        path.append(users[0])
        users = graph.consumers[users[0]]
    fits = (
        rotation.fits(node)
        and len(users) == 1
        and _fits_cache(users[0])
        and users[0].inputs[2] == path[-1]
        and path[-1] not in users[0].inputs[:2]
    )
    return tuple(path) if fits else ()


def _fits_cache(node: Node) -> bool:
    if node.op != "scatter_rows":
        return False
    table, indices, rows = node.operands
    width = table.type.size // max(1, table.shape[0])
    return (
        table.dtype.name in {"f16", "f32"}
        and rows.dtype.name == "f32"
        and indices.dtype.name in _INDICES
        and width % _LANES == 0
        and rows.type.size > 0
    )


_LEAVE: dict[str, Callable[[Graph, Node], tuple[Node, ...]]] = {
    "matmul": _leave_product,
    "rms_norm": _leave_for_bytes,
    "rope": _leave_rotation,
    "swiglu": _leave_for_bytes,
    "take": _leave_take,
}


def _is_f32(*nodes: Node) -> bool:
    return all(node.dtype.name == "f32" for node in nodes)


# --- products


def _matmul(low: Lowering, node: Node) -> bool:
    return products.form(node) is not None and _product(low, node, node, None)


def _product(low: Lowering, product: Node, result: Node, other: Node | None) -> bool:
    weights = product.inputs[1]
    assert weights is not None
    add = None if other is None else low.rows(other)
    if not low.is_contiguous(weights) or (other is not None and add is None):
        return False
    x = _activations(low, product)
    if x is None:
        return False
    out = low.new(result)
    if add is not None and add.number == 1:
        add = Rows(add.start, 0, 1, add.count)
    nodes = (product,) if other is None else (product, result)
    products.emit(low, product, x, Address(out.store), add, nodes)
    return True


def _activations(low: Lowering, product: Node) -> Rows | None:
    """The left operand in the form that the product takes."""
    x = product.inputs[0]
    assert x is not None
    form = products.form(product)
    if form == "blocks":
        return _bytes(low, x)
    rows = low.rows(x)
    if rows is None or form is None or form == "floats":
        return rows
    key = (form, x)
    if key not in low.laid_out:
        low.laid_out[key] = products.lay_out(low, form, rows, x)
    return low.laid_out[key]


def _bytes(low: Lowering, x: Node) -> Rows | None:
    """A value as blocks of bytes, made when first asked for."""
    if x in low.bytes:
        return low.bytes[x]
    number, count = x.type.size // x.shape[-1], x.shape[-1]
    stride = x_row_bytes(count // BLOCK)
    # A single row is made by each thread for itself, sooner than they wait for each other. A gate
    # takes longer, but each thread's part needs nothing of the others'.
    alone = number == 1 and (x in low.places or x.op != "swiglu") and count <= _LONG
    copies = stride if alone and low.threads > 1 else 0
    store = Store(stride * (low.threads if copies else number))
    if not _emit_bytes(low, x, store, copies):
        return None
    low.bytes[x] = Rows(Address(store), stride, number, count, copies)
    return low.bytes[x]


def _emit_bytes(low: Lowering, x: Node, store: Store, copies: int) -> bool:
    out = Address(store)
    own: dict[Store, object] = {store: products.COPIES} if copies else {}
    if x in low.places:
        rows = low.rows(x)
        if rows is None:
            return False
        words = (*_row_words(rows), rows.count // BLOCK, out, copies)
        low.emit("quantise", words, store, (x,), own=own)
        return True
    if x.op == "rms_norm":
        rest = (x.shape[-1] // BLOCK, out, copies)
        return _norm(low, x, "rms_norm_quantise", rest, store, own)
    gate, up = (low.rows(operand) for operand in x.inputs if operand is not None)
    if gate is None or up is None:
        return False
    shared = {side.start.store: (BLOCK, side.count) for side in (gate, up) if not side.start.offset}
    both = (gate.start, gate.stride, up.start, up.stride, gate.number, gate.count // BLOCK, out)
    low.emit("swiglu_quantise", both, store, (x,), own=shared)
    return True


def _add(low: Lowering, node: Node) -> bool:
    pair = _added(node)
    if pair is not None and pair[0] not in low.places and _product(low, pair[0], node, pair[1]):
        return True
    for operand in node.operands:
        low.require(operand)
    return _plain_sum(low, node)


def _plain_sum(low: Lowering, node: Node) -> bool:
    a, b = node.operands if len(node.operands) == 2 else (node.operands[0],) * 2
    if not _is_f32(a, b) or a.shape != b.shape or node.type.size % _LANES:
        return False
    if not low.is_contiguous(a, b):
        return False
    out = low.new(node)
    words = (low.address(a), 0, low.address(b), 0, 1, node.type.size, Address(out.store), 0)
    low.emit("add", words, out.store, (node,))
    return True


# --- norms and gates


def _rms_norm(low: Lowering, node: Node) -> bool:
    if not _is_f32(*node.operands):
        return False
    store = Store(node.type.nbytes)
    width = node.shape[-1]
    if not _norm(low, node, "rms_norm", (width, Address(store), 4 * width), store):
        return False
    low.places[node] = Place(store, Layout.contiguous(node.shape))
    return True


def _norm(
    low: Lowering,
    node: Node,
    kernel: str,
    rest: tuple[Argument, ...],
    out: Store,
    own: Mapping[Store, object] | None = None,
) -> bool:
    x, weight = node.inputs
    assert x is not None
    rows = low.rows(x)
    if rows is None or (weight is not None and not low.is_contiguous(weight)):
        return False
    scale: Argument = 0 if weight is None else low.address(weight)
    eps = float_bits(float(node.param("eps")))  # type: ignore[arg-type]
    words = (rows.start, rows.stride, scale, eps, rows.number, *rest)
    low.emit(kernel, words, out, (node,), own=own)
    return True


def _swiglu(low: Lowering, node: Node) -> bool:
    gate, up = node.inputs
    assert gate is not None
    assert up is not None
    if not _is_f32(gate, up) or node.type.size % _LANES or not low.is_contiguous(gate, up):
        return False
    out = low.new(node)
    words = (low.address(gate), 0, low.address(up), 0, 1, node.type.size, Address(out.store), 0)
    low.emit("swiglu", words, out.store, (node,))
    return True


# --- tables


def _take(low: Lowering, node: Node) -> bool:
    return node.dtype.name == "f32" and _rows_of_table(low, node, node)


def _cast(low: Lowering, node: Node) -> bool:
    taken = node.operands[0]
    return taken in low.left and taken not in low.places and _rows_of_table(low, taken, node)


def _rows_of_table(low: Lowering, taken: Node, result: Node) -> bool:
    """Rows as floats, `result`, which is `taken` or what it is cast to."""
    table, indices = taken.operands
    name = table.dtype.name
    if name not in products.TYPES or indices.dtype.name not in _INDICES or len(table.shape) != 2:
        return False
    if not low.is_contiguous(table, indices):
        return False
    out = low.new(result)
    width = table.shape[1]
    words = (low.address(table), table.type.row_bytes, table.shape[0], *_index_words(low, indices))
    rest = (indices.type.size, width, Address(out.store), 4 * width)
    nodes = (taken,) if taken == result else (taken, result)
    low.emit(f"take_{name}", (*words, *rest), out.store, nodes)
    return True


def _scatter_rows(low: Lowering, node: Node) -> bool:
    table, indices, rows = node.inputs
    assert table is not None
    assert indices is not None
    assert rows is not None
    if not _fits_cache(node) or not low.can_update(node) or not low.is_contiguous(table, indices):
        return False
    rotated = rows.operands[0] if rows.op == "reshape" and rows not in low.places else rows
    if rotated not in low.places:
        return rotation.emit(low, rotated, node, _index_words(low, indices))
    if not low.is_contiguous(rows):
        return False
    place = low.updated(node)
    assert place is not None
    width = rows.type.size // rows.shape[0]
    half = table.dtype.name == "f16"
    row_bytes = width * table.dtype.block_bytes
    words: tuple[Argument, ...] = (low.address(rows), 4 * width, rows.shape[0], width)
    words += (*_index_words(low, indices), low.address(table), row_bytes, table.shape[0], half)
    low.emit("scatter_rows", words, place.store, (node,))
    return True


def _rope(low: Lowering, node: Node) -> bool:
    return rotation.fits(node) and rotation.emit(low, node, None, (0, 0))


def _index_words(low: Lowering, indices: Node) -> tuple[Argument, Argument]:
    return low.address(indices), int(indices.dtype.name == "i64")


def _row_words(rows: Rows) -> tuple[Argument, ...]:
    return rows.start, rows.stride, rows.number


def float_bits(value: float) -> int:
    """How a row of a plan holds a float."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


RULES: dict[str, Callable[[Lowering, Node], bool]] = {
    "add": _add,
    "cast": _cast,
    "matmul": _matmul,
    "rms_norm": _rms_norm,
    "rope": _rope,
    "scaled_dot_product_attention": mixing.attention,
    "scatter_rows": _scatter_rows,
    "swiglu": _swiglu,
    "take": _take,
}
