"""Products of many tokens with weights of every type, against OpenBLAS; prints one JSON object.

    python benchmarks/cpu_gemm.py [--tokens 512] [--threads 2] [--repeats 9] [--types q4_1,f16]

Each product is measured with integers and with floats, laying out the activations included, and
takes turns with NumPy's float32 product of the same sizes, which OpenBLAS computes with as many
threads. Figures are thousand millions of operations a second, of the fastest of all turns; `ratio`
is how many times faster than OpenBLAS.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from functools import partial

import numpy as np
from compiled import fastest, row

from hotplug.dtypes import get
from hotplug.tensor import TensorType
from hotplug_cpu import threads as teams
from hotplug_cpu.jit import loader
from hotplug_cpu.jit.target import host_target
from hotplug_cpu.kernels import panels

SIZES = ((576, 1536), (1536, 576), (576, 192), (512, 2048), (576, 49152))
BYTES = {
    "q4_0": "gemm_u4",
    "q4_1": "gemm_u4",
    "q4_k": "gemm_u4",
    "q5_0": "gemm_u5",
    "q5_1": "gemm_u5",
    "q5_k": "gemm_u5",
    "q8_0": "gemm_i8",
    "iq4_nl": "gemm_i8",
    "q6_k": "gemm_halves",
    "q2_k": "gemm_halves",
    "iq4_xs": "gemm_i8",
}
FLOATS = ("f32", "f16", "bf16", "q4_1", "q8_0", "q4_k", "q6_k")


def plan(
    name: str, x: np.ndarray, rows: int, threads: int, *, integers: bool
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Rows of one product, and the memory they use. The weights are zeros: they cost the same."""
    dtype, (tokens, width) = get(name), x.shape
    stored = np.zeros(dtype.nbytes(rows * width), np.uint8)
    out = np.zeros((tokens, rows), np.float32)
    size = panels.gemm_int8_scratch() if integers else panels.gemm_f32_scratch()
    scratch = np.zeros(threads * size, np.uint8)
    activations = {"x": x, "x_stride": x.strides[0], "tokens": tokens}
    if integers:
        tiles = np.zeros(panels.quantised_bytes(tokens, width), np.uint8)
        count = width // panels.BLOCK
        first = row("quantise_tiles", **activations, blocks=count, tiles=tiles)
        chunk, unpack = panels.CHUNK_BLOCKS * panels.BLOCK, f"weights_{name}"
    else:
        tiles = np.zeros(panels.packed_bytes(tokens, width), np.uint8)
        count = width
        first = row("pack_tiles", **activations, width=count, tiles=tiles)
        chunk, unpack = panels.CHUNK_FLOATS, f"floats_{name}"
    second = row(
        BYTES[name] if integers else "gemm_f32",
        unpack=loader.load([unpack])[unpack],
        weights=stored,
        row_bytes=TensorType(dtype, (rows, width)).row_bytes,
        rows=rows,
        count=count,
        chunk_bytes=dtype.nbytes(chunk),
        tiles=tiles,
        tokens=tokens,
        out=out,
        out_stride=out.strides[0],
        add=0,
        add_stride=0,
        scratch=scratch,
        scratch_stride=size,
    )
    return np.array([first, second], np.int64), [stored, out, scratch, tiles]


def measure(
    size: tuple[int, int], tokens: int, threads: int, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    width, rows = size
    rng = np.random.default_rng(0)
    x = rng.standard_normal((tokens, width)).astype(np.float32)
    weights = rng.standard_normal((rows, width)).astype(np.float32)
    team = teams.team(threads)
    names, keep = ["openblas f32"], []
    actions: list[Callable[[], object]] = [lambda: x @ weights.T]
    for integers, types in ((True, list(BYTES)), (False, FLOATS)):
        for name in types:
            if (options.types and name not in options.types) or width % get(name).block:
                continue
            words, memory = plan(name, x, rows, threads, integers=integers)
            keep.append(memory)
            names.append(f"{name} {'integers' if integers else 'floats'}")
            actions.append(partial(team.run, words))
    for action in actions:
        action()
    seconds = fastest(actions, options.repeats)
    operations = 2 * tokens * width * rows
    return {
        name: {"gops": round(operations / took / 1e9, 1), "ratio": round(seconds[0] / took, 2)}
        for name, took in zip(names, seconds, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--types", type=lambda text: text.split(","), default=[])
    options = parser.parse_args()
    results = {
        f"K={width} R={rows}": measure((width, rows), options.tokens, options.threads, options)
        for width, rows in SIZES
    }
    machine = {"isa": host_target().isa, "threads": options.threads, "tokens": options.tokens}
    print(json.dumps({**machine, "products": results}, indent=2))


if __name__ == "__main__":
    main()
