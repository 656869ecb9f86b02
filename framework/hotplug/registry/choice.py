"""From a selector to devices: which match, in what order, and why the others do not.

Automatic order: type (the order of `DeviceType`), then the backend's priority, then its name, then
the device's number. One physical device seen through two backends, told by an equal UUID or PCI
address, is used once, through the backend that comes first, unless it is named twice exactly. The
processor, which has neither, is one device too: an automatic choice takes it through one backend.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.errors import DeviceNotFoundError
from hotplug.registry.selectors import TYPES, Kind, Term, parse

__all__ = ["Pool", "Selection", "among", "group", "ranked", "same_device", "select"]

_TYPE_ORDER = {kind: number for number, kind in enumerate(DeviceType)}


class Pool(Protocol):
    """What choosing needs to know of a registry. Asking for a backend's devices loads it."""

    def names(self) -> list[str]:
        """Names of the backends there are, loaded or not."""

    def devices_of(self, name: str) -> Sequence[DeviceInfo]:
        """Usable devices of one backend; none if it cannot be loaded."""

    def everything(self) -> Sequence[DeviceInfo]:
        """Usable devices of all backends that may be loaded without being named."""

    def at_address(self, name: str, address: str) -> Sequence[DeviceInfo]:
        """Devices that a backend finds at an address."""

    def problem(self, name: str) -> str:
        """Why a backend or a device, there or not, cannot be used; empty if it can."""

    def priority(self, name: str) -> int:
        """A backend's priority."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The answer.

    Attributes:
        selector: what was asked for.
        devices: what matches, best first.
        skipped: (what, why) pairs of what does not.
        automatic: whether the order is ours and not the user's.
    """

    selector: str
    devices: tuple[DeviceInfo, ...]
    skipped: tuple[tuple[str, str], ...]
    automatic: bool

    def explain(self) -> str:
        """One line: chosen, further ones, skipped and why."""
        first, *others = self.devices
        text = f"{first.id} ({first.name}) chosen for {self.selector!r}"
        if others:
            text += f"; next {', '.join(info.id for info in others)}"
        if self.skipped:
            text += "; skipped " + "; ".join(f"{what}: {why}" for what, why in self.skipped)
        return text


def select(pool: Pool, selector: str) -> Selection:
    """Devices that a selector names, best first, each physical device once.

    Raises:
        SelectorError: the selector is not of the grammar.
        DeviceNotFoundError: none of its terms matches anything.
    """
    terms = parse(selector)
    chosen: list[DeviceInfo] = []
    skipped: dict[str, str] = {}
    for term in terms:
        matching, problems = _match(pool, term)
        skipped.update(problems)
        for info in matching:
            twin = next((other for other in chosen if same_device(info, other)), None)
            if info in chosen:
                continue
            if twin is not None and not term.is_exact:
                skipped[info.id] = f"the same device as {twin.id}"
                continue
            chosen.append(info)
    if not chosen:
        raise _not_found(pool, selector, terms, skipped)
    automatic = any(term.kind is Kind.AUTO or term.word in TYPES for term in terms)
    return Selection(selector, tuple(chosen), tuple(skipped.items()), automatic)


class _Few:
    """A pool of devices that are in use already."""

    def __init__(self, infos: Sequence[DeviceInfo]) -> None:
        self._infos = infos

    def names(self) -> list[str]:
        return [info.backend for info in self._infos]

    def devices_of(self, name: str) -> Sequence[DeviceInfo]:
        return [info for info in self._infos if info.backend == name]

    def everything(self) -> Sequence[DeviceInfo]:
        return self._infos

    def at_address(self, name: str, address: str) -> Sequence[DeviceInfo]:  # noqa: ARG002 - as Pool
        return ()

    def problem(self, name: str) -> str:  # noqa: ARG002 - as Pool
        return ""

    def priority(self, name: str) -> int:  # noqa: ARG002 - as Pool
        return 0


def among(infos: Sequence[DeviceInfo], selector: str) -> tuple[DeviceInfo, ...]:
    """Those of some devices that a selector names; an id names one, whatever it looks like.

    Raises:
        SelectorError: it is neither of the grammar nor an id.
    """
    exact = tuple(info for info in infos if info.id == selector)
    if exact:
        return exact
    try:
        return select(_Few(infos), selector).devices
    except DeviceNotFoundError:
        return ()


