"""Moves, loads and stores of every space, and what is wrong with addresses."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hotplug.errors import OutOfDeviceMemoryError, UsageError
from hotplug.testing.ptx import Machine, MemoryFault, UninitialisedFault

IDS = """
    mov.u32 %r0, %tid.x;
    mul.wide.u32 %rd0, %r0, 4;
    ld.param.u64 %rd1, [p0];
    add.s64 %rd2, %rd1, %rd0;
"""


@pytest.mark.parametrize("type_", ["s8", "u8", "s16", "u16", "b8", "b16"])
def test_narrow_values_are_extended(compute, type_):
    values = np.array([0, 1, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF], "u2")
    text = f"""
        ld.param.u64 %rd5, [p0];
        mul.wide.u32 %rd6, %r31, 2;
        add.s64 %rd5, %rd5, %rd6;
        ld.global.{type_} %d, [%rd5];
    """
    signed = type_[0] == "s"
    got = compute(text, values, result="i4")
    narrow = values.astype("u1") if type_.endswith("8") else values
    want = narrow.view(f"i{narrow.itemsize}") if signed else narrow
    assert got.tolist() == want.astype("i4").tolist()


def test_vectors(launch):
    text = """
        mov.u32 %r0, %tid.x;
        mul.wide.u32 %rd0, %r0, 16;
        ld.param.u64 %rd1, [p0];
        ld.param.u64 %rd2, [p1];
        add.s64 %rd1, %rd1, %rd0;
        add.s64 %rd2, %rd2, %rd0;
        ld.global.v4.f32 {%f0, %f1, %f2, %f3}, [%rd1];
        st.global.v2.f32 [%rd2], {%f3, %f2};
        st.global.v2.f32 [%rd2+8], {%f1, %f0};
    """
    given = np.arange(32, dtype="f4").reshape(8, 4)
    _, got = launch(text, given, np.zeros_like(given), block=(8, 1, 1))
    assert got.tolist() == given[:, ::-1].tolist()


def test_packing_and_unpacking(compute):
    values = np.array([0x1122334455667788, 0xFFEEDDCCBBAA9988], "u8")
    text = """
        mov.b64 {%rs0, %rs1, %rs2, %rs3}, %x0;
        mov.b32 %r0, {%rs3, %rs2};
        mov.b64 {_, %r1}, %x0;
        mov.b64 %d, {%r0, %r1};
    """
    got = compute(text, values, result="u8")
    assert [hex(value) for value in got] == ["0x1122334433441122", "0xffeeddccddccffee"]


def test_bits_of_floats(compute):
    values = np.array([1.0, -2.5], "f4")
    got = compute("mov.b32 %r0, %x0; add.s32 %d, %r0, 1;", values, result="u4")
    assert got.tolist() == (values.view("u4") + 1).tolist()
    assert compute("mov.b32 %d, 0f3F800000;", values, result="u4").tolist() == [0x3F800000] * 2
    assert compute("mov.f64 %d, 0d3FF8000000000000;", values, result="f8").tolist() == [1.5] * 2


def test_zeros_keep_their_signs(compute):
    values = np.array([1.0], "f4")
    text = "add.f32 %f0, %x0, 0f00000000; copysign.f32 %d, 0f80000000, %f0;"
    assert compute(text, values, result="f4").tolist() == [-1.0]


def test_a_move_is_a_copy(launch):
    """What is put into a register later does not show in those it was moved to."""
    text = (
        IDS
        + """
        mov.u32 %r1, %r0;
        setp.lt.u32 %p0, %r0, 8;
        @!%p0 bra LATER;
        add.u32 %r1, %r1, 100;
    LATER:
        shl.b32 %r2, %r0, 16;
        add.u32 %r1, %r1, %r2;
        st.global.u32 [%rd2], %r1;
    """
    )
    (got,) = launch(text, np.zeros(32, "u4"))
    ids = np.arange(32)
    assert got.tolist() == (ids + (ids << 16) + np.where(ids < 8, 100, 0)).tolist()


def test_local_memory_is_each_thread_s_own(launch):
    text = (
        """
        .local .align 8 .b8 depot[24];
        mov.u64 %rd9, depot;
    """
        + IDS
        + """
        st.local.u32 [%rd9], %r0;
        st.local.u16 [%rd9+4], 7;
        st.local.v2.u32 [%rd9+8], {1, 2};
        and.b32 %r1, %r0, 3;
        mul.wide.u32 %rd3, %r1, 4;
        add.s64 %rd3, %rd3, %rd9;
        ld.local.u32 %r2, [%rd3];
        ld.local.u64 %rd4, [%rd9+8];
        shr.u64 %rd4, %rd4, 32;
        cvt.u32.u64 %r3, %rd4;
        mad.lo.s32 %r2, %r3, 1000, %r2;
        st.global.u32 [%rd2], %r2;
    """
    )
    (got,) = launch(text, np.zeros(32, "u4"))
    ids = np.arange(32)
    assert got.tolist() == (2000 + np.choose(ids & 3, [ids, 7, 1, 2])).tolist()


def test_generic_addresses_find_their_space(launch):
    """Threads of one load go to shared, to local and to global memory."""
    text = (
        """
        .shared .align 4 .b8 common[128];
        .local .align 4 .b8 depot[4];
    """
        + IDS
        + """
        mov.u64 %rd3, common;
        add.s64 %rd4, %rd3, %rd0;
        st.shared.u32 [%rd4], %r0;
        mov.u64 %rd5, depot;
        st.local.u32 [%rd5], 55;
        cvta.shared.u64 %rd4, %rd4;
        cvta.local.u64 %rd5, %rd5;
        rem.u32 %r1, %r0, 3;
        setp.eq.u32 %p0, %r1, 0;
        setp.eq.u32 %p1, %r1, 1;
        selp.b64 %rd6, %rd4, %rd5, %p0;
        selp.b64 %rd6, %rd2, %rd6, %p1;
        ld.u32 %r2, [%rd6];
        add.u32 %r2, %r2, 1;
        st.u32 [%rd6], %r2;
        ld.u32 %r3, [%rd6];
        st.global.u32 [%rd2], %r3;
    """
    )
    (got,) = launch(text, np.full(32, 70, "u4"))
    ids = np.arange(32)
    assert got.tolist() == np.choose(ids % 3, [ids + 1, 71, 56]).tolist()


def test_variables_of_the_module(launch):
    before = """
        .const .align 4 .u32 table[4] = {10, 20, 0x1e, 40};
        .global .align 4 .f32 more[2] = {0f3F800000, 2.0};
        .global .align 8 .b8 bytes[8] = {1, 2, 255};
    """
    text = (
        IDS
        + """
        and.b32 %r1, %r0, 3;
        mul.wide.u32 %rd3, %r1, 4;
        mov.u64 %rd4, table;
        add.s64 %rd3, %rd3, %rd4;
        ld.const.u32 %r2, [%rd3];
        ld.global.f32 %f0, [more+4];
        cvt.rzi.u32.f32 %r3, %f0;
        ld.global.u8 %r4, [bytes+2];
        add.u32 %r2, %r2, %r3;
        add.u32 %r2, %r2, %r4;
        st.global.u32 [%rd2], %r2;
    """
    )
    (got,) = launch(text, np.zeros(8, "u4"), block=(8, 1, 1), before=before)
    assert got.tolist() == [267, 277, 287, 297] * 2


def test_short_addresses_and_offsets_are_added_in_32_bits(launch):
    body = """
        .shared .align 4 .b8 part[256];
        mov.u32 %r0, %tid.x;
        mov.u32 %r1, part;
        add.u32 %r1, %r1, -512;
        st.shared.u32 [%r1+512], %r0;
        ld.shared.u32 %r2, [part];
        ld.param.u64 %rd1, [p0];
        st.global.u32 [%rd1], %r2;
    """
    (got,) = launch(body, np.full(1, 7, "u4"), block=(1, 1, 1))
    assert got.tolist() == [0]


def test_dynamic_shared_memory(launch):
    before = ".extern .shared .align 16 .b8 dynamic[];"
    text = (
        """
        .shared .align 4 .b8 fixed[4];
        mov.u32 %r1, dynamic;
    """
        + IDS
        + """
        shl.b32 %r2, %r0, 2;
        add.u32 %r1, %r1, %r2;
        st.shared.u32 [%r1], %r0;
        ld.shared.u32 %r3, [%r1];
        st.global.u32 [%rd2], %r1;
    """
    )
    (got,) = launch(text, np.zeros(8, "u4"), block=(8, 1, 1), before=before, shared=32)
    assert got.tolist() == [16 + 4 * index for index in range(8)]
    with pytest.raises(
        MemoryFault, match="no 4 bytes at address 0x2c: the block's shared memory has 44"
    ):
        launch(text, np.zeros(8, "u4"), block=(8, 1, 1), before=before, shared=28)


@pytest.mark.parametrize(("offset", "where"), [(4, "0 bytes past the end"), (-4, "4 bytes before")])
def test_out_of_bounds(launch, offset, where):
    text = IDS + f"ld.global.u32 %r1, [%rd2+{28 * 4 + offset if offset > 0 else offset}];"
    with pytest.raises(MemoryFault, match=where) as caught:
        launch(text, np.zeros(32, "u4"), block=(4, 2, 1), grid=(2, 1, 1))
    message = str(caught.value)
    assert "ld.global.u32 %r1" in message
    assert re.search(r"of k, thread \(\d, 0, 0\) of block \(0, 0, 0\)", message)
    assert f"{caught.value.address:#x}" in message


def test_memory_that_was_freed_is_no_more(program):
    from hotplug.testing.ptx import Module

    machine = Machine(1 << 20)
    address = machine.allocate(64)
    module = Module.parse(program("ld.param.u64 %rd0, [p0]; st.global.u32 [%rd0], 1;", 1))
    arguments = [address.to_bytes(8, "little")]
    machine.launch(module, "k", (1, 1, 1), (1, 1, 1), arguments)
    machine.free(address)
    other = machine.allocate(64)
    assert other != address
    with pytest.raises(MemoryFault, match="no 4 bytes at address"):
        machine.launch(module, "k", (1, 1, 1), (1, 1, 1), arguments)


@pytest.mark.parametrize(
    "line",
    ["ld.global.u32 %r1, [%rd2+2];", "st.global.v2.u32 [%rd2+4], {%r0, %r0};",
     "ld.shared.u16 %rs0, [common+1];", "ld.local.u64 %rd5, [depot+4];"],
)  # fmt: skip
def test_misaligned(launch, line):
    text = (
        """
        .shared .align 8 .b8 common[16];
        .local .align 8 .b8 depot[16];
    """
        + IDS
        + line
    )
    with pytest.raises(MemoryFault, match="is no multiple of"):
        launch(text, np.zeros(64, "u4"), block=(1, 1, 1))


@pytest.mark.parametrize(
    "line", ["ld.local.u32 %r1, [depot+16];", "ld.shared.u32 %r1, [common+16];"]
)
def test_own_memory_ends(launch, line):
    text = ".shared .align 8 .b8 common[16]; .local .align 8 .b8 depot[16];" + line
    with pytest.raises(MemoryFault, match="has 16 bytes"):
        launch(text, np.zeros(4, "u4"))


def test_arguments_are_not_written(launch):
    with pytest.raises(MemoryFault, match="cannot be written"):
        launch(
            "mov.u64 %rd0, p0; cvta.param.u64 %rd0, %rd0; st.u64 [%rd0], %rd0;", np.zeros(4, "u4")
        )


def test_one_access_to_several_allocations(launch):
    text = """
        mov.u32 %r0, %tid.x;
        ld.param.u64 %rd0, [p0];
        ld.param.u64 %rd1, [p1];
        and.b32 %r1, %r0, 1;
        setp.eq.u32 %p0, %r1, 0;
        selp.b64 %rd2, %rd0, %rd1, %p0;
        mul.wide.u32 %rd3, %r0, 4;
        add.s64 %rd2, %rd2, %rd3;
        ld.global.u32 %r2, [%rd2];
        add.u32 %r2, %r2, %r0;
        st.global.u32 [%rd2], %r2;
    """
    a, b = launch(text, np.full(8, 10, "u4"), np.full(8, 20, "u4"), block=(8, 1, 1))
    assert a.tolist() == [10, 10, 12, 10, 14, 10, 16, 10]
    assert b.tolist() == [20, 21, 20, 23, 20, 25, 20, 27]


def test_shared_memory_that_nothing_wrote(launch):
    text = (
        ".shared .align 4 .b8 common[128];"
        + IDS
        + """
        mov.u64 %rd3, common;
        add.s64 %rd3, %rd3, %rd0;
        setp.eq.u32 %p0, %r0, 5;
        @!%p0 st.shared.u32 [%rd3], %r0;
        ld.shared.u32 %r1, [%rd3];
    """
    )
    launch(text, np.zeros(32, "u4"))
    with pytest.raises(UninitialisedFault, match=r"thread \(5, 0, 0\) .*at 0x14"):
        launch(text, np.zeros(32, "u4"), uninitialised=True)


def test_memory_of_a_machine():
    machine = Machine(total_bytes=1000)
    first, second = machine.allocate(600), machine.allocate(300)
    assert machine.free_bytes == 100
    with pytest.raises(OutOfDeviceMemoryError) as caught:
        machine.allocate(101)
    assert (caught.value.requested, caught.value.free) == (101, 100)
    machine.write(first + 10, b"abcdef")
    machine.write(second, np.arange(3, dtype="i4"))
    assert machine.read(first + 9, 4) == b"\0abc"
    machine.copy(first + 10, second + 12, 6)
    assert machine.read(second + 8, 8) == b"\2\0\0\0abcd"
    machine.fill(second, 255, 4)
    assert machine.read(second, 5) == b"\xff\xff\xff\xff\1"
    machine.free(first)
    assert machine.free_bytes == 700
    for wrong in (first, second + 4, 0):
        with pytest.raises(UsageError, match="no allocation begins"):
            machine.free(wrong)
    with pytest.raises(MemoryFault, match=r"1 bytes past the end|0 bytes past the end|at byte 298"):
        machine.read(second + 298, 3)
    with pytest.raises(UsageError):
        machine.allocate(-1)
