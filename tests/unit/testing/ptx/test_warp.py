"""Exchanges of a warp, and atomic operations."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug.testing.ptx import DivergenceFault

LANES = np.arange(96, dtype="u4")


def shuffled(mode, lane, b, c):
    """The pseudo code of the manual."""
    bound, segment = c & 31, c >> 8 & 31
    most = (lane & segment) | (bound & ~segment)
    if mode == "up":
        source, valid = lane - b, lane - b >= most
    elif mode == "down":
        source, valid = lane + b, lane + b <= most
    elif mode == "bfly":
        source, valid = lane ^ b, lane ^ b <= most
    else:
        source = (lane & segment) | (b & ~segment)
        valid = source <= most
    return (source if valid else lane), valid


@pytest.mark.parametrize(("mode", "b", "c"), [
    ("up", 1, 0), ("up", 4, 0x1800), ("down", 1, 31), ("down", 3, 0x181F), ("bfly", 1, 31),
    ("bfly", 16, 31), ("bfly", 4, 0x1C1F), ("idx", 5, 31), ("idx", 9, 0x181F), ("idx", 20, 15),
])  # fmt: skip
def test_shuffles(launch, mode, b, c):
    text = f"""
        mov.u32 %r0, %tid.x;
        mul.lo.u32 %r1, %r0, 10;
        shfl.sync.{mode}.b32 %r2|%p0, %r1, {b}, {c}, -1;
        selp.u32 %r3, 1, 0, %p0;
        add.u32 %r2, %r2, %r3;
        mul.wide.u32 %rd0, %r0, 4;
        ld.param.u64 %rd1, [p0];
        add.s64 %rd1, %rd1, %rd0;
        st.global.u32 [%rd1], %r2;
    """
    (got,) = launch(text, np.zeros(96, "u4"), block=(96, 1, 1))
    want = []
    for thread in range(96):
        source, valid = shuffled(mode, thread % 32, b, c)
        want.append(10 * (thread // 32 * 32 + source) + valid)
    assert got.tolist() == want


START = """
    mov.u32 %r0, %tid.x;
    mov.u32 %r29, %ctaid.x;
    mov.u32 %r28, %ntid.x;
    mad.lo.s32 %r1, %r29, %r28, %r0;
    mul.wide.u32 %rd0, %r1, 4;
    ld.param.u64 %rd1, [p0];
    add.s64 %rd2, %rd1, %rd0;
