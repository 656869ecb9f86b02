"""How the oracle holds a tensor's values, and how they become bytes and come from them.

A value is a NumPy array. f64, f32, f16, integers and bool have the NumPy dtype of that name; bf16
and quantised tensors are held as float32, every element one that their dtype can hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hotplug import quants
from hotplug.dtypes import DType, Kind
from hotplug.errors import GraphError
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.oracle.table import Array

__all__ = ["convert", "from_bytes", "leaf_value", "rounded", "to_bytes", "widen"]


def from_bytes(data: npt.NDArray[np.uint8], tensor: TensorType) -> Array:
    """The values that a tensor's bytes hold.

    Raises:
        UnsupportedDTypeError: hotplug cannot read the dtype.
    """
    if tensor.dtype.numpy is None:
        return quants.decode(data, tensor.dtype, tensor.shape)
    return data.view(tensor.dtype.numpy).reshape(tensor.shape)


def to_bytes(values: Array, dtype: DType) -> npt.NDArray[np.uint8]:
    """The bytes that hold some values.

    Raises:
        UnsupportedDTypeError: hotplug cannot write the dtype.
    """
    return quants.encode(values, dtype)


def convert(values: Array, dtype: DType) -> Array:
    """Values as another dtype holds them, by the rules of op `cast`."""
    return from_bytes(to_bytes(values, dtype), TensorType(dtype, values.shape))


def widen(values: Array) -> Array:
    """Floats as float64 and integers as int64, so that nothing below is lost by computing."""
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    if values.dtype.kind == "i":
        return values.astype(np.int64)
    return values


def rounded(values: Array, tensor: TensorType) -> Array:
    """A computed result as its dtype holds it: floats to nearest, integers wrapped around.

    Raises:
        GraphError: the result has not the shape that the op's rule gave it.
    """
    if values.shape != tensor.shape:
        raise GraphError(f"the oracle gives shape {values.shape} where the rule says {tensor}")
    dtype = tensor.dtype
    if dtype.quantised:
        return values.astype(np.float32)  # its op has encoded it already, or only moved blocks
    if dtype.kind is Kind.FLOAT and dtype.numpy is None:
        return convert(values, dtype)
    return values.astype(np.dtype(dtype.numpy))


def leaf_value(value: Array | HostTensor, tensor: TensorType) -> Array:
    """A leaf's value from outside.

    Raises:
        GraphError: it has another shape, or a HostTensor another dtype.
    """
    if isinstance(value, HostTensor):
        if value.type != tensor:
            raise GraphError(f"leaf is {tensor}, given {value.type}")
        return from_bytes(value.data, tensor)
    array: npt.NDArray[Any] = np.asarray(value)
    if array.shape != tensor.shape:
        raise GraphError(f"leaf is {tensor}, given an array of shape {array.shape}")
    return rounded(array, tensor)
