"""What a kernel takes of a multiprocessor, as NVIDIA's assembler reports it, without a GPU."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hotplug_cuda.nvrtc import Compiler

__all__ = ["ARCHITECTURES", "Usage", "measure", "occupancy"]

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
"""Turing; Ampere of data centres and others; Ada; Hopper; Blackwell of data centres and others."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one kernel takes.

    Attributes:
        registers: of a thread.
        stack: bytes of a thread's local memory: arrays that are indexed by variables, and spills.
        spills: bytes of registers that are stored to local memory and loaded again.
        shared: bytes of a group's memory.
    """

    registers: int
    stack: int
    spills: int
    shared: int


_NUMBERS = {
    "registers": re.compile(r"Used (\d+) registers"),
    "stack": re.compile(r"(\d+) bytes stack frame"),
    "shared": re.compile(r"(\d+) bytes smem"),
}
_SPILLS = re.compile(r"(\d+) bytes spill (?:stores|loads)")


def measure(compiler: Compiler, kernel: str, source: str, capability: int) -> Usage:
    """Compile a kernel and read what the assembler says of it.

    Raises:
        KernelCompileError: it was refused.
    """
    options = ("--disable-warnings", "--ptxas-options=--verbose")
    log = compiler.compile(kernel, source, f"sm_{capability}", options).log
    found = {name: pattern.search(log) for name, pattern in _NUMBERS.items()}
    if found["registers"] is None:
        raise ValueError(f"the assembler's report is of a form that is not known: {log}")
    numbers = {name: int(match[1]) if match else 0 for name, match in found.items()}
    return Usage(**numbers, spills=sum(map(int, _SPILLS.findall(log))))


_REGISTERS = 65536  # of a multiprocessor, handed out to warps by 256
_WARP = 32
_RESERVED = {75: 0}  # bytes of shared memory that CUDA keeps of each group, 1024 otherwise

# (threads, groups, bytes of shared memory) of a multiprocessor, from CUDA's programming guide.
_LIMITS = {
    75: (1024, 16, 64 << 10),
    80: (2048, 32, 164 << 10),
    86: (1536, 16, 100 << 10),
    89: (1536, 24, 100 << 10),
    90: (2048, 32, 228 << 10),
    100: (2048, 32, 228 << 10),
    120: (1536, 24, 100 << 10),
}


def occupancy(usage: Usage, items: int, capability: int) -> float:
    """The part of a multiprocessor's threads that fit onto it at once, as CUDA counts it.

    Args:
        usage: what the kernel takes.
        items: threads of a group.
        capability: one of ARCHITECTURES.
    """
    threads, groups, shared = _LIMITS[capability]
    warps = -(-items // _WARP)
    of_a_warp = -(-usage.registers * _WARP // 256) * 256
    of_a_group = usage.shared + _RESERVED.get(capability, 1024)
    fit = min(
        groups,
        threads // (warps * _WARP),
        _REGISTERS // of_a_warp // warps,
        shared // of_a_group if of_a_group else groups,
    )
    return fit * warps * _WARP / threads
