"""Block formats of GGUF files, read and written with NumPy.

The formats lie in modules by family; each gives the layout of a block as a NumPy structured dtype
and the formula of an element. This is the reference that compiled kernels are checked against, and
the path that runs where no compiler is.
"""

from __future__ import annotations

from hotplug.quants.codec import can_encode, cast, decode, encode

__all__ = ["can_encode", "cast", "decode", "encode"]
