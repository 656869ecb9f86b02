"""Definitions and pages that kernels need for a quantised dtype, from the tables that describe it.

Families of formats are those of `hotplug.quants`: what a module of it does with NumPy, the pages
`kernels/quants_<module>.h` and `encode_<module>.h` do on a device.
"""

from __future__ import annotations

import functools

import numpy as np

from hotplug.dtypes import get
from hotplug.quants import codebook, fp4, grids, kquants, legacy, lowbit, nonlinear, ternary
from hotplug.quants.blocks import Floats

__all__ = ["decoding", "definitions", "encoding"]

_FAMILIES = {
    name: module.__name__.rpartition(".")[2]
    for module in (codebook, fp4, kquants, legacy, lowbit, nonlinear, ternary)
    for name in module.CODECS
}
_ALIKE = 32  # elements of blocks that have one scale
_GRIDS = {
    "iq2_xxs": grids.IQ2_XXS, "iq2_xs": grids.IQ2_XS, "iq2_s": grids.IQ2_S,
    "iq3_xxs": grids.IQ3_XXS, "iq3_s": grids.IQ3_S, "iq1_s": grids.IQ1, "iq1_m": grids.IQ1,
}  # fmt: skip


def decoding(name: str) -> tuple[str, ...]:
    """Files of kernels/ that decode a dtype."""
    return "quants.h", f"quants_{_FAMILIES[name]}.h", "quants_use.h"


def encoding(name: str) -> tuple[str, ...]:
    """Files of kernels/ that encode a dtype."""
    return "encode.h", f"encode_{_FAMILIES[name]}.h"


@functools.cache
def definitions(name: str) -> dict[str, str]:
    """What the page takes from here: a block's size, levels, points."""
    dtype = get(name)
    found = {f"{name}_BLOCK": str(dtype.block), f"{name}_BYTES": str(dtype.block_bytes)}
    if dtype.block == _ALIKE:
        found[f"{name}_ALIKE"] = "1"
    if _FAMILIES[name] == "nonlinear":
        found["LEVELS"] = ", ".join(f"{level:.0f}" for level in nonlinear.LEVELS)
    if name in _GRIDS:
        found["GRID_SIZE"] = str(len(_GRIDS[name]))
        found["GRID"] = ", ".join(map(str, _packed(_GRIDS[name])))
    return found


def _packed(points: Floats) -> list[int]:
    """Points as numbers of their levels, the first one lowest, in as few bits each as they take."""
    levels, numbers = np.unique(points, return_inverse=True)
    bits = (len(levels) - 1).bit_length()
    shifts = np.arange(points.shape[1]) * bits
    packed = (numbers.reshape(points.shape) << shifts).sum(axis=1)
    return [int(number) for number in packed]
