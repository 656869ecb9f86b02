"""What each rule refuses, with a sentence that says why, and the types that it gives."""

from __future__ import annotations

import pytest

from hotplug import ops
from hotplug.errors import DTypeError, GraphError, HotplugError
from hotplug.ops import OPS
from hotplug.ops.attention import ROPE_LAYOUTS


def f32(*shape, name="x"):
    return ops.input(name=name, dtype="f32", shape=shape)


def i32(*shape, name="i"):
    return ops.input(name=name, dtype="i32", shape=shape)


def of(dtype, *shape, name="d"):
    return ops.input(name=name, dtype=dtype, shape=shape)


UNARY = [
    "abs", "sign", "neg", "step", "tanh", "elu", "relu", "sigmoid", "gelu", "gelu_erf",
    "gelu_quick", "silu", "hardswish", "hardsigmoid", "exp", "expm1", "log", "softplus", "floor",
    "ceil", "round", "trunc", "square", "sqrt", "sin", "cos", "leaky_relu",
]  # fmt: skip
ARITHMETIC = ["add", "sub", "mul", "div", "maximum", "minimum", "pow"]
COMPARISONS = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]
GATED = ["reglu", "geglu", "geglu_erf", "geglu_quick", "swiglu", "swiglu_clamped"]
SDPA = ops.scaled_dot_product_attention


def refusals():
    """(op, what is built, what the sentence must say) for every refusal of every rule."""
    for name in UNARY:
        row = OPS[name]
        yield name, lambda row=row: row(i32(3)), r"i32\[3\] must hold floats"
        yield name, lambda row=row: row(of("q4_0", 32)), r"q4_0\[32\] must hold floats"
    for name in ARITHMETIC + COMPARISONS:
        row = OPS[name]
        yield name, lambda row=row: row(f32(3), i32(3)), "share a dtype, given f32, i32"
        yield name, lambda row=row: row(f32(3), f32(4, name="y")), r"\(3,\), \(4,\)\) do not broad"
        yield name, lambda row=row: row(of("bool", 3), of("bool", 3)), "need a logical op"
        yield name, lambda row=row: row(of("q8_0", 32), of("q8_0", 32)), "must be cast to a plain"
    for name in GATED:
        row = OPS[name]
        yield name, lambda row=row: row(f32(3), f32(1, name="u")), "must have one shape"
        yield name, lambda row=row: row(f32(3), of("f16", 3)), "share a dtype"
        yield name, lambda row=row: row(i32(3), i32(3)), "must hold floats"
    for name in ("logical_and", "logical_or"):
        row = OPS[name]
        yield name, lambda row=row: row(f32(3), of("bool", 3)), r"f32\[3\] must be bool"
    yield from other_refusals()


