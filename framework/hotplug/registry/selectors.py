"""The one grammar that names devices, everywhere: arguments, `hotplug.device`, variables, options.

    selector  = term { "," term }             tried in order
    term      = "auto"                        everything, best first
              | type [":" index]              gpu, igpu, accel, cpu, remote
              | backend [":" index]           cuda, cuda:1
              | "uuid:" id | "pci:" address   one physical device
              | backend "://" address         rpc://host:port/cuda:0

Letter case does not matter, except within an address. "gpu" means any GPU, an integrated one as
well. "cpu" is both a type and, where a backend has that name, the backend.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from hotplug.backend import DeviceType
from hotplug.errors import SelectorError

__all__ = ["TYPES", "Kind", "Term", "parse"]

TYPES: dict[str, tuple[DeviceType, ...]] = {
    "gpu": (DeviceType.GPU, DeviceType.IGPU),
    "igpu": (DeviceType.IGPU,),
    "accel": (DeviceType.ACCELERATOR,),
    "remote": (DeviceType.REMOTE,),
    "cpu": (DeviceType.CPU,),
}
"""Type aliases: any device of these types will do."""

_WORD = re.compile(r"([a-z][a-z0-9_-]*)(?::([0-9]{1,6}))?")
_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9_-]*)://(\S+)")
_EXAMPLES = 'such as "cuda:1", "gpu", "cuda,cpu", "uuid:GPU-...", "rpc://host:port/cuda:0", "auto"'


class Kind(enum.Enum):
    """What a term names devices by."""

    AUTO = "auto"
    WORD = "word"
    UUID = "uuid"
    PCI = "pci"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Term:
    """One alternative of a selector.

    Attributes:
        text: as it was written.
        word: the backend or type for WORD and ADDRESS, else empty.
        value: id or address.
        index: the number after the colon.
    """

    text: str
    kind: Kind
    word: str = ""
    value: str = ""
    index: int | None = None

    @property
    def is_exact(self) -> bool:
        """Whether it names one device and no other will do."""
        return self.kind in {Kind.UUID, Kind.PCI, Kind.ADDRESS} or self.index is not None


def parse(selector: str) -> tuple[Term, ...]:
    """The alternatives of a selector, in order.

    Raises:
        SelectorError: it is not of the grammar.
    """
    parts = [part.strip() for part in selector.split(",")]
    if not all(parts):
        what = "is empty" if not any(parts) else "has nothing between two commas or at an end"
        raise SelectorError(
            f"device selector {selector!r} {what}; one is written {_EXAMPLES}", device=selector
        )
    return tuple(_term(part, selector) for part in parts)


def _term(text: str, selector: str) -> Term:
    address = _ADDRESS.fullmatch(text)
    if address:
        return Term(text, Kind.ADDRESS, address[1].lower(), address[2])
    lower = text.lower()
    if lower == "auto":
        return Term(text, Kind.AUTO)
    for kind in (Kind.UUID, Kind.PCI):
        if lower.startswith(f"{kind.value}:") and lower != f"{kind.value}:":
            return Term(text, kind, value=lower.partition(":")[2])
    word = _WORD.fullmatch(lower)
    if not word or word[1] in {"auto", "uuid", "pci"}:
        raise SelectorError(
            f"{text!r} in device selector {selector!r} is not understood; one is written "
            f"{_EXAMPLES}",
            device=selector,
        )
    return Term(text, Kind.WORD, word[1], index=int(word[2]) if word[2] else None)
