"""How far a device's result may be from the oracle's, element by element.

The oracle computes in float64 and rounds once. A device computes f64 in f64, and f32, f16 and bf16
in at least f32. With u the unit roundoff of what it computes in, an algorithm of n roundings of
terms whose absolute values add up to S errs by at most n u S (Higham, Accuracy and Stability of
Numerical Algorithms, 3.1); so each op has here its n and S, n with some room for functions that no
hardware rounds correctly (OpenCL lets exp err by 3 to 4 units in the last place). Where a result is
stored in 16 bits, an error before rounding can move it to the neighbour: one unit in the last place
more. Ops not listed must give exactly the oracle's values.
"""

# All bounds have one signature, whatever they look at.
# ruff: noqa: ARG001, ARG005

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from hotplug.dtypes import DType, Kind
from hotplug.node import Node
from hotplug.testing.oracle import REFERENCES, Array, evaluate_node

__all__ = ["allowed", "exact"]

Operands: TypeAlias = "Sequence[Array | None]"
Bound: TypeAlias = "Callable[[Node, Operands, Array], Array]"
"""(node, operands, expected) -> errors in units of u."""

_ROUNDOFF = {"f64": 2.0**-53, "f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}
# The least positive number that must not become 0: f32 may flush subnormals, f16 is kept in f32.
_TINY = {"f64": 2.0**-1022, "f32": 2.0**-126, "f16": 2.0**-24, "bf16": 2.0**-126}


def allowed(node: Node, operands: Operands, expected: Array) -> Array:
    """The largest error of each element of a node's value, its operands' values being exact.

    Args:
        node: no leaf.
        operands: values of `node.inputs` as the oracle holds them.
        expected: the oracle's value.
    """
    wide = [None if array is None else _float64(array) for array in operands]
    wanted = _float64(expected)
    with np.errstate(all="ignore"):
        if exact(node):
            return np.zeros(node.shape)
        if node.dtype.quantised:
            return _encoding(node, wide, wanted)
        error = _unit(node) * _BOUNDS[node.op](node, wide, wanted)
        return np.asarray(error + _store(node.dtype, wanted))


def exact(node: Node) -> bool:
    """Whether a device must give the oracle's value to the bit (signs of zeros and NaNs apart)."""
    if node.dtype.quantised:
        return node.op not in _ENCODERS or _moves_blocks(node)
    return node.op not in _BOUNDS or node.dtype.kind is not Kind.FLOAT


def _moves_blocks(node: Node) -> bool:
    return node.operands[-1].dtype == node.dtype


def _float64(array: Array) -> Array:
    return array if array.dtype.kind in "bi" else array.astype(np.float64)


def _unit(node: Node) -> float:
    return _ROUNDOFF["f64" if node.dtype.name == "f64" else "f32"]


def _store(dtype: DType, wanted: Array) -> Array:
    """One more unit in the last place for 16 bits, and what flushing to zero may cost."""
    narrow = dtype.name in {"f16", "bf16"}
    spacing = 2 * _ROUNDOFF[dtype.name] * np.abs(wanted) if narrow else 0.0
    return np.asarray(spacing + _TINY[dtype.name])


def _encoding(node: Node, operands: Operands, wanted: Array) -> Array:
    """Blocks encoded otherwise than by the reference, if they come as near to the values.

    With E the reference's largest error in a block, both lie within E of the value, thus within 2E
    of each other. A block that only moves has no E and must stay as it is.
    """
    source = operands[-1]
    assert source is not None
    if node.op == "scatter_rows":
        table, indices = operands[0], operands[1]
        assert table is not None
        assert indices is not None
        target = table.copy()
        for row, index in enumerate(indices):
            if 0 <= index < len(target):
                target[index] = source[row]
        source = target
    blocks = np.abs(wanted - source).reshape(-1, node.dtype.block)
    worst = blocks.max(axis=1, keepdims=True, initial=0.0)
    return np.asarray(np.broadcast_to(2 * worst, blocks.shape).reshape(node.shape))


_ENCODERS = frozenset({"cast", "scatter_rows"})


def _of(operands: Operands, position: int) -> Array:
    value = operands[position]
    assert value is not None
    return value


def _terms(node: Node, operands: Operands) -> Array:
    """The op over absolute values: the sum of the absolute values of the terms of each element."""
    absolute = [None if x is None or x.dtype.kind in "bi" else np.abs(x) for x in operands]
    return _again(node, [x if a is None else a for a, x in zip(absolute, operands, strict=True)])


def _again(node: Node, operands: Operands) -> Array:
    """The op over other operands, without overflow of its narrow result."""
    return np.asarray(evaluate_node(node, operands), np.float64)


def _relative(roundings: float, absolute: float = 0.0) -> Bound:
    return lambda node, operands, want: roundings * np.abs(want) + absolute


def _of_argument(roundings: float, absolute: float = 0.0) -> Bound:
    """Errors that grow with the operand and not with the result, for want of cancellation."""
    return lambda node, operands, want: roundings * np.abs(_of(operands, 0)) + absolute


def _exp(node: Node, operands: Operands, want: Array) -> Array:
    # Range reduction with one constant errs by |x| u, which becomes relative.
    return np.asarray((8 + np.abs(_of(operands, 0))) * np.abs(want))


def _gelu_erf(node: Node, operands: Operands, want: Array) -> Array:
    # f32 has room for common rational approximations of erf; in f64 they err by some 1e-14.
    return np.asarray((256 if node.dtype.name == "f64" else 8) * np.abs(_of(operands, 0)))


def _geglu_erf(node: Node, operands: Operands, want: Array) -> Array:
    return np.asarray(1.25 * _gelu_erf(node, operands, want) * np.abs(_of(operands, 1)))


def _pow(node: Node, operands: Operands, want: Array) -> Array:
    # exp(b log a): the argument's relative error becomes an absolute one, thus a relative one.
    base, power = np.broadcast_arrays(np.abs(_of(operands, 0)), _of(operands, 1))
    argument = np.abs(power * np.log(np.where(base > 0, base, 1)))
    return np.asarray((16 + 8 * argument) * np.abs(want))


def _scale(node: Node, operands: Operands, want: Array) -> Array:
    factor, offset = (float(node.param(name)) for name in ("factor", "offset"))  # type: ignore[arg-type]
    return np.asarray(4 * (np.abs(factor * _of(operands, 0)) + abs(offset)))


def _xielu(node: Node, operands: Operands, want: Array) -> Array:
    p = {name: abs(float(value)) for name, value in node.params}  # type: ignore[arg-type]
    x = np.abs(_of(operands, 0))
    curved = np.where(_of(operands, 0) > 0, p["alpha_p"] * x * x, p["alpha_n"] * (1 + x))
    return np.asarray(8 * (curved + p["beta"] * x))


def _hard(power: int) -> Bound:
    """(x + 3) / 6, times x for power 1."""
    return lambda node, operands, want: (
        (np.abs(_of(operands, 0)) + 3) * np.abs(_of(operands, 0)) ** power
    )


def _gated(node: Node, operands: Operands, want: Array) -> Array:
    """|activation| <= |gate| for all of them, and each errs by at most 8 u |gate|."""
    return np.asarray(10 * np.abs(_of(operands, 0) * _of(operands, 1)))


def _gated_clamped(node: Node, operands: Operands, want: Array) -> Array:
    alpha, shift = (abs(float(node.param(name))) for name in ("alpha", "shift"))  # type: ignore[arg-type]
    gate, up = np.abs(_of(operands, 0)), np.abs(_of(operands, 1))
    return np.asarray((10 + 4 * alpha) * gate * (up + shift))


def _sum(node: Node, operands: Operands, want: Array) -> Array:
    x = _of(operands, 0)
    length = x.shape[int(node.param("axis"))]  # type: ignore[arg-type]
    return np.asarray((length + 4) * _terms(node, operands))


def _prod(node: Node, operands: Operands, want: Array) -> Array:
    length = _of(operands, 0).shape[int(node.param("axis"))]  # type: ignore[arg-type]
    return np.asarray((length + 4) * np.abs(want))


def _squares(node: Node, operands: Operands, want: Array) -> Array:
    """Of the n roundings in the sum the root takes half; then come a quotient and a product."""
    return np.asarray((0.5 * node.shape[-1] + 12) * np.abs(want))


def _standardised(node: Node, operands: Operands, want: Array) -> Array:
    """Of the centred values, the mean's error is one of |x| and |mean|, however small they are."""
    x = _of(operands, 0)
    grouped = x.reshape(x.shape[0], int(node.param("groups")), -1) if node.op == "group_norm" else x  # type: ignore[arg-type]
    mean = grouped.mean(axis=-1, keepdims=True)
    eps = float(node.param("eps"))  # type: ignore[arg-type]
    deviation = np.sqrt(grouped.var(axis=-1, keepdims=True) + eps)
    size = ((np.abs(grouped) + np.abs(mean)) / deviation).reshape(x.shape)
    weight = 1.0 if operands[1] is None else np.abs(_channel(node, operands[1]))
    bias = 0.0 if operands[2] is None else np.abs(_channel(node, operands[2]))
    return np.asarray((grouped.shape[-1] + 16) * (size * weight + bias))


def _channel(node: Node, scale: Array) -> Array:
    if node.op != "group_norm":
        return scale
    return scale.reshape(scale.shape + (1,) * (len(node.shape) - 2))


def _finite(array: Array | None) -> float:
    """The largest absolute value of what is finite."""
    if array is None or array.dtype.kind == "b":
        return 0.0
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def _softmax(node: Node, operands: Operands, want: Array) -> Array:
    """A score's absolute error becomes a relative one of its weight; the sum has n roundings."""
    factor = abs(float(node.param("scale")))  # type: ignore[arg-type]
    score = factor * _finite(operands[0]) + _finite(operands[1]) + _finite(operands[2])
    return np.asarray((16 + 8 * score + node.shape[-1]) * np.abs(want))


def _attention(node: Node, operands: Operands, want: Array) -> Array:
    """As softmax, with scores of d terms, and a weighted mean of v over the rows."""
    q, k, v = (_of(operands, position) for position in range(3))
    factor = float(node.param("scale")) or 1 / math.sqrt(q.shape[-1])  # type: ignore[arg-type]
    longest = [np.sqrt(np.square(x).sum(axis=-1)).max(initial=0.0) for x in (q, k)]
    score = abs(factor) * longest[0] * longest[1]
    others = _finite(operands[3]) + _finite(operands[5])
    roundings = 16 + k.shape[-3] + (2 * q.shape[-1] + 16) * score + 8 * others
    return np.asarray(roundings * _again(node, [q, k, np.abs(v), *operands[3:]]))


def _rope(node: Node, operands: Operands, want: Array) -> Array:
    """The angle's relative error, of a power or of a running product, times the angle."""
    positions = np.abs(_of(operands, 1)).max(initial=0.0)
    factors = operands[2]
    divisor = 1.0 if factors is None else float(np.abs(factors).min(initial=1.0))
    scale = max(1.0, abs(float(node.param("frequency_scale"))))  # type: ignore[arg-type]
    magnitude = max(1.0, abs(float(node.param("magnitude")))) * 2  # type: ignore[arg-type]
    largest = np.abs(_of(operands, 0)).max(axis=-1, keepdims=True, initial=0.0)
    angle = scale * positions / divisor
    return np.asarray(np.broadcast_to(magnitude * (16 + 16 * angle) * largest, node.shape))


def _matmul(node: Node, operands: Operands, want: Array) -> Array:
    x, w = _of(operands, 0), _of(operands, 1)
    error: Array = (x.shape[-1] + 8) * _terms(node, operands)
    weight = node.operands[1].dtype
    if node.param("precision") == "exact" or not node.type.size:
        return error
    if weight.quantised:
        error = error + _activation_step(node, x, w, operands, weight.block) / _unit(node)
    elif weight.name in {"f16", "bf16"} and not x.shape[-1] % _WORDS:
        error = error + _word_step(node, x, w, operands) / _unit(node)
    return np.asarray(error)


_WORDS = 32  # operands of f16 and bf16 weights may become blocks of so many 14-bit words


def _word_step(node: Node, x: Array, w: Array, operands: Operands) -> Array:
    """What rounding both operands to 14-bit blocks along k may cost: half a step of each element.

    See PRECISIONS of `hotplug.ops.linear`, and docs/decisions/0010.
    """
    wide = [_rounded_up(x, -1), _rounded_up(w, -1 if _by_rows(node) else -2)]
    return _again(node, [*wide, *operands[2:]]) - _terms(node, operands)


def _by_rows(node: Node) -> bool:
    """Whether the second operand holds as rows what is multiplied with x's rows."""
    return node.op != "matmul" or bool(node.param("transpose_b"))


def _rounded_up(values: Array, axis: int) -> Array:
    """Absolute values and half a step of the blocks along an axis that they are in."""
    rows = np.moveaxis(np.abs(values), axis, -1)
    blocks = rows.reshape(*rows.shape[:-1], -1, _WORDS)
    wide = blocks + blocks.max(axis=-1, keepdims=True, initial=0.0) / (2 * 8191)
    return np.moveaxis(wide.reshape(rows.shape), -1, axis)


def _activation_step(node: Node, x: Array, w: Array, operands: Operands, block: int) -> Array:
    """What rounding x to 8-bit blocks may cost: each element moves by half a step.

    The step is the block's largest value over 127. Blocks are as long as the weights' blocks, and
    their scales and sums may be stored as f16, a relative error of 2^-11 each.
    """
    blocks = np.abs(x).reshape(*x.shape[:-1], -1, block)
    step = blocks.max(axis=-1, keepdims=True) / 127
    moved = np.broadcast_to(0.5 * step, blocks.shape).reshape(x.shape) + 2.0**-10 * np.abs(x)
    return _again(node, [moved, np.abs(w), *operands[2:]])


def _convolution(node: Node, operands: Operands, want: Array) -> Array:
    """Terms of one sum: a kernel's elements of the channels of a group."""
    w = _of(operands, 1)
    channels = w.shape[1] if node.op == "conv" else w.shape[0] // int(node.param("groups"))  # type: ignore[arg-type]
    return np.asarray((channels * math.prod(w.shape[2:]) + 8) * _terms(node, operands))


def _kernel_sum(node: Node, operands: Operands, want: Array) -> Array:
    size = math.prod(node.param("kernel"))  # type: ignore[arg-type]
    return np.asarray((size + 4) * _terms(node, operands))


def _solved(node: Node, operands: Operands, want: Array) -> Array:
    """Each row's substitution solves a system that is off by n u |a| (Higham, theorem 8.5)."""
    a = _of(operands, 0)
    a = np.tril(a) if node.param("lower") else np.triu(a)
    if node.param("unit_diagonal"):
        a = a + np.eye(a.shape[-1]) * (1 - a)
    return np.asarray((a.shape[-1] + 8) * (np.abs(np.linalg.inv(a)) @ (np.abs(a) @ np.abs(want))))


def _steps(node: Node, decay: float) -> float:
    """Roundings of a recurrence: at each token those of a decay and some more, then a query's."""
    n = node.operands[-1].shape[1]
    return (node.shape[1] - n) * (decay + n + 8) + n + 8


def _recurrence(node: Node, operands: Operands, want: Array) -> Array:
    return np.asarray(_steps(node, 0) * _terms(node, operands))


def _selective_scan(node: Node, operands: Operands, want: Array) -> Array:
    """The error of softplus is one of what is added, and of the exponent of the decay."""
    x, dt, a, b, c, state = (_of(operands, position) for position in range(6))
    span = np.log1p(np.exp(dt))
    relative = 8 + 2 / span.min(initial=np.inf)
    exponent = span.max(initial=0) * np.abs(a).max(initial=0)
    terms = _again(node, [np.abs(x), dt, a, np.abs(b), np.abs(c), np.abs(state)])
    return np.asarray(_steps(node, (1 + exponent) * (relative + 8)) * terms)


def _gated_delta_rule(node: Node, operands: Operands, want: Array) -> Array:
    """Nothing cancels in wkv7 over absolute values; the rule is a case of it."""
    q, k, v, g, beta, state = (np.abs(_of(operands, position)) for position in range(6))
    factor = abs(float(node.param("scale"))) or 1 / math.sqrt(q.shape[-1])  # type: ignore[arg-type]
    decay = np.exp(np.broadcast_to(_of(operands, 3), k.shape))
    written = beta[..., None] * k
    terms = REFERENCES["wkv7"].compute(factor * q, decay, written, v, k * decay, written, state)
    return np.asarray(_steps(node, 8 + g.max(initial=0)) * terms)


def _interpolate(node: Node, operands: Operands, want: Array) -> Array:
    """A place on an axis of n errs by n u, and so do the weights, 4 of which add up at most."""
    if node.param("mode") == "nearest":
        return np.zeros(node.shape)
    x = _of(operands, 0)
    axes = x.shape[x.ndim - len(node.param("size")) :]  # type: ignore[arg-type]
    roundings = sum(16 + 8 * n for n in axes)
    return np.full(node.shape, roundings * np.abs(x).max(initial=0.0))


def _arange(node: Node, operands: Operands, want: Array) -> Array:
    start = abs(float(node.param("start")))  # type: ignore[arg-type]
    return np.asarray(4 * (np.abs(want) + 2 * start))


_ACTIVATION = _of_argument(8)

_BOUNDS: dict[str, Bound] = {
    "tanh": _relative(8),
    "elu": _relative(8, 4),  # exp(x) - 1 as written: absolute near 0
    "sigmoid": _relative(8, 2),
    "gelu": _ACTIVATION,
    "gelu_erf": _gelu_erf,
    "gelu_quick": _ACTIVATION,
    "silu": _ACTIVATION,
    "hardswish": _hard(1),
    "hardsigmoid": _hard(0),
    "exp": _exp,
    "expm1": _relative(8),
    "log": _relative(8, 2),
    "softplus": _relative(8, 2),
    "square": _relative(2),
    "sqrt": _relative(6),  # 3 units in the last place in OpenCL
    "sin": _of_argument(4, 4),
    "cos": _of_argument(4, 4),
    "leaky_relu": _relative(4),
    "xielu": _xielu,
    "reglu": _relative(2),
    "geglu": _gated,
    "geglu_erf": _geglu_erf,
    "geglu_quick": _gated,
    "swiglu": _gated,
    "swiglu_clamped": _gated_clamped,
    "div": _relative(6),  # 2.5 units in the last place in OpenCL
    "pow": _pow,
    "scale": _scale,
    "sum": _sum,
    "mean": _sum,
    "cumsum": _sum,
    "prod": _prod,
    "softmax": _softmax,
    "rms_norm": _squares,
    "l2_norm": _squares,
    "layer_norm": _standardised,
    "group_norm": _standardised,
    "matmul": _matmul,
    "matmul_grouped": _matmul,
    "scaled_dot_product_attention": _attention,
    "rope": _rope,
    "arange": _arange,
    "interpolate": _interpolate,
    "solve_triangular": _solved,
    "selective_scan": _selective_scan,
    **dict.fromkeys(("wkv6", "wkv7", "gated_linear_attention"), _recurrence),
    "gated_delta_rule": _gated_delta_rule,
    "conv": _convolution,
    "conv_transpose": _convolution,
    "col2im": _kernel_sum,
    "avg_pool": _kernel_sum,
}
