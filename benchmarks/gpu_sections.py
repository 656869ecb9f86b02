"""What `gpu.py` measures, a function for each section."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from demo import demo_model
from figures import Row, rounded
from gpu_bench import Bench, Sections, best, bound
from programs import Hotplug, decode, prefill

from hotplug import ops
from hotplug.backend import Device
from hotplug.dtypes import DTYPES
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.executable import GPUExecutable
from hotplug.gpu.memory import GPUBufferType
from hotplug.gpu.sources import Variant, source_of
from hotplug.node import Node
from hotplug.testing.conformance.suite import case_groups
from hotplug.testing.kernels import launches as launches_of

__all__ = ["SECTIONS"]

_HEAD = 128  # elements of a head


def memory(bench: Bench) -> list[Row]:
    """Copies, which read and write each byte once; what they reach is the bound of the others."""
    nbytes = bench.sizes.memory // 2
    x = ops.input(name="x", dtype="f32", shape=(nbytes // 4,))
    with bench.device() as device:
        seconds = {"hotplug's copy": bench.seconds(device, {"y": x})}
        source, target = (device.buffers.allocate(nbytes) for _ in range(2))
        seconds["the driver's copy"] = _moved(device, lambda: target.copy_from(source), bench)
    rows = [bench.rate(what, taken, 2 * nbytes) for what, taken in seconds.items()]
    bench.bandwidth = 2 * nbytes / min(seconds.values())
    return rows


def launches(bench: Bench) -> list[Row]:
    """Tiny kernels that wait for each other: what each costs the device, and the host.

    On processors they are steps of one launch, a series.
    """
    y = ops.input(name="x", dtype="f32", shape=(16,))
    for _ in range(bench.sizes.launches):
        y = ops.softmax(y)
    with bench.device() as device:
        seconds = bench.seconds(device, {"y": y})
        with bound(device, {"y": y}) as (executable, bindings):
            count = len(executable.explain())
            queued = executable.launches if isinstance(executable, GPUExecutable) else count
            stream = device.stream()
            queueing = best(lambda: executable.run(bindings, stream), 5)
            stream.synchronise()
    detail = {"in a row": count, "launches": queued}
    return [
        Row("a tiny kernel", rounded(1e6 * seconds / count), "microseconds", None, detail),
        Row("queueing it", rounded(1e6 * queueing / count), "microseconds of the host"),
    ]


def matvec(bench: Bench) -> list[Row]:
    """Matrices times a vector, of every dtype, so many that caches do not hold them."""
    with bench.device() as device:
        types = bench.sizes.types or DTYPES
        return [row for name in types for row in _matvec(bench, device, name)]


def _matvec(bench: Bench, device: Device, dtype: str) -> Iterator[Row]:
    width = bench.sizes.width
    depth = max(width, DTYPES[dtype].block)
    if DTYPES[dtype].quantised or dtype in {"f32", "f16", "bf16"}:
        nbytes = DTYPES[dtype].nbytes(width * depth)
        x = ops.input(name="x", dtype="f32", shape=(1, depth))
        count = max(1, bench.sizes.memory // nbytes)
        products = {f"y{n}": _product(x, dtype, (width, depth), f"w{n}") for n in range(count)}
        if bench.supported(device, products["y0"]):
            seconds = bench.seconds(device, products) / count
            yield bench.rate(dtype, seconds, nbytes + 4 * (width + depth))


def _product(x: Node, dtype: str, shape: tuple[int, int], name: str = "w") -> Node:
    return ops.matmul(x, ops.weight(name=name, dtype=dtype, shape=shape), transpose_b=True)


_PAIRS = (
    ("f32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("f32", "f16"), ("f32", "q4_0"),
    ("f32", "q8_0"), ("f32", "q4_k"), ("f32", "q6_k"),
)  # fmt: skip


def gemm(bench: Bench) -> list[Row]:
    """Products of many rows, by hotplug's kernel and by the vendor's library where there is one."""
    rows = []
    for library in (False, True):
        with bench.device(library=library) as device:
            if library and not _products(device):
                break
            by = "library" if library else "hotplug"
            pairs = [
                pair for pair in _PAIRS if bench.sizes.types is None or pair[1] in bench.sizes.types
            ]
            for (a, b), tokens in itertools.product(pairs, bench.sizes.tokens):
                rows.append(_gemm(bench, device, f"{a} x {b}, {tokens} rows, {by}", a, b, tokens))
    return rows


def _gemm(bench: Bench, device: Device, what: str, a: str, b: str, tokens: int) -> Row:
    width = bench.sizes.width
    depth = max(width, DTYPES[b].block)
    x = ops.input(name="x", dtype=a, shape=(tokens, depth))
    product = _product(x, b, (width, depth))
    if not bench.supported(device, product):
        return Row(what, None, "GFLOP/s", None, {"why": device.supports(product).reason})
    seconds = bench.seconds(device, {"y": product})
    nbytes = x.type.nbytes + DTYPES[b].nbytes(width * depth) + 4 * tokens * width
    by_library = what.endswith("library")
    tensor = by_library and (DTYPES[b].quantised or a == b != "f32")
    return bench.rate(what, seconds, nbytes, 2.0 * tokens * width * depth, tensor=tensor)


def _products(device: Device) -> frozenset[str]:
    assert isinstance(device.buffers, GPUBufferType)
    return device.buffers.driver.capabilities.products


def attention(bench: Bench) -> list[Row]:
    """A token, and a batch of them, over caches of some rows."""
    rows = []
    with bench.device() as device:
        for tokens, depth in itertools.product((1, bench.sizes.tokens[0]), bench.sizes.depths):
            q = ops.input(name="q", dtype="f32", shape=(tokens, bench.sizes.heads, _HEAD))
            shape = (depth, max(1, bench.sizes.heads // 4), _HEAD)
            k, v = (ops.input(name=name, dtype="f16", shape=shape) for name in "kv")
            y = ops.scaled_dot_product_attention(q, k, v, causal=True)
            seconds = bench.seconds(device, {"y": y})
            nbytes = 2 * k.type.nbytes + 8 * math.prod(q.shape)
            flops = 4.0 * math.prod(q.shape) * (depth - (tokens - 1) / 2) if tokens > 1 else 0
            rows.append(bench.rate(f"{tokens} tokens, {depth} rows", seconds, nbytes, flops))
    return rows


def transfers(bench: Bench) -> list[Row]:
    """Between host and device, and from one device to the next where there are two."""
    nbytes = bench.sizes.memory
    data = np.zeros(nbytes, np.uint8)
    rows = []
    with bench.device() as device:
        buffer = device.buffers.allocate(nbytes)
        ways = {
            "host to device": lambda: buffer.write(0, data.data),
            "device to host": lambda: buffer.read(0, data.data),
        }
        for what, way in ways.items():
            seconds = _moved(device, way, bench)
            rows.append(Row(what, rounded(nbytes / seconds / 1e9), "GB/s"))
        others = [info for info in bench.backend.probe() if info.id != bench.info.id]
        if others:
            with bench.backend.open(others[0]) as other:
                target = other.buffers.allocate(nbytes)
                seconds = _moved(other, lambda: target.copy_from(buffer), bench)
                what = f"{bench.info.id} to {others[0].id}"
                rows.append(Row(what, rounded(nbytes / seconds / 1e9), "GB/s"))
    return rows


def _moved(device: Device, way: Callable[[], None], bench: Bench) -> float:
    """Seconds until a transfer has arrived."""
    stream = device.stream()

    def whole() -> None:
        way()
        stream.synchronise()

    whole()
    return best(whole, 3 if bench.sizes.seconds else 1)


def compiling(bench: Bench) -> list[Row]:
    """The vendor's compiler, one variant of each kernel, nothing from the cache."""
    taken = {}
    with bench.device() as device:
        assert isinstance(device.buffers, GPUBufferType)
        driver = device.buffers.driver
        able = driver.capabilities
        for variant in itertools.islice(_one_of_each(able), bench.sizes.kernels):
            began = time.perf_counter()
            driver.compile(variant.name, source_of(variant, able.dialect, f64=able.f64))
            taken[variant.file] = time.perf_counter() - began
    slowest = max(taken, key=lambda name: taken[name])
    detail = {"kernels": len(taken), "slowest": slowest, "seconds": rounded(taken[slowest])}
    return [Row("a kernel, median", rounded(statistics.median(taken.values())), "s", None, detail)]


