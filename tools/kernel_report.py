"""What every GPU kernel takes of CUDA's GPUs, and what it can reach on one; no GPU is needed.

    python tools/kernel_report.py                      all kernels, a line each, as Markdown
    python tools/kernel_report.py --json --arch 90     as JSON, for one architecture
    python tools/kernel_report.py --kernel matvec      variants of some kernels alone
    python tools/kernel_report.py --write              docs/cuda-kernels.md, or --kernel's part

Needs NVRTC (`pip install nvidia-cuda-nvrtc`). All of it takes some minutes; `--most 4` looks at so
many variants of each kernel alone.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kernel_work import Load, load_of

from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant, kernel_names, source_of
from hotplug.testing.kernels import variants
from hotplug_cuda.nvrtc import Compiler, open_compiler
from hotplug_cuda.peaks import H100
from hotplug_cuda.usage import ARCHITECTURES, Usage, measure, occupancy

CUDA = Capabilities(
    dialect="cuda", identity="report", is_cpu=False, f64=True, alignment=256, max_items=1024,
    local_bytes=48 << 10, max_buffer=1 << 40, int8=True,
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


def rows(
    compiler: Compiler, kernels: list[str], architectures: list[int], most: int | None = None
) -> Iterator[Row]:
    for kernel in kernels:
        found = [variant for variant in variants(CUDA) if variant.file == kernel]
        for variant in found[:: -(-len(found) // most) if most else 1]:
            yield from (row(compiler, variant, capability) for capability in architectures)


def row(compiler: Compiler, variant: Variant, capability: int) -> Row:
    items = int(dict(variant.defines)["ITEMS"])
    usage = measure(compiler, variant.name, source_of(variant, "cuda", f64=True), capability)
    share = occupancy(usage, items, capability)
    return Row(variant.file, str(variant), f"sm_{capability}", items, usage, share)


def as_json(row: Row) -> str:
    return json.dumps(asdict(row))


def head(architectures: list[int]) -> str:
    names = ("kernel", "variants", "shared bytes", *(f"sm_{number}" for number in architectures))
    return heading(names)


def heading(names: Sequence[str]) -> str:
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


H100_HEAD = (
    "kernel", "work", "launch", "MB", "MFLOP", "registers", "shared bytes", "occupancy", "bound by",
    "least microseconds", "measured",
)  # fmt: skip


def on_h100(compiler: Compiler, kernel: str) -> str:
    """A kernel's typical work, and the time that the roofline gives it."""
    load = load_of(kernel, CUDA)
    if load is None:
        return f"| {kernel} | no test case needs it | {'| ' * (len(H100_HEAD) - 2)}|"
    taken = row(compiler, load.launch.variant, H100.capability)
    x, y = load.launch.groups
    cells = [
        kernel, load.what, f"{x * y} x {load.launch.items} items", f"{load.nbytes / 1e6:.3g}",
        f"{load.flops / 1e6:.3g}", str(taken.usage.registers), str(taken.usage.shared),
        f"{taken.occupancy:.0%}", *_limit(load), "not measured",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _limit(load: Load) -> tuple[str, str]:
    memory, arithmetic = H100.seconds(load.nbytes, 0), H100.seconds(0, load.flops)
    by = "memory" if memory >= arithmetic else "arithmetic"
    return by, f"{1e6 * max(memory, arithmetic):.3g}"


PAGE = Path(__file__).resolve().parents[1] / "docs" / "cuda-kernels.md"


def filled(page: str, block: str, head: str, made: Mapping[str, str]) -> str:
    """A page whose table in a block has new rows beside old ones, of kernels that there are."""
    begin, end = f"<!-- begin {block} -->\n", f"<!-- end {block} -->"
    before, _, rest = page.partition(begin)
    old, _, after = rest.partition(end)
    lines = {**_by_kernel(old), **made}
    table = [head, *(lines[kernel] for kernel in kernel_names() if kernel in lines)]
    return f"{before}{begin}{chr(10).join(table)}\n{end}{after}"


def _by_kernel(table: str) -> dict[str, str]:
    return {found[1]: found[0] for found in re.finditer(r"^\| (\w+) \|.*$", table, re.MULTILINE)}


def write(compiler: Compiler, kernels: Sequence[str], most: int | None) -> None:
    """Take kernels into the page, one after the other, so that a part is better than nothing."""
    architectures = list(ARCHITECTURES)
    for kernel in kernels:
        typical = {kernel: on_h100(compiler, kernel)}
        found = list(rows(compiler, [kernel], architectures, most))
        by = {
            number: [r for r in found if r.architecture == f"sm_{number}"]
            for number in architectures
        }
        page = PAGE.read_text(encoding="utf-8")
        page = filled(page, "h100", heading(H100_HEAD), typical)
        if found:
            page = filled(
                page, "architectures", head(architectures), {kernel: as_markdown(kernel, by)}
            )
        PAGE.write_text(page, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    parser.add_argument("--json", action="store_true", help="a line of JSON for each variant")
    parser.add_argument("--write", action="store_true", help="renew docs/cuda-kernels.md")
    parser.add_argument("--most", type=int, help="variants of each kernel that are looked at")
    parser.add_argument("--arch", type=int, nargs="*", choices=ARCHITECTURES)
    parser.add_argument("--kernel", nargs="*", choices=kernel_names())
    options = parser.parse_args()
    kernels = options.kernel or list(kernel_names())
    architectures = options.arch or list(ARCHITECTURES)
    compiler = open_compiler()
    if options.write:
        write(compiler, kernels, options.most)
    elif options.json:
        for each in rows(compiler, kernels, architectures, options.most):
            print(as_json(each), flush=True)
    else:
        report(compiler, kernels, architectures, options.most)


def report(
    compiler: Compiler, kernels: list[str], architectures: list[int], most: int | None
) -> None:
    print(f"NVRTC {'.'.join(map(str, compiler.version))}. {LEGEND}\n")
    print(head(architectures))
    for kernel in kernels:
        found = {number: list(rows(compiler, [kernel], [number], most)) for number in architectures}
        print(as_markdown(kernel, found), flush=True)
    print(f"\n{heading(H100_HEAD)}")
    for kernel in kernels:
        print(on_h100(compiler, kernel), flush=True)


LEGEND = "Registers of a thread and occupancy, the worst of each kernel's variants."
RAW = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
