"""Compares the oracle with ggml itself, op by op, for what hand-worked tests cannot settle.

    python tools/check_against_ggml.py FOLDER

FOLDER holds ggml's shared libraries, such as `llama_cpp/lib` of a llama-cpp-python package (built
by `make bench-peers`); ggml 0.25.3 was used. Prints the largest difference of each comparison, as
a part of the largest value, and ends with 1 if one is above 1e-4.

ggml's shapes are written the other way round, so that arrays go over as they are.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hotplug import ops
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.ops import composed
from hotplug.testing.oracle import evaluate

Array: TypeAlias = "npt.NDArray[Any]"

LIMIT = 1e-4
MEMORY = 1 << 28
TYPES = {"f4": (0, "f32"), "f2": (1, "f16"), "i4": (26, "i32")}
RNG = np.random.default_rng(0)


class InitParams(ctypes.Structure):
    """`struct ggml_init_params`."""

    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


class Ggml:
    """ggml's functions over arrays."""

    def __init__(self, folder: Path) -> None:
        names = ("libggml-base.so", "libggml-cpu.so")
        self._base, self._cpu = (
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL) for name in names
        )
        self._base.ggml_init.argtypes = [InitParams]
        for name in ("ggml_init", "ggml_new_tensor", "ggml_get_data", "ggml_new_graph"):
            getattr(self._base, name).restype = ctypes.c_void_p
        self._base.ggml_nelements.restype = ctypes.c_int64
        self._context = ctypes.c_void_p(self._base.ggml_init(InitParams(MEMORY, None, False)))

    def __call__(self, function: str, *args: Any) -> Array:
        """The flat f32 result of an op: arrays go as tensors, np.int64 as int64_t."""
        build = getattr(self._base, f"ggml_{function}")
        build.restype = ctypes.c_void_p
        result = ctypes.c_void_p(build(self._context, *(self._argument(arg) for arg in args)))
        graph = ctypes.c_void_p(self._base.ggml_new_graph(self._context))
        self._base.ggml_build_forward_expand(graph, result)
        self._cpu.ggml_graph_compute_with_ctx(self._context, graph, 1)
        values = np.empty(self._base.ggml_nelements(result), np.float32)
        ctypes.memmove(values.ctypes.data, self._base.ggml_get_data(result), values.nbytes)
        return values

    def _argument(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return self._tensor(np.ascontiguousarray(value))
        kinds: dict[type, Callable[[Any], Any]] = {
            float: ctypes.c_float,
            bool: ctypes.c_bool,
            np.int64: ctypes.c_int64,
        }
        return kinds.get(type(value), ctypes.c_int)(value)

    def _tensor(self, array: Array) -> ctypes.c_void_p:
        lengths = (ctypes.c_int64 * array.ndim)(*array.shape[::-1])
        kind = TYPES[array.dtype.str[1:]][0]
        tensor = self._base.ggml_new_tensor(self._context, kind, array.ndim, lengths)
        data = self._base.ggml_get_data(ctypes.c_void_p(tensor))
        ctypes.memmove(data, array.ctypes.data, array.nbytes)
        return ctypes.c_void_p(tensor)


def oracle(build: Callable[..., Node], *arrays: Array, **params: Any) -> Array:
    """What an op gives here."""
    leaves = {f"x{i}": array for i, array in enumerate(arrays)}
    nodes = [
        ops.input(name=name, dtype=TYPES[a.dtype.str[1:]][1], shape=a.shape)
        for name, a in leaves.items()
    ]
    return evaluate(Graph.build({"y": build(*nodes, **params)}), leaves)["y"]


def normal(*shape: int) -> Array:
    """Standard normal f32."""
    return RNG.standard_normal(shape).astype(np.float32)


Comparison: TypeAlias = "tuple[str, Array, Array]"


def convolutions(ggml: Ggml) -> Iterator[Comparison]:
    """Parameters of ggml begin with the innermost axis."""
    x, w = normal(2, 3, 9, 11), normal(5, 3, 3, 2)
    params = {"stride": (1, 2), "padding": (2, 1), "dilation": (1, 2)}
    yield (
        "conv_2d",
        ggml("conv_2d_direct", w, x, 2, 1, 1, 2, 2, 1),
        oracle(ops.conv, x, w, **params),
    )
    w = normal(3, 1, 3, 3)
    here = oracle(ops.conv, x, w, stride=(1, 2), padding=(1, 1), groups=3)
    yield "conv_2d_dw", ggml("conv_2d_dw_direct", w, x, 2, 1, 1, 1, 1, 1), here
    x, w = normal(1, 2, 4, 5, 6), normal(3, 2, 2, 3, 2)
    there = ggml("conv_3d_direct", w.reshape(6, 2, 3, 2), x[0], 2, 1, 1, 1, 0, 1, 1, 1, 1, 2, 1, 3)
    yield "conv_3d", there, oracle(ops.conv, x, w, stride=(1, 1, 2), padding=(1, 0, 1))
    x, w = normal(1, 4, 7), normal(4, 3, 5)
    here = oracle(ops.conv_transpose, x, w, stride=(2,))
    yield "conv_transpose_1d", ggml("conv_transpose_1d", w, x[0], 2, 0, 1), here
    columns = normal(1, 6, 12)
    here = oracle(ops.col2im, columns, shape=(11,), kernel=(3,), stride=(2,), padding=(1,))
    yield "col2im_1d", ggml("col2im_1d", columns[0], 2, 4, 1), here
    x, kernel = normal(2, 3, 9, 11), np.zeros((1, 3, 3, 2), np.float32)
    params = {"stride": (1, 2), "padding": (0, 1), "dilation": (2, 1)}
    there = ggml("im2col", kernel, x, 2, 1, 1, 0, 1, 2, True, 0)
    yield "im2col", there, oracle(ops.im2col, x, kernel=(3, 2), **params)
    yield "ssm_conv", *_ssm_conv(ggml)


def _ssm_conv(ggml: Ggml) -> tuple[Array, Array]:
    x, w = normal(2, 6, 8), normal(6, 4)
    return ggml("ssm_conv", x, w), oracle(composed.causal_conv1d, x, w)


def images(ggml: Ggml) -> Iterator[Comparison]:
    """Pools, interpolation, windows."""
    x = normal(2, 3, 9, 11)
    for number, name in enumerate(("max_pool", "avg_pool")):
        here = oracle(ops.get(name), x, kernel=(2, 3), stride=(1, 2), padding=(0, 1))
        yield f"pool_2d {name}", ggml("pool_2d", x, number, 3, 2, 2, 1, 1.0, 0.0), here
    row = normal(1, 5, 11)
    here = oracle(
        ops.avg_pool, row, kernel=(4,), stride=(3,), padding=(2,), count_include_pad=False
    )
    yield "pool_1d", ggml("pool_1d", row[0], 1, 4, 3, 2), here
    corners, antialias = 1 << 8, 1 << 9
    modes: tuple[tuple[int, dict[str, Any]], ...] = (
        (0, {"mode": "nearest"}),
        (1, {"mode": "linear"}),
        (1 | corners, {"mode": "linear", "align_corners": True}),
        (1 | antialias, {"mode": "linear", "antialias": True}),
        (2, {"mode": "cubic"}),
        (2 | corners, {"mode": "cubic", "align_corners": True}),
    )
    for flags, params in modes:
        for size in ((13, 7), (4, 23), (1, 30)):
            shape = (np.int64(n) for n in (size[1], size[0], 3, 2))
            here = oracle(ops.interpolate, x, size=size, **params)
            yield f"interpolate {params} {size}", ggml("interpolate", x, *shape, flags), here
    image, windows = normal(1, 5, 7, 3), normal(4, 4, 4, 3)
    here = oracle(composed.window_partition, image, window=4)
    yield "win_part", ggml("win_part", image[0], 4), here
    here = oracle(composed.window_unpartition, windows, size=(5, 7))
    yield "win_unpart", ggml("win_unpart", windows, 7, 5, 4), here
    times = np.array([0, 1.5, 70], np.float32)
    here = oracle(composed.timestep_embedding, times, dim=33)
    yield "timestep_embedding", ggml("timestep_embedding", times, 33, 10000), here
    logits, targets = normal(6, 37), np.abs(normal(6, 37))
    here = oracle(composed.cross_entropy_loss, logits, targets)
    yield "cross_entropy_loss", ggml("cross_entropy_loss", logits, targets), here
    a, b = normal(2, 5, 5) + 3 * np.eye(5, dtype=np.float32), normal(2, 5, 3)
    here = oracle(ops.solve_triangular, a, b)
    yield "solve_tri", ggml("solve_tri", a, b, True, True, False), here


def recurrences(ggml: Ggml) -> Iterator[Comparison]:
    """ggml takes sequences one after the other and packs states behind the outputs."""
    batch, tokens, heads, n = 2, 3, 4, 64
    r, k, v, a, b = (normal(batch, tokens, heads, n) / 8 for _ in range(5))
    w, u, state = np.abs(normal(batch, tokens, heads, n)) / 8, normal(heads, n), _state()
    ours = np.ascontiguousarray(state.transpose(0, 2, 1, 3))
    turned = state.swapaxes(-1, -2).reshape(batch, -1)

    def flat(x: Array) -> Array:
        return x.reshape(-1, heads, n)

    def packed(there: Array, *, transposed: bool) -> Array:
        outputs, states = np.split(there, [r.size])
        last = states.reshape(batch, heads, n, n)
        last = last.swapaxes(-1, -2) if transposed else last
        rows = outputs.reshape(r.shape)
        return np.concatenate([rows, last.transpose(0, 2, 1, 3)], axis=1)

    plain = state.reshape(batch, -1)
    there = ggml("rwkv_wkv6", flat(k), flat(v), flat(r), u, flat(w), plain)
    yield "wkv6", packed(there, transposed=False), oracle(ops.wkv6, r, k, v, u, w, ours)
    there = ggml("gated_linear_attn", flat(k), flat(v), flat(r), flat(w), plain, 0.125)
    here = oracle(ops.gated_linear_attention, r, k, v, w, ours)
    yield "gated_linear_attn", packed(there, transposed=False), here
    there = ggml("rwkv_wkv7", *(flat(x) for x in (r, w, k, v, a, b)), turned)
    yield "wkv7", packed(there, transposed=True), oracle(ops.wkv7, r, w, k, v, a, b, ours)
    beta = RNG.uniform(size=(batch, tokens, heads)).astype(np.float32)
    for width in (1, n):
        g = -np.abs(normal(batch, tokens, heads, width))
        square = state.swapaxes(-1, -2)
        there = ggml("gated_delta_net", r, k, v, g, beta[..., None], square, np.int64(1))
        here = oracle(ops.gated_delta_rule, r, k, v, g, beta, ours)
        yield f"gated_delta_net, gates of {width}", packed(there, transposed=True), here
    for width in (1, 8):
        yield f"ssm_scan, rates of {width}", *_ssm_scan(ggml, width)


def _state() -> Array:
    return normal(2, 4, 64, 64) / 4


def _ssm_scan(ggml: Ggml, width: int) -> tuple[Array, Array]:
    batch, tokens, heads, groups, n, d = 2, 3, 6, 2, 8, 4
    state, x = normal(batch, heads, d, n), normal(batch, tokens, heads, d)
    dt, a = normal(batch, tokens, heads), -np.abs(normal(heads, width))
    b, c = (normal(batch, tokens, groups, n) for _ in range(2))
    ids = np.arange(batch, dtype=np.int32)
    there = ggml("ssm_scan", state, x, dt, a, b, c, ids, np.int64(1))
    outputs, states = np.split(there, [x.size])
    last = states.reshape(state.shape).transpose(0, 3, 1, 2)
    rates = a if width > 1 else a[:, 0]
    ours = np.ascontiguousarray(state.transpose(0, 3, 1, 2))
    here = oracle(ops.selective_scan, x, dt, rates, b, c, ours)
    return np.concatenate([outputs.reshape(x.shape), last], axis=1), here


def main() -> int:
    """Compare; the exit status."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    ggml = Ggml(Path(sys.argv[1]))
    worst = 0.0
    for family in (convolutions, images, recurrences):
        for name, there, here in family(ggml):
            difference = np.abs(there.reshape(here.shape) - here).max() / np.abs(here).max()
            worst = max(worst, float(difference))
            print(f"{difference:8.1e}  {name}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
