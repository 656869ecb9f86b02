"""Every kernel compiles with every combination of definitions that the catalog gives it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import hotplug.gpu
from hotplug.errors import KernelCompileError
from hotplug.gpu.catalog.table import ROWS
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import DIALECTS, kernel_names, parameters, source_of
from hotplug.node import LEAF_OPS
from hotplug.ops import OPS
from hotplug.testing.conformance.suite import case_groups
from hotplug.testing.kernels import launches, variants

HERE = Path(hotplug.gpu.__file__).parent

GPU = Capabilities(
    dialect="opencl", identity="test", is_cpu=False, f64=True, alignment=64, max_items=256,
    local_bytes=32768, max_buffer=2**32, int8=True,
)  # fmt: skip


def test_the_catalog_uses_every_kernel():
    assert {variant.file for variant in variants(GPU)} == set(kernel_names())


def test_a_launch_has_as_many_arguments_as_its_kernel():
    for cases in case_groups(slow=False).values():
        for case in cases[:3]:
            for launch in launches(case.graph, GPU):
                text = source_of(launch.variant, "opencl", f64=True)
                start, end = parameters(text, launch.variant.name)
                assert text[start:end].count(",") + 1 == len(launch.arguments), launch.variant


@pytest.mark.parametrize("name", kernel_names())
def test_every_kernel_compiles(driver, name):
    """One variant of each with the geometry of a GPU: work-groups, barriers, local memory."""
    some = [variant for variant in variants(GPU) if variant.file == name]
    driver.compile(some[0].name, source_of(some[0], "opencl", f64=driver.capabilities.f64))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("is_cpu", [False, True])
def test_all_variants_compile(driver, is_cpu):
    capabilities = dataclasses.replace(driver.capabilities, is_cpu=is_cpu, int8=not is_cpu)
    for variant in variants(capabilities):
        driver.compile(variant.name, source_of(variant, "opencl", f64=capabilities.f64))


def test_a_compiler_s_complaint_is_kept(driver):
    with pytest.raises(KernelCompileError) as caught:
        driver.compile("broken", "__kernel void broken(__global int *x) { x[0] = y; }")
    assert caught.value.kernel == "broken"
    assert "y" in (caught.value.log or "")
    assert "x[0] = y" in (caught.value.source or "")
    assert "error" in str(caught.value)


def names_defined(text):
    return set(re.findall(r"^#define (\w+)", text, re.MULTILINE))


def test_dialects_define_the_same_vocabulary():
    pages = {name: (HERE / f"dialects/{name}.h").read_text() for name in DIALECTS}
    assert names_defined(pages["opencl"]) == names_defined(pages["cuda"])


def test_kernels_use_the_vocabulary_alone():
    """No word of one dialect stands in a kernel."""
    words = r"\b(__global|__local|__kernel|get_\w+_id|barrier|half|vload\w*|threadIdx|__shared__)\b"
    for path in (HERE / "kernels").iterdir():
        code = re.sub(r"//.*", "", path.read_text())
        assert not re.search(words, code), path.name


DOUBLE = r"\bdouble|(?<![\w.])\d+\.\d*(e[-+]?\d+)?(?![\w.])"
"""The type, or a number that has it for lack of a suffix."""


def test_no_kernel_needs_f64_or_sub_groups():
    """Types are chosen by macros, of which those of f64 alone may know it, and numbers by K()."""
    pages = [HERE / f"dialects/{name}.h" for name in ("opencl", "processor", "series", "step")]
    for path in [*pages, *(HERE / "kernels").iterdir()]:
        code = re.sub(r"//.*|^#define \w+_f64\b.*|\bK\([^)]*\)", "", path.read_text(), flags=re.M)
        assert not re.search(DOUBLE, code), path.name
        assert "sub_group" not in code, path.name


def test_every_pointer_of_a_kernel_has_an_address_space():
    for path in (HERE / "kernels").glob("*.cl"):
        code = re.sub(r"//.*", "", path.read_text())
        for signature in re.findall(r"KERNEL\(ITEMS\)\s+\w+\((.*?)\)\n\{", code, re.DOTALL):
            for parameter in signature.split(","):
                assert "*" not in parameter or "GLOBAL" in parameter, (path.name, parameter)


def test_every_op_has_kernels_or_is_a_view():
    needless = LEAF_OPS | {name for name, op in OPS.items() if op.view}
    assert set(ROWS) == set(OPS) - needless
