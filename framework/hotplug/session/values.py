"""Arrays and host tensors to buffers and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hotplug.backend import Buffer
from hotplug.errors import UsageError
from hotplug.node import Node
from hotplug.tensor import HostTensor, TensorType

__all__ = ["Slot", "Value", "check_names"]

Value: TypeAlias = "npt.NDArray[Any] | HostTensor"
"""What goes in and comes out: an array, or a host tensor for dtypes that NumPy does not have."""


class Slot:
    """A typed place in a buffer.

    Args:
        name: for messages.
        type: dtype and shape.
        buffer: where the value lies, from its first byte on.
    """

    def __init__(self, name: str, type: TensorType, buffer: Buffer) -> None:  # noqa: A002
        self.name = name
        self.type = type
        self.buffer = buffer
        self._view = _view(buffer, type)

    def write(self, value: Any) -> None:
        """Convert a value and put it there.

        Raises:
            UsageError: it is of another shape, or its numbers do not fit the dtype.
        """
        self.store(self.convert(value))

    def store(self, array: npt.NDArray[Any]) -> None:
        """Put there what `convert` made."""
        if self._view is not None:
            self._view[...] = array
        else:
            self.buffer.write(0, _bytes(array))

    def read(self) -> Value:
        """A copy of the value."""
        if self._view is not None:
            array = self._view.copy()
        else:
            array = np.empty(*_form(self.type))
            self.buffer.read(0, _bytes(array))
        return self.value_of(array)

    def value_of(self, array: npt.NDArray[Any]) -> Value:
        """An array of the form that is stored, as the value that it is."""
        return array if self.type.dtype.numpy is not None else HostTensor(self.type, array)

    def convert(self, value: Any) -> npt.NDArray[Any]:
        """A value as a contiguous array of the form that is stored.

        Raises:
            UsageError: it is of another shape, or its numbers do not fit the dtype.
        """
        if isinstance(value, HostTensor):
            if value.type != self.type:
                raise UsageError(f"{self.name!r} takes {self.type}, given {value.type}")
            return value.data.view(_form(self.type)[1]).reshape(_form(self.type)[0])
        if self.type.dtype.numpy is None:
            raise UsageError(f"{self.name!r} takes a HostTensor of {self.type}")
        array = np.asarray(value)
        wanted = np.dtype(self.type.dtype.numpy)
        if array.shape != self.type.shape or not _fits(array, wanted):
            raise UsageError(
                f"{self.name!r} takes {self.type}, given {array.dtype}{list(array.shape)}"
            )
        return np.ascontiguousarray(array, wanted)


def check_names(wanted: Mapping[str, Node], given: Mapping[str, Any]) -> None:
    """Raise UsageError unless exactly the wanted inputs are given."""
    if wanted.keys() != given.keys():
        missing = ", ".join(sorted(wanted.keys() - given.keys()))
        unknown = ", ".join(sorted(given.keys() - wanted.keys()))
        parts = [f"lacks {missing}"] * bool(missing) + [f"has no input {unknown}"] * bool(unknown)
        raise UsageError(f"the run {' and '.join(parts)}")


def _fits(array: npt.NDArray[Any], wanted: np.dtype[Any]) -> bool:
    """Whether a conversion keeps the kind of number, and integers their value."""
    if array.dtype == wanted:
        return True
    if wanted.kind in "iu" and array.dtype.kind in "iu":
        limits = np.iinfo(wanted)
        return not array.size or (array.min() >= limits.min and array.max() <= limits.max)
    return np.can_cast(array.dtype, wanted, "same_kind")


def _form(type: TensorType) -> tuple[tuple[int, ...], np.dtype[Any]]:  # noqa: A002
    """Shape and dtype of the array that holds a value: flat bytes where NumPy lacks the dtype."""
    if type.dtype.numpy is None:
        return (type.nbytes,), np.dtype(np.uint8)
    return type.shape, np.dtype(type.dtype.numpy)


def _view(buffer: Buffer, type: TensorType) -> npt.NDArray[Any] | None:  # noqa: A002
    host = buffer.host()
    if host is None:
        return None
    shape, dtype = _form(type)
    return np.frombuffer(host, dtype, count=int(np.prod(shape, dtype=np.int64))).reshape(shape)


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data
