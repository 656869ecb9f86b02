"""Text generation from GGUF models on hotplug.

model = hotplug_llm.load("model.gguf")
for piece in model.generate("Why is the sky blue?"):
    print(piece, end="", flush=True)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hotplug_llm.model import Message, Model, load
    from hotplug_llm.sampling import SamplingOptions

__all__ = ["Message", "Model", "SamplingOptions", "load"]

_HOMES = {"Message": "model", "Model": "model", "SamplingOptions": "sampling", "load": "model"}


def __getattr__(name: str) -> Any:
    # Imported when first used: a tokenizer needs neither sessions nor devices.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
