"""Small PTX programs: one thread per element of the inputs."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug.testing.ptx import Machine, Module

HEADER = ".version 8.0\n.target sm_75\n.address_size 64\n"

REGISTERS = """
    .reg .pred %p<16>;
    .reg .b16 %rs<16>;
    .reg .b32 %r<32>;
    .reg .b64 %rd<32>;
    .reg .f32 %f<16>;
    .reg .f64 %fd<16>;
"""

TYPES = {"u1": "u8", "i1": "s8", "u2": "u16", "i2": "s16", "u4": "u32", "i4": "s32", "u8": "u64",
         "i8": "s64", "f4": "f32", "f8": "f64", "f2": "b16"}  # fmt: skip


def entry(body, parameters=0, name="k", before=""):
    """A kernel with pointers p0, p1, ... as parameters."""
    listed = ", ".join(f".param .u64 p{index}" for index in range(parameters))
    return (
        f"{HEADER}{before}\n.visible .entry {name}({listed})\n{{{REGISTERS}{body}\n    ret;\n}}\n"
    )


def pointer(address):
    return int(address).to_bytes(8, "little")


def _loads(inputs):
    lines = []
    for index, array in enumerate(inputs):
        type_ = TYPES[array.dtype.str[1:]]
        size = array.dtype.itemsize
        declared = {1: "b16", 2: "b16", 4: "b32", 8: "b64"}[size]
        if array.dtype.kind == "f" and size > 2:
            declared = type_
        lines += [
            f".reg .{declared} %x{index};",
            f"ld.param.u64 %rd20, [p{index}];",
            f"mul.wide.u32 %rd21, %r31, {size};",
            "add.s64 %rd20, %rd20, %rd21;",
            f"ld.global.{type_} %x{index}, [%rd20];",
        ]
    return lines


@pytest.fixture
def compute():
    """compute(text, *inputs, result=dtype): what `text` leaves in %d, for each element.

    Inputs are in %x0, %x1, ...
    """

    def run(text, *inputs, result):
        inputs = [np.ascontiguousarray(array) for array in inputs]
        count = inputs[0].size
        dtype = np.dtype(result)
        declared = (
            TYPES[dtype.str[1:]]
            if dtype.kind == "f" and dtype.itemsize > 2
            else (f"b{max(8 * dtype.itemsize, 16)}")
        )
        body = ["mov.u32 %r29, %ctaid.x;", "mov.u32 %r28, %ntid.x;", "mov.u32 %r27, %tid.x;",
                "mad.lo.s32 %r31, %r29, %r28, %r27;",
                f"setp.ge.u32 %p15, %r31, {count};", "@%p15 ret;", *_loads(inputs),
                f".reg .{declared} %d;", text,
                f"ld.param.u64 %rd20, [p{len(inputs)}];",
                f"mul.wide.u32 %rd21, %r31, {dtype.itemsize};", "add.s64 %rd20, %rd20, %rd21;",
                f"st.global.{TYPES[dtype.str[1:]]} [%rd20], %d;"]  # fmt: skip
        machine = Machine(1 << 24)
        addresses = []
        for array in inputs:
            addresses.append(machine.allocate(array.nbytes))
            machine.write(addresses[-1], array)
        addresses.append(machine.allocate(count * dtype.itemsize))
        module = Module.parse(entry("\n    ".join(body), len(addresses)))
        threads = min(count, 64)
        machine.launch(module, "k", (-(-count // threads), 1, 1), (threads, 1, 1),
                       [pointer(address) for address in addresses])  # fmt: skip
        return np.frombuffer(machine.read(addresses[-1], count * dtype.itemsize), dtype)

    return run


@pytest.fixture
def launch():
    """launch(body, *arrays, ...): arrays after a kernel that has their addresses in p0, p1, ..."""

    def run(body, *arrays, grid=(1, 1, 1), block=(32, 1, 1), before="", shared=0, **options):
        machine = Machine(1 << 24, **options)
        addresses = []
        for array in arrays:
            addresses.append(machine.allocate(array.nbytes))
            machine.write(addresses[-1], array)
        module = Module.parse(entry(body, len(arrays), before=before))
        machine.launch(module, "k", grid, block, [pointer(at) for at in addresses], shared)
        return [
            np.frombuffer(machine.read(address, array.nbytes), array.dtype).reshape(array.shape)
            for address, array in zip(addresses, arrays, strict=True)
        ]

    return run


@pytest.fixture
def program():
    """program(body): the text of a kernel k without parameters."""
    return entry
