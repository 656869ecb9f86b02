"""Texts that commands are given."""

from __future__ import annotations

import sys

from hotplug.errors import UsageError

__all__ = ["read_text"]


def read_text(given: str) -> str:
    """The text of an argument; "-" reads it from standard input.

    Raises:
        UsageError: standard input is no UTF-8.
    """
    if given != "-":
        return given
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is no UTF-8 text: {error}") from error
