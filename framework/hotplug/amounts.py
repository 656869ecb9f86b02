"""Amounts as people write and read them."""

from __future__ import annotations

import re

from hotplug.errors import UsageError

__all__ = ["parse_size", "size_text", "time_text"]

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([kmgt]?)(i?)b?", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes from "8GiB", "8G", "1.5 GB", "12345": powers of 1000, with an "i" of 1024.

    Raises:
        UsageError: it is no size.
    """
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None or (found[3] and not found[2]):
        raise UsageError(f'a size is given as "8GiB", "800MB" or in bytes, not {text[:80]!r}')
    unit = (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " ")
    return int(found[1]) * unit if found[1].isdigit() else int(float(found[1]) * unit)


def size_text(nbytes: int) -> str:
    """Bytes in powers of 1000, as disks are sold: "83.3 MB"."""
    value = float(nbytes)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB" if value < 1000 else f"{value:.0f} GB"


def time_text(seconds: float) -> str:
    """Seconds, or thousandths or millionths of one: "6.97 ms"."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