def other_refusals():
    yield "logical_not", lambda: ops.logical_not(f32(3)), "must be bool"
    yield "swiglu_clamped", lambda: ops.swiglu_clamped(f32(3), f32(3), limit=0.0), "limit 0.0 must"
    yield "clamp", lambda: ops.clamp(f32(3), low=1, high=0), "low 1.0 is above high 0.0"
    yield "clamp", lambda: ops.clamp(i32(3), low=0, high=1), "must hold floats"
    yield "xielu", lambda: ops.xielu(i32(3), alpha_n=1, alpha_p=1), "must hold floats"
    yield "scale", lambda: ops.scale(i32(3), factor=2.0), "must hold floats"
    yield "where", lambda: ops.where(f32(3), f32(3), f32(3)), "must be bool"
    yield "where", lambda: ops.where(of("bool", 3), f32(3), i32(3)), "share a dtype"
    yield "where", lambda: ops.where(of("bool", 2), f32(3), f32(3)), "do not broadcast"
    ids = i32(4, 2)
    yield "add_rows_by_id", lambda: ops.add_rows_by_id(f32(4, 5), f32(3, 5), ids), "not go with"
    yield "add_rows_by_id", lambda: ops.add_rows_by_id(f32(4, 2, 5), f32(3, 6), ids), "bias"
    yield "add_rows_by_id", lambda: ops.add_rows_by_id(f32(4, 3, 5), f32(3, 5), ids), "not go with"
    for name in ("input", "weight", "state"):
        row = OPS[name]
        yield name, lambda row=row: row(name="", dtype="f32", shape=(1,)), "needs a name"
        yield name, lambda row=row: row(name="x", dtype="f32", shape=(-1,)), "negative length"
    yield "fill", lambda: ops.fill(value=0, dtype="q4_0", shape=(32,)), "cannot fill"
    yield "arange", lambda: ops.arange(start=0, stop=1, step=0), "step must not be 0"
    yield "arange", lambda: ops.arange(start=0, stop=32, dtype="q4_0"), "cannot make a range"
    for name in ("sum", "prod", "mean", "max", "min", "argmax", "argmin", "cumsum"):
        row = OPS[name]
        yield name, lambda row=row: row(f32(2, 3), axis=2), "axis 2 of 2 axes"
        yield name, lambda row=row: row(f32(2, 3), axis=-3), "axis -3 of 2 axes"
        yield name, lambda row=row: row(f32()), "axis -1 of 0 axes"
    for name in ("sum", "max", "argmin", "argsort", "cumsum", "top_k"):
        row, extra = OPS[name], {"k": 1} if name == "top_k" else {}
        yield name, lambda row=row, e=extra: row(of("bool", 3), **e), "cast to numbers"
        yield name, lambda row=row, e=extra: row(of("q4_0", 32), **e), "cast to a plain dtype"
    for name in ("mean", "max", "min", "argmax", "argmin"):
        row = OPS[name]
        yield name, lambda row=row: row(f32(3, 0)), r"f32\[3, 0\] is empty along axis -1"
    yield "mean", lambda: ops.mean(i32(3)), "must hold floats"
    yield "top_k", lambda: ops.top_k(f32(3), k=4), "k 4 of 3 values"
    yield "top_k", lambda: ops.top_k(f32(3), k=0), "k 0 of 3 values"
    yield "count_equal", lambda: ops.count_equal(f32(3), f32(1)), "must have one shape"
    yield "count_equal", lambda: ops.count_equal(f32(3), i32(3)), "share a dtype"
    yield from softmax_and_norm_refusals()
    yield from product_refusals()
    yield from rope_refusals()
    yield from attention_refusals()
    yield from movement_refusals()
    yield from convolution_refusals()
    yield from recurrence_refusals()
    yield from resample_refusals()
    yield from view_refusals()


def softmax_and_norm_refusals():
    x = f32(3, 4, 5)
    yield "softmax", lambda: ops.softmax(i32(3)), "must hold floats"
    yield "softmax", lambda: ops.softmax(x, f32(2, 5)), "do not broadcast"
    yield "softmax", lambda: ops.softmax(x, f32(2, 3, 4, 5)), r"mask f32\[2, 3, 4, 5\] for"
    yield "softmax", lambda: ops.softmax(x, i32(4, 5)), "is no mask"
    yield "softmax", lambda: ops.softmax(x, None, f32(4)), r"sinks f32\[4\] for"
    yield "softmax", lambda: ops.softmax(f32(3, 5), None, f32(3)), "sinks"
    yield "softmax", lambda: ops.softmax(x, None, f32(1, 3)), "must have 1 axes"
    yield "softmax", lambda: ops.softmax(x, max_bias=8.0), "max_bias needs a mask of floats"
    yield "softmax", lambda: ops.softmax(x, of("bool", 5), max_bias=8.0), "needs a mask of floats"
    yield "softmax", lambda: ops.softmax(f32(4, 5), f32(5), max_bias=8.0), "no heads axis"
    yield "rms_norm", lambda: ops.rms_norm(x, f32(4)), r"must be \(5,\)"
    yield "rms_norm", lambda: ops.rms_norm(i32(3)), "must hold floats"
    yield "layer_norm", lambda: ops.layer_norm(x, None, f32(1, 5)), r"must be \(5,\)"
    yield "layer_norm", lambda: ops.layer_norm(x, i32(5)), "must hold floats"
    yield "l2_norm", lambda: ops.l2_norm(i32(3)), "must hold floats"
    yield "group_norm", lambda: ops.group_norm(f32(4), groups=2), r"must be \(batch, channels"
    yield "group_norm", lambda: ops.group_norm(x, groups=3), "4 channels in 3 groups"
    yield "group_norm", lambda: ops.group_norm(x, groups=0), "4 channels in 0 groups"
    yield "group_norm", lambda: ops.group_norm(x, f32(5), groups=2), r"must be \(4,\)"


