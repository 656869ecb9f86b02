"""Random programs: many threads side by side compute what each computes alone.

Alone a thread never parts from others, so that its registers are scalars throughout; side by side
they are arrays that are split and joined in all ways.
"""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from hotplug.testing.ptx import Machine, Module

REGISTERS = [f"%r{index}" for index in range(8)]
THREADS = 48


class Program:
    """Nested conditions and loops over eight registers and a little local memory."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self._labels = itertools.count()
        self.lines = []
        self._statements(depth=4, count=6)

    def _statements(self, depth, count):
        for _ in range(self._random.randint(2, count)):
            kind = self._random.choice(["assign"] * 4 + (["if", "loop", "exit"] if depth else []))
            getattr(self, f"_{kind}")(depth)

    def _assign(self, depth):
        a, b, c = self._random.choices(REGISTERS, k=3)
        load = f"ld.local.u32 {a}, [%rd9];"
        self.lines.append(self._random.choice([
            f"add.s32 {a}, {b}, {c};", f"sub.s32 {a}, {b}, {c};", f"mul.lo.s32 {a}, {b}, {c};",
            f"xor.b32 {a}, {b}, {c};", f"mov.u32 {a}, {b};", f"shr.u32 {a}, {b}, 3;",
            f"mov.u32 {a}, {self._random.randint(0, 99)};", f"min.s32 {a}, {b}, {c};",
            f"st.local.u32 [depot+{4 * self._random.randint(0, 3)}], {b};",
            f"ld.local.u32 {a}, [depot+{4 * self._random.randint(0, 3)}];",
            f"and.b32 %r20, {b}, 3; mul.wide.u32 %rd9, %r20, 4; add.s64 %rd9, %rd9, %rd8;" + load,
            f"setp.lt.s32 %p9, {b}, {c}; selp.b32 {a}, {b}, {c}, %p9;",
            f"setp.lt.s32 %p9, {b}, {c}; @!%p9 mov.u32 {a}, {c};",
        ]))  # fmt: skip

    def _condition(self):
        a, b = self._random.choices([*REGISTERS, "%r30"], k=2)
        mask = self._random.choice([1, 2, 3, 7])
        return f"and.b32 %r20, {a}, {mask}; and.b32 %r21, {b}, {mask}; setp.ge.u32 %p0, %r20, %r21;"

    def _if(self, depth):
        otherwise, end = (f"L{next(self._labels)}" for _ in range(2))
        self.lines.append(f"{self._condition()} @%p0 bra {otherwise};")
        self._statements(depth - 1, 3)
        self.lines.append(f"bra {end}; {otherwise}:")
        if self._random.random() < 0.6:
            self._statements(depth - 1, 3)
        self.lines.append(f"{end}:")

    def _loop(self, depth):
        """At most five rounds; some threads leave it in the middle."""
        again, end = (f"L{next(self._labels)}" for _ in range(2))
        counter, limit = f"%r{10 + depth}", self._random.choice(REGISTERS)
        self.lines.append(f"and.b32 {counter}, {limit}, 3; {again}:")
        self._statements(depth - 1, 3)
        if self._random.random() < 0.5:
            self.lines.append(f"{self._condition()} @%p0 bra {end};")
            self._statements(0, 2)
        self.lines.append(f"add.u32 {counter}, {counter}, 1; setp.lt.u32 %p1, {counter}, 5;")
        self.lines.append(f"@%p1 bra {again}; {end}:")

    def _exit(self, depth):
        if self._random.random() < 0.2:
            self.lines.append(f"{self._condition()} @%p0 bra STORE;")

    def text(self):
        setup = "\n".join(
            f"mad.lo.s32 {name}, %r30, {3 + n}, {n};" for n, name in enumerate(REGISTERS)
        )
        stores = "\n".join(
            f"st.global.u32 [%rd2+{4 * index}], {name};" for index, name in enumerate(REGISTERS)
        )
        body = "\n".join(self.lines)
        return f"""
            .version 8.0
            .target sm_75
            .address_size 64
            .entry k(.param .u64 out, .param .u32 first)
            {{
                .reg .pred %p<10>; .reg .b32 %r<32>; .reg .b64 %rd<10>;
                .local .align 8 .b8 depot[16];
                mov.u32 %r28, %ctaid.x; mov.u32 %r29, %ntid.x; mov.u32 %r27, %tid.x;
                mad.lo.s32 %r30, %r28, %r29, %r27;
                ld.param.u32 %r26, [first];
                add.s32 %r30, %r30, %r26;
                ld.param.u64 %rd1, [out];
                mul.wide.u32 %rd2, %r30, 32;
                add.s64 %rd2, %rd2, %rd1;
                mov.u64 %rd8, depot;
                st.local.v4.u32 [depot], {{1, 2, 3, %r30}};
                {setup}
                {body}
            STORE:
                {stores}
                ret;
            }}
        """


def run(module, launches):
    """The registers of all threads after launches of (grid, block, first thread)."""
    machine = Machine(1 << 20)
    out = machine.allocate(32 * THREADS)
    for grid, block, first in launches:
        arguments = [out.to_bytes(8, "little"), first.to_bytes(4, "little")]
        machine.launch(module, "k", (grid, 1, 1), (block, 1, 1), arguments)
    return np.frombuffer(machine.read(out, 32 * THREADS), "u4").reshape(THREADS, 8)


@pytest.mark.parametrize("seed", range(25))
def test_side_by_side_and_alone(seed):
    module = Module.parse(Program(seed).text())
    together = run(module, [(3, THREADS // 3, 0)])
    alone = run(module, [(1, 1, thread) for thread in range(THREADS)])
    assert together.tolist() == alone.tolist()
