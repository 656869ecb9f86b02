"""A kernel's source: its definitions, the page of its dialect, what all share, and the kernel."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotplug.gpu import blocks

__all__ = [
    "DIALECTS", "Variant", "kernel_names", "page", "parameters", "quote", "source_of",
    "uses_local_memory",
]  # fmt: skip

_HERE = Path(__file__).resolve().parent
_LOCAL = re.compile(r"^\s*LOCAL ", re.MULTILINE)
_MARK = "//# "  # begins the line above each file
DIALECTS = ("opencl", "cuda")

_INCLUDES = {
    "elementwise": ("integers.h",),
    "quantise": ("int8.h",),
    "matmul_int8": ("int8.h",),
    "matvec_int8": ("int8.h",),
    "merge": ("order.h",),
    "norm": ("int8.h",),
    "attention": ("attention.h",),
    "combine": ("attention.h",),
    "conv": ("conv.h",),
    "conv_direct": ("conv.h",),
    "im2col": ("window.h",),
    "col2im": ("window.h",),
    "pool": ("window.h",),
    "rope": ("rope.h",),
    "sort": ("order.h",),
    "top": ("order.h",),
    "cached_heads": ("rope.h",),
}
"""What a kernel's file needs besides common.h, and the pages on blocks of QUANT and TARGET."""


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

    def with_items(self, items: int) -> Variant:
        """The same with work-groups of another size."""
        return Variant.of(self.file, {**dict(self.defines), "ITEMS": items}, self.name)

    def __str__(self) -> str:
        shown = (f"{key}={text}" for key, text in self.defines if "\n" not in text)
        return f"{self.name}({', '.join(shown)})"


def source_of(variant: Variant, dialect: str, *, f64: bool, step: bool = False) -> str:
    """The whole text that a device's compiler is given.

    Args:
        variant: the kernel.
        dialect: one of DIALECTS.
        f64: whether the device computes in float64.
        step: whether the kernel becomes a function, see `series`.
    """
    defines = dict(variant.defines)
    pages = ["common.h"]
    for name, pages_of in (("QUANT", blocks.decoding), ("TARGET", blocks.encoding)):
        if quant := defines.get(name):
            defines |= blocks.definitions(quant)
            pages += pages_of(quant)
    pages += [*_INCLUDES.get(variant.file, ()), f"{variant.file}.cl"]
    lines = [f"{_MARK}definitions"]
    lines += [f"#define {key} {_continued(text)}" for key, text in defines.items()]
    if f64:
        lines.append("#define HAS_F64")
    alone = dialect == "opencl" and defines["ITEMS"] == "1"
    dialects = [dialect, *["step"] * step, *["processor"] * alone]
    texts = list(map(page, dialects))
    texts += [_text(f"kernels/{name}") for name in pages]
    return "\n".join([*lines, *texts])


def page(name: str) -> str:
    """A page of macros."""
    return _text(f"dialects/{name}.h")


def parameters(source: str, name: str) -> tuple[int, int]:
    """Where a kernel's parameters begin and end in a source."""
    found = re.search(rf"KERNEL\(ITEMS\)\s+{name}\((.*?)\)\n\{{", source, re.DOTALL)
    if found is None:
        raise ValueError(f"there is no kernel {name}")
    return found.span(1)


@functools.cache
def uses_local_memory(file: str) -> bool:
    """Whether the items of a group of a kernel, by its file's name, share memory."""
    names = (f"{file}.cl", *_INCLUDES.get(file, ()))
    return any(_LOCAL.search(_text(f"kernels/{name}")) for name in names)


def quote(source: str, number: int) -> str:
    """A line of a source, and where it is written.

    Args:
        source: what `source_of` gave, or any other text.
        number: as a compiler counts, from 1.
    """
    lines = source.splitlines()
    text = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    for above in range(min(number, len(lines)) - 1, -1, -1):
        if lines[above].startswith(_MARK):
            return f"line {number - above - 1} of {lines[above].removeprefix(_MARK)}, {text!r}"
    return f"line {number}, {text!r}"


def kernel_names() -> tuple[str, ...]:
    """Every file of kernels."""
    return tuple(sorted(path.stem for path in (_HERE / "kernels").glob("*.cl")))


def _continued(text: str) -> str:
    return text.replace("\n", " \\\n")


@functools.cache
def _text(name: str) -> str:
    return f"{_MARK}{name}\n" + (_HERE / name).read_text(encoding="utf-8")