def same_device(one: DeviceInfo, other: DeviceInfo) -> bool:
    """Whether two backends see one physical device. Unknown ids prove nothing."""
    if one.backend == other.backend:  # a backend may split one device into several
        return one.index == other.index
    return _equal(one.uuid, other.uuid) or _equal(one.pci, other.pci)


def group(infos: Iterable[DeviceInfo]) -> list[tuple[DeviceInfo, ...]]:
    """Put together what is one physical device, in the order given.

    Only an equal UUID or PCI address tells; names do not, since two cards may share one.
    """
    groups: list[list[DeviceInfo]] = []
    for info in infos:
        mates = next((g for g in groups if any(same_device(info, mate) for mate in g)), None)
        if mates is None:
            groups.append([info])
        else:
            mates.append(info)
    return [tuple(mates) for mates in groups]


def _equal(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one.lower() == other.lower()


def _match(pool: Pool, term: Term) -> tuple[list[DeviceInfo], dict[str, str]]:
    """Matching devices in order, and the problems met, by backend or term."""
    if term.kind is Kind.ADDRESS:
        found = list(pool.at_address(term.word, term.value))
        why = pool.problem(term.text) or pool.problem(term.word) or "nothing is there"
        return found, {} if found else {term.text: why}
    if term.kind is Kind.WORD and (term.word in pool.names() or term.word not in TYPES):
        return _match_backend(pool, term)
    matching = [info for info in ranked(pool) if _fits(term, info)]
    if term.kind is Kind.AUTO:
        processors = [info for info in matching if info.type is DeviceType.CPU]
        others = {info.id: f"the processor, as {processors[0].id}" for info in processors[1:]}
        matching = [info for info in matching if info.id not in others]
        return matching, {**_problems(pool), **others}
    if term.index is not None:
        physical = [mates[0] for mates in group(matching)]
        matching = physical[term.index : term.index + 1]
    return matching, {} if matching else _problems(pool)


def _match_backend(pool: Pool, term: Term) -> tuple[list[DeviceInfo], dict[str, str]]:
    found = sorted(pool.devices_of(term.word), key=lambda info: info.index)
    matching = [info for info in found if term.index in {None, info.index}]
    if matching:
        return matching, {}
    if found:
        why = pool.problem(f"{term.word}:{term.index}") or f"{term.word} has only {_ids(found)}"
        return [], {term.text: why}
    own = "" if term.index is None else pool.problem(f"{term.word}:{term.index}")
    return [], {term.text: own or pool.problem(term.word) or "it has no device"}


def _fits(term: Term, info: DeviceInfo) -> bool:
    if term.kind is Kind.UUID:
        return _equal(info.uuid, term.value)
    if term.kind is Kind.PCI:
        return _equal(info.pci, term.value)
    return term.kind is Kind.AUTO or info.type in TYPES[term.word]


def ranked(pool: Pool) -> list[DeviceInfo]:
    """All devices in the order of automatic choice."""
    return sorted(
        pool.everything(),
        key=lambda info: (
            _TYPE_ORDER[info.type],
            -pool.priority(info.backend),
            info.backend,
            info.index,
        ),
    )


def _problems(pool: Pool) -> dict[str, str]:
    return {name: why for name in pool.names() if (why := pool.problem(name))}


def _not_found(
    pool: Pool, selector: str, terms: Sequence[Term], skipped: dict[str, str]
) -> DeviceNotFoundError:
    everything = ranked(pool)
    tried = [f"{what}: {why}" for what, why in skipped.items()]
    text = f"no device for {selector!r}"
    if tried:
        text += f": {'; '.join(tried)}"
    text += f"; available: {_ids(everything) or 'none'}"
    close = _did_you_mean(pool, terms, everything)
    return DeviceNotFoundError(
        text,
        device=selector,
        available=tuple(info.id for info in everything),
        remedy=f"did you mean {close}?" if close else None,
    )


def _did_you_mean(pool: Pool, terms: Sequence[Term], available: Sequence[DeviceInfo]) -> str | None:
    """The nearest thing that is here, for the first term that is misspelt."""
    words = {word for info in available for word in (info.id, info.backend, info.type.value)}
    for term in terms:
        is_known = term.index is None and (term.word in TYPES or term.word in pool.names())
        close = difflib.get_close_matches(term.text.lower(), sorted(words), n=1)
        if close and not is_known:
            return close[0]
    return None


def _ids(infos: Iterable[DeviceInfo]) -> str:
    return ", ".join(info.id for info in infos)
