"""The suite finds wrong values: of one element, and of ops that are computed otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from tests.conformance.planted import LEAVES, FaultyDevice, failures, mismatches

from hotplug.ops import OPS
from hotplug.testing.conformance import case_groups
from hotplug.testing.oracle import evaluate_node

# One element of one op


def disturb(node, value):
    """One element a little off: 1% of a float, 1 of an integer, the other truth."""
    if value.size == 0:
        return value
    changed = np.array(value, copy=True)
    flat = changed.reshape(-1)
    middle = flat.size // 2
    if changed.dtype.kind == "b":
        flat[middle] = not flat[middle]
    elif changed.dtype.kind == "i":
        flat[middle] += 1
    else:
        flat[middle] = flat[middle] * 1.01 + 0.01
    return changed


@pytest.mark.parametrize("op", sorted(OPS.keys() - LEAVES))
def test_one_wrong_element_of_any_op_is_found(op):
    def fault(node, operands, value):
        return disturb(node, value) if node.op == op else value

    assert mismatches(FaultyDevice(fault), op)


# One op computed otherwise


@dataclass(frozen=True)
class Wrong:
    """An op whose value is made by another function, found in the groups named."""

    name: str
    op: str
    compute: Callable[..., object]
    groups: tuple[str, ...] = ()


def params(node):
    return dict(node.params)


def rebuilt(node, **changes):
    """The node with other parameters."""
    return OPS[node.op].build(node.inputs, params(node) | changes)


def with_params(**changes):
    return lambda node, operands, value: evaluate_node(rebuilt(node, **changes), operands)


def with_operand(position, change):
    """One operand changed where it is present."""

    def compute(node, operands, value):
        operands = list(operands)
        if operands[position] is not None:
            operands[position] = change(operands[position])
        return evaluate_node(node, operands)

    return compute


def without_operand(position):
    return with_operand(position, lambda x: None)


def sliced_from_start(node, operands, value):
    p = params(node)
    moved = [stop - start for start, stop in zip(p["starts"], p["stops"], strict=True)]
    return evaluate_node(rebuilt(node, starts=(0,) * len(moved), stops=tuple(moved)), operands)


def causal_shifted(by):
    def compute(node, operands, value):
        if not params(node)["causal"]:
            return value
        q, k = operands[0], operands[1]
        positions = operands[4]
        if positions is None:
            positions = k.shape[-3] - q.shape[-3] + np.arange(q.shape[-3])
        operands = [*operands[:4], np.where(positions < 0, positions, positions + by), operands[5]]
        return evaluate_node(node, operands)

    return compute


def window_shifted(node, operands, value):
    window = params(node)["window"]
    return evaluate_node(rebuilt(node, window=window + 1), operands) if window else value


def padding_seen(node, operands, value):
    return evaluate_node(node, [*operands[:4], abs_or_none(operands[4]), operands[5]])


def abs_or_none(x):
    return None if x is None else np.abs(x)


def heads_interleaved(node, operands, value):
    q, k, v = operands[:3]
    heads, shared = q.shape[-2], k.shape[-2]
    order = [h % shared for h in range(heads)]
    if heads == shared:
        return value
    result = np.empty_like(value)
    for head, source in enumerate(order):
        stand_in = head // (heads // shared)
        swapped = list(range(shared))
        swapped[stand_in] = source
        changed = evaluate_node(node, [q, k[..., swapped, :], v[..., swapped, :], *operands[3:]])
        result[..., head, :] = changed[..., head, :]
    return result


def rounded_activations(levels):
    def compute(node, operands, value):
        weight = node.operands[1].dtype
        if not weight.quantised or value.size == 0:
            return value
        x = operands[0].astype(np.float64)
        blocks = x.reshape(*x.shape[:-1], -1, weight.block)
        step = np.abs(blocks).max(axis=-1, keepdims=True) / levels
        step = np.where(step == 0, 1, step)
        rounded = (np.round(blocks / step) * step).reshape(x.shape).astype(operands[0].dtype)
        return evaluate_node(node, [rounded, *operands[1:]])

    return compute


def eight_bits_although_exact(node, operands, value):
    if params(node)["precision"] != "exact":
        return value
    return rounded_activations(127)(node, operands, value)


def half_accumulator(node, operands, value):
    return value.astype(np.float16).astype(value.dtype)


def one_pass_variance(node, operands, value):
    x = operands[0].astype(np.float32)
    mean = x.mean(-1, keepdims=True, dtype=np.float32)
    variance = np.square(x).mean(-1, keepdims=True, dtype=np.float32) - mean * mean
    normal = (x - mean) / np.sqrt(np.maximum(variance, 0) + np.float32(params(node)["eps"]))
    normal = normal if operands[1] is None else normal * operands[1]
    normal = normal if operands[2] is None else normal + operands[2]
    return normal.astype(value.dtype)


def naive_softmax(node, operands, value):
    if operands[1] is not None or operands[2] is not None:
        return value
    e = np.exp((params(node)["scale"] * operands[0]).astype(np.float32))
    return (e / e.sum(-1, keepdims=True)).astype(value.dtype)


def first_row_wins(node, operands, value):
    table, indices, rows = operands
    return evaluate_node(node, [table, indices[::-1], rows[::-1]])


def python_indices(node, operands, value):
    table, indices = operands[:2]
    wrapped = np.where(indices < 0, indices + len(table), indices)
    return evaluate_node(node, [table, wrapped, *operands[2:]])


def clamped_indices(position):
    def compute(node, operands, value):
        operands = list(operands)
        length = len(operands[0 if node.op in {"take", "scatter_rows"} else 1])
        operands[position] = np.clip(operands[position], 0, max(0, length - 1))
        return evaluate_node(node, operands) if length else value

    return compute


def last_of_equals(node, operands, value):
    axis = params(node)["axis"]
    flipped = evaluate_node(node, [np.flip(operands[0], axis)])
    return (operands[0].shape[axis] - 1 - flipped).astype(value.dtype)


def ascending_reversed(node, operands, value):
    if not params(node)["descending"]:
        return value
    return evaluate_node(rebuilt(node, descending=False), operands)[..., ::-1]


def nan_ignored(function):
    return lambda node, operands, value: function(
        operands[0], axis=params(node)["axis"], keepdims=params(node)["keepdims"]
    ).astype(value.dtype)


def fmax(node, operands, value):
    return np.fmax(*operands)


def floored_division(node, operands, value):
    if value.dtype.kind != "i":
        return value
    a, b = np.broadcast_arrays(*operands)
    return np.where(b == 0, 0, a // np.where(b == 0, 1, b)).astype(value.dtype)


def saturating_add(node, operands, value):
    if value.dtype.kind != "i" or value.dtype.itemsize == 8:
        return value
    bounds = np.iinfo(value.dtype)
    wide = operands[0].astype(np.int64) + operands[1]
    return wide.clip(bounds.min, bounds.max).astype(value.dtype)


def chopped_bf16(node, operands, value):
    if node.dtype.name != "bf16" or operands[0].dtype != np.float32:
        return value
    return (operands[0].view(np.uint32) & 0xFFFF0000).view(np.float32)


def wrapping_cast(node, operands, value):
    if value.dtype.kind != "i" or operands[0].dtype.kind != "i":
        return value
    return operands[0].astype(value.dtype)


def cast_by_rounding(node, operands, value):
    if value.dtype.kind != "i" or operands[0].dtype.kind != "f":
        return value
    return evaluate_node(node, [np.round(operands[0])])


def scaled_in_the_tail(node, operands, value):
    p = params(node)
    dims = p["dims"] or value.shape[-1]
    value = value.copy()
    value[..., dims:] *= p["magnitude"]
    return value


def other_pairs(node, operands, value):
    layout = {"half": "interleaved", "interleaved": "half"}.get(params(node)["layout"])
    return value if layout is None else evaluate_node(rebuilt(node, layout=layout), operands)


def wrong_slopes(node, operands, value):
    """Powers of the whole count of heads, which is right for powers of two only."""
    p = params(node)
    if not p["max_bias"] or operands[2] is not None:
        return value
    heads = value.shape[-3]
    if heads & (heads - 1) == 0:
        return value
    mask = np.broadcast_to(operands[1], value.shape).astype(np.float32)
    slopes = np.float32(2.0) ** (-p["max_bias"] * np.arange(1, heads + 1) / heads)
    wide = np.where(np.isinf(mask), mask, slopes[:, None, None] * mask)
    scores = operands[0] * p["scale"] + wide
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def grouped_by_all(node, operands, value):
    return evaluate_node(rebuilt(node, groups=1), operands)


SDPA = "scaled_dot_product_attention"

WRONG = [
    Wrong("offsets of slices ignored", "slice", sliced_from_start, ("slice", "add", "program")),
    Wrong(
        "axes not moved",
        "transpose",
        lambda node, operands, value: operands[0].reshape(value.shape),
        ("transpose", "neg", "matmul"),
    ),
    Wrong("permuted backwards", "permute", lambda n, o, v: o[0].transpose(
        np.argsort(params(n)["axes"])).reshape(v.shape), ("permute",)),
    Wrong("causal mask sees one row too many", SDPA, causal_shifted(1), (SDPA, "cache")),
    Wrong("causal mask sees one row too few", SDPA, causal_shifted(-1), (SDPA,)),
    Wrong("not causal", SDPA, with_params(causal=False, window=0), (SDPA, "cache", "decoder")),
    Wrong("window too long by one", SDPA, window_shifted, (SDPA,)),
    Wrong("no window", SDPA, with_params(window=0), (SDPA,)),
    Wrong("padding taken for rows", SDPA, padding_seen, (SDPA, "cache")),
    Wrong("positions ignored", SDPA, without_operand(4), (SDPA, "cache")),
    Wrong("attention without sinks", SDPA, without_operand(5), (SDPA,)),
    Wrong("attention without cap", SDPA, with_params(softcap=0.0), (SDPA,)),
    Wrong("attention with another scale", SDPA, with_params(scale=1.0), (SDPA,)),
    Wrong("heads shared by turns", SDPA, heads_interleaved, (SDPA,)),
    Wrong("softmax without sinks", "softmax", without_operand(2), ("softmax",)),
    Wrong("softmax without its largest", "softmax", naive_softmax, ("softmax",)),
    Wrong("slopes for powers of two only", "softmax", wrong_slopes, ("softmax",)),
    Wrong("four-bit activations", "matmul", rounded_activations(7), ("matmul",)),
    Wrong("seven-bit activations, grouped", "matmul_grouped", rounded_activations(15)),
    Wrong("eight bits although exact", "matmul", eight_bits_although_exact, ("matmul",)),
    Wrong("eight bits although exact, grouped", "matmul_grouped", eight_bits_although_exact),
    Wrong("products in f16", "matmul", half_accumulator, ("matmul",)),
    Wrong("sums in f16", "sum", half_accumulator, ("sum",)),
    Wrong("variance in one pass", "layer_norm", one_pass_variance, ("layer_norm",)),
    Wrong("groups ignored", "group_norm", grouped_by_all, ("group_norm",)),
    Wrong("eps ignored", "rms_norm", with_params(eps=1e-6), ("rms_norm",)),
    Wrong("weight ignored", "rms_norm", without_operand(1), ("rms_norm",)),
    Wrong("bias ignored", "layer_norm", without_operand(2), ("layer_norm",)),
    Wrong("first row wins", "scatter_rows", first_row_wins, ("scatter_rows",)),
    Wrong("negative rows from the end", "scatter_rows", python_indices, ("scatter_rows", "cache")),
    Wrong("rows clamped", "scatter_rows", clamped_indices(1), ("scatter_rows",)),
    Wrong("negative indices from the end", "take", python_indices, ("take",)),
    Wrong("indices clamped", "take", clamped_indices(1), ("take",)),
    Wrong("experts clamped", "matmul_grouped", clamped_indices(2), ("matmul_grouped",)),
    Wrong("bias of no expert", "add_rows_by_id", clamped_indices(2), ("add_rows_by_id",)),
    Wrong("32-bit indices", "take", with_operand(1, lambda x: x.astype(np.int32)), ("take",)),
    Wrong("last of equals", "argmax", last_of_equals, ("argmax",)),
    Wrong("not stable descending", "argsort", ascending_reversed, ("argsort",)),
    Wrong("NaN ignored by max", "max", nan_ignored(np.nanmax), ("max",)),
    Wrong("NaN ignored by maximum", "maximum", fmax, ("maximum",)),
    Wrong("division rounds down", "div", floored_division, ("div",)),
    Wrong("addition saturates", "add", saturating_add, ("add",)),
    Wrong("casts chop", "cast", chopped_bf16, ("cast",)),
    Wrong("casts wrap", "cast", wrapping_cast, ("cast",)),
    Wrong("casts round", "cast", cast_by_rounding, ("cast",)),
    Wrong("halves to even", "round", lambda n, o, v: np.round(o[0]), ("round",)),
    Wrong("magnitude for all", "rope", scaled_in_the_tail, ("rope",)),
    Wrong("other pairs", "rope", other_pairs, ("rope",)),
    Wrong("factors ignored", "rope", without_operand(2), ("rope",)),
    Wrong("YaRN ignored", "rope", with_params(extrapolation=0.0), ("rope",)),
    Wrong("reflection repeats the end", "pad_reflect", lambda n, o, v: np.pad(
        o[0], [(0, 0)] * (v.ndim - 1) + [(params(n)["before"], params(n)["after"])],
        mode="symmetric"), ("pad_reflect",)),
    Wrong("rolled the other way", "roll", lambda n, o, v: np.roll(
        o[0], [-s for s in params(n)["shifts"]], tuple(range(v.ndim))), ("roll",)),
    Wrong("strict triangle", "triangular", lambda n, o, v: evaluate_node(
        rebuilt(n, diagonal=params(n)["diagonal"] - 1), o), ("triangular",)),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG,
                         ids=lambda w: w.name)  # fmt: skip
def test_op_computed_otherwise_is_found(wrong):
    def fault(node, operands, value):
        return wrong.compute(node, operands, value) if node.op == wrong.op else value

    for group in wrong.groups or (wrong.op,):
        assert mismatches(FaultyDevice(fault), group), group


def test_ignored_mask_is_found():
    def fault(node, operands, value):
        if node.op != SDPA or params(node)["max_bias"]:
            return value
        return evaluate_node(node, [*operands[:3], None, *operands[4:]])

    assert mismatches(FaultyDevice(fault), SDPA)


def test_a_right_device_of_this_kind_passes():
    assert not failures(FaultyDevice(), *case_groups(slow=False))
