"""What every section of `make bench` works with, and what it gives."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from compiled import Reader
from figures import Row, Target, compare
from programs import Pair

from hotplug.formats.gguf import GGUFFile

__all__ = ["NO_PEER", "Bench", "Outcome", "Section", "bytes_per_token", "ratio_row"]

NO_PEER = "llama.cpp is not installed: make bench-peers"
_MEMORY = 256 << 20  # bytes, several times what caches hold


@dataclass(frozen=True)
class Outcome:
    """What a section measured: rows of the table, and figures for pictures, by name."""

    rows: Sequence[Row]
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A part of the table.

    Attributes:
        name: what `--only` calls it.
        title: what it is about.
        measure: does it.
    """

    name: str
    title: str
    measure: Callable[[Bench], Outcome]


@dataclass(frozen=True)
class Bench:
    """How to measure.

    Attributes:
        model: the file that most sections use.
        threads: threads of both programs.
        rounds: how often they take turns; what counts is the median.
        types: other types of weights that are measured; None for all that there is a target for.
    """

    model: Path
    threads: int
    rounds: int
    types: Sequence[str] | None = None

    def pair(self, path: Path | None = None, context: int = 2048) -> Pair:
        """Both programs with a model, loaded."""
        return Pair(path or self.model, self.threads, context)

    @cached_property
    def reader(self) -> Reader:
        """Measures how fast memory is read, with all threads."""
        return Reader(self.threads, _MEMORY)


def bytes_per_token(path: Path) -> int:
    """Bytes of weights that making one token reads: all but the embedding, of which it reads a row.

    Where the output matrix is the embedding, that is read whole.
    """
    with GGUFFile.open(path) as file:
        sizes = {name: info.type.nbytes for name, info in file.tensors.items()}
    if "output.weight" in sizes:
        del sizes["token_embd.weight"]
    return sum(sizes.values())


def ratio_row(
    what: str, rates: Sequence[Sequence[float]], target: Target, unit: str = "tokens/s"
) -> Row:
    """How many times faster than llama.cpp, of rates [ours, theirs] round by round."""
    if len(rates[0]) < 2:
        ours = statistics.median(rate[0] for rate in rates)
        return Row(what, None, "x llama.cpp", target, {"hotplug": ours, "llama.cpp": NO_PEER})
    figures = compare([(ours, theirs) for ours, theirs in rates])
    ratio = figures.pop("ratio")
    return Row(what, ratio, "x llama.cpp", target, {**figures, "in": unit})
