"""NVIDIA's driver, asked directly which GPUs there are; no context is created on any.

CuPy could be asked as well, but only once it is imported, which takes the better part of a second,
and not for what is wrong where it cannot be.
"""

from __future__ import annotations

import ctypes
import os
import uuid
from ctypes import byref, c_char, c_char_p, c_int, c_size_t, create_string_buffer
from dataclasses import dataclass
from typing import Any

__all__ = ["GPU", "LibcudaError", "NotInstalledError", "gpus", "load", "open_pool"]

_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76
_MULTIPROCESSOR_COUNT = 16
_INTEGRATED = 18
"""CUdevice_attribute, as cuda.h numbers them."""


class NotInstalledError(Exception):
    """The driver's library is not there."""


class LibcudaError(Exception):
    """A call that failed.

    Attributes:
        status: CUresult.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class GPU:
    """What the driver tells of a device.

    Attributes:
        index: its number among those that CUDA_VISIBLE_DEVICES shows.
        capability: ten times its compute capability, such as 90.
        memory: bytes in all.
        units: multiprocessors.
        integrated: whether it shares its memory with the processor.
        driver: the newest CUDA that the driver serves, times 1000, such as 12040.
    """

    index: int
    name: str
    uuid: str | None
    pci: str
    capability: int
    memory: int
    units: int
    integrated: bool
    driver: int


def load() -> Any:
    """The driver's library.

    Raises:
        NotInstalledError: there is none, or it does not load.
    """
    try:
        return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError as error:
        raise NotInstalledError(str(error)) from error


def gpus(library: Any) -> list[GPU]:
    """All devices that the environment shows.

    Raises:
        LibcudaError: the driver refuses; so it does in a process forked off one that asked before.
    """
    calls = _Calls(library)
    calls("cuInit", 0)
    version = calls.integer("cuDriverGetVersion")
    return [_gpu(calls, index, version) for index in range(calls.integer("cuDeviceGetCount"))]


class _Access(ctypes.Structure):
    """CUmemAccessDesc: where, and what is allowed there."""

    _fields_ = (("kind", c_int), ("device", c_int), ("allowed", c_int))


_ON_A_DEVICE = 1
_READ_AND_WRITE = 3


def open_pool(library: Any, owner: int, reader: int) -> None:
    """Let a device reach what `cudaMallocAsync` gives of another; peer access leaves that out.

    Args:
        library: the driver's.
        owner: number of the device whose memory it is.
        reader: number of the device that is let in.

    Raises:
        LibcudaError: the driver refuses.
    """
    calls = _Calls(library)
    pool = ctypes.c_void_p()
    calls("cuDeviceGetDefaultMemPool", byref(pool), calls.integer("cuDeviceGet", owner))
    access = _Access(_ON_A_DEVICE, calls.integer("cuDeviceGet", reader), _READ_AND_WRITE)
    calls("cuMemPoolSetAccess", pool, byref(access), c_size_t(1))


class _Calls:
    """The library's functions, with a failure as an exception."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def __call__(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            text = c_char_p()
            self._library.cuGetErrorName(status, byref(text))
            named = (text.value or b"error").decode()
            raise LibcudaError(status, f"{name} gives {named} ({status})")

    def has(self, name: str) -> bool:
        return hasattr(self._library, name)

    def integer(self, name: str, *arguments: Any) -> int:
        value = c_int()
        self(name, byref(value), *arguments)
        return value.value


def _gpu(calls: _Calls, index: int, version: int) -> GPU:
    device = calls.integer("cuDeviceGet", index)

    def attribute(number: int) -> int:
        return calls.integer("cuDeviceGetAttribute", number, device)

    name = create_string_buffer(256)
    calls("cuDeviceGetName", name, len(name), device)
    pci = create_string_buffer(32)
    calls("cuDeviceGetPCIBusId", pci, len(pci), device)
    memory = c_size_t()
    calls("cuDeviceTotalMem_v2", byref(memory), device)
    return GPU(
        index=index,
        name=name.value.decode(errors="replace").strip(),
        uuid=_uuid(calls, device),
        pci=pci.value.decode().lower(),
        capability=10 * attribute(_COMPUTE_CAPABILITY_MAJOR) + attribute(_COMPUTE_CAPABILITY_MINOR),
        memory=memory.value,
        units=attribute(_MULTIPROCESSOR_COUNT),
        integrated=bool(attribute(_INTEGRATED)),
        driver=version,
    )


def _uuid(calls: _Calls, device: int) -> str | None:
    """The UUID as nvidia-smi shows it; a part of a GPU (MIG) has one of its own."""
    whole, own = (
        _sixteen(calls, name, device) for name in ("cuDeviceGetUuid", "cuDeviceGetUuid_v2")
    )
    if whole and own and own != whole:
        return f"MIG-{own}"
    return f"GPU-{own or whole}" if own or whole else None


def _sixteen(calls: _Calls, name: str, device: int) -> uuid.UUID | None:
    if not calls.has(name):
        return None
    raw = (c_char * 16)()
    calls(name, byref(raw), device)
    return uuid.UUID(bytes=bytes(raw))
