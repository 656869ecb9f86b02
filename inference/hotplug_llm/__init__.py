"""Text generation from GGUF models on hotplug.

model = hotplug_llm.load("model.gguf")
for piece in model.generate("Why is the sky blue?"):
    print(piece, end="", flush=True)
"""

from __future__ import annotations

from hotplug_llm.model import Message, Model, load
from hotplug_llm.sampling import SamplingOptions

__all__ = ["Message", "Model", "SamplingOptions", "load"]