def product_refusals():
    a, q = f32(2, 32), of("q4_0", 5, 32)
    yield "matmul", lambda: ops.matmul(a, f32(3, 4)), "inner lengths 32 and 3 differ"
    yield "matmul", lambda: ops.matmul(a, q), "only be multiplied with transpose_b"
    yield "matmul", lambda: ops.matmul(f32(32), f32(32, 2)), "at least two axes"
    yield "matmul", lambda: ops.matmul(i32(2, 3), f32(3, 2)), "must hold floats"
    yield "matmul", lambda: ops.matmul(f32(2, 3), i32(3, 2)), "must hold floats"
    yield "matmul", lambda: ops.matmul(q, a, transpose_b=True), "must hold floats"
    yield "matmul", lambda: ops.matmul(f32(2, 4, 3), f32(3, 3, 2)), "do not broadcast"
    yield "matmul", lambda: ops.matmul(a, q, transpose_b=True, precision="low"), "precision must be"
    x, w, ids = f32(4, 2, 7), f32(3, 5, 7), i32(4, 2)
    grouped = ops.matmul_grouped
    yield "matmul_grouped", lambda: grouped(x, w, f32(4, 2)), "must be i32 or i64"
    yield "matmul_grouped", lambda: grouped(f32(4, 7), w, ids), "must have 3 axes"
    yield "matmul_grouped", lambda: grouped(x, f32(5, 7), ids), "must have 3 axes"
    yield "matmul_grouped", lambda: grouped(x, w, i32(4)), "must have 2 axes"
    yield "matmul_grouped", lambda: grouped(f32(4, 3, 7), w, ids), "does not go with"
    yield "matmul_grouped", lambda: grouped(x, f32(3, 5, 8), ids), "inner lengths 7 and 8"
    yield "matmul_grouped", lambda: grouped(x, w, ids, precision="x"), "precision must be"
    yield "outer", lambda: ops.outer(f32(), f32(3)), "at least one axis"
    yield "outer", lambda: ops.outer(f32(3), of("f16", 3)), "share a dtype"
    yield "outer", lambda: ops.outer(i32(3), i32(3)), "must hold floats"


def rope_refusals():
    x, at = f32(5, 2, 8), i32(5)
    yield "rope", lambda: ops.rope(x, f32(5)), "must be i32 or i64"
    yield "rope", lambda: ops.rope(x, i32(4)), r"positions must be \(5,\)"
    yield "rope", lambda: ops.rope(f32(5, 8), at), "must be "
    yield "rope", lambda: ops.rope(x, at, layout="odd"), "layout must be one of"
    yield "rope", lambda: ops.rope(x, at, dims=3), "dims 3 of a head of 8"
    yield "rope", lambda: ops.rope(x, at, dims=10), "dims 10 of a head of 8"
    yield "rope", lambda: ops.rope(x, at, sections=(1, 1, 1, 1)), "with layout 'interleaved'"
    yield "rope", lambda: ops.rope(x, i32(4, 5), layout="sections"), r"sections \(\) with"
    yield (
        "rope",
        lambda: ops.rope(x, i32(4, 5), layout="sections", sections=(0, 0, 0, 0)),
        "are empty",
    )
    yield "rope", lambda: ops.rope(x, at, f32(8)), r"factors must be \(4,\)"
    yield "rope", lambda: ops.rope(x, at, extrapolation=1.0), "YaRN needs original_context"
    vision = {"layout": "vision", "sections": (2, 2, 0, 0)}
    yield "rope", lambda: ops.rope(x, i32(4, 5), dims=4, **vision), "turns the whole head"
    yarn = {"extrapolation": 1.0, "original_context": 8}
    yield "rope", lambda: ops.rope(x, i32(4, 5), **vision, **yarn), "not defined for layout"


