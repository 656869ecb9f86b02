"""A kernel's source: its definitions, the page of its dialect, what all share, and the kernel."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["DIALECTS", "Variant", "kernel_names", "source_of"]

_HERE = Path(__file__).resolve().parent
DIALECTS = ("opencl", "cuda")

_INCLUDES = {
    "elementwise": ("integers.h",),
    "matvec": ("quants.h",),
    "matmul": ("quants.h",),
    "take": ("quants.h",),
    "attention": ("quants.h", "attention.h"),
    "combine": ("attention.h",),
}
"""What a kernel's file needs besides common.h."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A kernel specialised by definitions; equal ones are compiled once.

    Attributes:
        file: name of its file in kernels/, without the suffix.
        name: the kernel's name in it.
        defines: (name, text) pairs.
    """

    file: str
    name: str
    defines: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, file: str, defines: Mapping[str, Any], name: str = "") -> Variant:
        """From names and their texts or numbers; None leaves a name undefined."""
        pairs = sorted((key, str(text)) for key, text in defines.items() if text is not None)
        return cls(file, name or file, tuple(pairs))

    def __str__(self) -> str:
        shown = (f"{key}={text}" for key, text in self.defines if "\n" not in text)
        return f"{self.name}({', '.join(shown)})"


def source_of(variant: Variant, dialect: str, *, f64: bool) -> str:
    """The whole text that a device's compiler is given.

    Args:
        variant: the kernel.
        dialect: one of DIALECTS.
        f64: whether the device computes in float64.
    """
    lines = [f"#define {key} {_continued(text)}" for key, text in variant.defines]
    if f64:
        lines.append("#define HAS_F64")
    parts = [_text(f"dialects/{dialect}.h"), _text("kernels/common.h")]
    parts += [_text(f"kernels/{name}") for name in _INCLUDES.get(variant.file, ())]
    parts.append(_text(f"kernels/{variant.file}.cl"))
    return "\n".join([*lines, *parts])


def kernel_names() -> tuple[str, ...]:
    """Every file of kernels."""
    return tuple(sorted(path.stem for path in (_HERE / "kernels").glob("*.cl")))


def _continued(text: str) -> str:
    return text.replace("\n", " \\\n")


@functools.cache
def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
