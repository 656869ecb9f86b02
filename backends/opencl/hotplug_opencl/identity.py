"""Which physical device a device is: its UUID and its PCI address, where the driver tells them.

PyOpenCL knows neither Khronos extension (2026.1), so that the loader is asked directly.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Ask", "asker", "pci_of", "uuid_of"]

Ask: TypeAlias = "Callable[[int, int], bytes | None]"
"""A device's answer to a query (CL_DEVICE_...) of so many bytes; None if it does not know it."""

_UUID = 0x106A  # cl_khr_device_uuid
_PCI = 0x410F  # cl_khr_pci_bus_info
_PCI_NVIDIA = (0x400A, 0x4008, 0x4009)  # domain, bus, slot
_TOPOLOGY_AMD = 0x4037


def asker(device: Any) -> Ask:
    """Queries of a device of PyOpenCL."""

    def ask(query: int, size: int) -> bytes | None:
        answer = ctypes.create_string_buffer(size)
        told = ctypes.c_size_t()
        status = _get_device_info()(device.int_ptr, query, size, answer, ctypes.byref(told))
        return None if status or told.value != size else answer.raw

    return ask


@functools.cache
def _get_device_info() -> Any:
    """The function clGetDeviceInfo of the very loader that PyOpenCL uses."""
    from pyopencl import _cl  # noqa: PLC0415 - a vendor's package

    # Among a library's symbols Linux and macOS find those of libraries that it needs.
    library = ctypes.CDLL("OpenCL.dll" if os.name == "nt" else _cl.__file__)
    function = library.clGetDeviceInfo
    function.argtypes = (
        ctypes.c_void_p, ctypes.c_uint, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p,
    )  # fmt: skip
    function.restype = ctypes.c_int
    return function


def uuid_of(extensions: str, vendor: str, ask: Ask) -> str | None:
    """The UUID as the vendor's own tools show it; None if the driver has none."""
    raw = ask(_UUID, 16) if "cl_khr_device_uuid" in extensions.split() else None
    if not raw or not any(raw):
        return None
    text = str(uuid.UUID(bytes=raw))
    return f"GPU-{text}" if "NVIDIA" in vendor.upper() else text


def pci_of(extensions: str, ask: Ask) -> str | None:
    """The PCI address, by the Khronos extension or the vendors' older ones."""
    known = extensions.split()
    if "cl_khr_pci_bus_info" in known:
        raw = ask(_PCI, 16)
        if raw is not None:
            return _address(*struct.unpack("4I", raw))
    if "cl_nv_device_attribute_query" in known:
        domain, bus, slot = (_number(ask(query, 4)) for query in _PCI_NVIDIA)
        if bus is not None and slot is not None:
            return _address(domain or 0, bus, slot >> 3, slot & 7)
    if "cl_amd_device_attribute_query" in known:
        raw = ask(_TOPOLOGY_AMD, 24)
        if raw is not None and _number(raw[:4]) == 1:  # a PCI express device
            return _address(0, *raw[21:24])
    return None


def _number(raw: bytes | None) -> int | None:
    return None if raw is None else int(struct.unpack("I", raw)[0])


def _address(domain: int, bus: int, device: int, function: int) -> str:
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function}"
