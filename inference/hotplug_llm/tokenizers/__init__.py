"""Text to token ids and back, from the vocabulary in a model file.

tokenizer = from_gguf(metadata)
ids = tokenizer.encode("Hello")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hotplug.errors import ModelError
from hotplug.formats.gguf import Fields
from hotplug_llm.tokenizers.base import Tokenizer
from hotplug_llm.tokenizers.bpe import BytePairTokenizer
from hotplug_llm.tokenizers.spm import SentencePieceTokenizer
from hotplug_llm.tokenizers.vocabulary import PREFIX, TokenType, Vocabulary

__all__ = [
    "BytePairTokenizer",
    "SentencePieceTokenizer",
    "TokenType",
    "Tokenizer",
    "Vocabulary",
    "from_gguf",
]

_KINDS: dict[str, type[BytePairTokenizer | SentencePieceTokenizer]] = {
    "gpt2": BytePairTokenizer,
    "gemma4": BytePairTokenizer,
    "llama": SentencePieceTokenizer,
}


def from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a model file.

    Args:
        metadata: GGUF key -> value, of which the `tokenizer.ggml.` keys are read.

    Raises:
        ModelError: the tokenizer is of an unknown kind, or a field is missing or wrong.
    """
    kind = Fields(metadata).require(f"{PREFIX}model", str)
    found = _KINDS.get(kind)
    if found is None:
        raise ModelError(
            f"the model's tokenizer is of kind {kind!r} ({PREFIX}model), which hotplug does not "
            f"know; known are {', '.join(sorted(_KINDS))}",
            key=f"{PREFIX}model",
        )
    return found.from_gguf(metadata)
