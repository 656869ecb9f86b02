"""Small launches that follow each other as one, for processors.

A launch costs a processor more than many a kernel takes: its driver's threads fall asleep and are
woken. So kernels of small launches become functions, and one kernel calls them in turn
(dialects/series.h). Kernels that come again in the same order, as those of a model's layers do, are
rounds of a loop: each has its own buffers and numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from hotplug.gpu.catalog.table import Launch, LibraryLaunch, Lowering, Part, i64
from hotplug.gpu.sources import Variant, page, parameters, source_of, uses_local_memory
from hotplug.gpu.tensors import Place

__all__ = ["COUNTERS", "Queued", "Series", "SeriesProgram", "counter_bytes", "join"]

T = TypeVar("T")

COUNTERS = "counters"
"""The buffer in which threads count what they have done: zeros, before and after each series."""

_FEWEST = 16  # launches of a graph, for which it is worth it to compile programs of its own
_SMALL = 1e8  # operations, for which a processor takes a millisecond
_MOST_BUFFERS = 100  # their addresses fit into the 1024 bytes of arguments that every device takes
_COUNTER_BYTES = 64
_ALIGNMENT = 8  # of numbers and structs


@dataclass(frozen=True, slots=True)
class Step:
    """A kernel of a round.

    Attributes:
        variant: the kernel.
        sizes: bytes of each argument; 0 for a buffer.
    """

    variant: Variant
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, launch: Launch) -> Step:
        """What a launch has in common with those of other rounds."""
        sizes = (0 if isinstance(part, Place) else len(part) for part in launch.arguments)
        return cls(launch.variant, tuple(sizes))


@dataclass(frozen=True, slots=True)
class SeriesProgram:
    """What a series is compiled from.

    Attributes:
        steps: the kernels of each round.
        buffers: of each round, which of the series' buffers are given to all its kernels.
    """

    steps: tuple[Step, ...]
    buffers: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        """Of the kernel that calls the others."""
        return "series"

    def sources(self, *, f64: bool) -> tuple[str, ...]:
        """A text for each kernel, and one for that which calls them."""
        steps = zip(self.steps, _offsets(self.steps), strict=True)
        texts = (_function(n, step, at, f64=f64) for n, (step, at) in enumerate(steps))
        return (*texts, self._caller())

    def _caller(self) -> str:
        counts = [step.sizes.count(0) for step in self.steps]
        declared = (
            f"void step{n}(int, int, GLOBAL const char *{', GLOBAL char *' * count});"
            for n, count in enumerate(counts)
        )
        taken = (f", GLOBAL char *buffer{n}" for n in range(1 + max(map(max, self.buffers))))
        own = (", ".join(f"buffer{n}" for n in given) for given in self.buffers)
        calls = []
        for n, count in enumerate(counts):
            first = sum(counts[:n])
            given = "".join(f", buffers[{at}]" for at in range(first, first + count))
            calls.append(f"        STEP({n}, step{n}(group_x, group_y, numbers{given}))")
        lines = [
            f"#define ITEMS 1\n#define STEPS {len(counts)}\n#define ROUNDS {len(self.buffers)}",
            page("opencl"),
            page("series"),
            *declared,
            "KERNEL(ITEMS) series(GLOBAL const char *table, const LONG at,",
            f"                     GLOBAL volatile int *counters{''.join(taken)})\n{{",
            f"    GLOBAL char *const given[ROUNDS][{sum(counts)}] = {{",
            *(f"        {{{names}}}," for names in own),
            "    };",
            f"    EACH_ROUND({_table_bytes(self.steps)}) {{",
            "        GLOBAL char *const *buffers = given[round];",
            *calls,
            "    }\n    LEAVE()\n}\n",
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Series:
    """Launches that are done by one.

    Attributes:
        launches: in order.
        variant: its program.
        groups: as many as the device has threads.
        items: in a group.
        arguments: in the kernel's order.
    """

    launches: tuple[Launch, ...]
    variant: SeriesProgram
    groups: tuple[int, int]
    items: int
    arguments: tuple[Part, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that it computes."""
        return tuple(name for launch in self.launches for name in launch.nodes)


Queued: TypeAlias = "Launch | LibraryLaunch | Series"
_Run: TypeAlias = "Sequence[Launch | LibraryLaunch]"


def join(lowering: Lowering, work: Mapping[str, float]) -> list[Queued]:
    """A lowering's launches, of which, if there are many, small ones in a row become series.

    Args:
        lowering: gets what series need of constants.
        work: operations of each node by its name.
    """
    if len(lowering.launches) < _FEWEST:
        return list(lowering.launches)
    joins = {id(launch) for launch in lowering.launches if _may_join(launch, work)}

    def continues(run: _Run, launch: Launch | LibraryLaunch) -> bool:
        both = id(launch) in joins and id(run[-1]) in joins
        return both and len(set(_steps([*run, launch]))) > len(run) and _fits([[*run, launch]])

    def repeats(rounds: Sequence[_Run], run: _Run) -> bool:
        alike = id(run[0]) in joins and _steps(run) == _steps(rounds[0])
        return alike and _fits([*rounds, run])

    gathered = _gathered(_gathered(lowering.launches, continues), repeats)
    return [
        rounds[0][0] if len(rounds) == len(rounds[0]) == 1 else _series(lowering, rounds)
        for rounds in gathered
    ]


