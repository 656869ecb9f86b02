"""Tests of kernels once more with lesser instruction sets, each file in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = (
    "test_attention_kernels",
    "test_decode_kernels",
    "test_gemm",
    "test_numbers",
    "test_plan",
    "test_random_kernels",
    "test_random_products",
    "test_random_rows",
    "test_random_strides",
    "test_words",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("isa", ["avx2", "generic"])
def test_lesser_instruction_sets_give_the_same(isa, file):
    path = str(Path(__file__).with_name(f"{file}.py"))
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", path]
    # The instruction set is settled before the tests' own fixtures clear the environment.
    text = (
        "import sys, pytest; from hotplug_cpu.jit.target import host_target;"
        f"assert host_target().isa == {isa!r}; sys.exit(pytest.main({arguments!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "HOTPLUG_CPU_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    if "this processor runs" in done.stdout + done.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert done.returncode == 0, done.stdout[-3000:]
