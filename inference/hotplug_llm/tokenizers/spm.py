"""SentencePiece byte pair encoding (model `llama` of GGUF): Llama 2, TinyLlama, Mistral, Gemma.

Kudo and Richardson, "SentencePiece", 2018. Unlike GPT-2's BPE there is no list of merges: two
neighbours may merge if together they are a token, and the token with the best score goes first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotplug.errors import ModelError
from hotplug.formats.gguf import Fields
from hotplug_llm.tokenizers.base import Tokenizer, wanted_marks
from hotplug_llm.tokenizers.merging import merge_pairs
from hotplug_llm.tokenizers.vocabulary import PREFIX, TokenType, Vocabulary

__all__ = ["SentencePieceTokenizer"]

_CACHED_WORDS = 1 << 15
_CACHED_LENGTH = 128

_SPACE = "▁"
_WORDS = re.compile(f"{_SPACE}+[^{_SPACE}]*|[^{_SPACE}]+")
_INNER_SPACE = re.compile(f"[^{_SPACE}]{_SPACE}")


class SentencePieceTokenizer(Tokenizer):
    """Merges characters by the scores of the tokens that they make."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        scores: NDArray[np.float32],
        *,
        add_space_prefix: bool = True,
        add_bos: bool = True,
        add_eos: bool = False,
    ) -> None:
        """Make a tokenizer.

        Args:
            vocabulary: the tokens.
            scores: of every token, of shape (tokens,); the highest merges first.
            add_space_prefix: whether text at the start and after a special token gets a space
                before it, so that a word there is the same token as within a sentence.
            add_bos: whether the model wants texts to begin with `bos`.
            add_eos: whether the model wants texts to end with `eos`.
        """
        super().__init__(vocabulary, add_bos=add_bos, add_eos=add_eos)
        self.add_space_prefix = add_space_prefix
        self._scores = scores
        self._cached_word_ids = lru_cache(_CACHED_WORDS)(self._merge_word)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> SentencePieceTokenizer:
        """The tokenizer of a model file of SentencePiece kind.

        Raises:
            ModelError: a field is missing or of another kind.
        """
        vocabulary = Vocabulary.from_gguf(metadata, bos=1, eos=2, unknown=0)
        if vocabulary.scores is None:
            raise ModelError(
                f"metadata key {PREFIX}scores is missing, and SentencePiece models need it",
                key=f"{PREFIX}scores",
            )
        add_bos, add_eos = wanted_marks(metadata, add_bos=True)
        prefix = Fields(metadata).within(PREFIX).get("add_space_prefix", bool, True)
        return cls(
            vocabulary,
            vocabulary.scores,
            add_space_prefix=prefix,
            add_bos=add_bos,
            add_eos=add_eos,
        )

    def _encode_plain(self, text: str, *, after_mark: bool) -> list[int]:
        if after_mark and self.add_space_prefix:
            text = " " + text
        ids: list[int] = []
        for word in self._words(text.replace(" ", _SPACE)):
            short = len(word) <= _CACHED_LENGTH
            ids += self._cached_word_ids(word) if short else self._merge_word(word)
        return self._fuse_unknown(ids)

    def _plain_bytes(self, text: str) -> bytes:
        return text.replace(_SPACE, " ").encode()

    def _join(self, ids: Any, *, skip_special: bool) -> bytes:
        """As the base class, less the spaces that encoding put before text."""
        parts: list[bytes] = []
        after_mark = True
        for token in ids:
            data = self.token_bytes(token)
            mark = token in self._spelled_ids
            if not (skip_special and self.is_special(token)):
                strip = self.add_space_prefix and after_mark and not mark
                parts.append(data.removeprefix(b" ") if strip else data)
            after_mark = mark
        return b"".join(parts)

    @cached_property
    def _spelled_ids(self) -> frozenset[int]:
        return frozenset(self.vocabulary.spelled.values())

    def _words(self, text: str) -> list[str]:
        """Parts of a text between which nothing merges, so that they can be cached."""
        return [text] if self._merges_across_words else _WORDS.findall(text)

    @cached_property
    def _merges_across_words(self) -> bool:
        return any(_INNER_SPACE.search(text) for text in self._mergeable)

    @cached_property
    def _mergeable(self) -> dict[str, int]:
        """Tokens that merging may pass through: unused ones are taken apart again at the end."""
        texts = self.vocabulary.texts
        unused = self.vocabulary.of_type(TokenType.UNUSED)
        return self.vocabulary.ordinary | {texts[i]: i for i in unused}

    def _merge_word(self, word: str) -> tuple[int, ...]:
        origins: dict[str, tuple[str, str]] = {}

        def priority(left: str, right: str) -> float | None:
            token = self._mergeable.get(left + right)
            if token is None:
                return None
            origins[left + right] = (left, right)
            return -float(self._scores[token])

        ids: list[int] = []
        for piece in merge_pairs(word, priority):
            ids += self._piece_ids(piece, origins)
        return tuple(ids)

    def _piece_ids(self, piece: str, origins: Mapping[str, tuple[str, str]]) -> list[int]:
        token = self.vocabulary.ordinary.get(piece)
        if token is not None:
            return [token]
        if piece in origins:
            left, right = origins[piece]
            return self._piece_ids(left, origins) + self._piece_ids(right, origins)
        return self._byte_ids(piece)

    def _byte_ids(self, piece: str) -> list[int]:
        byte_tokens = self.vocabulary.byte_tokens
        data = piece.encode()
        if all(byte in byte_tokens for byte in data):
            return [byte_tokens[byte] for byte in data]
        if self.vocabulary.unknown is None:
            raise ModelError(
                f"the vocabulary has no token for {piece!r}, no byte tokens and no unknown token"
            )
        return [self.vocabulary.unknown]

    def _fuse_unknown(self, ids: list[int]) -> list[int]:
        """A run of characters that have no token is one unknown token."""
        unknown = self.vocabulary.unknown
        if unknown not in ids:
            return ids
        previous = [None, *ids[:-1]]
        return [
            token
            for token, before in zip(ids, previous, strict=True)
            if not token == before == unknown
        ]
