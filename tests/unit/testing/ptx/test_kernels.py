"""Kernels of the GPU floor as NVRTC compiles them, run on a simulated device, against NumPy.

The conformance suite on the simulated device shows far more; this shows the interpreter without any
of what lies in between.
"""

from __future__ import annotations

import functools
import struct

import numpy as np
import pytest

from hotplug.errors import BackendLoadError
from hotplug.gpu.sources import Variant, source_of
from hotplug.gpu.tensors import shape_bytes, view_bytes
from hotplug.testing.ptx import Machine, MemoryFault, Module
from hotplug_cuda import nvrtc


@functools.cache
def compiled(variant, architecture):
    try:
        compiler = nvrtc.open_compiler()
    except BackendLoadError as error:
        pytest.skip(f"NVRTC has no build for this platform: {error}")
    source = source_of(variant, "cuda", f64=True)
    made = compiler.compile(variant.name, source, f"compute_{architecture}")
    return Module.parse(made.image.decode())


class Device:
    """A machine, and arguments in the order of a kernel's signature."""

    def __init__(self):
        self.machine = Machine()

    def put(self, array):
        address = self.machine.allocate(array.nbytes)
        self.machine.write(address, array)
        return address

    def get(self, address, dtype, *shape):
        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer(self.machine.read(address, nbytes), dtype).reshape(shape)

    def run(self, module, groups, items, *arguments):
        packed = [item if isinstance(item, bytes) else pointer(item) for item in arguments]
        (name,) = module.kernels
        self.machine.launch(module, name, (*groups, 1), (items, 1, 1), packed)


def pointer(address):
    return struct.pack("<Q", address)


def integer(value):
    return struct.pack("<i", value)


def long(value):
    return struct.pack("<q", value)


def single(value):
    return struct.pack("<f", value)


@pytest.fixture
def device():
    return Device()


ARCHITECTURES = pytest.mark.parametrize("architecture", [75, 90, 100])
"""Those up to 90 have another compiler than those from 100 on."""


