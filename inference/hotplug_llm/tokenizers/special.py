"""Finding special and added tokens in text before anything else looks at it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

__all__ = ["SpecialSplitter"]


class SpecialSplitter:
    """Splits text at tokens that are spelled out in it; at one place, the longest wins.

    Candidates are looked up by first character and length. Models have up to some thousands of such
    tokens, for which one regular expression would be slow to compile and to run.
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        """Prepare for `tokens`: text -> id."""
        self._tokens = {text: token for text, token in tokens.items() if text}
        lengths: dict[str, set[int]] = {}
        for text in self._tokens:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self._starts = re.compile("[" + "".join(map(re.escape, lengths)) + "]") if lengths else None

    def split(self, text: str) -> Iterator[str | int]:
        """The parts of `text` in order: an id for a token, a non-empty str for what is between."""
        done = 0
        for start, end, token in self._matches(text):
            if start > done:
                yield text[done:start]
            yield token
            done = end
        if done < len(text):
            yield text[done:]

    def _matches(self, text: str) -> Iterator[tuple[int, int, int]]:
        if self._starts is None:
            return
        start = self._starts.search(text)
        while start is not None:
            position = start.start()
            end = self._longest(text, position)
            if end is None:
                position += 1
            else:
                yield position, end, self._tokens[text[position:end]]
                position = end
            start = self._starts.search(text, position)

    def _longest(self, text: str, position: int) -> int | None:
        for length in self._lengths[text[position]]:
            if text[position : position + length] in self._tokens:
                return position + length
        return None
