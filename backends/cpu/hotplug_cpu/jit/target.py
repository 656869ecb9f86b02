"""The processor that kernels are made for, found without importing Numba.

An *instruction set* here is a set of forms that `jit.forms` knows to write: "avx2" (with FMA and
F16C), "vnni" (the same with AVX-VNNI's or AVX-512's dot product of bytes), "neon", "neon_dot" (with
sdot), "neon_i8mm" (with smmla as well), and "generic", which is plain LLVM vector code and right
everywhere. Vectors have 256 bits on AVX-512 machines too, but for wide products of floats and words
(`Target.lanes`); LLVM still schedules for the processor it is on.

A process makes kernels for one processor: its own, unless `choose` named another one before the
first kernel was asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from hotplug.errors import SettingsError
from hotplug.settings import settings
from hotplug_cpu.jit import arm

__all__ = [
    "INSTRUCTION_SETS",
    "OTHERS",
    "Target",
    "architecture",
    "choose",
    "host_target",
    "kernel_target",
    "llvmlite_missing",
    "multiplies_words",
]

INSTRUCTION_SETS = ("vnni", "avx2", "neon_i8mm", "neon_dot", "neon", "generic")

_AVX2 = frozenset({"avx2", "fma", "f16c"})
_VNNI = (frozenset({"avxvnni"}), frozenset({"avx512vnni", "avx512vl"}))
_EXTRAS = "+avx512f,+avx512vl,+avx512dq,+avx512bw"
_AVX512 = frozenset(_EXTRAS.split(","))
_X86 = ("vnni", "avx2", "generic")
_ARM = ("neon_i8mm", "neon_dot", "neon", "generic")
_FAMILIES = {"x86_64": _X86, "aarch64": _ARM}
"""Instruction sets of a family of processors, each with all that those behind it have."""

_BASELINES = {
    ("x86_64", "avx2"): ("x86-64-v3", ""),
    ("x86_64", "generic"): ("x86-64", ""),
    ("aarch64", "neon_dot"): ("generic", "+dotprod"),
    ("aarch64", "neon"): ("generic", ""),
    ("aarch64", "generic"): ("generic", ""),
}
"""(processor, features) that have an instruction set and no extras."""


@dataclass(frozen=True, slots=True)
class Target:
    """What an object file is compiled for.

    Attributes:
        isa: one of INSTRUCTION_SETS.
        triple: LLVM's name of processor family, vendor and system.
        cpu: LLVM's name of the processor.
        features: LLVM's feature string.
    """

    isa: str
    triple: str
    cpu: str
    features: str = ""

    @property
    def machine(self) -> str:
        """Family of processors: "x86_64", "aarch64" and so on."""
        return _machine(self.triple)

    @property
    def lanes(self) -> int:
        """How many 32-bit elements the widest registers hold, though never fewer than 8."""
        return 16 if {*self.features.split(",")} >= _AVX512 else 8


def _machine(triple: str) -> str:
    family = triple.partition("-")[0]
    return "aarch64" if family == "arm64" else family


_LINUX_X86, _LINUX_ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
OTHERS = {
    "sse2": Target("generic", _LINUX_X86, "x86-64"),
    "avx2": Target("avx2", _LINUX_X86, "x86-64-v3"),
    "avx512": Target("avx2", _LINUX_X86, "skylake-avx512", _EXTRAS),
    "avx512vnni": Target("vnni", _LINUX_X86, "cascadelake", _EXTRAS),
    "avxvnni": Target("vnni", _LINUX_X86, "alderlake"),
    "neon": Target("neon", _LINUX_ARM, "cortex-a72"),
    "neon_dot": Target("neon_dot", _LINUX_ARM, "neoverse-n1"),
    "neon_i8mm": Target("neon_i8mm", _LINUX_ARM, "neoverse-v1"),
    "apple": Target("neon_dot", "arm64-apple-macosx12", "apple-m1"),
    "windows": Target("avx2", "x86_64-pc-windows-msvc", "x86-64-v3"),
    "riscv": Target("generic", "riscv64-unknown-linux-gnu", "generic-rv64", "+m,+a,+f,+d,+c"),
}
"""Processors of each kind, for which kernels are compiled to be looked at or carried there."""

_chosen: list[Target] = []


def choose(target: Target) -> None:
    """Make kernels for another processor, in this process and from now on.

    They can be compiled and kept, but not loaded. Modules of kernels read what their target is
    when they are imported, which must not have happened yet.
    """
    _chosen[:] = [target]


def kernel_target() -> Target:
    """The target of all kernels of this process."""
    return _chosen[0] if _chosen else host_target()


def llvmlite_missing() -> str | None:
    """Why llvmlite cannot be used, or None if it can."""
    try:
        import llvmlite.binding  # noqa: F401, PLC0415 - asked before anything is imported for good
    except (ImportError, OSError) as error:
        return str(error)
    return None


@functools.cache
def host_target() -> Target:
    """The target of this machine and of HOTPLUG_CPU_ISA.

    Raises:
        SettingsError: HOTPLUG_CPU_ISA names an instruction set that this processor lacks.
    """
    import llvmlite.binding as llvm  # noqa: PLC0415 - 35 ms

    triple = llvm.get_process_triple()
    machine = _machine(triple)
    features = llvm.get_host_cpu_features()
    if machine == "aarch64":
        features.update(dict.fromkeys(arm.features(), True))
    present = {name for name, on in features.items() if on}
    best = _best(machine, present)
    lesser = _lesser(machine, best)
    isa = settings().cpu_isa or best
    if isa == best or (isa == _shown(best, present) and isa not in lesser):
        return Target(best, triple, llvm.get_host_cpu_name(), features.flatten())
    if isa not in lesser:
        raise SettingsError(
            f"HOTPLUG_CPU_ISA={isa!r}: this processor runs "
            f"{', '.join((_shown(best, present), *lesser))}",
            variable="HOTPLUG_CPU_ISA",
            value=isa,
        )
    # Asked for to test lesser forms: do without the processor's extras as well.
    return Target(isa, triple, *_BASELINES.get((machine, isa), ("", "")))


def _lesser(machine: str, best: str) -> tuple[str, ...]:
    family = _FAMILIES.get(machine, ("generic",))
    return family[family.index(best) + 1 :] or ("generic",)


@functools.cache
def multiplies_words() -> Mapping[str, int]:
    """Types of weights whose products are fastest with words of 16 bits, and from how many tokens.

    Vectors of 512 bits with VNNI, or of 256 without; the other two ways nobody has measured yet. So
    does Q8_0 without VNNI, whose bytes would be multiplied with their signs taken off.
    """
    target = host_target()
    if target.isa == "vnni" and target.lanes == 16:
        return {"f16": 16, "bf16": 16}
    if target.isa == "avx2" and target.lanes == 8:
        return {"f16": 32, "bf16": 32, "q8_0": 32}
    return {}


def architecture() -> str:
    """Instruction set for display: "avx512" where kernels use its registers, "avx2", and so on."""
    target = host_target()
    return _shown(target.isa, {name.lstrip("+") for name in target.features.split(",")})


def _shown(isa: str, features: set[str]) -> str:
    if isa not in {"vnni", "avx2"}:
        return isa
    return "avx512" if "avx512f" in features else "avx2"


def _best(machine: str, features: set[str]) -> str:
    if machine == "x86_64":
        if not features >= _AVX2:
            return "generic"
        return "vnni" if any(features >= needed for needed in _VNNI) else "avx2"
    if machine == "aarch64":
        if features >= {"i8mm", "dotprod"}:
            return "neon_i8mm"
        return "neon_dot" if "dotprod" in features else "neon"
    return "generic"
