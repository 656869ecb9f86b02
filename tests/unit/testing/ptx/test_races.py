"""Accesses that nothing orders are errors; those that a barrier orders are not."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug.testing.ptx import RaceFault

START = """
    .shared .align 4 .b8 part[256];
    mov.u32 %r29, %ctaid.x;
    mov.u32 %r28, %ntid.x;
    mov.u32 %r0, %tid.x;
    mad.lo.s32 %r1, %r29, %r28, %r0;
    mul.wide.u32 %rd0, %r1, 4;
    ld.param.u64 %rd1, [p0];
    add.s64 %rd2, %rd1, %rd0;
    mov.u32 %r9, part;
    shl.b32 %r2, %r0, 2;
    add.u32 %r2, %r2, %r9;
"""

NEXT = """
    add.u32 %r3, %r0, 1;
    and.b32 %r3, %r3, 31;
    shl.b32 %r3, %r3, 2;
    add.u32 %r3, %r3, %r9;
"""

SHARED = {
    "write then read": "st.shared.u32 [%r2], %r0; SYNC ld.shared.u32 %r4, [%r3];",
    "read then write": "ld.shared.u32 %r4, [%r3]; SYNC st.shared.u32 [%r2], %r0;",
    "write then write": "st.shared.u32 [%r2], %r0; SYNC st.shared.u32 [%r3], %r0;",
    "several read, one writes": (
        "ld.shared.u32 %r4, [part]; SYNC setp.eq.u32 %p0, %r0, 3; @%p0 st.shared.u32 [part], %r0;"
    ),
    "bytes of a word": "st.shared.u32 [%r2], 0; SYNC ld.shared.u8 %rs0, [%r3+3];",
    "vectors": (
        "and.b32 %r5, %r2, 0xfffffff0; and.b32 %r6, %r0, 3; setp.eq.u32 %p0, %r6, 0;"
        "@%p0 st.shared.v4.u32 [%r5], {%r0, %r0, %r0, %r0}; SYNC ld.shared.u32 %r4, [%r2];"
    ),
    "atomic then plain": "atom.shared.add.u32 %r4, [%r2], 1; SYNC ld.shared.u32 %r4, [%r3];",
}


@pytest.mark.parametrize("name", SHARED)
def test_shared_memory_needs_a_barrier(launch, name):
    text = START + NEXT + SHARED[name]
    launch(text.replace("SYNC", "bar.sync 0;"), np.zeros(64, "u4"), grid=(2, 1, 1))
    launch(text.replace("SYNC", ""), np.zeros(64, "u4"), grid=(2, 1, 1), races=False)
    with pytest.raises(RaceFault, match="with nothing that orders the two"):
        launch(text.replace("SYNC", ""), np.zeros(64, "u4"), grid=(2, 1, 1))


def test_a_race_names_both_threads_and_instructions(launch):
    text = START + NEXT + "st.shared.u32 [%r2], %r0; ld.shared.u32 %r4, [%r3];"
    with pytest.raises(RaceFault) as caught:
        launch(text, np.zeros(64, "u4"), grid=(2, 1, 1))
    message = str(caught.value)
    assert (
        "k: thread (0, 0, 0) of block (0, 0, 0) reads with `ld.shared.u32 %r4, [%r3]` (line"
        in message
    )
    assert (
        "thread (1, 0, 0) of block (0, 0, 0) writes with `st.shared.u32 [%r2], %r0` (line"
        in message
    )


def test_threads_that_write_one_place_at_once(launch):
    with pytest.raises(RaceFault, match="writes with"):
        launch(START + "st.shared.u32 [part], 1;", np.zeros(32, "u4"))
    launch(START + "setp.eq.u32 %p0, %r0, 9; @%p0 st.shared.u32 [part], 1;", np.zeros(32, "u4"))


def test_a_thread_may_do_with_its_own_place_what_it_likes(launch):
    text = START + "st.shared.u32 [%r2], 1; ld.shared.u32 %r4, [%r2]; st.shared.u32 [%r2], 2;" * 3
    launch(text, np.zeros(64, "u4"), grid=(2, 1, 1))


def test_all_may_read(launch):
    launch(
        START + "ld.shared.u32 %r4, [part]; ld.global.u32 %r5, [%rd1];" * 2,
        np.zeros(64, "u4"),
        grid=(2, 1, 1),
    )


def test_many_barriers(launch):
    """More than there are numbers of epochs would be too slow here; a few hundred are not."""
    text = (
        START
        + NEXT
        + """
        mov.u32 %r7, 0;
    AGAIN:
        st.shared.u32 [%r2], %r7;
        bar.sync 0;
        ld.shared.u32 %r4, [%r3];
        bar.sync 0;
        add.u32 %r7, %r7, 1;
        setp.lt.u32 %p0, %r7, 300;
        @%p0 bra AGAIN;
        st.global.u32 [%rd2], %r4;
    """
    )
    (got,) = launch(text, np.zeros(32, "u4"))
    assert got.tolist() == [299] * 32


GLOBAL = {
    "two blocks write one place": (
        "mul.wide.u32 %rd3, %r0, 4; add.s64 %rd3, %rd3, %rd1; st.global.u32 [%rd3], 1;"
    ),
    "a block reads what another writes": (
        "xor.b32 %r4, %r1, 32; mul.wide.u32 %rd3, %r4, 4; add.s64 %rd3, %rd3, %rd1;"
        "ld.global.u32 %r5, [%rd3]; st.global.u32 [%rd2], %r5;"
    ),
    "all read what one writes": (
        "ld.global.u32 %r5, [%rd1]; setp.eq.u32 %p0, %r1, 40; @%p0 st.global.u32 [%rd1], 1;"
    ),
    "some change atomically, some not": (
        "atom.global.add.u32 %r5, [%rd1], 1; setp.eq.u32 %p0, %r1, 40;"
        "@%p0 st.global.u32 [%rd1], 1;"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GLOBAL)
def test_blocks_of_a_launch_are_not_ordered(launch, name):
    launch(START + GLOBAL[name], np.zeros(64, "u4"), grid=(2, 1, 1), races=False)
    with pytest.raises(RaceFault, match=r"of block \(\d, 0, 0\)|atomic operations|several other"):
        launch(START + GLOBAL[name], np.zeros(64, "u4"), grid=(2, 1, 1))


def test_blocks_may_write_neighbouring_bytes(launch):
    text = START + "cvt.u64.u32 %rd3, %r1; add.s64 %rd3, %rd3, %rd1; st.global.u8 [%rd3], %r1;"
    (got,) = launch(text, np.zeros(64, "u1"), grid=(2, 1, 1))
    assert got.tolist() == list(range(64))


def test_blocks_far_from_each_other_clash_too(launch):
    """They are not run side by side."""
    text = START + "setp.eq.u32 %p0, %r0, 0; @%p0 st.global.u32 [%rd1], 1;"
    with pytest.raises(RaceFault, match="block"):
        launch(text, np.zeros(40, "u4"), grid=(40, 1, 1), block=(1024, 1, 1))


def test_more_blocks_than_records_tell_apart(program):
    from hotplug.errors import UsageError
    from hotplug.testing.ptx import Machine, Module

    with pytest.raises(UsageError, match="races=False"):
        Machine().launch(Module.parse(program("")), "k", (1 << 22, 1, 1), (1, 1, 1), [])


def test_launches_are_ordered(program):
    from hotplug.testing.ptx import Machine, Module

    machine = Machine(1 << 20)
    address = machine.allocate(256)
    body = START + "ld.global.u32 %r4, [%rd2]; add.u32 %r4, %r4, 1; st.global.u32 [%rd2], %r4;"
    module = Module.parse(program(body, 1))
    arguments = [address.to_bytes(8, "little")]
    machine.launch(module, "k", (2, 1, 1), (32, 1, 1), arguments)
    machine.launch(module, "k", (1, 1, 1), (64, 1, 1), arguments)
    assert machine.read(address, 256) == np.full(64, 2, "u4").tobytes()
