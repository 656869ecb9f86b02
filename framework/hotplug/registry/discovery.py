"""Where backends come from: `register()`, then HOTPLUG_BACKEND_PATH, then entry points.

Entry points are read from the metadata of installed distributions, which is never more than text;
nothing is imported here. The current directory is searched only if Python itself searches it.
"""

from __future__ import annotations

import importlib
import logging
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata

from hotplug.registry.status import Provenance, State

__all__ = [
    "ENTRY_POINT",
    "GROUP",
    "RESERVED",
    "Source",
    "from_object",
    "from_path",
    "installed",
    "load_target",
    "merge",
]

GROUP = "hotplug.backends"
ENTRY_POINT = "entry point"
RESERVED = frozenset({"auto", "gpu", "igpu", "accel", "remote", "uuid", "pci"})
"""Words of the selector grammar, which no backend can have as its name."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_log = logging.getLogger("hotplug.registry")


@dataclass(frozen=True, slots=True)
class Source:
    """A backend as it was found, not yet imported.

    Attributes:
        load: imports and returns the object.
        requires: the distribution's requirements, as text.
        fault: why it cannot even be tried, with the state that gives it; None if it can.
        importable: "module:object" if another process could load it, else None.
    """

    name: str
    provenance: Provenance
    load: Callable[[], object] = field(compare=False)
    requires: tuple[str, ...] = ()
    fault: tuple[State, str] | None = None
    importable: str | None = None


def load_target(target: str) -> object:
    """Import the object that "module:object" names.

    Raises:
        ImportError, AttributeError: it is not there. The module may raise anything else, too.
    """
    module, _, attribute = target.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module))


def from_path(name: str, target: str, source: str) -> Source:
    """A backend given as "module:object" by variable or by `register`."""
    return Source(
        name,
        Provenance(source, target),
        lambda: load_target(target),
        fault=_name_fault(name),
        importable=target,
    )


def from_object(name: str, backend: object) -> Source:
    """A backend given as the object itself, or its class, by `register`."""
    kind = backend if isinstance(backend, type) else type(backend)
    provenance = Provenance("register()", f"{kind.__module__}:{kind.__qualname__}")
    return Source(name, provenance, lambda: backend, fault=_name_fault(name))


def installed() -> list[Source]:
    """Backends of installed distributions, by distribution name."""
    found: list[Source] = []
    seen: set[str] = set()
    for distribution in metadata.distributions():
        # Reading this file first spares the parsing of everybody's metadata.
        if GROUP not in (_text(distribution) or ""):
            continue
        name = str(distribution.metadata["Name"] or "unnamed distribution")
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:  # the same distribution further down sys.path, which Python never imports
            continue
        seen.add(key)
        found += _sources(name, distribution)
    return sorted(found, key=lambda source: (str(source.provenance).lower(), source.name))


def _text(distribution: metadata.Distribution) -> str | None:
    try:
        return distribution.read_text("entry_points.txt")
    except (OSError, UnicodeDecodeError) as error:
        _log.warning("entry points of a distribution cannot be read: %s", error)
        return None


def _sources(name: str, distribution: metadata.Distribution) -> Iterator[Source]:
    version = distribution.metadata["Version"]
    try:
        entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
        requires = tuple(distribution.requires or ())
    except Exception as error:  # noqa: BLE001 - the parser fails in many ways on broken metadata
        fault = (State.INVALID, f"its metadata is malformed: {type(error).__name__}: {error}")
        yield Source(name, Provenance(ENTRY_POINT, "", name, version), _nothing, fault=fault)
        return
    for entry in entries:
        yield Source(
            entry.name,
            Provenance(ENTRY_POINT, entry.value, name, version),
            entry.load,
            requires,
            _name_fault(entry.name) or _value_fault(entry),
            entry.value,
        )


def _nothing() -> object:
    raise ImportError("nothing to import")


def _name_fault(name: str) -> tuple[State, str] | None:
    if name in RESERVED:
        return State.INVALID, f"{name!r} means something else in selectors and cannot be a name"
    if not _NAME.fullmatch(name):
        return State.INVALID, f"{name!r} is no name for a backend: lower-case letters, digits, _ -"
    return None


def _value_fault(entry: metadata.EntryPoint) -> tuple[State, str] | None:
    module, colon, attribute = entry.value.partition(":")
    if module.strip() and colon and attribute.strip():
        return None
    return State.INVALID, f"its entry point {entry.value!r} is not of the form module:object"


def merge(*sources: Iterable[Source]) -> tuple[dict[str, Source], list[tuple[Source, Source]]]:
    """Keep the first of every name.

    Returns:
        The sources that count, by name; and (left out, counts instead) pairs.
    """
    chosen: dict[str, Source] = {}
    left_out: list[tuple[Source, Source]] = []
    for source in (source for group in sources for source in group):
        first = chosen.setdefault(source.name, source)
        if first is not source:
            left_out.append((source, first))
    return chosen, left_out
