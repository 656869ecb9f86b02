"""What an ARM processor has beyond NEON, asked of the system.

LLVM tells processors by their name, and of the features that Linux reports it takes over only some.
Sources: Linux, `arch/arm64/include/uapi/asm/hwcap.h`; Apple, "Determining instruction set
characteristics"; Windows, `IsProcessorFeaturePresent`.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["features"]

_LINUX = {"dotprod": (16, 20), "i8mm": (26, 13)}  # entry of the auxiliary vector, and its bit
_APPLE = {"dotprod": b"hw.optional.arm.FEAT_DotProd", "i8mm": b"hw.optional.arm.FEAT_I8MM"}
_WINDOWS = {"dotprod": 43, "i8mm": 66}


def features() -> set[str]:
    """Names, as LLVM has them, of those features that kernels use. Only for ARM processors."""
    if sys.platform == "linux":
        found = _of_linux()
    elif sys.platform == "darwin":
        found = {name for name, key in _APPLE.items() if _sysctl(key)}
    elif sys.platform == "win32":
        present = ctypes.WinDLL("kernel32").IsProcessorFeaturePresent
        found = {name for name, number in _WINDOWS.items() if present(number)}
    else:
        found = set()
    return found


def _of_linux() -> set[str]:
    value_of = ctypes.CDLL(None).getauxval
    value_of.restype, value_of.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return {name for name, (entry, bit) in _LINUX.items() if value_of(entry) >> bit & 1}


def _sysctl(key: bytes) -> bool:
    value, size = ctypes.c_int(0), ctypes.c_size_t(4)
    call = ctypes.CDLL(None).sysctlbyname
    failed = call(key, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return not failed and bool(value.value)
