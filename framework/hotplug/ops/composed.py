"""Well-known functions that are a few ops: they run wherever those do.

Each builds nodes and returns the last. ggml has an op for each; here they need no kernels.
"""

from __future__ import annotations

import math

from hotplug.node import Node
from hotplug.ops.activation import cos, exp, log, relu, sin
from hotplug.ops.arithmetic import add, div, mul, scale, sub, where
from hotplug.ops.arrange import concat, pad
from hotplug.ops.checks import require
from hotplug.ops.convolution import conv
from hotplug.ops.leaves import arange, fill
from hotplug.ops.linear import matmul, outer
from hotplug.ops.reduction import max, softmax, sum
from hotplug.ops.rows import cast, take
from hotplug.ops.views import permute, reshape, slice, transpose

__all__ = [
    "add_rel_pos",
    "add_to_slice",
    "causal_conv1d",
    "cross_entropy_loss",
    "get_rel_pos",
    "hyper_connection_combine",
    "hyper_connection_mix",
    "hyper_connection_read",
    "lightning_indexer",
    "set_slice",
    "timestep_embedding",
    "window_partition",
    "window_unpartition",
]


def timestep_embedding(timesteps: Node, *, dim: int, max_period: float = 10000.0) -> Node:
    """Sinusoidal embedding of diffusion models: cosines, sines, and a 0 if dim is odd.

    With h = dim // 2, angle j of h is timestep * max_period^(-j / h).

    Args:
        timesteps: (n,) f32.
        dim: length of an embedding, at least 2.
        max_period: the longest period, over 2 pi.

    Returns:
        (n, dim), f32.
    """
    require(dim >= 2, f"dim {dim} must be at least 2")
    half = dim // 2
    rates = exp(scale(arange(start=0, stop=half), factor=-math.log(max_period) / half))
    angles = outer(timesteps, rates)
    parts = [cos(angles), sin(angles)]
    if dim % 2:
        parts.append(fill(value=0.0, dtype="f32", shape=(timesteps.shape[0], 1)))
    return concat(*parts, axis=1)


def causal_conv1d(x: Node, w: Node) -> Node:
    """Convolution of each channel along tokens, as before a state space scan (ggml's ssm_conv).

    Args:
        x: (batch, channels, k - 1 + tokens): the k - 1 elements before, then those of the tokens.
        w: (channels, k).

    Returns:
        (batch, tokens, channels).
    """
    channels, length = w.shape
    filters = reshape(w, shape=(channels, 1, length))
    return transpose(conv(x, filters, groups=channels))


def cross_entropy_loss(logits: Node, targets: Node) -> Node:
    """How far predictions are off: the mean over rows of -sum(targets * log(softmax(logits))).

    Args:
        logits: (..., classes), floats.
        targets: the same shape; each row the probabilities that are right.

    Returns:
        (1,).
    """
    require(logits.shape == targets.shape, f"{targets.type} are no targets of {logits.type}")
    below = sub(logits, max(logits, keepdims=True))
    logs = sub(below, log(sum(exp(below), keepdims=True)))
    size = logits.type.size
    rows = size // logits.shape[-1]
    total = sum(reshape(mul(targets, logs), shape=(size,)), keepdims=True)
    return scale(total, factor=-1.0 / rows)


def set_slice(x: Node, values: Node, *, starts: tuple[int, ...]) -> Node:
    """X with a box of it replaced, as x[box] = values does (ggml's set)."""
    box = fill(value=1.0, dtype="bool", shape=values.shape)
    return where(_in_place(box, x, starts), _in_place(values, x, starts), x)


def add_to_slice(x: Node, values: Node, *, starts: tuple[int, ...]) -> Node:
    """X with values added to a box of it, as x[box] += values does (ggml's acc)."""
    return add(x, _in_place(values, x, starts))


def _in_place(values: Node, x: Node, starts: tuple[int, ...]) -> Node:
    require(len(values.shape) == len(starts) == len(x.shape), f"{starts} is no place in {x.type}")
    after = tuple(n - s - m for n, s, m in zip(x.shape, starts, values.shape, strict=True))
    return pad(values, before=starts, after=after)


def window_partition(x: Node, *, window: int) -> Node:
    """Images cut into squares, as in the Segment Anything model (arXiv 2304.02643).

    Args:
        x: (batch, height, width, channels), padded with zeros to whole windows.
        window: length of a square's side.

    Returns:
        (batch * rows * columns, window, window, channels).
    """
    batch, height, width, channels = x.shape
    rest = (0, -height % window, -width % window, 0)
    padded = pad(x, before=(0, 0, 0, 0), after=rest)
    rows, columns = padded.shape[1] // window, padded.shape[2] // window
    split = reshape(padded, shape=(batch, rows, window, columns, window, channels))
    squares = permute(split, axes=(0, 1, 3, 2, 4, 5))
    return reshape(squares, shape=(batch * rows * columns, window, window, channels))


