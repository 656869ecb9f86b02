"""Cases of interpolation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hotplug import ops
from hotplug.testing.conformance.case import Case, single
from hotplug.testing.conformance.cases.operands import FLOATS, LAYOUTS, leaf

__all__ = ["cases"]

_MODES: tuple[dict[str, Any], ...] = (
    {"mode": "nearest"},
    {"mode": "linear"},
    {"mode": "linear", "align_corners": True},
    {"mode": "linear", "antialias": True},
    {"mode": "cubic"},
    {"mode": "cubic", "align_corners": True},
)
# Shape, new lengths: larger, smaller, by fractions, from and to one element, one axis and three.
_SIZES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((2, 3, 4, 5), (8, 10)),
    ((1, 2, 9, 7), (4, 3)),
    ((1, 1, 5, 4), (7, 4)),
    ((1, 2, 1, 3), (4, 1)),
    ((2, 6), (11,)),
    ((1, 3, 2, 4), (5, 3, 6)),
    ((0, 4, 5), (8, 10)),
)


def cases() -> Iterator[Case]:
    """All of them."""
    for params in _MODES:
        text = " ".join([params["mode"], *(name for name in params if name != "mode")])
        for shape, size in _SIZES:
            result = ops.interpolate(leaf("x", "f32", shape), size=size, **params)
            yield single(f"interpolate/f32/{shape} to {size} {text}", result)
        for dtype in FLOATS:
            result = ops.interpolate(leaf("x", dtype, (2, 5, 6)), size=(7, 4), **params)
            yield single(f"interpolate/{dtype}/{text}", result)
        for layout, make in LAYOUTS.items():
            result = ops.interpolate(make("x", "f32", (2, 5, 6)), size=(7, 4), **params)
            yield single(f"interpolate/f32/{layout} {text}", result)
        result = ops.interpolate(leaf("x", "f32", (2, 40, 50)), size=(81, 33), **params)
        yield single(f"interpolate/f32/image {text}", result, slow=True)
