"""f32 matrix products of the shared GPU kernels beside CLBlast's; prints one JSON object.

    apt install libclblast1
    python benchmarks/gpu_gemm.py [--device 0] [--seconds 1] [--library libclblast.so.1]

Both multiply the same buffers on the same OpenCL device and take turns; figures are those of the
fastest turns. CLBlast has tile sizes for devices that somebody tuned it on. On others, processors
under PoCL mostly, it runs with its defaults, which suit GPUs: there a ratio says little of it.
Without the library, or without OpenCL, the object says why there is nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from figures import geometric_mean, rounded
from machine import commit

from hotplug import ops
from hotplug.backend import Partition
from hotplug.errors import BackendLoadError
from hotplug.gpu.device import GPUDevice
from hotplug.graph import Graph

SIZES = (
    (64, 64, 64), (128, 128, 128), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024),
    (512, 1536, 576), (128, 576, 1536), (511, 513, 257), (100, 1000, 100),
)  # fmt: skip
"""Rows, columns and depth; those of the demo model's prompts, and odd ones."""

_TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", type=int, default=0, help="which OpenCL device")
    parser.add_argument("--seconds", type=float, default=1, help="for each size")
    parser.add_argument("--library", help="CLBlast's file, where the system does not find it")
    options = parser.parse_args()
    print(json.dumps(result(options.device, options.seconds, options.library)))


def result(index: int, seconds: float, library: str | None) -> dict[str, Any]:
    """All that is printed."""
    head = {"benchmark": "gpu_gemm", "commit": commit()}
    try:
        from hotplug_opencl import backend

        info = backend.probe()[index]
    except (BackendLoadError, ImportError, IndexError) as error:
        return {**head, "skipped": f"there is no OpenCL device {index}: {error}"}
    found = library or ctypes.util.find_library("clblast")
    if found is None:
        return {**head, "skipped": "CLBlast is not installed: apt install libclblast1"}
    with backend.open(info) as device:
        assert isinstance(device, GPUDevice)
        blas = ctypes.CDLL(found)
        rows = [measure(device, blas, size, seconds) for size in SIZES]
    return {
        **head,
        "device": f"{info.name} ({info.driver})",
        "gflops": rows,
        "geometric mean of ratios": rounded(geometric_mean([row["ratio"] for row in rows])),
    }


def measure(
    device: GPUDevice, blas: Any, size: tuple[int, int, int], seconds: float
) -> dict[str, Any]:
    """GFLOP/s of both at one size."""
    product = Product(device, size)
    actions: dict[str, Callable[[], None]]
    actions = {"hotplug": product.ours, "clblast": lambda: product.theirs(blas)}
    for name, action in actions.items():
        action()
        if not product.correct():
            raise SystemExit(f"{name} multiplies {size} wrongly")
    best = dict.fromkeys(actions, math.inf)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, action in actions.items():
            best[name] = min(best[name], timed(action))
    speeds = {name: 2e-9 * math.prod(size) / time_ for name, time_ in best.items()}
    ratio = speeds["hotplug"] / speeds["clblast"]
    return {"size": size, **{n: rounded(s) for n, s in speeds.items()}, "ratio": rounded(ratio)}


def timed(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


class Product:
    """a (m, k) times b (k, n), in buffers that both use."""

    def __init__(self, device: GPUDevice, size: tuple[int, int, int]) -> None:
        import pyopencl as cl

        self.size = size
        m, n, k = size
        random = np.random.default_rng(0)
        shapes = {"a": (m, k), "b": (k, n)}
        values = {
            name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
        }
        self.expected = values["a"].astype(np.float64) @ values["b"]
        nodes = [ops.input(name=name, dtype="f32", shape=shape) for name, shape in shapes.items()]
        graph = Graph.build({"y": ops.matmul(*nodes)})
        self.executable = device.compile(Partition(graph))
        self.buffers = {name: device.buffers.allocate(v.nbytes) for name, v in values.items()}
        for name, value in values.items():
            self.buffers[name].write(0, value.data)
        self.buffers["output:y"] = device.buffers.allocate(4 * m * n)
        self.queue = cl.CommandQueue(self.buffers["a"].memory.get_info(cl.mem_info.CONTEXT))

    def ours(self) -> None:
        self.executable.run(self.buffers)

    def theirs(self, blas: Any) -> None:
        m, n, k = (ctypes.c_size_t(length) for length in self.size)
        nothing = ctypes.c_size_t(0)
        a, b, y = (
            ctypes.c_void_p(self.buffers[name].memory.int_ptr) for name in ("a", "b", "output:y")
        )
        queue = ctypes.c_void_p(self.queue.int_ptr)
        row_major, plain = _CLBLAST_ROW_MAJOR, _CLBLAST_NOT_TRANSPOSED
        status = blas.CLBlastSgemm(
            row_major, plain, plain, m, n, k, ctypes.c_float(1), a, nothing, k, b, nothing, n,
            ctypes.c_float(0), y, nothing, n, ctypes.byref(queue), None,
        )  # fmt: skip
        if status:
            raise SystemExit(f"CLBlast fails: status {status}")
        self.queue.finish()

    def correct(self) -> bool:
        """Whether the result is what it should be; it is zero afterwards."""
        got = np.empty(self.expected.shape, np.float32)
        self.buffers["output:y"].read(0, got.data)
        self.buffers["output:y"].write(0, np.zeros_like(got).data)
        return bool(np.abs(got - self.expected).max() < _TOLERANCE * self.size[2])


_CLBLAST_ROW_MAJOR = 101
_CLBLAST_NOT_TRANSPOSED = 111

if __name__ == "__main__":
    main()