def window_unpartition(windows: Node, *, size: tuple[int, int]) -> Node:
    """Images put together from what `window_partition` gives.

    Args:
        windows: (batch * rows * columns, window, window, channels).
        size: height and width of an image; what exceeds it is dropped.

    Returns:
        (batch, height, width, channels).
    """
    count, window, _, channels = windows.shape
    rows, columns = -(-size[0] // window), -(-size[1] // window)
    require(count % (rows * columns) == 0, f"{count} windows of {window} for images of {size}")
    batch = count // (rows * columns)
    split = reshape(windows, shape=(batch, rows, columns, window, window, channels))
    lines = permute(split, axes=(0, 1, 3, 2, 4, 5))
    whole = reshape(lines, shape=(batch, rows * window, columns * window, channels))
    return slice(whole, starts=(0, 0, 0, 0), stops=(batch, *size, channels))


def get_rel_pos(table: Node, *, queries: int, keys: int) -> Node:
    """Rows of a table by relative position: result[q, k] is table[q - k + keys - 1].

    Args:
        table: (queries + keys - 1, d).
        queries: number of queries along an axis.
        keys: number of keys along it.

    Returns:
        (queries, keys, d).
    """
    require(table.shape[0] == queries + keys - 1, f"{table.type} for {queries} and {keys} places")
    first = arange(start=keys - 1, stop=keys - 1 + queries, dtype="i32")
    step = arange(start=0, stop=keys, dtype="i32")
    return take(table, sub(reshape(first, shape=(queries, 1)), step))


def add_rel_pos(scores: Node, rel_h: Node, rel_w: Node) -> Node:
    """Attention scores of images plus biases by relative row and column (arXiv 2112.01526).

    Args:
        scores: (..., queries, key_height * key_width).
        rel_h: (..., queries, key_height).
        rel_w: (..., queries, key_width).
    """
    height, width = rel_h.shape[-1], rel_w.shape[-1]
    lead = scores.shape[:-1]
    image = reshape(scores, shape=(*lead, height, width))
    rows, columns = (
        reshape(rel_h, shape=(*lead, height, 1)),
        reshape(rel_w, shape=(*lead, 1, width)),
    )
    return reshape(add(add(image, rows), columns), shape=scores.shape)


def lightning_indexer(q: Node, k: Node, weights: Node, mask: Node) -> Node:
    """Scores by which sparse attention chooses rows (DeepSeek-V3.2; arXiv 2512.02556).

    score[t, s] = mask[t, s] + sum over heads of weights[t, h] relu(q[t, h] . k[s]).

    Args:
        q: (batch, tokens, heads, d).
        k: (batch, rows, d), floats or quantised.
        weights: (batch, tokens, heads) f32, scales included.
        mask: broadcast to (batch, tokens, rows), added.

    Returns:
        (batch, tokens, rows), f32.
    """
    batch, tokens, heads, width = q.shape
    flat = reshape(q, shape=(batch, tokens * heads, width))
    products = relu(matmul(flat, k, transpose_b=True, precision="exact"))
    by_head = reshape(products, shape=(batch, tokens, heads, k.shape[1]))
    sums = matmul(reshape(weights, shape=(batch, tokens, 1, heads)), by_head)
    plain = mask if mask.dtype.name == "f32" else cast(mask, dtype="f32")
    return add(reshape(sums, shape=(batch, tokens, k.shape[1])), plain)


def hyper_connection_mix(logits: Node, *, iterations: int, eps: float = 1e-6) -> Node:
    """Matrices that mix residual streams, made nearly doubly stochastic (arXiv 2512.24880).

    Softmax over the last axis, plus eps; then both axes are divided in turn by their sums, plus
    eps: the last but one first, and after it last and last but one `iterations` - 1 times.

    Args:
        logits: (tokens, source, target).
        iterations: how often the last but one axis is divided.
        eps: keeps sums above 0.

    Returns:
        (tokens, source, target).
    """
    require(iterations > 0, f"iterations {iterations} must be positive")
    mix = _normalised(scale(softmax(logits), factor=1.0, offset=eps), -2, eps)
    for _ in range(iterations - 1):
        mix = _normalised(_normalised(mix, -1, eps), -2, eps)
    return mix


def _normalised(x: Node, axis: int, eps: float) -> Node:
    return div(x, scale(sum(x, axis=axis, keepdims=True), factor=1.0, offset=eps))


def hyper_connection_read(streams: Node, weights: Node) -> Node:
    """A layer's input from residual streams: sum over h of weights[t, h] streams[t, h].

    Args:
        streams: (tokens, h, d).
        weights: (tokens, h).

    Returns:
        (tokens, d), f32.
    """
    tokens, count, width = streams.shape
    row = reshape(weights, shape=(tokens, 1, count))
    return reshape(matmul(row, streams), shape=(tokens, width))


def hyper_connection_combine(x: Node, streams: Node, weights: Node, mix: Node) -> Node:
    """Residual streams after a layer: mixed ones plus the layer's output, weighted.

    result[t, j] = weights[t, j] x[t] + sum over i of mix[t, i, j] streams[t, i].

    Args:
        x: (tokens, d) f32, the layer's output.
        streams: (tokens, h, d).
        weights: (tokens, h) f32.
        mix: (tokens, h, h), as `hyper_connection_mix` gives it.

    Returns:
        (tokens, h, d), f32.
    """
    tokens, count, width = streams.shape
    written = mul(reshape(weights, shape=(tokens, count, 1)), reshape(x, shape=(tokens, 1, width)))
    return add(written, matmul(transpose(mix), streams))
