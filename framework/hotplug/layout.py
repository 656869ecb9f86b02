"""Where the elements of a tensor lie, apart from the storage that holds them.

Shapes are row-major: the last axis is the one whose elements are consecutive. Strides and offset
count elements of the storage. Views are new layouts over the same storage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hotplug.errors import GraphError

__all__ = ["Layout", "contiguous_strides"]


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides of a shape, in elements."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape, strides and offset, all in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @classmethod
    def contiguous(cls, shape: tuple[int, ...]) -> Layout:
        """The row-major layout of a whole storage."""
        return cls(shape, contiguous_strides(shape))

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """Whether elements are consecutive in row-major order; axes of length 1 do not matter."""
        expected = contiguous_strides(self.shape)
        return self.size == 0 or all(
            length == 1 or stride == want
            for length, stride, want in zip(self.shape, self.strides, expected, strict=True)
        )

    def permute(self, axes: tuple[int, ...]) -> Layout:
        """Axes in another order: result axis i is axis `axes[i]` of this one."""
        if sorted(axes) != list(range(len(self.shape))):
            raise GraphError(f"{axes} is no permutation of {len(self.shape)} axes", op="permute")
        return Layout(
            tuple(self.shape[a] for a in axes), tuple(self.strides[a] for a in axes), self.offset
        )

    def slice(
        self, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
    ) -> Layout:
        """The box from `starts` (included) to `stops` (excluded) by positive `steps`."""
        shape = tuple(
            max(0, -(-(stop - start) // step))
            for start, stop, step in zip(starts, stops, steps, strict=True)
        )
        offset = self.offset + sum(
            s * stride for s, stride in zip(starts, self.strides, strict=True)
        )
        strides = tuple(stride * step for stride, step in zip(self.strides, steps, strict=True))
        return Layout(shape, strides, offset)

    def reshape(self, shape: tuple[int, ...]) -> Layout | None:
        """The same elements under another shape, or None if that needs a copy.

        Raises:
            GraphError: the shapes hold different numbers of elements.
        """
        if math.prod(shape) != self.size:
            raise GraphError(f"{self.shape} cannot become {shape}: sizes differ", op="reshape")
        if self.is_contiguous:
            return Layout(shape, contiguous_strides(shape), self.offset)
        strides = _reshape_strides(self, shape)
        return None if strides is None else Layout(shape, strides, self.offset)


def _reshape_strides(old: Layout, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Strides for `shape`, matching runs of axes of equal size (NumPy's no-copy rule)."""
    axes = [(n, s) for n, s in zip(old.shape, old.strides, strict=True) if n != 1]
    strides: list[int] = [0] * len(shape)
    at = len(axes) - 1
    run, stride = axes[at] if axes else (1, 1)
    left = run
    for axis in range(len(shape) - 1, -1, -1):
        length = shape[axis]
        if length == 1:
            strides[axis] = stride
            continue
        if left == 1:
            at -= 1
            run, stride = axes[at]
            left = run
        while left % length or left < length:
            # The axis spans more than this run: join the next one if it continues it in memory.
            at -= 1
            if at < 0 or axes[at][1] != stride * left:
                return None
            left *= axes[at][0]
        strides[axis] = stride
        stride *= length
        left //= length
    return tuple(strides)
