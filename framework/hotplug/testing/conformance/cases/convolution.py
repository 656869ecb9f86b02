"""Cases of convolution, its parts, and pooling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hotplug import ops
from hotplug.testing.conformance.case import Case, single
from hotplug.testing.conformance.cases.operands import FLOATS, LAYOUTS, PLAIN, leaf
from hotplug.testing.conformance.values import given, normal

__all__ = ["cases"]

_Shape = tuple[int, ...]

# x, w, parameters
_CONVOLUTIONS: tuple[tuple[_Shape, _Shape, dict[str, Any]], ...] = (
    ((2, 3, 9), (4, 3, 3), {}),
    ((1, 4, 11), (4, 1, 3), {"stride": (2,), "padding": (1,), "groups": 4}),
    ((2, 3, 6, 7), (5, 3, 3, 2), {"stride": (2, 1), "padding": (1, 2)}),
    ((1, 4, 8, 9), (6, 2, 3, 3), {"dilation": (2, 3), "padding": (2, 0), "groups": 2}),
    ((1, 6, 5, 5), (12, 1, 3, 3), {"padding": (1, 1), "groups": 6}),
    ((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), {"stride": (1, 2, 2), "padding": (1, 0, 1)}),
    ((2, 12, 6, 7), (20, 6, 3, 2), {"groups": 2, "padding": (1, 1), "stride": (1, 2)}),
    ((1, 1, 1), (1, 1, 1), {}),
    ((0, 3, 9), (4, 3, 3), {}),
)
_MORE_CONVOLUTIONS: tuple[tuple[_Shape, _Shape, dict[str, Any]], ...] = (
    ((1, 16, 33, 35), (24, 16, 3, 3), {"padding": (1, 1)}),
    ((1, 3, 64, 64), (8, 3, 16, 16), {"stride": (16, 16)}),
    ((2, 80, 100), (32, 80, 3), {"padding": (1,), "stride": (2,)}),
    ((1, 32, 20, 20), (32, 1, 5, 5), {"padding": (2, 2), "groups": 32}),
)
_TRANSPOSED: tuple[tuple[_Shape, _Shape, dict[str, Any]], ...] = (
    ((2, 3, 5), (3, 4, 3), {}),
    ((1, 4, 6), (4, 2, 4), {"stride": (2,), "padding": (1,), "groups": 2}),
    ((2, 3, 4, 5), (3, 2, 2, 2), {"stride": (2, 2)}),
    ((1, 2, 3, 4), (2, 3, 3, 2), {"stride": (1, 3), "dilation": (2, 1), "padding": (2, 0)}),
    ((1, 2, 2, 3, 2), (2, 2, 2, 2, 2), {"stride": (2, 1, 1)}),
    ((2, 6, 4, 5), (6, 9, 4, 3), {"stride": (2, 3), "padding": (1, 0), "dilation": (1, 2)}),
    ((0, 3, 5), (3, 4, 3), {}),
)
# Spatial lengths, and the kernel over them.
_PLACES: tuple[tuple[_Shape, dict[str, Any]], ...] = (
    ((9,), {"kernel": (3,)}),
    ((8,), {"kernel": (3,), "stride": (2,), "padding": (2,), "dilation": (2,)}),
    ((6, 7), {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 0)}),
    ((3, 4, 5), {"kernel": (2, 1, 3), "padding": (0, 1, 1), "dilation": (1, 1, 2)}),
)
_POOLS: tuple[tuple[_Shape, dict[str, Any]], ...] = (
    ((2, 3, 9), {"kernel": (3,)}),
    ((1, 2, 8), {"kernel": (4,), "stride": (1,), "padding": (2,)}),
    ((2, 3, 6, 7), {"kernel": (2, 3)}),
    ((1, 2, 7, 7), {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 1)}),
    ((1, 2, 4, 4, 5), {"kernel": (2, 2, 3), "stride": (2, 1, 1), "padding": (1, 0, 1)}),
    ((0, 3, 9), {"kernel": (3,)}),
)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _convolutions()
    yield from _transposed()
    yield from _columns()
    yield from _pools()


def _convolutions() -> Iterator[Case]:
    for x_shape, w_shape, params in _CONVOLUTIONS + _MORE_CONVOLUTIONS:
        slow = (x_shape, w_shape, params) in _MORE_CONVOLUTIONS
        result = ops.conv(leaf("x", "f32", x_shape), leaf("w", "f32", w_shape), **params)
        yield single(f"conv/f32/{x_shape}{w_shape} {params}", result, slow=slow)
    for x_dtype in FLOATS:
        for w_dtype in FLOATS:
            x, w = leaf("x", x_dtype, (2, 4, 5, 6)), leaf("w", w_dtype, (6, 2, 3, 2))
            result = ops.conv(x, w, padding=(1, 1), groups=2)
            yield single(f"conv/{x_dtype} {w_dtype}/groups", result)
    for dtype in FLOATS:
        result = ops.conv(leaf("x", dtype, (1, 3, 4, 5)), leaf("w", "f16", (9, 3, 3, 2)))
        yield single(f"conv/{dtype} f16/outputs", result)
    for layout, make in LAYOUTS.items():
        result = ops.conv(make("x", "f32", (2, 3, 5, 6)), make("w", "f32", (6, 3, 3, 2)))
        yield single(f"conv/f32/{layout}", result)


def _transposed() -> Iterator[Case]:
    for x_shape, w_shape, params in _TRANSPOSED:
        result = ops.conv_transpose(leaf("x", "f32", x_shape), leaf("w", "f32", w_shape), **params)
        yield single(f"conv_transpose/f32/{x_shape}{w_shape} {params}", result)
    for x_dtype in FLOATS:
        for w_dtype in FLOATS:
            x, w = leaf("x", x_dtype, (1, 4, 5)), leaf("w", w_dtype, (4, 2, 3))
            result = ops.conv_transpose(x, w, stride=(2,), groups=2)
            yield single(f"conv_transpose/{x_dtype} {w_dtype}/groups", result)
    for layout, make in LAYOUTS.items():
        x, w = make("x", "f32", (2, 3, 4, 5)), make("w", "f32", (3, 6, 3, 2))
        yield single(f"conv_transpose/f32/{layout}", ops.conv_transpose(x, w, stride=(2, 1)))


def _columns() -> Iterator[Case]:
    for dtype in PLAIN:
        for lengths, params in _PLACES:
            x = leaf("x", dtype, (2, 3, *lengths))
            columns = ops.im2col(x, **params)
            yield single(f"im2col/{dtype}/{lengths} {params}", columns)
            if dtype in FLOATS:
                rows = leaf("columns", dtype, columns.shape)
                result = ops.col2im(rows, shape=lengths, **params)
                yield single(f"col2im/{dtype}/{lengths} {params}", result)
    for layout, make in LAYOUTS.items():
        result = ops.im2col(make("x", "f32", (2, 3, 6, 5)), kernel=(3, 2))
        yield single(f"im2col/f32/{layout}", result)
        back = ops.col2im(make("columns", "f32", (2, 3, 4, 12)), shape=(4, 5), kernel=(2, 2))
        yield single(f"col2im/f32/{layout}", back)


def _pools() -> Iterator[Case]:
    for dtype in FLOATS:
        for shape, params in _POOLS:
            x = leaf("x", dtype, shape)
            # All below zero, so that padding must not be chosen.
            negative = {"x": normal(offset=-5)}
            yield single(f"max_pool/{dtype}/{shape} {params}", ops.max_pool(x, **params), negative)
            for counted in (True, False):
                result = ops.avg_pool(x, count_include_pad=counted, **params)
                yield single(f"avg_pool/{dtype}/{shape} {params} {counted}", result)
    special = {"x": given(1, float("nan"), 2, float("-inf"), float("inf"), 0, 3)}
    pooled = ops.max_pool(leaf("x", "f32", (1, 2, 14)), kernel=(2,), stride=(1,), padding=(1,))
    yield single("max_pool/f32/special", pooled, special)
    for layout, make in LAYOUTS.items():
        x = make("x", "f32", (2, 3, 6, 5))
        yield single(f"max_pool/f32/{layout}", ops.max_pool(x, kernel=(3, 2)))
        yield single(f"avg_pool/f32/{layout}", ops.avg_pool(x, kernel=(3, 2)))
