"""Amounts for people."""

from __future__ import annotations

__all__ = ["size_text", "time_text"]


def size_text(nbytes: int) -> str:
    """Bytes in powers of 1000, as disks are sold: "83.3 MB"."""
    value = float(nbytes)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def time_text(seconds: float) -> str:
    """Seconds, or thousandths or millionths of one: "6.97 ms"."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
