"""Convolutions on a GPU backend's device, by their kernel and as matrix products; prints JSON.

    python benchmarks/gpu_conv.py [--device opencl:0] [--seconds 1]

The other way, `im2col` and a product with the same weights, gives the same values from a matrix of
all that each place meets, which takes as much more memory as the window has elements. Both take
turns on one device; figures are medians, and "ratio" is how many times faster the kernel is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
from figures import rounded
from machine import commit

from hotplug import ops
from hotplug.backend import Device, Partition
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.session import Session

SIZES = ((64, 64, 64, 3), (64, 64, 64, 1), (3, 64, 224, 7), (128, 256, 28, 3))
"""Channels of the image, of the result, side of the image, side of the window."""

_TOLERANCE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="opencl:0")
    parser.add_argument("--seconds", type=float, default=1, help="for each size")
    options = parser.parse_args()
    with Session(options.device) as session:
        device = session.devices[0]
        found = {
            f"{channels} x {side} x {side}, {window} x {window} to {outputs}": measured(
                device, (channels, outputs, side, window), options.seconds
            )
            for channels, outputs, side, window in SIZES
        }
        name = f"{options.device} {device.info.name}"
    head = {"benchmark": "gpu_conv", "commit": commit(), "device": name}
    print(json.dumps({**head, "milliseconds": found}))


def measured(device: Device, size: tuple[int, int, int, int], seconds: float) -> dict[str, Any]:
    """Both ways of one convolution, which have to agree."""
    channels, outputs, side, window = size
    x = ops.input(name="x", dtype="f32", shape=(1, channels, side, side))
    w = ops.input(name="w", dtype="f32", shape=(outputs, channels, window, window))
    ways = {"kernel": direct(x, w), "im2col and product": as_product(x, w)}
    random = np.random.default_rng(0)
    data = {node.name: random.standard_normal(node.shape, np.float32) for node in (x, w)}
    runs = {name: Run(device, Graph.build({"y": node}), data) for name, node in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(taken["kernel"]) < 3:
        for name, run in runs.items():
            taken[name].append(1e3 * run.seconds())
    values = [run.result() for run in runs.values()]
    apart = float(np.abs(values[0] - np.moveaxis(values[1], -1, 1)).max())
    if apart > _TOLERANCE * float(np.abs(values[0]).max()):
        raise SystemExit(f"the two ways of {size} differ by {apart}")
    times = {name: statistics.median(column) for name, column in taken.items()}
    ratio = times["im2col and product"] / times["kernel"]
    return {name: rounded(value) for name, value in {**times, "ratio": ratio}.items()}


def direct(x: Node, w: Node) -> Node:
    padding = w.shape[-1] // 2
    return ops.conv(x, w, padding=(padding, padding))


def as_product(x: Node, w: Node) -> Node:
    """(1, height, width, outputs)."""
    padding = w.shape[-1] // 2
    met = ops.im2col(x, kernel=w.shape[-2:], padding=(padding, padding))
    flat = ops.reshape(w, shape=(w.shape[0], -1))
    return ops.matmul(met, flat, transpose_b=True)


class Run:
    """A graph with its data on a device, run once so that kernels are compiled."""

    def __init__(self, device: Device, graph: Graph, data: dict[str, Any]) -> None:
        self._executable = device.compile(Partition(graph))
        self._bindings = {name: device.buffers.allocate(data[name].nbytes) for name in data}
        for name, value in data.items():
            self._bindings[name].write(0, value.data)
        self._shape = dict(graph.outputs)["y"].shape
        self._bindings["output:y"] = device.buffers.allocate(4 * int(np.prod(self._shape)))
        self.seconds()

    def seconds(self) -> float:
        began = time.perf_counter()
        self._executable.run(self._bindings)
        return time.perf_counter() - began

    def result(self) -> Any:
        values = np.empty(self._shape, np.float32)
        self._bindings["output:y"].read(0, values.data)
        return values


if __name__ == "__main__":
    main()
