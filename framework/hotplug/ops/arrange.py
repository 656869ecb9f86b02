"""Tensors put together, repeated, moved and masked."""

from __future__ import annotations

from hotplug.node import Node
from hotplug.ops.checks import (
    normal_axis,
    require,
    require_float,
    require_plain,
    require_same_dtype,
)
from hotplug.ops.spec import op
from hotplug.tensor import TensorType

__all__ = ["concat", "diag", "pad", "pad_reflect", "repeat", "roll", "triangular"]

PAD_MODES = ("constant", "circular")


@op("concat")
def concat(*tensors: Node, axis: int = 0) -> TensorType:
    """Tensors of one dtype joined along an axis; the other lengths agree."""
    require(bool(tensors), "nothing to join")
    first = tensors[0]
    require_plain(*tensors)
    require_same_dtype(*tensors)
    at = normal_axis(axis, len(first.shape))
    for tensor in tensors[1:]:
        agrees = len(tensor.shape) == len(first.shape) and all(
            i == at or a == b
            for i, (a, b) in enumerate(zip(tensor.shape, first.shape, strict=True))
        )
        require(agrees, f"{tensor.type} does not join {first.type} along axis {at}")
    total = 0
    for tensor in tensors:
        total += tensor.shape[at]
    return TensorType(first.dtype, (*first.shape[:at], total, *first.shape[at + 1 :]))


@op("repeat")
def repeat(x: Node, *, repeats: tuple[int, ...]) -> TensorType:
    """X laid side by side `repeats[i]` times along axis i (NumPy's tile)."""
    require_plain(x)
    require(len(repeats) == len(x.shape), f"need {len(x.shape)} counts, given {repeats}")
    require(all(n > 0 for n in repeats), f"counts {repeats} must be positive")
    return TensorType(x.dtype, tuple(n * r for n, r in zip(x.shape, repeats, strict=True)))


@op("pad")
def pad(
    x: Node,
    *,
    before: tuple[int, ...],
    after: tuple[int, ...],
    mode: str = "constant",
    value: float = 0.0,
) -> TensorType:
    """Elements added around each axis: `value`, or for "circular" those of the other end.

    The value is converted as by op `cast`.
    """
    require_plain(x)
    require(mode in PAD_MODES, f"mode must be one of {PAD_MODES}, not {mode!r}")
    require(
        len(before) == len(after) == len(x.shape), f"need {len(x.shape)} counts before and after"
    )
    require(all(n >= 0 for n in before + after), "counts must not be negative")
    if mode == "circular":
        fits = all(max(b, a) <= n for b, a, n in zip(before, after, x.shape, strict=True))
        require(fits, f"a circular pad of {x.type} must not exceed its lengths")
    shape = tuple(b + n + a for b, n, a in zip(before, x.shape, after, strict=True))
    return TensorType(x.dtype, shape)


@op("pad_reflect")
def pad_reflect(x: Node, *, before: int, after: int) -> TensorType:
    """The last axis continued by mirroring at its ends, the end itself not repeated."""
    require_plain(x)
    length = x.shape[-1]
    require(0 <= before < length and 0 <= after < length, f"{before} and {after} of {length}")
    return TensorType(x.dtype, (*x.shape[:-1], before + length + after))


@op("roll")
def roll(x: Node, *, shifts: tuple[int, ...]) -> TensorType:
    """Elements moved by `shifts[i]` along axis i; what leaves at one end enters at the other.

    Element j goes to (j + shift) mod length, as with NumPy's roll.
    """
    require_plain(x)
    require(len(shifts) == len(x.shape), f"need {len(x.shape)} shifts, given {shifts}")
    return x.type


@op("triangular", inplace=(0,))
def triangular(
    x: Node, *, part: str = "lower", diagonal: int = 0, value: float = 0.0
) -> TensorType:
    """One triangle of the last two axes; the rest becomes `value`.

    `part` "lower" keeps column <= row + diagonal, "upper" column >= row + diagonal. With value
    -inf and part "lower" it is a causal mask (ggml's diag_mask_inf).
    """
    require_float(x)
    require(part in {"lower", "upper"}, f"part must be 'lower' or 'upper', not {part!r}")
    require(len(x.shape) >= 2, f"{x.type} has no last two axes")
    return x.type


@op("diag")
def diag(x: Node) -> TensorType:
    """(..., n) on the diagonal of (..., n, n), zeros elsewhere."""
    require_plain(x)
    require(bool(x.shape), "a scalar has no diagonal")
    return TensorType(x.dtype, (*x.shape, x.shape[-1]))
