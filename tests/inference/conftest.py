"""What tests of the text side share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hotplug.formats.gguf import GGUFFile
from hotplug_llm.tokenizers import from_gguf


@pytest.fixture(scope="session")
def facts():
    """Reads what other programs say, from data/ (tools/make_tokenizer_facts.py wrote it)."""

    def read(name):
        path = Path(__file__).parent / "data" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8"))

    return read


@pytest.fixture(scope="session")
def demo_metadata(demo_model):
    """Metadata of the demo model, as plain values."""
    with GGUFFile.open(demo_model) as file:
        names = [key for key in file.metadata if key.startswith(("tokenizer.", "llama."))]
        return {name: file.metadata[name] for name in names}


@pytest.fixture(scope="session")
def demo_tokenizer(demo_model):
    with GGUFFile.open(demo_model) as file:
        return from_gguf(file.metadata)
