"""Which OpenCL devices there are, found without creating a context."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.errors import BackendLoadError

__all__ = ["Found", "find"]

_NO_PLATFORM = -1001  # CL_PLATFORM_NOT_FOUND_KHR: the loader knows no driver
_DRIVER_REMEDY = (
    "install your GPU's OpenCL driver, or for the processor: pip install 'hotplug-opencl[pocl]'"
)


@dataclass(frozen=True, slots=True)
class Found:
    """A device.

    Attributes:
        info: what the contract says of it.
        device: PyOpenCL's device.
        platform: the driver's name and version.
    """

    info: DeviceInfo
    device: Any
    platform: str


def find() -> list[Found]:
    """All devices of all platforms.

    Raises:
        BackendLoadError: PyOpenCL or every OpenCL driver is missing, or the loader fails.
    """
    try:
        import pyopencl as cl  # noqa: PLC0415 - a vendor's package
    except ImportError as error:
        raise BackendLoadError(
            f"PyOpenCL cannot be imported: {error}",
            backend="opencl",
            remedy="pip install pyopencl",
        ) from error
    try:
        platforms = cl.get_platforms()
    except cl.Error as error:
        raise _loader_error(error) from error
    if not platforms:
        raise BackendLoadError(
            "no OpenCL driver is installed", backend="opencl", remedy=_DRIVER_REMEDY
        )
    devices = [(platform, device) for platform in platforms for device in _devices(cl, platform)]
    return [
        Found(_info(cl, index, device, platform), device, f"{platform.name} {platform.version}")
        for index, (platform, device) in enumerate(devices)
    ]


def _loader_error(error: Any) -> BackendLoadError:
    if getattr(error, "code", None) == _NO_PLATFORM:
        text = "no OpenCL driver (ICD) is installed"
    else:
        text = f"the OpenCL loader fails: {error}"
    return BackendLoadError(text, backend="opencl", remedy=_DRIVER_REMEDY)


def _devices(cl: Any, platform: Any) -> Iterator[Any]:
    """Usable devices; a platform without any says so by an error."""
    with contextlib.suppress(cl.Error):
        yield from (device for device in platform.get_devices() if device.compiler_available)


def _info(cl: Any, index: int, device: Any, platform: Any) -> DeviceInfo:
    properties: dict[str, str | int | float | bool] = {
        "platform": platform.name,
        "memory": int(device.global_mem_size),
        "largest_buffer": int(device.max_mem_alloc_size),
    }
    return DeviceInfo(
        "opencl",
        index,
        device.name.strip(),
        _type(cl, device),
        uuid=_uuid(device),
        pci=_pci(cl, device),
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


def _query(device: Any, name: int) -> Any:
    """A fact that only some drivers know, or None."""
    import pyopencl as cl  # noqa: PLC0415 - a vendor's package

    try:
        return device.get_info(name)
    except (cl.Error, TypeError, ValueError):
        return None


def _uuid(device: Any) -> str | None:
    """The UUID as the vendor's own tools show it (cl_khr_device_uuid)."""
    import pyopencl as cl  # noqa: PLC0415 - a vendor's package

    name = getattr(cl.device_info, "UUID_KHR", None)
    if name is None or "cl_khr_device_uuid" not in device.extensions:
        return None
    raw = _query(device, name)
    if not raw or len(raw) != 16:
        return None
    text = str(uuid.UUID(bytes=bytes(raw)))
    return f"GPU-{text}" if "NVIDIA" in device.vendor.upper() else text


def _pci(cl: Any, device: Any) -> str | None:
    """The PCI address, by the Khronos extension or the vendors' older ones."""
    names = cl.device_info
    extensions = device.extensions
    if "cl_khr_pci_bus_info" in extensions and hasattr(names, "PCI_BUS_INFO_KHR"):
        bus = _query(device, names.PCI_BUS_INFO_KHR)
        if bus is not None:
            return f"{bus.pci_domain:04x}:{bus.pci_bus:02x}:{bus.pci_device:02x}.{bus.pci_function}"
    if "cl_nv_device_attribute_query" in extensions:
        domain = _query(device, getattr(names, "PCI_DOMAIN_ID_NV", 0x400A)) or 0
        bus = _query(device, names.PCI_BUS_ID_NV)
        slot = _query(device, names.PCI_SLOT_ID_NV)
        if bus is not None and slot is not None:
            return f"{domain:04x}:{bus:02x}:{slot >> 3:02x}.{slot & 7}"
    if "cl_amd_device_attribute_query" in extensions:
        topology = _query(device, names.TOPOLOGY_AMD)
        if topology is not None:
            return f"0000:{topology.bus:02x}:{topology.device:02x}.{topology.function}"
    return None
