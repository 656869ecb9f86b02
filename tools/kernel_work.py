"""For each GPU kernel a piece of work as it occurs, with the bytes and operations that it takes.

Sizes are those of a model of 8 billion weights (4096 wide, 32 heads of 128, 8 of them for keys), at
one token where a kernel serves decoding and at 512 where it serves prompts, and images of 64
channels of 64 x 64. A kernel that has no entry here gets the largest test case that needs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypedDict

from hotplug import ops
from hotplug.gpu import catalog
from hotplug.gpu.catalog.table import Launch, Lowering
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.lowering import lower_graph
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.ops import OPS
from hotplug.testing.conformance.suite import case_groups

__all__ = ["TYPICAL", "Load", "load_of"]

WIDE, BATCH, ROWS, HEADS, HEAD = 4096, 512, 16384, 32, 128


@dataclass(frozen=True, slots=True)
class Load:
    """What a kernel is given to do.

    Attributes:
        what: op and types.
        launch: of the kernel.
        nbytes: that have to be read or written once.
        flops: floating-point operations.
    """

    what: str
    launch: Launch
    nbytes: int
    flops: int


def _x(*shape: int, dtype: str = "f32", name: str = "x") -> Node:
    return ops.input(name=name, dtype=dtype, shape=shape)


def _product(tokens: int, dtype: str, *, precision: str = "default") -> Node:
    w = ops.weight(name="w", dtype=dtype, shape=(WIDE, WIDE))
    return ops.matmul(_x(tokens, WIDE), w, transpose_b=True, precision=precision)


def _attention(tokens: int, rows: int) -> Node:
    k, v = (_x(rows, HEADS // 4, HEAD, dtype="f16", name=name) for name in "kv")
    return ops.scaled_dot_product_attention(_x(tokens, HEADS, HEAD), k, v, causal=True)


def _ids(count: int, *more: int) -> Node:
    return _x(count, *more, dtype="i32", name="ids")


class _Window(TypedDict):
    kernel: tuple[int, ...]
    padding: tuple[int, ...]


_THREE: _Window = {"kernel": (3, 3), "padding": (1, 1)}


def _image(side: int) -> Node:
    return _x(1, 64, side, side)


def _rows(dtype: str) -> Node:
    return ops.take(ops.weight(name="w", dtype=dtype, shape=(ROWS, WIDE)), _ids(BATCH))


def _into_cache(dtype: str) -> Node:
    width = HEADS // 4 * HEAD
    cache = ops.state(name="cache", dtype=dtype, shape=(ROWS, width))
    return ops.scatter_rows(cache, _ids(BATCH), _x(BATCH, width))


def _wkv7() -> Node:
    r, w, k, v, a, b = (_x(1, BATCH, HEADS, HEAD, name=name) for name in "rwkvab")
    return ops.wkv7(r, w, k, v, a, b, _x(1, HEAD, HEADS, HEAD, name="state"))


TYPICAL: Mapping[str, Callable[[], Node]] = {
    "add_rows": lambda: ops.add_rows_by_id(
        _x(BATCH, 2, WIDE), _x(8, WIDE, name="bias"), _ids(BATCH, 2)
    ),
    "argmax": lambda: ops.argmax(_x(1, 32 * WIDE)),
    "attention": lambda: _attention(1, ROWS),
    "cast": lambda: ops.cast(_x(BATCH, WIDE), dtype="f16"),
    "chain": lambda: ops.mul(ops.silu(_x(BATCH, WIDE)), _x(BATCH, WIDE, name="up")),
    "col2im": lambda: ops.col2im(_x(1, 64, 64, 64 * 9), shape=(64, 64), **_THREE),
    "combine": lambda: _attention(1, ROWS),
    "conv": lambda: ops.conv(_image(64), _x(64, 64, 3, 3, name="w"), padding=(1, 1)),
    "conv_direct": lambda: ops.conv(
        _image(64), _x(64, 1, 3, 3, name="w"), padding=(1, 1), groups=64
    ),
    "copy": lambda: ops.contiguous(ops.transpose(_x(WIDE, BATCH))),
    "count_equal": lambda: ops.count_equal(
        _x(1 << 20, dtype="i32", name="a"), _x(1 << 20, dtype="i32", name="b")
    ),
    "elementwise": lambda: ops.add(_x(BATCH, WIDE), _x(BATCH, WIDE, name="y")),
    "encode": lambda: ops.cast(_x(BATCH, WIDE), dtype="q8_0"),
    "im2col": lambda: ops.im2col(_image(64), **_THREE),
    "matmul": lambda: _product(BATCH, "q4_0", precision="exact"),
    "matmul_int8": lambda: _product(BATCH, "q4_0"),
    "matvec": lambda: _product(1, "q4_0", precision="exact"),
    "matvec_int8": lambda: _product(1, "q4_0"),
    "norm": lambda: ops.rms_norm(_x(BATCH, WIDE), _x(WIDE, name="weight")),
    "pool": lambda: ops.max_pool(_image(64), kernel=(2, 2), stride=(2, 2)),
    "quantise": lambda: _product(1, "q4_0"),
    "recurrence": _wkv7,
    "reduce": lambda: ops.sum(_x(BATCH, WIDE)),
    "remap": lambda: ops.pad(_x(BATCH, WIDE), before=(0, 0), after=(0, 64)),
    "resample": lambda: ops.interpolate(_image(64), size=(128, 128), mode="linear"),
    "rope": lambda: ops.rope(_x(BATCH, HEADS, HEAD), _ids(BATCH)),
    "scan": lambda: ops.cumsum(_x(BATCH, WIDE)),
    "scatter": lambda: _into_cache("f16"),
    "scatter_blocks": lambda: _into_cache("q8_0"),
    "softmax": lambda: ops.softmax(_x(HEADS, BATCH, WIDE)),
    "solve": lambda: ops.solve_triangular(_x(HEADS, 64, 64), _x(HEADS, 64, HEAD, name="b")),
    "sort": lambda: ops.argsort(_x(BATCH, 128)),
    "take": lambda: _rows("f16"),
    "take_blocks": lambda: _rows("q4_0"),
    "turns": lambda: ops.rope(_x(BATCH, HEADS, HEAD), _ids(BATCH)),
    "triangle": lambda: ops.triangular(_x(WIDE, WIDE)),
    "where": lambda: ops.where(
        _x(BATCH, WIDE, dtype="bool", name="c"), _x(BATCH, WIDE), _x(BATCH, WIDE, name="y")
    ),
}


def load_of(kernel: str, capabilities: Capabilities) -> Load | None:
    """A kernel's work; None if not even a test case needs it."""
    if kernel in TYPICAL:
        return _load(kernel, TYPICAL[kernel](), capabilities)
    found = [_load(kernel, node, capabilities) for node in _tested(capabilities)]
    return max(filter(None, found), key=lambda load: load.nbytes, default=None)


