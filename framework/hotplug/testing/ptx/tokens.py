"""The words of PTX text, with their lines."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from hotplug.testing.ptx.errors import PTXError
from hotplug.testing.ptx.syntax import Immediate

__all__ = ["Token", "Tokens"]

_WORD = re.compile(
    r"""
      (?P<space>   \s+ | //[^\n]* | /\*.*?\*/ )
    | (?P<float>   0[fF][0-9a-fA-F]{8} | 0[dD][0-9a-fA-F]{16} | [0-9]+\.[0-9]*(?:[eE][+-]?[0-9]+)? )
    | (?P<int>     0[xX][0-9a-fA-F]+U? | 0[bB][01]+U? | [0-9]+U? )
    | (?P<name>    [A-Za-z_$%][\w$]*(?:(?:\.|::)[\w$]+)* )
    | (?P<dotted>  \.[A-Za-z_][\w]*(?:(?:\.|::)[\w]+)* )
    | (?P<string>  "[^"]*" )
    | (?P<mark>    [][{}(),;:@!<>|=+-] )
    """,
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """A word: its kind as the pattern above names it, its text, its line and its place."""

    kind: str
    text: str
    line: int
    start: int


class Tokens:
    """All words of a text, taken one after the other.

    Args:
        text: the PTX.

    Raises:
        PTXError: a character that begins no word.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._words = _split(text)
        # Two, since nobody looks further ahead than that.
        last = self._words[-1].line if self._words else 1
        self._words += 2 * [Token("end", "", last, len(text))]
        self._at = 0

    def peek(self, ahead: int = 0) -> Token:
        """The next word, or one further ahead; its kind is "end" after the last."""
        return self._words[min(self._at + ahead, len(self._words) - 1)]

    def next(self) -> Token:
        """Take a word."""
        word = self._words[self._at]
        self._at = min(self._at + 1, len(self._words) - 1)
        return word

    def accept(self, text: str) -> bool:
        """Take the next word if it is this one."""
        found = self._words[self._at].text == text
        self._at += found
        return found

    def expect(self, text: str) -> Token:
        """Take the next word, which must be this one.

        Raises:
            PTXError: it is another.
        """
        word = self.next()
        if word.text != text:
            raise PTXError(f"expected {text!r}, found {word.text!r}", line=word.line)
        return word

    def name(self) -> str:
        """Take a name.

        Raises:
            PTXError: the next word is none.
        """
        word = self.next()
        if word.kind != "name":
            raise PTXError(f"expected a name, found {word.text!r}", line=word.line)
        return word.text

    def number(self) -> Immediate:
        """Take a number, with its sign.

        Raises:
            PTXError: the next word is none.
        """
        negative = self.accept("-")
        word = self.next()
        if word.kind == "int":
            value = _integer(word.text)
            return Immediate(-value if negative else value)
        if word.kind == "float":
            constant = _floating(word.text)
            return Immediate(-constant.value, constant.kind) if negative else constant
        raise PTXError(f"expected a number, found {word.text!r}", line=word.line)

    def integer(self) -> int:
        """Take an integer.

        Raises:
            PTXError: the next word is none.
        """
        constant = self.number()
        if not isinstance(constant.value, int):
            raise PTXError("expected an integer", line=self.peek().line)
        return constant.value

    def skip_line(self, line: int) -> None:
        """Leave out what else stands in a line."""
        while self.peek().line == line and self.peek().kind != "end":
            self._at += 1

    def between(self, start: Token, end: Token) -> str:
        """The text from one word to another, on one line."""
        return " ".join(self._text[start.start : end.start].split())


def _split(text: str) -> list[Token]:
    words = []
    line, at = 1, 0
    for match in _WORD.finditer(text):
        start, end = match.span()
        if start != at:
            break
        at = end
        if match.lastgroup == "space":
            line += text.count("\n", start, end)
        else:
            words.append(Token(match.lastgroup or "", match.group(), line, start))
    if at != len(text):
        raise PTXError(f"unexpected character {text[at]!r}", line=line)
    return words


def _integer(text: str) -> int:
    text = text.rstrip("U")
    if len(text) > 1 and text[0] == "0" and text[1] not in "xXbB":
        return int(text, 8)
    return int(text, 0)


def _floating(text: str) -> Immediate:
    if text[:2] in ("0f", "0F"):
        return Immediate(struct.unpack(">f", bytes.fromhex(text[2:]))[0], "f32")
    if text[:2] in ("0d", "0D"):
        return Immediate(struct.unpack(">d", bytes.fromhex(text[2:]))[0], "f64")
    return Immediate(float(text), "f64")