def counter_bytes(queued: Iterable[Queued]) -> int:
    """How large the counters are that all series share."""
    longest = max((len(one.launches) for one in queued if isinstance(one, Series)), default=0)
    return _COUNTER_BYTES * (2 * longest + 1)


def _gathered(items: Iterable[T], belongs: Callable[[list[T], T], bool]) -> list[list[T]]:
    """Items in a row that belong together."""
    groups: list[list[T]] = []
    for item in items:
        if groups and belongs(groups[-1], item):
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def _may_join(launch: Launch | LibraryLaunch, work: Mapping[str, float]) -> bool:
    """Whether a launch is small, and items of its groups need not wait for each other."""
    return (
        isinstance(launch, Launch)
        and (launch.items == 1 or not uses_local_memory(launch.variant.file))
        and sum(work.get(name, 0) for name in launch.nodes) <= _SMALL
    )


def _steps(run: _Run) -> list[Step]:
    return [Step.of(launch) for launch in _kernels(run)]


def _kernels(run: _Run) -> list[Launch]:
    return [launch for launch in run if isinstance(launch, Launch)]


def _fits(rounds: Iterable[_Run]) -> bool:
    return len({name for run in rounds for name in _buffers(run)}) <= _MOST_BUFFERS


def _buffers(run: _Run) -> list[str]:
    """Names of the buffers of all arguments."""
    arguments = (part for launch in _kernels(run) for part in launch.arguments)
    return [part.buffer for part in arguments if isinstance(part, Place)]


def _series(lowering: Lowering, rounds: Sequence[_Run]) -> Series:
    names = list(dict.fromkeys(name for run in rounds for name in _buffers(run)))
    steps = tuple(_steps(rounds[0]))
    given = (tuple(map(names.index, _buffers(run))) for run in rounds)
    table = lowering.constant(b"".join(_numbers(_kernels(run), steps) for run in rounds))
    return Series(
        launches=tuple(launch for run in rounds for launch in _kernels(run)),
        variant=SeriesProgram(steps, tuple(given)),
        groups=(lowering.capabilities.threads, 1),
        items=1,
        arguments=(table, i64(table.at), Place(COUNTERS), *map(Place, names)),
    )


def _rounded_up(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _offsets(steps: Sequence[Step]) -> list[list[int]]:
    """Where each argument lies in a round's table of numbers, which begins with all groups."""
    at = 8 * len(steps)
    offsets: list[list[int]] = []
    for step in steps:
        offsets.append([])
        for size in step.sizes:
            offsets[-1].append(at)
            at += _rounded_up(size)
    return offsets


def _table_bytes(steps: Sequence[Step]) -> int:
    return 8 * len(steps) + sum(_rounded_up(size) for step in steps for size in step.sizes)


def _numbers(launches: Sequence[Launch], steps: Sequence[Step]) -> bytes:
    """A round's table of numbers."""
    table = bytearray().join(struct.pack("<2i", *launch.groups) for launch in launches)
    for launch, offsets in zip(launches, _offsets(steps), strict=True):
        for part, at in zip(launch.arguments, offsets, strict=True):
            if isinstance(part, bytes):
                table += bytes(at - len(table)) + part
    return bytes(table) + bytes(_table_bytes(steps) - len(table))


def _function(number: int, step: Step, offsets: Sequence[int], *, f64: bool) -> str:
    """A kernel as a function of a group, a table of numbers, and the kernel's buffers."""
    variant = step.variant
    text = source_of(variant, "opencl", f64=f64, step=True)
    start, end = parameters(text, variant.name)
    buffers, given = "", ["group_x", "group_y", "item"]
    for at, parameter in zip(offsets, text[start:end].split(","), strict=True):
        kind = parameter.strip().rpartition(" ")[0]
        if "*" in parameter:
            buffers += f", GLOBAL char *buffer{len(given)}"
            given.append(f"buffer{len(given)}")
        else:
            given.append(f"*(GLOBAL {kind} *)(numbers + {at})")
    taken = "const int group_x, const int group_y, const int item, "
    return (
        f"{text[:start]}{taken}{text[start:]}\n"
        f"void step{number}(int group_x, int group_y, GLOBAL const char *numbers{buffers})\n"
        "{\n    for (int item = 0; item < ITEMS; ++item)\n"
        f"        {variant.name}({', '.join(given)});\n}}\n"
    )