def _tested(capabilities: Capabilities) -> Iterator[Node]:
    """Results of test cases that a device computes, where the last op has one launch."""
    for cases in case_groups(slow=False).values():
        for case in cases:
            if len(case.graph.outputs) == 1 and all(
                catalog.supports(node, capabilities) for node in case.graph.nodes
            ):
                yield case.graph.outputs[0][1]


def _load(kernel: str, node: Node, capabilities: Capabilities) -> Load | None:
    lowering = Lowering(capabilities)
    graph = Graph.build({"y": node})
    lower_graph(graph, lowering, "report")
    launches = [one for one in lowering.launches if isinstance(one, Launch)]
    used = [one for one in launches if one.variant.file == kernel]
    if not used:
        return None
    nodes = [one for one in graph.nodes if one.name in used[-1].nodes]
    what = f"{' + '.join(one.op for one in nodes)}: {', '.join(_types(graph))}"
    if kernel == "combine":
        return Load(what, used[-1], lowering.scratch + node.type.nbytes, lowering.scratch // 2)
    if kernel == "turns":
        return Load(what, used[-1], lowering.kept_bytes, lowering.kept_bytes // 2)
    if kernel == "quantise":
        x = node.operands[0]
        return Load(what, used[-1], x.type.nbytes + x.type.size * 9 // 8, 4 * x.type.size)
    flops = sum(OPS[one.op].flops(one) for one in nodes if one.op != "scatter_rows")
    return Load(what, used[-1], _bytes(graph, node), flops)


def _types(graph: Graph) -> list[str]:
    counted = Counter(str(node.type) for node in graph.nodes if node.is_leaf)
    return [f"{count} of {text}" if count > 1 else text for text, count in counted.items()]


def _bytes(graph: Graph, result: Node) -> int:
    """Of leaves and result, of tables only the rows that are touched."""
    if result.op == "take":
        table, ids = result.operands
        return table.dtype.nbytes(result.type.size) + ids.type.nbytes + result.type.nbytes
    if result.op == "scatter_rows":
        table, ids, rows = result.operands
        return table.dtype.nbytes(rows.type.size) + ids.type.nbytes + rows.type.nbytes
    return result.type.nbytes + sum(node.type.nbytes for node in graph.nodes if node.is_leaf)