def attention_refusals():
    name = "scaled_dot_product_attention"
    q, k, v = f32(3, 4, 8), f32(7, 2, 8, name="k"), f32(7, 2, 6, name="v")
    yield name, lambda: SDPA(i32(3, 4, 8), k, v), "must hold floats"
    yield name, lambda: SDPA(f32(4, 8), k, v), "three axes at least"
    yield name, lambda: SDPA(q, k, f32(6, 2, 6)), "must have equal rows and heads"
    yield name, lambda: SDPA(q, f32(7, 2, 9), v), "head lengths 8 and 9 differ"
    yield name, lambda: SDPA(f32(3, 5, 8), k, v), "5 heads over 2 key heads"
    yield name, lambda: SDPA(q, k, v, window=3), "a window needs causal=True"
    yield name, lambda: SDPA(q, k, v, f32(2, 7)), "do not broadcast"
    yield name, lambda: SDPA(q, k, v, i32(3, 7)), "is no mask"
    yield name, lambda: SDPA(q, k, v, max_bias=8.0), "max_bias needs a mask of floats"
    yield name, lambda: SDPA(q, k, v, None, f32(3)), "must be i32 or i64"
    yield name, lambda: SDPA(q, k, v, None, i32(4)), r"positions must be \(3,\)"
    yield name, lambda: SDPA(q, k, v, None, None, f32(2)), r"sinks must be \(4,\)"


def movement_refusals():
    yield "concat", lambda: ops.concat(axis=0), "nothing to join"
    yield "concat", lambda: ops.concat(f32(2, 3), f32(2, 4)), r"f32\[2, 4\] does not join"
    yield "concat", lambda: ops.concat(f32(2, 3), f32(3)), "does not join"
    yield "concat", lambda: ops.concat(f32(2), i32(2)), "share a dtype"
    yield "concat", lambda: ops.concat(f32(2), axis=1), "axis 1 of 1 axes"
    yield "repeat", lambda: ops.repeat(f32(2, 3), repeats=(2,)), "need 2 counts"
    yield "repeat", lambda: ops.repeat(f32(2), repeats=(0,)), "must be positive"
    pad = ops.pad
    yield "pad", lambda: pad(f32(2), before=(1,), after=()), "need 1 counts before and after"
    yield "pad", lambda: pad(f32(2), before=(-1,), after=(0,)), "must not be negative"
    yield "pad", lambda: pad(f32(2), before=(1,), after=(0,), mode="edge"), "mode must be one of"
    yield "pad", lambda: pad(f32(2), before=(3,), after=(0,), mode="circular"), "must not exceed"
    yield "pad_reflect", lambda: ops.pad_reflect(f32(3), before=3, after=0), "3 and 0 of 3"
    yield "pad_reflect", lambda: ops.pad_reflect(f32(3), before=0, after=-1), "0 and -1 of 3"
    yield "roll", lambda: ops.roll(f32(2, 3), shifts=(1,)), "need 2 shifts"
    yield "triangular", lambda: ops.triangular(f32(3)), "no last two axes"
    yield "triangular", lambda: ops.triangular(f32(3, 3), part="left"), "'lower' or 'upper'"
    yield "triangular", lambda: ops.triangular(i32(3, 3)), "must hold floats"
    yield "diag", lambda: ops.diag(f32()), "a scalar has no diagonal"
    yield "index_select", lambda: ops.index_select(f32(3, 2), f32(2)), "must be i32 or i64"
    yield "index_select", lambda: ops.index_select(f32(3, 2), i32(2, 2)), "must have 1 axes"
    yield "index_select", lambda: ops.index_select(f32(), i32(2)), "at least one axis"
    yield "index_select", lambda: ops.index_select(of("q4_0", 32), i32(2)), "has no rows"
    yield "take", lambda: ops.take(f32(3, 2), f32(2)), "must be i32 or i64"
    yield "take", lambda: ops.take(f32(), i32(2)), "at least one axis"
    yield "take", lambda: ops.take(of("q4_0", 32), i32(2)), "has no rows"
    scatter = ops.scatter_rows
    yield "scatter_rows", lambda: scatter(f32(3, 2), f32(1), f32(1, 2)), "must be i32 or i64"
    yield "scatter_rows", lambda: scatter(f32(3, 2), i32(1, 1), f32(1, 2)), "must have 1 axes"
    yield "scatter_rows", lambda: scatter(f32(3, 2), i32(2), f32(1, 2)), r"rows must be \[2, 2\]"
    yield "cast", lambda: ops.cast(f32(3), dtype="q4_0"), "does not divide into"
    yield "cast", lambda: ops.cast(f32(3), dtype="f31"), "there is no dtype 'f31'"


