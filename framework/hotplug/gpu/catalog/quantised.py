"""The quantised dtypes that kernels decode."""

from __future__ import annotations

from hotplug.dtypes import DTYPES

__all__ = ["QUANTS"]

QUANTS = frozenset(name for name, dtype in DTYPES.items() if dtype.quantised)
