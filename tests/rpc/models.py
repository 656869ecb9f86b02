"""A small model of two or four layers with random weights, and greedy continuations by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hotplug.backend import Device
from hotplug.dtypes import get
from hotplug.formats.gguf import GGUFFile, write
from hotplug.session import Session
from hotplug.tensor import HostTensor, TensorType
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder
from hotplug_llm.evaluation import Evaluator

__all__ = ["continuation", "write_model"]

_LAYERS = 4
_LAYER = {
    "attn_norm": (32,), "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32),
    "attn_output": (32, 32), "ffn_norm": (32,), "ffn_gate": (64, 32), "ffn_up": (64, 32),
    "ffn_down": (32, 64),
}  # fmt: skip


def write_model(path: Path, seed: int = 1) -> Path:
    """A llama of four layers, 32 wide."""
    rng = np.random.default_rng(seed)
    shapes = {"token_embd.weight": (40, 32), "output_norm.weight": (32,)}
    for layer in range(_LAYERS):
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in _LAYER.items()}
    tensors = {
        name: HostTensor(
            TensorType(get("f32"), shape),
            rng.standard_normal(shape, np.float32).reshape(-1).view(np.uint8),
        )
        for name, shape in shapes.items()
    }
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "llama.embedding_length": 32,
        "llama.block_count": _LAYERS,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    write(path, metadata, tensors)
    return path


def continuation(
    path: Path,
    devices: Sequence[Device],
    split: Sequence[float] | None = None,
    count: int = 16,
    after: Callable[[int], object] = lambda _: None,
) -> list[int]:
    """Greedy continuation of three tokens.

    Args:
        path: the model.
        devices: in order of preference.
        split: shares of the weights by device; None for the session's own choice.
        count: tokens in all.
        after: called with the number of tokens so far.
    """
    with GGUFFile.open(path) as file:
        types = {name: info.type for name, info in file.tensors.items()}
        decoder = Decoder(read_hyperparameters(file.fields()), types, context=64, cache_dtype="f32")
        weights = {name: file.tensor(name) for name in file.tensors}
        with Session(list(devices), weights, fallback="warn", split=split) as session:
            evaluator = Evaluator(session, decoder)
            ids = [3, 1, 4]
            logits = evaluator.last_logits(ids)
            while len(ids) < count:
                ids.append(int(logits.argmax()))
                after(len(ids))
                logits = evaluator.last_logits(ids[-1:])
            return ids
