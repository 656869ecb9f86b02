"""How much memory a generation takes, from outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

ALLOWED_BESIDE = 230_000_000
"""Bytes beside one and a half times the model: Python, NumPy, LLVM, the KV cache, arenas.

Of LLVM's library of 179 MB Linux maps 47 to 120, according to how it has cached the file.
"""

ALLOWED_OWN = 110_000_000
"""Of them, those that are no file's: a copy of the model is not among them."""


def test_a_generation_stays_near_the_size_of_its_model(
    demo_model: Path, run_measured: Callable[[list[str]], tuple[int, str, int, int]]
) -> None:
    # The CPU by name: other backends that are installed bring libraries of any size along.
    command = ["generate", "-m", str(demo_model), "Tell me a story.", "-d", "cpu", "--ignore-eos"]
    run_measured([*command, "--max-tokens", "1"])  # so that no kernel needs compiling
    code, text, peak, own = run_measured([*command, "--max-tokens", "128", "--temperature", "0"])
    assert code == 0, text
    assert peak < 1.5 * demo_model.stat().st_size + ALLOWED_BESIDE
    assert own < ALLOWED_OWN
