"""Images and signals at another resolution."""

from __future__ import annotations

from hotplug.node import Node
from hotplug.ops.checks import require, require_float
from hotplug.ops.spec import op
from hotplug.tensor import TensorType

__all__ = ["INTERPOLATIONS", "interpolate"]

INTERPOLATIONS = ("nearest", "linear", "cubic")


def _flops(node: Node) -> int:
    taps = {"nearest": 0, "linear": 2, "cubic": 4}[str(node.param("mode"))]
    return 2 * taps * len(node.param("size")) * node.type.size  # type: ignore[arg-type]


@op("interpolate", flops=_flops)
def interpolate(
    x: Node,
    *,
    size: tuple[int, ...],
    mode: str = "nearest",
    align_corners: bool = False,
    antialias: bool = False,
) -> TensorType:
    """The last axes resized, one after the other (PyTorch's interpolate; ggml's upscale).

    Element i of m, of an axis that had n, stands at u = (i + 1/2) n / m - 1/2, or with
    `align_corners` at u = i (n - 1) / (m - 1), 0 if m is 1. With k = floor(u) and f = u - k,
    places outside of the axis being those of its ends:

    - nearest: x[floor(i n / m)], exactly.
    - linear: (1 - f) x[k] + f x[k + 1]; over two axes this is bilinear.
    - cubic: h(1 + f) x[k - 1] + h(f) x[k] + h(1 - f) x[k + 1] + h(2 - f) x[k + 2], with
      h(t) = 1.25 t^3 - 2.25 t^2 + 1 up to 1 and -0.75 t^3 + 3.75 t^2 - 6 t + 3 above (Keys 1981,
      with -3/4 as PyTorch has it); over two axes this is bicubic.

    With `antialias`, for mode linear, it is the mean of all x[j], weighted by
    max(0, 1 - |j - u| / s) with s = max(1, n / m).

    Args:
        x: (..., *spatial), floats.
        size: new lengths, of as many last axes.
        mode: one of INTERPOLATIONS.
        align_corners: whether the first and last elements stay where they are; not for nearest.
        antialias: whether all elements count when an axis shrinks; only for linear, without
            align_corners.

    Returns:
        (..., *size), the dtype of x.
    """
    require_float(x)
    require(mode in INTERPOLATIONS, f"mode must be one of {INTERPOLATIONS}, not {mode!r}")
    require(0 < len(size) <= len(x.shape), f"size {size} for {x.type}")
    split = len(x.shape) - len(size)
    require(all(n > 0 for n in (*size, *x.shape[split:])), f"cannot resize {x.type} to {size}")
    require(not (align_corners and mode == "nearest"), "nearest does not align corners")
    require(
        not antialias or (mode == "linear" and not align_corners),
        "antialias needs mode linear, without align_corners",
    )
    return TensorType(x.dtype, (*x.shape[:split], *size))
