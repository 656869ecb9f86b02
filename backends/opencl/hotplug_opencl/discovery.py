"""Which OpenCL devices there are, found without creating a context."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.errors import BackendLoadError
from hotplug.settings import settings
from hotplug_opencl import loader
from hotplug_opencl.identity import asker, pci_of, uuid_of
from hotplug_opencl.quirks import Quirk, quirks_of

__all__ = ["Found", "find"]

_log = logging.getLogger(__name__)

OLDEST = (1, 2)
"""The version of OpenCL from which on devices are served."""


@dataclass(frozen=True, slots=True)
class Found:
    """A device.

    Attributes:
        info: what the contract says of it.
        device: PyOpenCL's device.
        platform: the driver's name and version.
        quirks: what its driver does differently.
    """

    info: DeviceInfo
    device: Any
    platform: str
    quirks: tuple[Quirk, ...] = ()


def find() -> list[Found]:
    """All devices of all platforms that can be used, in the order in which the loader gives them.

    Raises:
        BackendLoadError: PyOpenCL or every OpenCL driver is missing, the loader fails, or no driver
            has a device that can be used.
    """
    platforms = loader.platforms()
    import pyopencl as cl  # noqa: PLC0415 - a vendor's package; the loader has seen that it is there

    split = settings().opencl_subdevices
    pairs: list[tuple[Any, Any]] = []
    reasons: list[str] = []
    for platform in sorted(platforms, key=lambda one: any(q.last for q in quirks_of(one))):
        if pairs and any(quirk.last for quirk in quirks_of(platform)):
            continue
        for device in _devices(cl, platform, reasons):
            pairs += [(platform, part) for part in _parts(cl, device, split)]
    if not pairs:
        raise _none(platforms, reasons)
    return [_found(cl, index, *pair) for index, pair in enumerate(pairs)]


def _devices(cl: Any, platform: Any, reasons: list[str]) -> Iterator[Any]:
    """A platform's devices; why one or all are left out is added to the reasons."""
    try:
        devices = platform.get_devices()
    except cl.Error as error:
        reasons.append(f"{platform.name} has no device ({error})")
        devices = []
    for device in devices:
        refusal = _refusal(platform, device)
        if refusal:
            reasons.append(f"{device.name.strip()} of {platform.name}: {refusal}")
            _log.info("%s", reasons[-1])
        else:
            yield device


def _refusal(platform: Any, device: Any) -> str:
    """Why a device cannot be used; empty if it can."""
    for quirk in quirks_of(platform, device):
        if quirk.refusal:
            return quirk.refusal
    if not device.available:
        return "the driver says that it is not available"
    if not device.compiler_available:
        return "its driver has no compiler"
    if not device.endian_little:
        return "it is big-endian"
    version = re.search(r"(\d+)\.(\d+)", device.version)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        return f"it has {device.version.strip()}; {OLDEST[0]}.{OLDEST[1]} is needed"
    return ""


def _none(platforms: list[Any], reasons: list[str]) -> BackendLoadError:
    remedies = [q.remedy for platform in platforms for q in quirks_of(platform) if q.remedy]
    return BackendLoadError(
        f"there are OpenCL drivers, but no device to use: {'; '.join(reasons)}",
        backend="opencl",
        remedy="; ".join([*remedies, loader.REMEDY]),
    )


def _parts(cl: Any, device: Any, split: str | int | None) -> list[Any]:
    """The device, or sub-devices of it where HOTPLUG_OPENCL_SUBDEVICES asks for some."""
    if split is None:
        return [device]
    kinds = cl.device_partition_property
    how = (
        [kinds.BY_AFFINITY_DOMAIN, cl.device_affinity_domain.NUMA]
        if split == "numa"
        else [kinds.EQUALLY, split]
    )
    try:
        return device.create_sub_devices(how) or [device]
    except cl.Error as error:
        _log.info("%s is not split (%s): %s", device.name.strip(), split, error)
        return [device]


def _found(cl: Any, index: int, platform: Any, device: Any) -> Found:
    name = f"{platform.name} {platform.version}"
    return Found(
        _info(cl, index, device, platform), device, name, tuple(quirks_of(platform, device))
    )


def _info(cl: Any, index: int, device: Any, platform: Any) -> DeviceInfo:
    properties: dict[str, str | int | float | bool] = {
        "platform": platform.name,
        "memory": int(device.global_mem_size),
        "largest_buffer_bytes": int(device.max_mem_alloc_size),
    }
    if device.parent_device is not None:
        properties["part_of_units"] = int(device.parent_device.max_compute_units)
    extensions, ask = device.extensions, asker(device)
    return DeviceInfo(
        "opencl",
        index,
        device.name.strip(),
        _type(cl, device),
        uuid=uuid_of(extensions, device.vendor, ask),
        pci=pci_of(extensions, ask),
        architecture=device.opencl_c_version.strip(),
        units=int(device.max_compute_units),
        driver=f"{platform.name} {device.driver_version}",
        kernels="compiled",
        properties=properties,
    )


def _type(cl: Any, device: Any) -> DeviceType:
    kind = device.type
    if kind & cl.device_type.GPU:
        return DeviceType.IGPU if device.host_unified_memory else DeviceType.GPU
    return DeviceType.CPU if kind & cl.device_type.CPU else DeviceType.ACCELERATOR
