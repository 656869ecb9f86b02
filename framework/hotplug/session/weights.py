"""Weights on devices, of which several sessions share one copy.

Which copies are the same is told by where they come from: the same read-only bytes of host memory,
as those of a model file are, whoever opened it. Bytes that may be written to are never shared.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from hotplug.backend import Buffer, Device
from hotplug.tensor import HostTensor

__all__ = ["Weight", "claim", "is_shared"]

_PIECE = 16 << 20  # bytes between two reports of progress

_Key: TypeAlias = tuple[int, int, int]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Weight:
    """A weight on a device; whoever claims it frees it.

    Attributes:
        users: claims not freed yet.
    """

    device: Device
    tensor: HostTensor
    key: _Key | None
    users: int = 0
    _buffer: Buffer | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def buffer(self) -> Buffer:
        """The copy."""
        assert self._buffer is not None
        return self._buffer

    def upload(self, advance: Callable[[int], None]) -> None:
        """Copy the bytes to the device, unless another session has.

        Args:
            advance: called with the number of bytes done.

        Raises:
            OutOfDeviceMemoryError: there is no room.
        """
        with self._lock:
            if self._buffer is None:
                self._buffer = _copy(self.tensor, self.device, advance)

    def forget(self) -> None:
        """Start anew in a forked child: a thread of the parent's may have been uploading."""
        self._lock = threading.Lock()

    def free(self) -> None:
        """Give one claim up; the last one frees the memory."""
        with _lock:
            self.users -= 1
            if self.users:
                return
            if self.key is not None:
                _shared.pop(self.key, None)
        if self._buffer is not None:
            self._buffer.free()


# Sessions keep weights alive: what a session that was dropped had goes with it.
_shared: weakref.WeakValueDictionary[_Key, Weight] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def claim(device: Device, tensor: HostTensor) -> Weight:
    """The copy of a tensor on a device, to be uploaded yet if nobody has."""
    with _lock:
        key = _key(device, tensor)
        found = None if key is None else _shared.get(key)
        if found is None:
            found = Weight(device, tensor, key)
            if key is not None:
                _shared[key] = found
        found.users += 1
        return found


def is_shared(device: Device, tensor: HostTensor) -> bool:
    """Whether a device has a copy that would be shared."""
    return _key(device, tensor) in _shared


def _key(device: Device, tensor: HostTensor) -> _Key | None:
    """What makes two copies the same. The entry keeps both alive, and with them their addresses."""
    if tensor.data.flags.writeable:
        return None
    return id(device), int(tensor.data.__array_interface__["data"][0]), tensor.nbytes


def _copy(tensor: HostTensor, device: Device, advance: Callable[[int], None]) -> Buffer:
    buffer = device.buffers.allocate(tensor.nbytes)
    try:
        for at in range(0, tensor.nbytes, _PIECE):
            piece = tensor.data[at : at + _PIECE]
            buffer.write(at, piece.data)
            advance(at + piece.nbytes)
    except BaseException:
        buffer.free()
        raise
    return buffer


def _forget() -> None:
    """In a forked child: threads of the parent's may have held the locks."""
    global _lock
    _lock = threading.Lock()
    for weight in tuple(_shared.values()):
        weight.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
