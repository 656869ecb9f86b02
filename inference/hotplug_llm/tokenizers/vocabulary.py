"""The tokens of a model: texts, kinds, scores, and the ones with a meaning.

Keys and numbers are those of the GGUF specification (ggml repository, docs/gguf.md). Files do not
name every token that ends an answer, so some are recognised by their text; the list of texts
follows llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hotplug.errors import ModelError
from hotplug.formats.gguf import Fields

__all__ = ["PREFIX", "TokenType", "Vocabulary", "parse_byte_token"]

PREFIX = "tokenizer.ggml."

# What -1 becomes in the unsigned fields of files: their writer's way to say "none".
_NO_TOKEN = {-1, 2**32 - 1}

_ENDING_KEYS = (
    "eos_token_id",
    "eot_token_id",
    "eom_token_id",
    "fim_pad_token_id",
    "fim_rep_token_id",
    "fim_sep_token_id",
)
_ENDING_TEXTS = (
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<turn|>",
    "<|tool_response>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "[e~[",
    # Where code models begin the next file: nothing of the present answer follows.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<reponame>",
    "<|file_sep|>",
)


class TokenType(IntEnum):
    """Kinds of tokens, by their number in files."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """Tokens, each known by its index.

    Attributes:
        texts: spelling of every token, as stored.
        ids: spelling -> index.
        types: TokenType of every token, int32 of shape (tokens,).
        scores: merge scores, float32 of shape (tokens,); only SentencePiece models have them.
        bos: begins a text, if the model has such a token.
        eos: ends a text, likewise.
        unknown: stands for text that has no token, likewise.
        end_of_generation: tokens after which an answer is over.
    """

    texts: Sequence[str]
    ids: Mapping[str, int]
    types: NDArray[np.int32]
    scores: NDArray[np.float32] | None
    bos: int | None
    eos: int | None
    unknown: int | None
    end_of_generation: frozenset[int]

    @classmethod
    def from_gguf(
        cls, metadata: Mapping[str, Any], *, bos: int | None, eos: int | None, unknown: int | None
    ) -> Vocabulary:
        """Read the vocabulary; `bos`, `eos` and `unknown` count where the file does not say.

        Raises:
            ModelError: a field is missing, of another kind or length, or names no token.
        """
        fields = Fields(metadata).within(PREFIX)
        texts = list(fields.require_array("tokens", str))
        ids = _index(texts)
        size = len(texts)
        types = _column(metadata, "token_type", np.int32, size)
        eos = _token(fields, "eos_token_id", size, eos)
        return cls(
            texts=texts,
            ids=ids,
            types=np.full(size, TokenType.NORMAL, np.int32) if types is None else types,
            scores=_column(metadata, "scores", np.float32, size),
            bos=_token(fields, "bos_token_id", size, bos),
            eos=eos,
            unknown=_token(fields, "unknown_token_id", size, unknown),
            end_of_generation=_endings(fields, ids, eos),
        )

    def __len__(self) -> int:
        return len(self.texts)

    def of_type(self, *types: TokenType) -> list[int]:
        """Indices of the tokens of some kinds, in order."""
        found: list[int] = np.flatnonzero(np.isin(self.types, types)).tolist()
        return found

    @cached_property
    def special(self) -> frozenset[int]:
        """Tokens that are marks rather than text."""
        marks = self.of_type(TokenType.CONTROL, TokenType.UNKNOWN)
        return frozenset(marks) | self.end_of_generation

    @cached_property
    def added(self) -> dict[str, int]:
        """Text -> index of tokens that are text, but are never made by merging."""
        user_defined = self.of_type(TokenType.USER_DEFINED)
        return {self.texts[i]: i for i in user_defined if i not in self.special}

    @cached_property
    def spelled(self) -> dict[str, int]:
        """Text -> index of every token that is found by its spelling: special and added ones."""
        return {self.texts[i]: i for i in self.special} | self.added

    @cached_property
    def ordinary(self) -> dict[str, int]:
        """Text -> index of the tokens that plain text can become."""
        ordinary = dict(self.ids)
        apart = self.of_type(TokenType.USER_DEFINED, TokenType.UNUSED, TokenType.BYTE)
        for index in (*apart, *self.special):
            ordinary.pop(self.texts[index], None)
        return ordinary

    @cached_property
    def byte_tokens(self) -> dict[int, int]:
        """Byte -> index of the token that stands for it, spelled <0x00> to <0xFF>."""
        found = {}
        for index in self.of_type(TokenType.BYTE):
            byte = parse_byte_token(self.texts[index])
            if byte is not None:
                found[byte] = index
        return found


def parse_byte_token(text: str) -> int | None:
    """The byte that a spelling such as <0x0A> names, or None if it names none."""
    if len(text) != 6 or not (text.startswith("<0x") and text.endswith(">")):
        return None
    try:
        return int(text[3:5], 16)
    except ValueError:
        return None


def _index(texts: Sequence[str]) -> dict[str, int]:
    if not texts:
        raise ModelError(f"{PREFIX}tokens is empty", key=f"{PREFIX}tokens")
    ids = dict(zip(texts, range(len(texts)), strict=True))
    if len(ids) != len(texts):
        _check_repeats(texts, ids)
    return ids


def _check_repeats(texts: Sequence[str], ids: Mapping[str, int]) -> None:
    """Empty texts are gaps, and may be many; any other text must name one token."""
    for index, text in enumerate(texts):
        if text and ids[text] != index:
            raise ModelError(
                f"{PREFIX}tokens has {text!r} twice, at {index} and {ids[text]}",
                key=f"{PREFIX}tokens",
            )


def _column(
    metadata: Mapping[str, Any], name: str, dtype: DTypeLike, size: int
) -> NDArray[Any] | None:
    """One number for each token, or None if the file has no such column.

    `Fields` gives lists of Python numbers; here NumPy's own array passes through uncopied.
    """
    key = PREFIX + name
    if key not in metadata:
        return None
    column = np.asarray(metadata[key])
    if column.ndim != 1 or column.dtype.kind not in "iuf":
        raise ModelError(f"{key} must be an array of numbers", key=key)
    if np.issubdtype(dtype, np.integer) and column.dtype.kind == "f":
        raise ModelError(f"{key} must be an array of integers", key=key)
    if len(column) != size:
        raise ModelError(f"{key} has {len(column)} entries for {size} tokens", key=key)
    return column.astype(dtype, copy=False)


def _token(fields: Fields, name: str, size: int, default: int | None) -> int | None:
    """The token that a field names, or `default` if it names none and the default exists."""
    token = fields.get(name, int, None)
    if token is None or token in _NO_TOKEN:
        return default if default is not None and default < size else None
    if not 0 <= token < size:
        key = PREFIX + name
        raise ModelError(f"{key} is {token}, but the model has {size} tokens", key=key)
    return token


def _endings(fields: Fields, ids: Mapping[str, int], eos: int | None) -> frozenset[int]:
    named = (_token(fields, key, len(ids), None) for key in _ENDING_KEYS)
    by_key = {token for token in named if token is not None}
    by_text = {text: ids[text] for text in _ENDING_TEXTS if text in ids}
    # In the harmony format (gpt-oss) <|end|> ends one message of an answer, and in Solar-Open
    # likewise; in Gemma 4 </s> is a tag of HTML.
    if by_text.keys() >= {"<|return|>", "<|call|>"} or by_text.keys() >= {"<|calls|>", "<|flush|>"}:
        by_text.pop("<|end|>", None)
    if "<|tool_response>" in by_text:
        by_text.pop("</s>", None)
    return frozenset(by_key | set(by_text.values()) | ({eos} if eos is not None else set()))
