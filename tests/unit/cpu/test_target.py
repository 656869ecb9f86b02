"""Which instruction set a processor's features mean, and what HOTPLUG_CPU_ISA makes of it."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest

from hotplug.errors import SettingsError
from hotplug_cpu.jit import arm, target

AVX2 = {"avx2", "fma", "f16c"}
AVX512 = AVX2 | {"avx512f", "avx512vl"}


def found(monkeypatch: pytest.MonkeyPatch, triple: str, features: set[str]) -> target.Target:
    """The target on a machine with features; those of ARM's come from the system."""
    arms = {"dotprod", "i8mm"}
    known = llvm.FeatureMap(dict.fromkeys(features - arms, True))
    monkeypatch.setattr(llvm, "get_process_triple", lambda: triple)
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: known)
    monkeypatch.setattr(arm, "features", lambda: features & arms)
    return target.host_target.__wrapped__()


@pytest.mark.parametrize(
    ("triple", "features", "isa"),
    [
        ("x86_64-linux", set(), "generic"),
        ("x86_64-linux", AVX2, "avx2"),
        ("x86_64-linux", AVX512, "avx2"),
        ("x86_64-linux", AVX512 | {"avx512vnni"}, "vnni"),
        ("x86_64-linux", AVX2 | {"avxvnni"}, "vnni"),
        ("aarch64-linux", {"neon"}, "neon"),
        ("aarch64-linux", {"neon", "dotprod"}, "neon_dot"),
        ("arm64-apple-darwin", {"neon", "dotprod", "i8mm"}, "neon_i8mm"),
        ("riscv64-linux", {"v"}, "generic"),
    ],
)
def test_the_best_that_a_processor_has(
    triple: str, features: set[str], isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = found(monkeypatch, triple, features)
    assert best.isa == isa
    # LLVM is told what it did not know, or it would refuse to compile such instructions.
    assert all(f"+{name}" in best.features for name in features)


@pytest.mark.parametrize(
    ("triple", "features", "asked", "cpu"),
    [
        ("x86_64-linux", AVX512 | {"avx512vnni"}, "avx2", "x86-64-v3"),
        ("x86_64-linux", AVX2 | {"avxvnni"}, "avx2", "x86-64-v3"),
        ("x86_64-linux", AVX2, "generic", "x86-64"),
        ("aarch64-linux", {"neon", "dotprod", "i8mm"}, "neon_dot", "generic"),
        ("aarch64-linux", {"neon", "dotprod"}, "neon", "generic"),
    ],
)
def test_a_lesser_one_can_be_asked_for(
    triple: str, features: set[str], asked: str, cpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTPLUG_CPU_ISA", asked)
    lesser = found(monkeypatch, triple, features)
    assert (lesser.isa, lesser.cpu) == (asked, cpu)


def test_a_better_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPLUG_CPU_ISA", "neon_dot")
    with pytest.raises(SettingsError, match="neon, generic"):
        found(monkeypatch, "aarch64-linux", {"neon"})


def test_another_target_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "_chosen", [])
    assert target.kernel_target() == target.host_target()
    target.choose(target.OTHERS["neon"])
    assert target.kernel_target().machine == "aarch64"