def convolution_refusals():
    x, w = f32(2, 4, 6, 7), f32(8, 4, 3, 3)
    yield "conv", lambda: ops.conv(i32(2, 4, 6, 7), w), "must hold floats"
    yield "conv", lambda: ops.conv(x, f32(8, 4, 3)), "of one rank, 3 to 5"
    yield "conv", lambda: ops.conv(f32(2, 4), f32(8, 4)), "of one rank, 3 to 5"
    yield "conv", lambda: ops.conv(x, w, groups=3), "8 outputs in 3 groups"
    yield "conv", lambda: ops.conv(x, w, groups=0), "8 outputs in 0 groups"
    yield "conv", lambda: ops.conv(x, w, groups=2), "in 2 groups"
    yield "conv", lambda: ops.conv(x, w, stride=(1,)), r"stride \(1,\) needs 2 numbers"
    yield "conv", lambda: ops.conv(x, w, stride=(1, 0)), "must not be below 1"
    yield "conv", lambda: ops.conv(x, w, padding=(0, -1)), "must not be below 0"
    yield "conv", lambda: ops.conv(x, w, dilation=(1, 4)), "is larger than padded axes"
    many = f32(1, 1, 2, 2, 2, 2)
    yield "conv", lambda: ops.conv(many, many), "one to three axes"
    turned = ops.conv_transpose
    yield "conv_transpose", lambda: turned(x, i32(4, 8, 3, 3)), "must hold floats"
    yield "conv_transpose", lambda: turned(x, f32(5, 8, 3, 3)), "channels differ"
    yield "conv_transpose", lambda: turned(x, f32(4, 8, 3, 3), groups=3), "4 channels in 3 groups"
    yield "conv_transpose", lambda: turned(x, f32(4, 8, 3, 3), padding=(4, 0)), "leaves nothing"
    yield "conv_transpose", lambda: turned(x, f32(4, 8, 0, 3)), "must not be empty"
    yield "conv_transpose", lambda: turned(many, many), "one to three axes"
    yield "im2col", lambda: ops.im2col(of("q4_0", 1, 1, 32), kernel=(3,)), "plain dtype"
    yield "im2col", lambda: ops.im2col(f32(4, 6), kernel=()), "batch, channels"
    yield "im2col", lambda: ops.im2col(x, kernel=(3,)), "over 2 spatial axes"
    yield "im2col", lambda: ops.im2col(x, kernel=(0, 3)), "must be positive"
    rows = f32(2, 4, 5, 36)
    yield "col2im", lambda: ops.col2im(rows, shape=(6, 6), kernel=(3, 3)), "are no columns of"
    yield "col2im", lambda: ops.col2im(f32(2, 4, 35), shape=(6,), kernel=(3,)), "no columns"
    yield "col2im", lambda: ops.col2im(i32(2, 4, 12), shape=(6,), kernel=(3,)), "must hold floats"
    for name in ("max_pool", "avg_pool"):
        row = OPS[name]
        yield name, lambda row=row: row(i32(1, 2, 6), kernel=(2,)), "must hold floats"
        yield name, lambda row=row: row(f32(2, 6), kernel=(2,)), "batch, channels"
        yield name, lambda row=row: row(x, kernel=(2, 3), padding=(1, 2)), "exceeds half of kernel"


