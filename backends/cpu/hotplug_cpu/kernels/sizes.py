"""Sizes that kernels and those who call them agree on. Imports no Numba."""

from __future__ import annotations

__all__ = ["BLOCK", "X_BLOCK", "X_BYTES", "X_SUM"]

BLOCK = 32
"""Elements of a block, of the legacy formats and of activations."""

X_BLOCK = 48
"""Bytes of a block of activations; what lies in it is said in `legacy`."""

X_SUM = 8
"""Where in it the sum is."""

X_BYTES = 16
"""Where in it the bytes begin."""