"""


def test_a_sum_over_warps(launch):
    text = (
        START
        + """
        cvt.rn.f32.u32 %f0, %r1;
        mov.u32 %r2, 16;
    AGAIN:
        mov.b32 %r3, %f0;
        shfl.sync.bfly.b32 %r4, %r3, %r2, 31, -1;
        mov.b32 %f1, %r4;
        add.f32 %f0, %f0, %f1;
        shr.u32 %r2, %r2, 1;
        setp.ne.u32 %p0, %r2, 0;
        @%p0 bra AGAIN;
        st.global.f32 [%rd2], %f0;
    """
    )
    (got,) = launch(text, np.zeros(256, "f4"), grid=(2, 1, 1), block=(128, 1, 1))
    want = np.arange(256).reshape(8, 32).sum(1)
    assert got.reshape(8, 32).tolist() == np.repeat(want[:, None], 32, 1).tolist()


def test_threads_that_come_late_are_waited_for(launch):
    """Lanes take ways of different lengths to the exchange."""
    text = (
        START
        + """
        and.b32 %r2, %r0, 3;
        mov.u32 %r3, 0;
    AGAIN:
        add.u32 %r3, %r3, 1;
        setp.lt.u32 %p0, %r3, %r2;
        @%p0 bra AGAIN;
        shfl.sync.idx.b32 %r4, %r3, 3, 31, 0xffffffff;
        st.global.u32 [%rd2], %r4;
    """
    )
    (got,) = launch(text, np.zeros(64, "u4"), block=(64, 1, 1))
    assert got.tolist() == [3] * 64


def test_votes(launch):
    text = (
        START
        + """
        setp.lt.u32 %p0, %r0, 40;
        vote.sync.ballot.b32 %r2, %p0, -1;
        vote.sync.all.pred %p1, %p0, -1;
        vote.sync.any.pred %p2, %p0, -1;
        vote.sync.uni.pred %p3, %p0, -1;
        activemask.b32 %r3;
        popc.b32 %r2, %r2;
        popc.b32 %r3, %r3;
        mad.lo.u32 %r2, %r3, 100, %r2;
        selp.u32 %r4, 10000, 0, %p1;
        selp.u32 %r5, 20000, 0, %p2;
        selp.u32 %r6, 40000, 0, %p3;
        add.u32 %r2, %r2, %r4;
        add.u32 %r2, %r2, %r5;
        add.u32 %r2, %r2, %r6;
        st.global.u32 [%rd2], %r2;
    """
    )
    (got,) = launch(text, np.zeros(96, "u4"), block=(96, 1, 1))
    assert got.reshape(3, 32)[:, 0].tolist() == [73232, 23208, 43200]
    assert (got.reshape(3, 32) == got.reshape(3, 32)[:, :1]).all()


def test_exchanges_of_parts_of_a_warp(launch):
    text = (
        START
        + """
        setp.lt.u32 %p0, %r0, 8;
        @%p0 bra FEW;
        redux.sync.add.u32 %r2, %r0, 0xffffff00;
        bra DONE;
    FEW:
        redux.sync.max.s32 %r2, %r0, 0x000000ff;
    DONE:
        bar.warp.sync -1;
        st.global.u32 [%rd2], %r2;
    """
    )
    (got,) = launch(text, np.zeros(32, "u4"))
    assert got.tolist() == [7] * 8 + [sum(range(8, 32))] * 24


def test_masks_of_lanes(launch):
    text = (
        START
        + """
        mov.u32 %r2, %lanemask_lt;
        mov.u32 %r3, %lanemask_ge;
        popc.b32 %r2, %r2;
        popc.b32 %r3, %r3;
        mad.lo.u32 %r2, %r3, 100, %r2;
        st.global.u32 [%rd2], %r2;
    """
    )
    (got,) = launch(text, np.zeros(32, "u4"))
    assert got.tolist() == [100 * (32 - lane) + lane for lane in range(32)]


@pytest.mark.parametrize("text", [
    "setp.lt.u32 %p0, %r0, 8; @%p0 shfl.sync.idx.b32 %r2, %r0, 0, 31, -1; bar.sync 0;",
    "setp.lt.u32 %p0, %r0, 8; vote.sync.all.pred %p1, %p0, 1;",
    "setp.lt.u32 %p0, %r0, 8; @%p0 bar.sync 0; bar.warp.sync -1;",
])  # fmt: skip
def test_an_exchange_that_not_all_reach(launch, text):
    with pytest.raises(DivergenceFault, match=r"waits for the threads|threads of block"):
        launch(START + text, np.zeros(32, "u4"))


def test_a_shuffle_from_a_thread_that_takes_no_part_is_undefined(launch):
    text = (
        START
        + """
        setp.ge.u32 %p0, %r0, 8;
        @%p0 ret;
        shfl.sync.down.b32 %r2, %r0, 4, 31, 0xff;
        st.global.u32 [%rd2], %r2;
    """
    )
    (got,) = launch(text, np.zeros(32, "u4"))
    assert got[:8].tolist() == [4, 5, 6, 7] + 4 * [2**32 - 1]


def test_threads_that_ended_are_not_waited_for(launch):
    text = (
        START
        + """
        setp.ge.u32 %p0, %r0, 8;
        @%p0 ret;
        vote.sync.ballot.b32 %r2, 1, -1;
        st.global.u32 [%rd2], %r2;
    """
    )
    (got,) = launch(text.replace("ballot.b32 %r2, 1", "ballot.b32 %r2, %p1"), np.full(32, 5, "u4"))
    assert got.tolist() == [0] * 8 + [5] * 24


def test_atomic_sums(launch):
    text = (
        START
        + """
        atom.global.add.u32 %r2, [%rd1], 3;
        add.s64 %rd3, %rd1, 4;
        red.global.max.s32 [%rd3], %r1;
        atom.global.or.b32 %r3, [%rd1+8], %r1;
        red.global.add.f32 [%rd1+12], 0f3f000000;
        atom.global.inc.u32 %r4, [%rd1+16], 9;
        atom.global.dec.u32 %r4, [%rd1+20], 9;
        atom.global.cas.b32 %r4, [%rd1+24], 5, %r1;
        red.global.add.u64 [%rd1+32], 4294967297;
        ld.param.u64 %rd4, [p1];
        add.s64 %rd4, %rd4, %rd0;
        st.global.u32 [%rd4], %r2;
    """
    )
    sums = np.zeros(10, "u4")
    sums[6] = 5
    sums, order = launch(text, sums, np.zeros(64, "u4"), grid=(2, 1, 1))
    assert sums[:3].tolist() == [192, 63, 63]
    assert sums[3:4].view("f4")[0] == 32
    assert sums[4:6].tolist() == [64 % 10, (-64) % 10]
    assert sums[6] == 0
    assert sums[8:].tolist() == [64, 64]
    assert sorted(order.tolist()) == list(range(0, 192, 3))


def test_atomic_exchanges_of_each_block_s_shared_memory(launch):
    text = (
        ".shared .align 4 .b8 count[4];"
        + START
        + """
        setp.eq.u32 %p0, %r0, 0;
        @%p0 st.shared.u32 [count], 100;
        bar.sync 0;
        atom.shared.add.u32 %r2, [count], 1;
        atom.shared.exch.b32 %r3, [count], %r2;
        bar.sync 0;
        st.global.u32 [%rd2], %r2;
    """
    )
    (got,) = launch(text, np.zeros(96, "u4"), grid=(3, 1, 1))
    assert [sorted(block) for block in got.reshape(3, 32).tolist()] == [list(range(100, 132))] * 3
