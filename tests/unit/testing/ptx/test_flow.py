"""Threads that part and meet: branches, loops, barriers."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug.testing.ptx import DivergenceFault, KernelFault, PTXError

START = """
    mov.u32 %r29, %ctaid.x;
    mov.u32 %r28, %ntid.x;
    mov.u32 %r0, %tid.x;
    mad.lo.s32 %r1, %r29, %r28, %r0;
    mul.wide.u32 %rd0, %r1, 4;
    ld.param.u64 %rd1, [p0];
    add.s64 %rd2, %rd1, %rd0;
"""


def test_loops_of_different_lengths(launch):
    """Collatz: the number of steps of each thread's number."""
    text = (
        START
        + """
        add.u32 %r2, %r1, 1;
        mov.u32 %r3, 0;
    AGAIN:
        setp.eq.u32 %p0, %r2, 1;
        @%p0 bra DONE;
        and.b32 %r4, %r2, 1;
        setp.eq.u32 %p1, %r4, 0;
        @%p1 bra EVEN;
        mad.lo.u32 %r2, %r2, 3, 1;
        bra.uni NEXT;
    EVEN:
        shr.u32 %r2, %r2, 1;
    NEXT:
        add.u32 %r3, %r3, 1;
        bra AGAIN;
    DONE:
        st.global.u32 [%rd2], %r3;
    """
    )
    (got,) = launch(text, np.zeros(300, "u4"), grid=(3, 1, 1), block=(100, 1, 1))

    def steps(n):
        count = 0
        while n != 1:
            n, count = (n // 2 if n % 2 == 0 else 3 * n + 1), count + 1
        return count

    assert got.tolist() == [steps(n) for n in range(1, 301)]


def test_nested_conditions_and_early_ends(launch):
    text = (
        START
        + """
        setp.ge.u32 %p0, %r1, 50;
        @%p0 ret;
        and.b32 %r2, %r1, 1;
        setp.eq.u32 %p1, %r2, 0;
        mov.u32 %r3, 1;
        @!%p1 bra ODD;
        and.b32 %r2, %r1, 2;
        setp.eq.u32 %p2, %r2, 0;
        @%p2 bra FOURTH;
        mov.u32 %r3, 2;
        bra JOIN;
    FOURTH:
        setp.eq.u32 %p3, %r1, 8;
        @%p3 exit;
        mov.u32 %r3, 4;
        bra JOIN;
    ODD:
        setp.gt.u32 %p3, %r1, 40;
        @%p3 mov.u32 %r3, 99;
    JOIN:
        st.global.u32 [%rd2], %r3;
    """
    )
    (got,) = launch(text, np.zeros(64, "u4"), block=(64, 1, 1))
    want = [0 if i >= 50 or i == 8 else (99 if i > 40 else 1) if i % 2 else 2 if i % 4 else 4
            for i in range(64)]  # fmt: skip
    assert got.tolist() == want


def test_loops_that_are_left_in_the_middle(launch):
    """Two ways out of a loop within a loop; sums tell that nobody is lost or runs twice."""
    text = (
        START
        + """
        mov.u32 %r2, 0;
        mov.u32 %r3, 0;
    OUTER:
        mov.u32 %r4, 0;
    INNER:
        add.u32 %r5, %r2, %r4;
        setp.eq.u32 %p0, %r5, %r0;
        @%p0 bra OUT;
        add.u32 %r3, %r3, 1;
        add.u32 %r4, %r4, 1;
        setp.lt.u32 %p1, %r4, 5;
        @%p1 bra INNER;
        add.u32 %r2, %r2, 3;
        setp.lt.u32 %p2, %r2, 30;
        @%p2 bra OUTER;
        add.u32 %r3, %r3, 1000;
    OUT:
        st.global.u32 [%rd2], %r3;
    """
    )
    (got,) = launch(text, np.zeros(40, "u4"), block=(40, 1, 1))

    def count(i):
        steps = 0
        for outer in range(0, 30, 3):
            for inner in range(5):
                if outer + inner == i:
                    return steps
                steps += 1
        return steps + 1000

    assert got.tolist() == [count(i) for i in range(40)]


def test_branch_tables(launch):
    text = (
        START
        + """
        and.b32 %r2, %r1, 3;
        TABLE: .branchtargets ZERO, ONE, TWO, ONE;
        brx.idx %r2, TABLE;
    ZERO:
        mov.u32 %r3, 10;
        bra DONE;
    ONE:
        mov.u32 %r3, 11;
        bra DONE;
    TWO:
        mov.u32 %r3, 12;
    DONE:
        st.global.u32 [%rd2], %r3;
    """
    )
    (got,) = launch(text, np.zeros(8, "u4"), block=(8, 1, 1))
    assert got.tolist() == [10, 11, 12, 11] * 2


@pytest.mark.parametrize(
    "instruction", ["bar.sync 0;", "barrier.sync 1;", "barrier.cta.sync.aligned 0;"]
)
def test_barriers(launch, instruction):
    """A block's sum as a tree, in loops of which each block has another number."""
    text = (
        """
        .shared .align 4 .b8 part[256];
    """
        + START
        + f"""
        mov.u32 %r9, part;
        shl.b32 %r2, %r0, 2;
        add.u32 %r2, %r2, %r9;
        mov.u32 %r8, 0;
    ROUND:
        st.shared.u32 [%r2], %r1;
        {instruction}
        mov.u32 %r3, 32;
    HALVE:
        setp.ge.u32 %p0, %r0, %r3;
        @%p0 bra WAIT;
        shl.b32 %r4, %r3, 2;
        add.u32 %r4, %r4, %r2;
        ld.shared.u32 %r5, [%r4];
        ld.shared.u32 %r6, [%r2];
        add.u32 %r6, %r6, %r5;
        st.shared.u32 [%r2], %r6;
    WAIT:
        {instruction}
        shr.u32 %r3, %r3, 1;
        setp.ne.u32 %p0, %r3, 0;
        @%p0 bra HALVE;
        ld.shared.u32 %r7, [part];
        {instruction}
        add.u32 %r8, %r8, 1;
        setp.le.u32 %p1, %r8, %r29;
        @%p1 bra ROUND;
        mad.lo.u32 %r7, %r8, 1000000, %r7;
        st.global.u32 [%rd2], %r7;
    """
    )
    (got,) = launch(text, np.zeros(320, "u4"), grid=(5, 1, 1), block=(64, 1, 1))
    want = np.arange(320).reshape(5, 64).sum(1) + 1000000 * np.arange(1, 6)
    assert got.reshape(5, 64).tolist() == np.repeat(want[:, None], 64, 1).tolist()


def test_more_blocks_than_run_side_by_side(launch):
    text = START + "st.global.u32 [%rd2], %r1;"
    (got,) = launch(text, np.zeros(40 * 1024, "u4"), grid=(40, 1, 1), block=(1024, 1, 1))
    assert got.tolist() == list(range(40 * 1024))


@pytest.mark.parametrize(
    "text",
    [
        "setp.lt.u32 %p0, %r0, 8; @%p0 bar.sync 0;",
        "setp.lt.u32 %p0, %r0, 8; @%p0 ret; bar.sync 0;",
        "setp.lt.u32 %p0, %r0, 8; @%p0 bra A; bar.sync 0; bra B; A: bar.sync 0; B:",
    ],
)
def test_a_barrier_that_not_all_reach(launch, text):
    with pytest.raises(
        DivergenceFault, match=r"bar.sync 0.*\(line \d+\) of k: (8|24) of the 32 threads"
    ):
        launch(START + text, np.zeros(64, "u4"), grid=(2, 1, 1))


def test_a_barrier_where_paths_cross(launch):
    """The branch before the barrier is no loop and no plain condition: some come by another way."""
    text = (
        ".shared .align 4 .b8 part[128];"
        + START
        + """
        mov.u32 %r9, part;
        shl.b32 %r2, %r0, 2;
        add.u32 %r2, %r2, %r9;
        setp.eq.u32 %p0, %r29, 7;
        setp.lt.u32 %p1, %r0, 8;
        or.pred %p2, %p0, %p1;
        @%p2 bra MAYBE;
    SYNC:
        st.shared.u32 [%r2], %r1;
        bar.sync 0;
        xor.b32 %r3, %r2, 4;
        ld.shared.u32 %r4, [%r3];
        st.global.u32 [%rd2], %r4;
        ret;
    MAYBE:
        @%p0 ret;
        bra SYNC;
    """
    )
    (got,) = launch(text, np.zeros(64, "u4"), grid=(2, 1, 1))
    assert got.tolist() == [i ^ 1 for i in range(64)]


def test_reductions_at_a_barrier(launch):
    text = (
        START
        + """
        setp.lt.u32 %p0, %r0, 5;
        bar.red.popc.u32 %r2, 0, %p0;
        bar.red.or.pred %p1, 0, %p0;
        bar.red.and.pred %p2, 0, %p0;
        selp.u32 %r3, 100, 0, %p1;
        selp.u32 %r4, 1000, 0, %p2;
        add.u32 %r2, %r2, %r3;
        add.u32 %r2, %r2, %r4;
        st.global.u32 [%rd2], %r2;
    """
    )
    (got,) = launch(text, np.zeros(64, "u4"), grid=(2, 1, 1))
    assert set(got.tolist()) == {105}


def test_functions_that_are_called(launch):
    before = """
    .func (.param .b32 out) inner(.param .b32 a)
    {
        .reg .b32 %r<4>;
        .reg .pred %p<2>;
        ld.param.u32 %r0, [a];
        setp.gt.u32 %p0, %r0, 9;
        @%p0 bra BIG;
        st.param.b32 [out], %r0;
        ret;
    BIG:
        mul.lo.u32 %r1, %r0, 100;
        st.param.b32 [out], %r1;
        ret;
    }
    .func (.param .align 8 .b8 pair[8]) outer(.param .b32 a, .param .b32 b)
    {
        .reg .b32 %r<4>;
        .local .align 4 .b8 depot[4];
        ld.param.u32 %r0, [a];
        ld.param.u32 %r1, [b];
        st.local.u32 [depot], %r1;
        { .param .b32 x; .param .b32 y;
          st.param.b32 [x], %r0;
          call (y), inner, (x);
          ld.param.b32 %r2, [y]; }
        ld.local.u32 %r3, [depot];
        st.param.b32 [pair], %r2;
        st.param.b32 [pair+4], %r3;
        ret;
    }
    """
    text = (
        START
        + """
        { .param .b32 x; .param .b32 z; .param .align 8 .b8 y[8];
          st.param.b32 [x], %r0;
          st.param.b32 [z], 7;
          call.uni (y), outer, (x, z);
          ld.param.b32 %r3, [y];
          ld.param.b32 %r4, [y+4]; }
        { .param .b32 x; .param .b32 y;
          st.param.b32 [x], %r4;
          call.uni (y), inner, (x);
          ld.param.b32 %r5, [y]; }
        add.u32 %r3, %r3, %r5;
        st.global.u32 [%rd2], %r3;
    """
    )
    (got,) = launch(text, np.zeros(16, "u4"), block=(16, 1, 1), before=before)
    assert got.tolist() == [(i if i <= 9 else 100 * i) + 7 for i in range(16)]


def test_recursion_is_refused(launch):
    before = """
    .func again() { call again; ret; }
    """
    with pytest.raises(PTXError, match="recursion"):
        launch("call again;", before=before)


def test_traps(launch):
    with pytest.raises(
        KernelFault, match=r"thread \(3, 0, 0\) of block \(0, 0, 0\) executes the trap"
    ):
        launch(START + "setp.eq.u32 %p0, %r0, 3; @%p0 trap;", np.zeros(8, "u4"), block=(8, 1, 1))


def test_places_of_threads(launch):
    text = """
        mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z;
        mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ctaid.y; mov.u32 %r5, %ctaid.z;
        mov.u32 %r6, %ntid.x; mov.u32 %r7, %ntid.y; mov.u32 %r8, %ntid.z;
        mov.u32 %r9, %nctaid.x; mov.u32 %r10, %nctaid.y;
        mad.lo.u32 %r11, %r5, %r10, %r4;
        mad.lo.u32 %r11, %r11, %r9, %r3;
        mad.lo.u32 %r11, %r11, %r8, %r2;
        mad.lo.u32 %r11, %r11, %r7, %r1;
        mad.lo.u32 %r11, %r11, %r6, %r0;
        mul.wide.u32 %rd0, %r11, 4;
        ld.param.u64 %rd1, [p0];
        add.s64 %rd2, %rd1, %rd0;
        mov.u32 %r12, %warpid;
        mov.u32 %r13, %laneid;
        mad.lo.u32 %r12, %r12, 32, %r13;
        add.u32 %r11, %r11, 1;
        mad.lo.u32 %r11, %r11, 1000, %r12;
        st.global.u32 [%rd2], %r11;
    """
    (got,) = launch(text, np.zeros(5 * 3 * 2 * 4 * 3 * 5, "u4"), grid=(5, 3, 2), block=(4, 3, 5))
    flat = np.arange(got.size)
    assert got.tolist() == ((flat + 1) * 1000 + flat % 60).tolist()
