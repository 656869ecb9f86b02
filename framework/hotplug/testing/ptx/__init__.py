"""Runs PTX, NVIDIA's virtual instruction set, on NumPy: a GPU for tests where there is none.

    machine = Machine(total_bytes=1 << 32)
    module = Module.parse(ptx_text)
    machine.launch(module, "add", grid=(4, 1, 1), block=(256, 1, 1), arguments=[...])

tokens, parser, syntax   text -> functions and instructions
inline, flow             calls resolved; basic blocks in an order in which threads meet again
writer, emit/            a basic block -> a Python function over all threads that are at it
compute/                 what such functions call
program, module          all of a kernel; all of a text
memory, spaces           device memory, what threads see of it
races, shadows           accesses that nothing orders, and the records by which they are found
batch, schedule          threads side by side, and which of them go on next
machine                  the device

Sections of NVIDIA's manual "Parallel Thread Execution ISA" are named where its rules are followed.
An instruction or modifier that is not known is an error when a text is parsed.

What a real device may do otherwise: approximate functions (.approx) are nearly exact here; NaNs
have NumPy's bits; products and sums that the text leaves apart stay apart; loads and stores take
effect at once and in order, so that missing fences do no harm.
"""

from hotplug.testing.ptx.errors import (
    DivergenceFault,
    KernelFault,
    MemoryFault,
    PTXError,
    RaceFault,
    UninitialisedFault,
)
from hotplug.testing.ptx.machine import Machine
from hotplug.testing.ptx.module import Module

__all__ = [
    "DivergenceFault",
    "KernelFault",
    "Machine",
    "MemoryFault",
    "Module",
    "PTXError",
    "RaceFault",
    "UninitialisedFault",
]