def resample_refusals():
    name, x = "interpolate", f32(2, 5, 6)
    yield name, lambda: ops.interpolate(i32(5), size=(3,)), "must hold floats"
    yield name, lambda: ops.interpolate(x, size=(3,), mode="area"), "mode must be one of"
    yield name, lambda: ops.interpolate(x, size=()), "for f32"
    yield name, lambda: ops.interpolate(x, size=(2, 3, 4, 5)), "for f32"
    yield name, lambda: ops.interpolate(x, size=(3, 0)), "cannot resize"
    yield name, lambda: ops.interpolate(f32(0), size=(3,)), "cannot resize"
    yield name, lambda: ops.interpolate(x, size=(3,), align_corners=True), "does not align"
    both = {"mode": "linear", "align_corners": True, "antialias": True}
    yield name, lambda: ops.interpolate(x, size=(3,), **both), "antialias needs mode linear"
    yield name, lambda: ops.interpolate(x, size=(3,), mode="cubic", antialias=True), "needs mode"


def recurrence_refusals():
    keys, values, state = f32(2, 3, 4, 5), f32(2, 3, 4, 6), f32(2, 5, 4, 6)
    gla, delta, scan = ops.gated_linear_attention, ops.gated_delta_rule, ops.selective_scan
    name = "gated_linear_attention"
    yield name, lambda: gla(keys, keys, i32(2, 3, 4, 6), keys, state), "must hold floats"
    yield name, lambda: gla(keys, keys, values, of("f16", 2, 3, 4, 5), state), "share a dtype"
    yield name, lambda: gla(keys, keys, values, keys, f32(2, 5, 24)), "must have 4 axes"
    yield name, lambda: gla(keys, keys, f32(2, 3, 24), keys, state), "must have 4 axes"
    yield name, lambda: gla(keys, keys, values, keys, of("f16", 2, 5, 4, 6)), "must be f32, not"
    yield name, lambda: gla(keys, keys, f32(2, 3, 4, 7), keys, state), "do not go with state"
    yield name, lambda: gla(keys, f32(2, 2, 4, 5), values, keys, state), r"must be \[2, 3, 4, 5\]"
    yield (
        "wkv6",
        lambda: ops.wkv6(keys, keys, values, f32(5, 4), keys, state),
        r"u must be \[4, 5\]",
    )
    yield "wkv7", lambda: ops.wkv7(keys, keys, keys, values, keys, values, state), "must be"
    name, scalar = "gated_delta_rule", f32(2, 3, 4)
    yield name, lambda: delta(keys, keys, values, f32(2, 3, 4, 2), scalar, state), "g must be"
    yield name, lambda: delta(keys, keys, values, keys, keys, state), "beta must be"
    name, a, b = "selective_scan", f32(4, 5), f32(2, 3, 2, 5)
    yield name, lambda: scan(values, keys, a, b, b, state), "dt must be"
    yield name, lambda: scan(values, scalar, f32(5), b, b, state), "a must be"
    yield name, lambda: scan(values, scalar, a, b, keys, state), "must have one shape"
    yield name, lambda: scan(values, scalar, a, values, values, state), "b and c must be"
    three = f32(2, 3, 3, 5)
    yield name, lambda: scan(values, scalar, a, three, three, state), "4 heads in 3 groups"
    name, solve = "solve_triangular", ops.solve_triangular
    yield name, lambda: solve(i32(3, 3), f32(3, 2)), "must hold floats"
    yield name, lambda: solve(f32(3, 3), f32(3)), "at least two axes"
    yield name, lambda: solve(f32(3, 4), f32(3, 2)), "is not square"
    yield name, lambda: solve(f32(3, 3), f32(4, 2)), "differ in rows"


