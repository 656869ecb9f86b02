"""The processor that kernels are made for, found without importing Numba.

An *instruction set* here is a set of forms that `jit.forms` knows to write: "avx2" (with FMA and
F16C), "vnni" (the same with AVX-VNNI's or AVX-512's dot product of bytes), "neon_dot" (NEON with
sdot), "neon", and "generic", which is plain LLVM vector code and right everywhere. Vectors have 256
bits on AVX-512 machines too; LLVM still schedules for the processor it is on.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from hotplug.errors import SettingsError
from hotplug.settings import settings

__all__ = ["INSTRUCTION_SETS", "Target", "architecture", "host_target", "llvmlite_missing"]

INSTRUCTION_SETS = ("vnni", "avx2", "neon_dot", "neon", "generic")

_AVX2 = frozenset({"avx2", "fma", "f16c"})
_VNNI = (frozenset({"avxvnni"}), frozenset({"avx512vnni", "avx512vl"}))
_BASELINE = {"x86_64": "x86-64", "aarch64": "generic"}
_LESSER = {"vnni": ("avx2", "generic")}


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
    present = {name for name, on in features.items() if on}
    best = _best(triple.partition("-")[0], present)
    isa = settings().cpu_isa or best
    if isa in {best, _shown(best, present)}:
        return Target(best, triple, llvm.get_host_cpu_name(), features.flatten())
    lesser = _LESSER.get(best, ("generic",))
    if isa not in lesser:
        raise SettingsError(
            f"HOTPLUG_CPU_ISA={isa!r}: this processor runs "
            f"{', '.join((_shown(best, present), *lesser))}",
            variable="HOTPLUG_CPU_ISA",
            value=isa,
        )
    # Asked for to test lesser forms: do without the processor's extras as well.
    baseline = "x86-64-v3" if isa == "avx2" else _BASELINE.get(triple.partition("-")[0], "")
    return Target(isa, triple, baseline, "")


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
    if machine in {"aarch64", "arm64"}:
        return "neon_dot" if "dotprod" in features else "neon"
    return "generic"
