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


HEAD = """\
| kernel | arch | variants | registers | spilled bytes | local bytes | shared bytes | occupancy |
|---|---|---|---|---|---|---|---|"""


def as_markdown(kernel: str, architecture: str, found: list[Row]) -> str:
    """The worst of a kernel's variants."""
    uses = [row.usage for row in found]
    numbers = [
        len(found), max(u.registers for u in uses), max(u.spills for u in uses),
        max(u.stack for u in uses), max(u.shared for u in uses),
    ]  # fmt: skip
    least = min(row.occupancy for row in found)
    cells = [kernel, architecture, *map(str, numbers), f"{least:.0%}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    parser.add_argument("--json", action="store_true", help="a line of JSON for each variant")
    parser.add_argument("--arch", type=int, nargs="*", choices=ARCHITECTURES)
    parser.add_argument("--kernel", nargs="*", choices=kernel_names())
    options = parser.parse_args()
    kernels = options.kernel or list(kernel_names())
    compiler = open_compiler()
    if options.json:
        for found in rows(compiler, kernels, options.arch or list(ARCHITECTURES)):
            print(as_json(found), flush=True)
        return
    print(f"NVRTC {'.'.join(map(str, compiler.version))}; the worst of each kernel's variants\n")
    print(HEAD)
    for kernel in kernels:
        for capability in options.arch or ARCHITECTURES:
            worst = list(rows(compiler, [kernel], [capability]))
            print(as_markdown(kernel, f"sm_{capability}", worst), flush=True)


RAW = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
