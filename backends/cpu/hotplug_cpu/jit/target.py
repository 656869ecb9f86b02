"""The processor that kernels are made for, found without importing Numba.

An *instruction set* here is a set of forms that `jit.forms` knows to write: "avx2" (with FMA and
F16C), "neon_dot" (NEON with sdot), "neon", and "generic", which is plain LLVM vector code and right
everywhere. AVX-512 machines use the avx2 forms; LLVM still schedules for the processor it is on.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from hotplug.errors import SettingsError
from hotplug.settings import settings

__all__ = ["INSTRUCTION_SETS", "Target", "architecture", "host_target", "llvmlite_missing"]

INSTRUCTION_SETS = ("avx2", "neon_dot", "neon", "generic")

_AVX2 = frozenset({"avx2", "fma", "f16c"})
_BASELINE = {"x86_64": "x86-64", "aarch64": "generic"}


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
    features: str


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
    features = llvm.get_host_cpu_features()
    best = _best(triple.partition("-")[0], {name for name, on in features.items() if on})
    isa = settings().cpu_isa or best
    if isa == "generic" and best != "generic":
        # The generic forms are asked for to test them: do without the processor's extras as well.
        return Target(isa, triple, _BASELINE.get(triple.partition("-")[0], ""), "")
    if isa not in {best, "generic"}:
        raise SettingsError(
            f"HOTPLUG_CPU_ISA={isa!r}: this processor runs {best} and generic",
            variable="HOTPLUG_CPU_ISA",
            value=isa,
        )
    return Target(isa, triple, llvm.get_host_cpu_name(), features.flatten())


def architecture() -> str:
    """Instruction set for display: "avx512" where the processor has it, else that of the forms."""
    import llvmlite.binding as llvm  # noqa: PLC0415 - 35 ms

    isa = host_target().isa
    wide = llvm.get_host_cpu_features().get("avx512f", False)
    return "avx512" if isa == "avx2" and wide else isa


def _best(machine: str, features: set[str]) -> str:
    if machine == "x86_64":
        return "avx2" if features >= _AVX2 else "generic"
    if machine in {"aarch64", "arm64"}:
        return "neon_dot" if "dotprod" in features else "neon"
    return "generic"