@ARCHITECTURES
def test_elementwise(device, architecture):
    """Every float32 operand is loaded through strides of three axes."""
    variant = Variant.of("elementwise", {
        "TYPE": "f32", "RESULT": "f16", "ITEMS": 256,
        "CASES": "case 0: r = x * w; break; case 1: r = exp(x) - tanh(w); break;",
    })  # fmt: skip
    module = compiled(variant, architecture)
    random = np.random.default_rng(0)
    a = random.standard_normal((3, 5, 70)).astype("f4")
    b = random.standard_normal((5, 70)).astype("f4")
    y = device.put(np.zeros(a.size, "f2"))
    groups = (-(-a.size // 256), 1)
    for function, want in ((0, a * b), (1, np.exp(a) - np.tanh(b))):
        device.run(
            module, groups, 256, device.put(a), view_bytes(0, (350, 70, 1)),
            device.put(b), view_bytes(0, (0, 70, 1)), y, long(0), shape_bytes((3, 5, 70)),
            integer(function), *4 * [single(0)],
        )  # fmt: skip
        np.testing.assert_allclose(device.get(y, "f2", *a.shape), want, rtol=1e-3, atol=1e-5)


@ARCHITECTURES
def test_softmax(device, architecture):
    """Barriers, and rows that a work-group goes round several times."""
    module = compiled(Variant.of("softmax", {"TYPE": "f32", "ITEMS": 128}), architecture)
    x = np.random.default_rng(0).standard_normal((7, 300)).astype("f4")
    y = device.put(np.zeros_like(x))
    none = (pointer(0), view_bytes(0, ()))
    device.run(
        module, (7, 1), 128, device.put(x), view_bytes(0, (300,)), *none, *none, pointer(0),
        long(0), y, long(0), shape_bytes((7,)), integer(300), long(1), long(0), integer(1),
        integer(1), integer(0), integer(0), single(0.5),
    )  # fmt: skip
    exponentials = np.exp(0.5 * x.astype("f8"))
    want = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(device.get(y, "f4", 7, 300), want, rtol=1e-5)


@ARCHITECTURES
@pytest.mark.parametrize("type_", ["f32", "f64"])
def test_matmul(device, architecture, type_):
    """Tiles in shared memory; edges that fill none."""
    variant = Variant.of(
        "matmul",
        {
            "A": type_,
            "B": type_,
            "TYPE": type_,
            "ITEMS": 64,
            "TILE": 32,
            "SIDE": 8,
            "DOWN": 4,
            "ACROSS": 4,
        },
    )
    module = compiled(variant, architecture)
    dtype = "f4" if type_ == "f32" else "f8"
    random = np.random.default_rng(0)
    a = random.standard_normal((37, 45)).astype(dtype)
    b = random.standard_normal((50, 45)).astype(dtype)
    y = device.put(np.zeros((37, 50), dtype))
    strides = view_bytes(0, (0, 0, 0, 45, 1))
    device.run(
        module, (4, 1), 64, device.put(a), strides, device.put(b), strides, y, long(0),
        shape_bytes((1,)), integer(37), integer(50), integer(45), integer(2),
    )  # fmt: skip
    np.testing.assert_allclose(device.get(y, dtype, 37, 50), a @ b.T, rtol=2e-4, atol=1e-5)


def matvec(device, b, architecture, rows=9, **arguments):
    variant = Variant.of("matvec", {
        "A": "f32", "B": "q8_0", "QUANT": "q8_0", "TYPE": "f32", "EACH": 1, "ITEMS": 64, "LANES": 8,
        "ROWS": 1,
    })  # fmt: skip
    x = np.random.default_rng(1).standard_normal(96).astype("f4")
    y = device.put(np.zeros(rows, "f4"))
    device.run(
        compiled(variant, architecture), (2, 1), 64, device.put(x), view_bytes(0, (0, 0, 0, 96, 1)),
        device.put(b), view_bytes(0, (0, 0, 0, 3 * 34, 1)), pointer(0), view_bytes(0, ()), y,
        long(0), shape_bytes((1,)), integer(1), integer(rows), integer(96), integer(1), integer(0),
        integer(0),
    )  # fmt: skip
    return x, device.get(y, "f4", rows)


def q8_0_blocks(rows):
    blocks = np.zeros((rows, 3), [("scale", "f2"), ("q", "i1", 32)])
    random = np.random.default_rng(2)
    blocks["scale"] = random.uniform(0.01, 0.02, (rows, 3))
    blocks["q"] = random.integers(-127, 128, (rows, 3, 32))
    return blocks


@ARCHITECTURES
def test_matvec_of_quantised_weights(device, architecture):
    """Bytes and halves loaded side by side."""
    blocks = q8_0_blocks(9)
    x, got = matvec(device, blocks, architecture)
    weights = (blocks["scale"].astype("f8")[..., None] * blocks["q"]).reshape(9, 96)
    np.testing.assert_allclose(got, weights @ x, rtol=1e-4)


def test_weights_that_are_too_few_are_noticed(device):
    """One byte less than the kernel reads."""
    short = np.frombuffer(q8_0_blocks(9).tobytes()[:-1], "u1")
    with pytest.raises(MemoryFault, match=r"matvec, thread \(\d+, 0, 0\) of block \(1, 0, 0\)"):
        matvec(device, short, 75)


@ARCHITECTURES
def test_argmax(device, architecture):
    """Branches that threads of a warp take differently; NaN and equals."""
    module = compiled(Variant.of("argmax", {"TYPE": "f32", "ITEMS": 128}), architecture)
    x = np.random.default_rng(0).integers(0, 50, (6, 500)).astype("f4")
    x[3, 77] = np.nan
    y = device.put(np.zeros(6, "i4"))
    device.run(
        module, (6, 1), 128, device.put(x), view_bytes(0, (500,)), y, long(0), y, long(0), y,
        long(0), shape_bytes((6,)), integer(500), long(1), integer(1024), integer(0),
    )  # fmt: skip
    assert device.get(y, "i4", 6).tolist() == np.argmax(x, axis=1).tolist()
