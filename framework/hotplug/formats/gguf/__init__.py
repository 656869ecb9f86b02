"""GGUF, the model files of ggml: a memory-mapped reader and a streaming writer.

    with GGUFFile.open("model.gguf") as file:
        blocks = file.fields("llama.").require("block_count", int)
        weights = file.tensor("token_embd.weight")  # no bytes are copied

Versions 2 and 3, little-endian, in one file or split in shards. The layout is that of the GGUF
specification in the ggml repository, docs/gguf.md.
"""

from __future__ import annotations

from hotplug.formats.gguf.fields import Fields
from hotplug.formats.gguf.metadata import Metadata, NestedArray, StringArray
from hotplug.formats.gguf.reader import GGUFFile, TensorInfo
from hotplug.formats.gguf.values import Encoded, Typed
from hotplug.formats.gguf.writer import write

__all__ = [
    "Encoded",
    "Fields",
    "GGUFFile",
    "Metadata",
    "NestedArray",
    "StringArray",
    "TensorInfo",
    "Typed",
    "write",
]
