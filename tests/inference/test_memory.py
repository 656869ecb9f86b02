"""How much memory a generation takes, from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED_BESIDE = 150_000_000
"""Bytes beside one and a half times the model: Python, NumPy, LLVM, the KV cache, arenas."""


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the system does not tell a child's peak")
def test_a_generation_stays_near_the_size_of_its_model(demo_model: Path) -> None:
    generate(demo_model, 1)  # so that no kernel needs compiling
    peak = generate(demo_model, 128)
    assert peak < 1.5 * demo_model.stat().st_size + ALLOWED_BESIDE


def generate(model: Path, tokens: int) -> int:
    """Peak resident bytes of generating that many tokens, the mapped file included."""
    command = [sys.executable, "-m", "hotplug", "generate", "-m", str(model), "Tell me a story."]
    options = ["--max-tokens", str(tokens), "--ignore-eos", "--temperature", "0"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
