"""Registers, spills and occupancy of every GPU kernel on every CUDA architecture, without a GPU.

    python tools/kernel_report.py                      all kernels, a line each, as Markdown
    python tools/kernel_report.py --json --arch 90     as JSON, for one architecture
    python tools/kernel_report.py --kernel matvec      variants of some kernels alone

Needs NVRTC (`pip install nvidia-cuda-nvrtc`). All of it takes some minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant, kernel_names, source_of
from hotplug.testing.kernels import variants
from hotplug_cuda.nvrtc import Compiler, open_compiler
from hotplug_cuda.usage import ARCHITECTURES, Usage, measure, occupancy

CUDA = Capabilities(
    dialect="cuda", identity="report", is_cpu=False, f64=True, alignment=256, max_items=1024,
    local_bytes=48 << 10, max_buffer=1 << 40,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A variant on an architecture."""

    kernel: str
    variant: str
    architecture: str
    items: int
    usage: Usage
    occupancy: float


def rows(compiler: Compiler, kernels: list[str], architectures: list[int]) -> Iterator[Row]:
    for variant in variants(CUDA):
        if variant.file in kernels:
            yield from (row(compiler, variant, capability) for capability in architectures)


def row(compiler: Compiler, variant: Variant, capability: int) -> Row:
    items = int(dict(variant.defines)["ITEMS"])
    usage = measure(compiler, variant.name, source_of(variant, "cuda", f64=True), capability)
    share = occupancy(usage, items, capability)
    return Row(variant.file, str(variant), f"sm_{capability}", items, usage, share)


def as_json(row: Row) -> str:
    return json.dumps(asdict(row))


def head(architectures: list[int]) -> str:
    names = ["kernel", "variants", "shared bytes", *(f"sm_{number}" for number in architectures)]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def as_markdown(kernel: str, found: dict[int, list[Row]]) -> str:
    """The worst of a kernel's variants on each architecture."""
    usages = [row.usage for rows in found.values() for row in rows]
    shared = max(usage.shared for usage in usages)
    cells = [kernel, str(len(usages) // len(found)), str(shared), *map(worst, found.values())]
    return f"| {' | '.join(cells)} |"


def worst(found: list[Row]) -> str:
    usages = [row.usage for row in found]
    spills = max(usage.spills for usage in usages)
    stack = max(usage.stack for usage in usages)
    parts = [
        str(max(usage.registers for usage in usages)),
        f"{min(r.occupancy for r in found):.0%}",
    ]
    parts += [f"{spills} B spilled"] if spills else []
    parts += [f"{stack} B local"] if stack else []
    return ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    parser.add_argument("--json", action="store_true", help="a line of JSON for each variant")
    parser.add_argument("--arch", type=int, nargs="*", choices=ARCHITECTURES)
    parser.add_argument("--kernel", nargs="*", choices=kernel_names())
    options = parser.parse_args()
    kernels = options.kernel or list(kernel_names())
    compiler = open_compiler()
    if options.json:
        for each in rows(compiler, kernels, options.arch or list(ARCHITECTURES)):
            print(as_json(each), flush=True)
        return
    architectures = options.arch or list(ARCHITECTURES)
    print(f"NVRTC {'.'.join(map(str, compiler.version))}. {LEGEND}\n")
    print(head(architectures))
    for kernel in kernels:
        found = {number: list(rows(compiler, [kernel], [number])) for number in architectures}
        print(as_markdown(kernel, found), flush=True)


LEGEND = "Registers of a thread and occupancy, the worst of each kernel's variants."
RAW = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
