"""Cases of the recurrences along tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hotplug import ops
from hotplug.testing.conformance.case import Case, single
from hotplug.testing.conformance.cases.operands import FLOATS, LAYOUTS, Leaf, leaf
from hotplug.testing.conformance.values import Recipe, normal, uniform

__all__ = ["cases"]

_Shape = tuple[int, ...]

# Keys of length below 1, so that states keep their size.
_KEY = normal(0.4)
_DATA: dict[str, dict[str, Recipe]] = {
    "selective_scan": {"dt": uniform(-2, 2), "a": uniform(-2, -0.1)},
    "wkv6": {"w": uniform(0.2, 1)},
    "wkv7": {"w": uniform(0.2, 1), "a": _KEY, "b": _KEY},
    "gated_linear_attention": {"g": uniform(0.2, 1)},
    "gated_delta_rule": {"g": uniform(-2, 0), "k": _KEY, "beta": uniform(0, 1)},
}
# Batch, tokens, heads, n, d: one token and several, odd lengths, Mamba's d of 1.
_SIZES = ((1, 1, 2, 4, 4), (2, 5, 3, 4, 7), (1, 3, 5, 16, 1), (2, 0, 1, 3, 2), (0, 2, 1, 3, 2))
_MORE_SIZES = ((1, 64, 4, 64, 64), (1, 17, 2, 128, 128), (3, 9, 32, 16, 1))


def cases() -> Iterator[Case]:
    """All of them."""
    for op in _DATA:
        for sizes in _SIZES + _MORE_SIZES:
            yield _case(op, "f32", f"{sizes}", sizes, slow=sizes in _MORE_SIZES)
        for dtype in FLOATS:
            yield _case(op, dtype, "dtype", (2, 3, 2, 4, 5))
        for layout, make in LAYOUTS.items():
            yield _case(op, "f32", layout, (2, 3, 2, 4, 5), make=make)
    for dtype in FLOATS:
        yield _case("selective_scan", dtype, "groups", (1, 3, 6, 4, 2), {"b": (1, 3, 2, 4)})
    yield _case("selective_scan", "f32", "decay of heads", (1, 3, 6, 4, 2), {"a": (6,)})
    yield _case("gated_delta_rule", "f32", "gate of heads", (1, 3, 2, 4, 5), {"g": (1, 3, 2, 1)})
    for op in ("gated_linear_attention", "gated_delta_rule"):
        yield _case(op, "f32", "scale", (1, 3, 2, 4, 5), scale=0.75)


def _case(
    op: str,
    dtype: str,
    what: str,
    sizes: tuple[int, int, int, int, int],
    shapes: Mapping[str, _Shape] | None = None,
    *,
    make: Leaf = leaf,
    slow: bool = False,
    **params: Any,
) -> Case:
    wanted = _shapes(op, *sizes) | dict(shapes or {})
    if op == "selective_scan":
        wanted["c"] = wanted["b"]
    wide = "f64" if dtype == "f64" else "f32"
    operands = [
        make(name, wide if name == "state" else dtype, shape) for name, shape in wanted.items()
    ]
    result = ops.get(op)(*operands, **params)
    return single(f"{op}/{dtype}/{what}", result, _DATA[op], slow=slow)


def _shapes(op: str, batch: int, tokens: int, heads: int, n: int, d: int) -> dict[str, _Shape]:
    """Shapes of operands in order."""
    key, value = (batch, tokens, heads, n), (batch, tokens, heads, d)
    own: dict[str, dict[str, _Shape]] = {
        "selective_scan": {
            "x": value, "dt": (batch, tokens, heads), "a": (heads, n), "b": key, "c": key,
        },
        "wkv6": {"r": key, "k": key, "v": value, "u": (heads, n), "w": key},
        "wkv7": {"r": key, "w": key, "k": key, "v": value, "a": key, "b": key},
        "gated_linear_attention": {"q": key, "k": key, "v": value, "g": key},
        "gated_delta_rule": {
            "q": key, "k": key, "v": value, "g": key, "beta": (batch, tokens, heads),
        },
    }  # fmt: skip
    return own[op] | {"state": (batch, n, heads, d)}
