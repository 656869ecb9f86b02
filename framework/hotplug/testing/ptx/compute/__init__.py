"""What instructions compute where NumPy has no operation of the same meaning.

Values are arrays or NumPy scalars. Floating point is IEEE 754 as PTX asks for, except for the bits
of NaNs: those of results are NumPy's.
"""

from __future__ import annotations

from typing import Any

from hotplug.testing.ptx.compute import bits, conversion, floats, fma, integers, warp

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Any] = {
    name: getattr(module, name)
    for module in (bits, conversion, floats, fma, integers, warp)
    for name in module.__all__
}
"""Name in generated code -> function."""
