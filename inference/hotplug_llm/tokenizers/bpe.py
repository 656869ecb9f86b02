"""Byte-level byte pair encoding, as GPT-2 introduced it (models `gpt2` and `gemma4` of GGUF)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from hotplug.errors import HotplugWarning
from hotplug.formats.gguf import Fields
from hotplug_llm.tokenizers.base import Tokenizer, wanted_marks
from hotplug_llm.tokenizers.merging import merge_pairs
from hotplug_llm.tokenizers.pretokenizers import PreTokenizer, pretokenizer
from hotplug_llm.tokenizers.vocabulary import PREFIX, Vocabulary

__all__ = ["BytePairTokenizer"]

_log = logging.getLogger("hotplug.llm")

_CACHED_WORDS = 1 << 15
_CACHED_LENGTH = 128  # characters; longer words hardly come twice, and would fill memory

_SPACE = "▁"


def _byte_spelling() -> dict[int, str]:
    """The character that stands for each byte: printable ones themselves, then U+0100 upwards."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + position) for position, byte in enumerate(others)
    }


_SPELLING = _byte_spelling()
_BYTES = {ord(character): byte for byte, character in _SPELLING.items()}


class BytePairTokenizer(Tokenizer):
    """Cuts text into words, and merges the bytes of each word in the order of the merge list.

    A byte that the vocabulary has no token for is left out of the result, with a warning in the
    log, as other programs do: models are trained like that. SmolLM2 lacks 21 bytes, of which 8 can
    occur in text (six control characters, and planes from U+40000 up).
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        merges: Sequence[str],
        words: PreTokenizer,
        *,
        add_bos: bool = False,
        add_eos: bool = False,
    ) -> None:
        """Make a tokenizer.

        Args:
            vocabulary: the tokens.
            merges: "left right", most important first.
            words: how text is cut into words.
            add_bos: whether the model wants texts to begin with `bos`.
            add_eos: whether the model wants texts to end with `eos`.
        """
        super().__init__(vocabulary, add_bos=add_bos, add_eos=add_eos)
        self._merges = merges
        self._words = words
        self._left_out: set[bytes] = set()
        self._cached_word_ids = lru_cache(_CACHED_WORDS)(self._merge_word)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> BytePairTokenizer:
        """The tokenizer of a model file of BPE kind.

        Raises:
            ModelError: a field is missing or of another kind, or names unknown rules.
        """
        fields = Fields(metadata).within(PREFIX)
        words = pretokenizer(_pre_name(fields))
        vocabulary = Vocabulary.from_gguf(metadata, bos=None, eos=None, unknown=None)
        add_bos, add_eos = wanted_marks(metadata, add_bos=words.add_bos)
        merges = fields.require_array("merges", str)
        return cls(vocabulary, merges, words, add_bos=add_bos, add_eos=add_eos)

    def _encode_plain(self, text: str, *, after_mark: bool) -> list[int]:  # noqa: ARG002  # spm's
        if not self._words.byte_level:
            text = text.replace(" ", _SPACE)
        ids: list[int] = []
        for word in self._words.split(text):
            short = len(word) <= _CACHED_LENGTH
            ids += self._cached_word_ids(word) if short else self._merge_word(word)
        return ids

    def _plain_bytes(self, text: str) -> bytes:
        if not self._words.byte_level:
            return text.replace(_SPACE, " ").encode()
        try:
            return bytes([_BYTES[ord(character)] for character in text])
        except KeyError:
            # A token added without a type of its own, spelled as plain text.
            return b"".join(map(_one_spelled, text))

    @cached_property
    def _ranks(self) -> dict[str, int]:
        """Merge -> rank, spelled as in the file: pairs would cost several times the load time.

        A pair that is listed twice has its first rank.
        """
        count = len(self._merges)
        return dict(zip(reversed(list(self._merges)), range(count - 1, -1, -1), strict=True))

    def _rank(self, left: str, right: str) -> int | None:
        return self._ranks.get(f"{left} {right}")

    def _merge_word(self, word: str) -> tuple[int, ...]:
        if self._words.byte_level:
            word = word.encode().decode("latin-1").translate(_SPELLING)
        ordinary = self.vocabulary.ordinary
        if self._is_whole(word):
            return (ordinary[word],)
        ids: list[int] = []
        for piece in merge_pairs(word, self._rank):
            token = ordinary.get(piece)
            ids += self._spell_out(piece) if token is None else [token]
        return tuple(ids)

    def _is_whole(self, word: str) -> bool:
        # Character-level models have tokens for runs of line ends, which no merges lead to.
        by_word = self._words.ignore_merges or not (self._words.byte_level or word.strip("\n"))
        return by_word and word in self.vocabulary.ordinary

    def _spell_out(self, piece: str) -> list[int]:
        """Tokens of a piece that is none: character by character, then byte by byte."""
        ids: list[int] = []
        for character in piece:
            token = self.vocabulary.ordinary.get(character)
            ids += self._spell_bytes(character) if token is None else [token]
        return ids

    def _spell_bytes(self, character: str) -> list[int]:
        data = self._plain_bytes(character)
        byte_tokens = self.vocabulary.byte_tokens
        if all(byte in byte_tokens for byte in data):
            return [byte_tokens[byte] for byte in data]
        if data not in self._left_out:  # a text may hold it a million times
            self._left_out.add(data)
            _log.warning("the vocabulary has no token for %s, which is left out", data.hex(" "))
        return []


def _one_spelled(character: str) -> bytes:
    byte = _BYTES.get(ord(character))
    return character.encode() if byte is None else bytes([byte])


def _pre_name(fields: Fields) -> str:
    """Name of the rules for cutting words; files from before spring 2024 have none."""
    if fields.get("model", str, "") == "gemma4":
        return "gemma4"
    name = fields.get("pre", str, None)
    if name is None:
        warnings.warn(
            "the model file does not say how text is cut into words (tokenizer.ggml.pre); the "
            "default may differ from what the model was trained with: convert the model anew",
            HotplugWarning,
            stacklevel=2,
        )
        return "default"
    return name
