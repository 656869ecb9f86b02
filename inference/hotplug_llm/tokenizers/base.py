"""What all tokenizers share: special tokens, begin and end marks, and the way back to text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from hotplug.errors import UsageError
from hotplug.formats.gguf import Fields
from hotplug_llm.tokenizers.special import SpecialSplitter
from hotplug_llm.tokenizers.vocabulary import PREFIX, TokenType, Vocabulary, parse_byte_token

__all__ = ["Tokenizer", "wanted_marks"]

_PLAIN = frozenset({TokenType.UNDEFINED, TokenType.NORMAL})


class Tokenizer(ABC):
    """Text to token ids and back. A subclass says how plain text is cut.

    Attributes:
        vocabulary: the tokens.
        add_bos: whether the model wants texts to begin with the token `bos`.
        add_eos: whether it wants them to end with `eos`.
    """

    def __init__(self, vocabulary: Vocabulary, *, add_bos: bool, add_eos: bool) -> None:
        self.vocabulary = vocabulary
        self.add_bos = add_bos and vocabulary.bos is not None
        self.add_eos = add_eos and vocabulary.eos is not None

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are."""
        return len(self.vocabulary)

    @property
    def bos(self) -> int | None:
        """The token that begins a text, if the model has one."""
        return self.vocabulary.bos

    @property
    def eos(self) -> int | None:
        """The token that ends a text, if the model has one."""
        return self.vocabulary.eos

    @property
    def end_of_generation(self) -> frozenset[int]:
        """Every token after which an answer is over."""
        return self.vocabulary.end_of_generation

    def is_special(self, token: int) -> bool:
        """Whether a token is a mark, not to be shown, rather than text."""
        return token in self.vocabulary.special

    def encode(
        self, text: str, *, add_special: bool | None = None, parse_special: bool = True
    ) -> list[int]:
        """Token ids of a text.

        Args:
            text: any text.
            add_special: True puts `bos` before the ids, False does not, None does what the model
                says. `eos` follows where the model says so, unless this is False. A text that
                already begins with `bos`, as chat templates may make it, gets no second one.
            parse_special: whether special tokens spelled out in the text, such as <|im_end|>,
                become those tokens. Turn it off for text that is not trusted with them. Added
                tokens that are no marks are always recognised.

        Raises:
            UsageError: the text holds surrogates, which no encoding of Unicode text can hold.
        """
        _check_encodable(text)
        splitter = self._spelled if parse_special else self._added
        ids = list(self._encode_parts(splitter.split(text)))
        wants_bos = self.add_bos if add_special is None else add_special
        if wants_bos and self.bos is not None and ids[:1] != [self.bos]:
            ids.insert(0, self.bos)
        if self.add_eos and add_special is not False and self.eos is not None:
            ids.append(self.eos)
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Text of token ids; bytes that are no UTF-8 become U+FFFD.

        Args:
            ids: token ids.
            skip_special: leave out tokens that are marks.

        Raises:
            UsageError: an id that the vocabulary does not have.
        """
        return self._join(ids, skip_special=skip_special).decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for: not always whole characters.

        Raises:
            UsageError: an id that the vocabulary does not have.
        """
        if not 0 <= token < len(self.vocabulary):
            raise UsageError(f"there is no token {token}: the model has {len(self.vocabulary)}")
        text = self.vocabulary.texts[token]
        kind = self.vocabulary.types[token]
        if kind == TokenType.BYTE:
            byte = parse_byte_token(text)
            return text.encode() if byte is None else bytes([byte])
        if kind in _PLAIN and token not in self.vocabulary.special:
            return self._plain_bytes(text)
        return text.encode()

    @abstractmethod
    def _encode_plain(self, text: str, *, after_mark: bool) -> list[int]:
        """Ids of non-empty text without special tokens.

        `after_mark` is true at the start of a text and after a special token.
        """

    @abstractmethod
    def _plain_bytes(self, text: str) -> bytes:
        """Bytes of an ordinary token, from its spelling in the vocabulary."""

    def _encode_parts(self, parts: Iterable[str | int]) -> Iterator[int]:
        after_mark = True
        for part in parts:
            if isinstance(part, int):
                yield part
            else:
                yield from self._encode_plain(part, after_mark=after_mark)
            after_mark = isinstance(part, int)

    def _join(self, ids: Iterable[int], *, skip_special: bool) -> bytes:
        shown = (i for i in ids if not (skip_special and self.is_special(i)))
        return b"".join(map(self.token_bytes, shown))

    @cached_property
    def _spelled(self) -> SpecialSplitter:
        return SpecialSplitter(self.vocabulary.spelled)

    @cached_property
    def _added(self) -> SpecialSplitter:
        return SpecialSplitter(self.vocabulary.added)


def wanted_marks(metadata: Mapping[str, Any], *, add_bos: bool) -> tuple[bool, bool]:
    """Whether the model wants `bos` and `eos` around texts; `add_bos` if it does not say."""
    fields = Fields(metadata).within(PREFIX)
    return fields.get("add_bos_token", bool, add_bos), fields.get("add_eos_token", bool, False)


def _check_encodable(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise UsageError(
            f"the text holds a surrogate (U+{ord(text[exc.start]):04X}) at character {exc.start}, "
            "which is no character",
            remedy="give the text in UTF-8",
        ) from exc
