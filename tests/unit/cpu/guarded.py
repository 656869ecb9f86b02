"""Memory behind which none may be touched: a kernel that does ends the process."""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np
import numpy.typing as npt

__all__ = ["guarded"]

_PAGE = mmap.PAGESIZE


def guarded(nbytes: int, fill: int = 0) -> npt.NDArray[np.uint8]:
    """So many bytes, whose last one is the last of a page; the next page is out of bounds.

    The array that they are a part of has what lies before them, filled as well.
    """
    if sys.platform == "win32":
        return np.full(nbytes, fill, np.uint8)
    inside = -(-nbytes // _PAGE) * _PAGE
    pages = np.frombuffer(mmap.mmap(-1, inside + _PAGE), np.uint8, inside)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if protect(pages.ctypes.data + inside, _PAGE, 0):  # neither to be read nor written
        raise OSError(ctypes.get_errno(), "mprotect")
    pages[:] = fill
    return pages[inside - nbytes :]
