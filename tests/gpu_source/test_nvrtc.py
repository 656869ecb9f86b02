"""NVRTC compiles every kernel for every architecture and says what it takes, without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hotplug.errors import BackendLoadError, KernelCompileError
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import kernel_names, source_of
from hotplug.testing.kernels import alternatives, variants
from hotplug_cuda.nvrtc import open_compiler
from hotplug_cuda.usage import ARCHITECTURES, Usage, measure, occupancy

CUDA = Capabilities(
    dialect="cuda", identity="test", is_cpu=False, f64=True, alignment=256, max_items=1024,
    local_bytes=48 << 10, max_buffer=1 << 40, int8=True,
)  # fmt: skip
HOT = ("matvec", "matvec_int8", "attention", "combine")


@pytest.fixture(scope="module")
def compiler():
    try:
        return open_compiler()
    except BackendLoadError as error:
        pytest.skip(str(error))


def of(kernel):
    return [variant for variant in variants(CUDA) if variant.file == kernel]


def usage(compiler, variant, capability):
    return measure(compiler, variant.name, source_of(variant, "cuda", f64=True), capability)


@pytest.mark.parametrize("capability", [75, 90])
@pytest.mark.parametrize("kernel", kernel_names())
def test_every_kernel_compiles(compiler, kernel, capability):
    """One variant of each; a few of the hot kernels, which spill nothing."""
    found = of(kernel)
    for variant in found[:: -(-len(found) // 4)] if kernel in HOT else found[-1:]:
        taken = usage(compiler, variant, capability)
        assert 0 < taken.registers < 256, variant
        assert kernel not in HOT or not taken.spills, (variant, taken)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("kernel", kernel_names())
def test_all_variants_compile_on_all_architectures(compiler, kernel, capability):
    taken = {variant: usage(compiler, variant, capability) for variant in of(kernel)}
    spilling = [str(variant) for variant, used in taken.items() if used.spills]
    assert kernel not in HOT or not spilling, spilling


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_geometries_that_a_device_may_choose_compile(compiler, capability):
    """Others of them on each architecture; those of mat-vec spill nothing."""
    found = alternatives(CUDA)[ARCHITECTURES.index(capability) :: 16]
    assert {variant.file for variant in found} > {"matvec", "matvec_int8"}
    taken = {variant: usage(compiler, variant, capability) for variant in found}
    spilling = [variant for variant, used in taken.items() if used.spills]
    assert [str(variant) for variant in spilling if variant.file in HOT] == []


def test_views_are_walked_without_local_memory(compiler):
    """Arrays that are indexed by variables would be copied to each thread's local memory."""
    for kernel in ("copy", "where", "take"):
        assert usage(compiler, of(kernel)[0], 75).stack == 0


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_report(compiler, form):
    tool = Path(__file__).parents[2] / "tools" / "kernel_report.py"
    command = [sys.executable, str(tool), "--kernel", "combine", "--arch", "90", *form]
    last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    if form:
        row = json.loads(last[-1])
        assert row["variant"] == "combine(ITEMS=64)"
        assert row["usage"]["registers"] > 0
    else:
        table = last.index("| kernel | variants | shared bytes | sm_90 |")
        assert last[table + 2].startswith("| combine | 1 | 0 | ")
        assert last[-1].startswith("| combine | scaled_dot_product_attention: ")
        assert last[-1].endswith(" | not measured |")


def test_a_refusal_quotes_the_line(compiler):
    source = 'extern "C" __global__ void broken(int *x)\n{\n    x[0] = y;\n}\n'
    with pytest.raises(KernelCompileError, match=r"line 3, 'x\[0\] = y;': .*\"y\"") as caught:
        compiler.compile("broken", source, "sm_75")
    assert caught.value.kernel == "broken"
    assert caught.value.source == source
    assert "broken.cu(3): error" in (caught.value.log or "")


def test_what_is_compiled_for(compiler):
    assert compiler.target(90) == "sm_90"
    newest = compiler.architectures[-1]
    assert compiler.target(newest + 100) == f"compute_{newest}"
    source = 'extern "C" __global__ void empty() {}'
    assert compiler.compile("empty", source, "sm_90").image.startswith(b"\x7fELF")
    assert b".target sm_90" in compiler.compile("empty", source, "compute_90").image


@pytest.mark.parametrize(
    ("taken", "items", "capability", "share"),
    [
        (Usage(registers=32, stack=0, spills=0, shared=0), 256, 90, 1.0),
        (Usage(registers=128, stack=0, spills=0, shared=0), 256, 90, 0.25),
        (Usage(registers=32, stack=0, spills=0, shared=0), 64, 86, 16 * 64 / 1536),
        (Usage(registers=32, stack=0, spills=0, shared=48 << 10), 256, 75, 0.25),
    ],
)
def test_occupancy_is_what_cuda_s_rules_give(taken, items, capability, share):
    assert occupancy(taken, items, capability) == share
