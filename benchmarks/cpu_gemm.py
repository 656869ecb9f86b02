"""Products of many tokens with weights of every type, against OpenBLAS; prints one JSON object.

    python benchmarks/cpu_gemm.py [--tokens 512] [--threads 2] [--repeats 9] [--types q4_1,f16]

Each product is a graph of one node, run in default and in exact precision, laying out the
activations included. It takes turns with NumPy's float32 product of the same sizes, which OpenBLAS
computes with as many threads. Figures are thousand millions of operations a second, of the fastest
of all turns; `ratio` is how many times faster than OpenBLAS.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable

import numpy as np
from compiled import fastest

from hotplug import ops
from hotplug.backend import Partition
from hotplug.dtypes import get
from hotplug.graph import Graph
from hotplug_cpu.buffers import HostBufferType
from hotplug_cpu.jit.target import architecture
from hotplug_cpu.plan import PlanExecutable

__all__ = ["Product"]

SIZES = ((576, 1536), (1536, 576), (576, 192), (512, 2048), (576, 49152))
TYPES = (
    *("q4_0", "q4_1", "q4_k", "q5_0", "q5_1", "q5_k", "q8_0", "iq4_nl"),
    *("q6_k", "q2_k", "q3_k", "iq4_xs", "f16", "bf16", "f32"),
)


class Product:
    """A product of activations (T, K) with weights (R, K), compiled and bound to its memory.

    Args:
        x: activations, f32.
        weights: f32 as an array, or the name of a dtype: zeros then, which cost the same.
        rows: R.
        threads: how many compute it.
        precision: of the node.
    """

    def __init__(
        self, x: np.ndarray, weights: np.ndarray | str, rows: int, threads: int, precision: str
    ) -> None:
        dtype = weights if isinstance(weights, str) else "f32"
        left = ops.input(name="x", dtype="f32", shape=x.shape)
        right = ops.weight(name="w", dtype=dtype, shape=(rows, x.shape[1]))
        node = ops.matmul(left, right, transpose_b=True, precision=precision)
        graph, memory = Graph.build({"y": node}), HostBufferType()
        self._executable = PlanExecutable(Partition(graph, threads=threads), memory, threads)
        self._buffers = {
            name: memory.allocate(value.type.nbytes)
            for name, value in (("x", left), ("w", right), ("output:y", node))
        }
        self._buffers["x"].write(0, x.data)
        if not isinstance(weights, str):
            self._buffers["w"].write(0, weights.data)

    def run(self) -> None:
        """Compute it once."""
        self._executable.run(self._buffers)


def measure(
    size: tuple[int, int], tokens: int, threads: int, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    width, rows = size
    rng = np.random.default_rng(0)
    x = rng.standard_normal((tokens, width)).astype(np.float32)
    weights = rng.standard_normal((rows, width)).astype(np.float32)
    names = ["openblas f32"]
    actions: list[Callable[[], object]] = [lambda: x @ weights.T]
    for name in options.types or TYPES:
        for precision in ("default", "exact"):
            if width % get(name).block == 0:
                names.append(f"{name} {precision}")
                actions.append(Product(x, name, rows, threads, precision).run)
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
    machine = {"isa": architecture(), "threads": options.threads, "tokens": options.tokens}
    print(json.dumps({**machine, "products": results}, indent=2))


if __name__ == "__main__":
    main()
