"""Tables and amounts for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hotplug.amounts import size_text

__all__ = ["amount", "console", "printable", "table"]

_PIPE_WIDTH = 140  # columns where no terminal says how many it has


def console() -> Console:
    """Where tables are printed. A pipe has no width, and folded columns are hard to search in."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[str] = ()
) -> Table:
    """A table of plain text, in which brackets are no markup.

    Args:
        title: stands above it.
        headings: of the columns.
        rows: cells.
        numbers: headings of the columns that are set right.
    """
    made = Table(title=title, title_justify="left")
    right = set(numbers)
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


def printable(text: str) -> str:
    """Text from elsewhere without what could steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def amount(nbytes: int | None) -> str:
    """Bytes for people, in powers of 1000 as disks are sold; empty if unknown."""
    return "" if nbytes is None else size_text(nbytes)