def view_refusals():
    x, q = f32(2, 3, 4), of("q4_0", 2, 64)
    yield "reshape", lambda: ops.reshape(x, shape=(5, 5)), "sizes differ"
    yield "reshape", lambda: ops.reshape(x, shape=(-1, -1)), "more than one length open"
    yield "reshape", lambda: ops.reshape(x, shape=(-1, 7)), r"cannot become \(-1, 7\)"
    yield "reshape", lambda: ops.reshape(f32(0, 2), shape=(-1, 0)), "cannot become"
    yield "reshape", lambda: ops.reshape(q, shape=(4, 32)), "packed along its last axis"
    yield "permute", lambda: ops.permute(x, axes=(0, 1)), "is no permutation of 3 axes"
    yield "permute", lambda: ops.permute(x, axes=(0, 1, 1)), "is no permutation of 3 axes"
    yield "permute", lambda: ops.permute(q, axes=(1, 0)), "must stay last"
    yield "transpose", lambda: ops.transpose(f32(3)), "axis -2 of 1 axes"
    yield "transpose", lambda: ops.transpose(q), "must stay last"
    cut = ops.slice
    yield "slice", lambda: cut(x, starts=(0,), stops=(1,)), "need 3 starts, stops and steps"
    yield "slice", lambda: cut(f32(5), starts=(3,), stops=(2,)), "3:2:1 of 5"
    yield "slice", lambda: cut(f32(5), starts=(0,), stops=(6,)), "0:6:1 of 5"
    yield "slice", lambda: cut(f32(5), starts=(-1,), stops=(5,)), "-1:5:1 of 5"
    yield "slice", lambda: cut(f32(5), starts=(0,), stops=(5,), steps=(0,)), "0:5:0 of 5"
    yield "slice", lambda: cut(q, starts=(0, 16), stops=(2, 48)), "must keep blocks whole"
    yield "slice", lambda: cut(q, starts=(0, 0), stops=(2, 64), steps=(1, 2)), "keep blocks whole"


REFUSALS = list(refusals())


@pytest.mark.parametrize(
    ("op", "build", "message"), REFUSALS, ids=[f"{op}-{i}" for i, (op, _, _) in enumerate(REFUSALS)]
)
def test_refused(op, build, message):
    with pytest.raises(HotplugError, match=message) as caught:
        build()

    if isinstance(caught.value, GraphError):
        assert caught.value.op == op
    else:
        assert isinstance(caught.value, DTypeError)


