"""Bytes of tokens, as text that can be shown while it grows."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from hotplug.errors import UsageError

__all__ = ["TextStream"]


class TextStream:
    """Turns bytes into text, up to the first of some stop texts.

    However the bytes are cut into pieces, the text is the same: a character comes out when its last
    byte has gone in, and what may be the beginning of a stop text when it has turned out not to be.
    Bytes that are no UTF-8 become U+FFFD. Of two stop texts that overlap, the one counts that is
    complete first, and of two that are complete at the same time, the longer.

    Attributes:
        stopped: whether a stop text has come; nothing comes out after that.
    """

    def __init__(self, stop_texts: Sequence[str] = ()) -> None:
        """Prepare.

        Raises:
            UsageError: a stop text is empty.
        """
        if not all(stop_texts):
            raise UsageError("a stop text must not be empty")
        self._stops = tuple(stop_texts)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        """Take bytes in; the text that they let out."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """The text that was still held back, when no more bytes will come."""
        shown = self._release(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return shown + held

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [
            (start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0
        ]
        self.stopped = bool(found)
        shown = min(found)[1] if found else len(text) - self._beginning(text)
        self._held = "" if found else text[shown:]
        return text[:shown]

    def _beginning(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop text begins."""
        longest = min(len(text), max(map(len, self._stops), default=1) - 1)
        lengths = range(longest, 0, -1)
        return next((n for n in lengths if any(s.startswith(text[-n:]) for s in self._stops)), 0)