def _one_of_each(capabilities: Capabilities) -> Iterator[Variant]:
    """The first variant of each kernel that a conformance case needs."""
    found = set()
    for case in itertools.chain.from_iterable(case_groups(slow=False).values()):
        for launch in launches_of(case.graph, capabilities):
            if launch.variant.file not in found:
                found.add(launch.variant.file)
                yield launch.variant


def model(bench: Bench) -> list[Row]:
    """The demo model: a prompt, and tokens one by one, behind a few others and behind a prompt."""
    sizes = bench.sizes
    if not sizes.answer:
        return [Row("demo model", None, "tokens/s", None, {"why": "left out of quick runs"})]
    context = sizes.prompt + 2 * sizes.answer
    program = Hotplug(demo_model(), None, context, device=bench.info.id)
    works = {
        f"reading {sizes.prompt} tokens": prefill(sizes.prompt),
        f"making {sizes.answer} tokens": decode(sizes.answer),
        f"making {sizes.answer} tokens behind {sizes.prompt}": decode(sizes.answer, sizes.prompt),
    }
    rows = []
    for what, work in works.items():
        work(program)
        rate = statistics.median(work(program) for _ in range(3))
        rows.append(Row(what, rounded(rate), "tokens/s"))
    program.close()
    return rows


SECTIONS: Sections = {
    "memory": memory,
    "launches": launches,
    "matvec": matvec,
    "gemm": gemm,
    "attention": attention,
    "transfers": transfers,
    "compile": compiling,
    "model": model,
}
"""In order: the first gives the bandwidth that later ones are held to."""