def test_every_op_that_can_refuse_is_here():
    assert OPS.keys() - {op for op, _, _ in REFUSALS} == {"contiguous"}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (ops.add(f32(2, 1, 5), f32(3, 1, name="y")), "f32[2, 3, 5]"),
        (ops.less(i32(3), i32(3)), "bool[3]"),
        (ops.where(of("bool", 5), f32(3, 1), f32()), "f32[3, 5]"),
        (ops.sum(f32(2, 3), axis=0), "f32[3]"),
        (ops.mean(f32(2, 3), keepdims=True), "f32[2, 1]"),
        (ops.argmax(of("f16", 2, 3)), "i32[2]"),
        (ops.argsort(of("i64", 2, 3)), "i32[2, 3]"),
        (ops.top_k(f32(2, 9), k=4), "i32[2, 4]"),
        (ops.count_equal(f32(3), f32(3)), "i64[]"),
        (ops.matmul(of("f16", 2, 3), of("f16", 3, 4)), "f32[2, 4]"),
        (ops.matmul(of("f64", 2, 3), of("f64", 3, 4)), "f64[2, 4]"),
        (ops.matmul(of("f64", 2, 3), f32(3, 4)), "f32[2, 4]"),
        (ops.matmul(f32(5, 1, 2, 32), of("q4_0", 3, 7, 32), transpose_b=True), "f32[5, 3, 2, 7]"),
        (ops.matmul_grouped(f32(4, 1, 7), f32(3, 5, 7), i32(4, 2)), "f32[4, 2, 5]"),
        (ops.outer(of("f16", 2, 3), of("f16", 4)), "f16[2, 3, 4]"),
        (SDPA(of("f16", 3, 4, 8), f32(7, 2, 8), f32(7, 2, 6)), "f32[3, 4, 6]"),
        (ops.index_select(of("q4_0", 9, 2, 32), i32(5)), "q4_0[5, 2, 32]"),
        (ops.take(of("q4_0", 9, 32), i32(2, 5)), "f32[2, 5, 32]"),
        (ops.take(of("f16", 9), i32()), "f16[]"),
        (ops.cast(f32(64), dtype="Q4_0"), "q4_0[64]"),
        (ops.concat(f32(2, 3), f32(2, 5), axis=-1), "f32[2, 8]"),
        (ops.repeat(f32(2, 3), repeats=(1, 4)), "f32[2, 12]"),
        (ops.pad(f32(2, 3), before=(1, 0), after=(0, 2)), "f32[3, 5]"),
        (ops.pad_reflect(f32(2, 3), before=1, after=2), "f32[2, 6]"),
        (ops.diag(f32(2, 3)), "f32[2, 3, 3]"),
        (ops.arange(start=0, stop=1, step=0.3), "f32[4]"),
        (ops.arange(start=3, stop=0), "f32[0]"),
        (ops.conv(of("f16", 2, 3, 9), of("f16", 4, 3, 3), stride=(2,)), "f32[2, 4, 4]"),
        (ops.conv_transpose(of("f64", 2, 4, 5), of("f64", 4, 2, 3), groups=2), "f64[2, 4, 7]"),
        (ops.im2col(of("i8", 2, 3, 6, 5), kernel=(3, 2)), "i8[2, 4, 4, 18]"),
        (ops.col2im(of("f16", 2, 4, 9), shape=(6,), kernel=(3,)), "f16[2, 3, 6]"),
        (ops.max_pool(of("bf16", 2, 3, 7, 7), kernel=(2, 3)), "bf16[2, 3, 3, 2]"),
        (ops.avg_pool(f32(2, 3, 7), kernel=(3,), stride=(1,), padding=(1,)), "f32[2, 3, 7]"),
        (ops.solve_triangular(f32(2, 3, 3), of("f16", 5, 1, 3, 4)), "f32[5, 2, 3, 4]"),
        (
            ops.gated_linear_attention(
                of("f16", 2, 3, 4, 5),
                of("f16", 2, 3, 4, 5),
                of("f16", 2, 3, 4, 6),
                of("f16", 2, 3, 4, 5),
                f32(2, 5, 4, 6),
            ),
            "f32[2, 8, 4, 6]",
        ),
        (ops.interpolate(of("f16", 2, 3, 5), size=(7, 4)), "f16[2, 7, 4]"),
        (ops.reshape(f32(2, 6), shape=(3, -1)), "f32[3, 4]"),
        (ops.permute(f32(2, 3, 4), axes=(2, 0, 1)), "f32[4, 2, 3]"),
        (ops.transpose(f32(2, 3, 4), axis0=0), "f32[4, 3, 2]"),
        (ops.slice(f32(7, 5), starts=(1, 0), stops=(7, 5), steps=(4, 2)), "f32[2, 3]"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.op,
)
def test_types(node, expected):
    assert str(node.type) == expected


def test_rope_layouts_keep_the_type():
    for layout in ROPE_LAYOUTS:
        sectioned = layout not in {"interleaved", "half"}
        at = i32(4, 5) if sectioned else i32(5)
        sections = (2, 1, 1, 0) if sectioned else ()

        assert (
            ops.rope(f32(5, 2, 8), at, layout=layout, sections=sections).type == f32(5, 2, 8).type
        )
