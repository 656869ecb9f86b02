"""Versions and members, checked before they can hurt.

What a distribution says it needs is compared before any of its code runs, because code built for
another version may crash the interpreter. The contract version and the members are compared when
the object is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from hotplug import __version__
from hotplug.backend import API_VERSION, Backend, Device, DeviceInfo, DeviceType, MemoryInfo
from hotplug.registry.discovery import Source
from hotplug.registry.status import Rejected, State

__all__ = ["check_device", "check_infos", "check_memory", "check_requirements", "to_backend"]

_CORE = frozenset({"hotplug-core", "hotplug"})
_BACKEND_CALLS = {"probe": "probe()", "open": "open(info)"}
_INFO_FIELDS: dict[str, tuple[type, ...]] = {
    "backend": (str,),
    "index": (int,),
    "name": (str,),
    "type": (DeviceType,),
    "uuid": (str, type(None)),
    "pci": (str, type(None)),
    "architecture": (str, type(None)),
    "units": (int, type(None)),
    "driver": (str, type(None)),
    "kernels": (str, type(None)),
    "properties": (Mapping,),
}
_DEVICE_MEMBERS = ("info", "memory", "supports", "buffers", "compile")


def check_requirements(source: Source, version: str = __version__) -> None:
    """Whether the distribution admits this version of the core.

    Raises:
        Rejected: it does not, or its requirements cannot be read.
    """
    for requirement in _core_requirements(source):
        if not requirement.specifier.contains(version, prereleases=True):
            raise Rejected(
                State.INCOMPATIBLE,
                f"{source.provenance} needs {requirement.name}{requirement.specifier}, "
                f"and this is {version}",
                remedy=f"pip install --upgrade hotplug-core {source.provenance.distribution}",
            )


def _core_requirements(source: Source) -> list[Requirement]:
    try:
        requirements = [Requirement(text) for text in source.requires]
    except InvalidRequirement as error:
        raise Rejected(
            State.INVALID, f"the requirements of {source.provenance} are malformed: {error}"
        ) from error
    return [
        requirement
        for requirement in requirements
        if canonicalize_name(requirement.name) in _CORE
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
    ]


def to_backend(found: object, source: Source) -> Backend:
    """The imported object as a backend; a class is called without arguments.

    Raises:
        Rejected: it lacks a member, is for another version of the contract, or bears another name.
    """
    # A class is looked at before it is called: an abstract one names what it lacks only by raising.
    missing = _missing(found)
    if missing:
        raise Rejected(
            State.INVALID,
            f"{source.provenance.target or 'the object'} of {source.provenance} lacks "
            f"{', '.join(missing)}",
            remedy=_author_remedy(source),
        )
    backend = cast("Backend", found() if isinstance(found, type) else found)
    _check_api(backend, source)
    if backend.name != source.name:
        raise Rejected(
            State.INVALID,
            f"{source.provenance} offers {source.name!r}, but its backend calls itself "
            f"{backend.name!r}",
            remedy=_author_remedy(source),
        )
    return backend


def _missing(found: object) -> list[str]:
    missing = [] if isinstance(getattr(found, "name", None), str) else ["name"]
    if not _is_version(getattr(found, "api_version", None)):
        missing.append("api_version")
    abstract: frozenset[str] = getattr(found, "__abstractmethods__", frozenset())
    for member, shown in _BACKEND_CALLS.items():
        if member in abstract or not callable(getattr(found, member, None)):
            missing.append(shown)
    return missing


def _is_version(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(part, int) for part in value)
    )


def _check_api(backend: Backend, source: Source) -> None:
    major, minor = backend.api_version
    if major == API_VERSION[0] and minor <= API_VERSION[1]:
        return
    ours = ".".join(map(str, API_VERSION))
    distribution = source.provenance.distribution
    newer = (major, minor) > API_VERSION
    outdated = "hotplug-core" if newer else distribution
    raise Rejected(
        State.INCOMPATIBLE,
        f"{source.provenance} is made for version {major}.{minor} of the backend contract, and "
        f"this hotplug {__version__} has {ours}",
        remedy=f"pip install --upgrade {outdated}" if outdated else None,
    )


def _author_remedy(source: Source) -> str | None:
    distribution = source.provenance.distribution
    return distribution and f"pip install --upgrade {distribution}, or tell its author"


def check_infos(found: object, name: str) -> tuple[DeviceInfo, ...]:
    """What a probe returned, if it is as the contract has it.

    Raises:
        Rejected: it is not.
    """
    if not isinstance(found, Sequence) or not all(isinstance(i, DeviceInfo) for i in found):
        raise Rejected(
            State.INVALID, f"its probe returned {type(found).__name__}, not a list of DeviceInfo"
        )
    infos = tuple(cast("Sequence[DeviceInfo]", found))
    for info in infos:
        _check_fields(info)
    _check_identity((info.backend for info in infos), (info.index for info in infos), name)
    return infos


def _check_fields(info: DeviceInfo) -> None:
    # A dataclass takes whatever it is given, and a list of devices must be sorted and shown.
    wrong = [
        name for name, kinds in _INFO_FIELDS.items() if not isinstance(getattr(info, name), kinds)
    ]
    if not wrong and info.index < 0:
        wrong = ["index"]
    if not wrong and not all(map(_is_property, info.properties.items())):
        wrong = ["properties"]
    if wrong:
        raise Rejected(
            State.INVALID, f"its probe tells of a device whose {', '.join(wrong)} cannot be"
        )


def _is_property(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], str | int | float)


def _check_identity(backends: Iterable[str], indices: Iterable[int], name: str) -> None:
    foreign = sorted({backend for backend in backends if backend != name})
    if foreign:
        raise Rejected(State.INVALID, f"its probe names devices of {', '.join(foreign)}")
    numbers = list(indices)
    if len(set(numbers)) != len(numbers):
        raise Rejected(State.INVALID, f"its probe gives one number twice: {sorted(numbers)}")


def check_memory(found: object, device: str) -> MemoryInfo:
    """What a backend or device told of its memory, if it is as the contract has it.

    Raises:
        TypeError: it is not.
    """
    if isinstance(found, MemoryInfo) and all(map(_is_amount, (found.total, found.free))):
        return found
    raise TypeError(f"the memory of {device} is told as {found!r:.80}")


def _is_amount(value: object) -> bool:
    return value is None or (isinstance(value, int) and value >= 0)


def check_device(found: object, info: DeviceInfo) -> Device:
    """What `open` returned, if it is a device.

    Raises:
        TypeError: members are missing.
    """
    members = dir(found)  # hasattr would run properties
    missing = [member for member in _DEVICE_MEMBERS if member not in members]
    if missing:
        raise TypeError(
            f"opening {info.id} gave {type(found).__name__}, which lacks {', '.join(missing)}"
        )
    return cast("Device", found)
