"""What was measured of devices and of the links between them, kept from one process to the next.

It lies beside the compiled kernels: a file for each device, driver and, of processors, number of
threads, and one for each two devices that copy directly, one way. A file of another version, or
that is broken, counts as absent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hotplug import dtypes, kernel_cache
from hotplug.backend import DeviceInfo, DeviceType
from hotplug.placement.cost import Link, Rates

__all__ = ["forget_link", "forget_rates", "known_link", "known_rates", "store_link", "store_rates"]

_VERSION = 1

T = TypeVar("T")


def known_rates(info: DeviceInfo, threads: int | None = None) -> Rates | None:
    """What was measured of a device, or None."""
    return _parsed(_rates_path(info, threads), _rates_of)


def store_rates(info: DeviceInfo, measured: Rates, threads: int | None = None) -> None:
    """Keep what was measured of a device."""
    _write(
        _rates_path(info, threads),
        {
            "flops": measured.flops,
            "bandwidth": measured.bandwidth,
            "upload": _plain(measured.upload),
            "download": _plain(measured.download),
            "launch": measured.launch,
            "step": measured.step,
            "gemv": dict(measured.gemv),
            "gemm": dict(measured.gemm),
        },
    )


def forget_rates(info: DeviceInfo, threads: int | None = None) -> bool:
    """Remove what was kept of a device; whether there was anything."""
    return _forget(_rates_path(info, threads))


def known_link(source: DeviceInfo, target: DeviceInfo) -> Link | None:
    """What was measured of the direct way from one device to another, or None."""
    return _parsed(_link_path(source, target), lambda plain: _link_of(plain["link"]))


def store_link(source: DeviceInfo, target: DeviceInfo, measured: Link) -> None:
    """Keep what was measured of the direct way from one device to another."""
    _write(_link_path(source, target), {"link": _plain(measured)})


def forget_link(source: DeviceInfo, target: DeviceInfo) -> bool:
    """Remove what was kept of the direct way between two devices; whether there was anything."""
    return _forget(_link_path(source, target))


_THREADED = frozenset({DeviceType.CPU, DeviceType.REMOTE})
"""Devices for whose speed it matters how many threads they get; None and all there are is one."""


def _rates_path(info: DeviceInfo, threads: int | None) -> Path | None:
    few = threads if info.type in _THREADED and threads != info.units else None
    return _path(info, "rates", (*_facts(info), few))


def _link_path(source: DeviceInfo, target: DeviceInfo) -> Path | None:
    return _path(target, "link", (*_facts(source), "to", *_facts(target)))


def _facts(info: DeviceInfo) -> tuple[object, ...]:
    which = info.uuid or info.pci or f"{info.index}"
    return info.name, which, info.architecture, info.units, info.driver, info.kernels


def _path(info: DeviceInfo, what: str, facts: tuple[object, ...]) -> Path | None:
    folder = kernel_cache.folder(info.backend)
    return kernel_cache.path(folder, what, f"{_VERSION} {facts!r}", "json")


def _write(path: Path | None, plain: Mapping[str, Any]) -> None:
    kernel_cache.write(path, json.dumps({"version": _VERSION, **plain}).encode())


def _forget(path: Path | None) -> bool:
    if path is None or not path.is_file():
        return False
    path.unlink(missing_ok=True)
    return True


def _parsed(path: Path | None, of: Callable[[Any], T]) -> T | None:
    """What a file holds, or None."""
    content = kernel_cache.read(path)
    if content is None:
        return None
    try:
        plain = json.loads(content)
        return of(plain) if plain["version"] == _VERSION else None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _rates_of(plain: Any) -> Rates:
    return Rates(
        flops=_rate(plain["flops"]),
        bandwidth=_rate(plain["bandwidth"]),
        upload=_link_of(plain["upload"]),
        download=_link_of(plain["download"]),
        launch=_time(plain["launch"]),
        step=_time(plain["step"]),
        gemv=_table(plain["gemv"]),
        gemm=_table(plain["gemm"]),
        source="measured",
    )


def _table(plain: Mapping[str, float]) -> dict[str, float]:
    """By dtype; of one that only another version knows nothing is told."""
    return {name: _rate(rate) for name, rate in plain.items() if name in dtypes.DTYPES}


def _plain(link: Link) -> list[float]:
    return [link.latency, link.bandwidth]


def _link_of(plain: Any) -> Link:
    return Link(_time(plain[0]), _rate(plain[1]))


def _rate(value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(value)
    return float(value)


def _time(value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(value)
    return float(value)
