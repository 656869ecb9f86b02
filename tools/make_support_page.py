"""Writes docs/support.md: which device runs which op with which dtypes, and why not the others.

    python tools/make_support_page.py          writes the page
    python tools/make_support_page.py --check  ends with 1 if it is not up to date

Every node of the conformance cases is put to each device's `supports`. That of GPUs asks the
catalog, for which a device's capabilities are enough: no GPU is needed, and nothing is compiled.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from hotplug.backend import Support
from hotplug.dtypes import DTYPES
from hotplug.gpu import catalog
from hotplug.gpu.driver import Capabilities
from hotplug.node import Node
from hotplug.ops import OPS
from hotplug.testing.conformance.cases import all_cases
from hotplug_cpu import backend as cpu

PAGE = Path(__file__).parents[1] / "docs" / "support.md"

GPU = Capabilities(
    dialect="opencl", identity="", is_cpu=False, f64=True, alignment=64, max_items=256,
    local_bytes=32 << 10, max_buffer=1 << 40, int8=True,
)  # fmt: skip

Ask: TypeAlias = Callable[[Node], Support]

GROUPS = {
    "floats": ("bf16", "f16", "f32", "f64"),
    "integers": ("i8", "i16", "i32", "i64"),
    "quantised": tuple(sorted(row.name for row in DTYPES.values() if row.quantised)),
}

QUANTISED = re.compile(rf"\b({'|'.join(GROUPS['quantised'])})\b")

HEAD = f"""# Support

Made by `tools/make_support_page.py` from the conformance cases and what devices answer about them.
`cuda` stands for GPUs of compute capability 7.5 or later, `opencl` for devices with f64; others
answer "the device does not compute in f64", and those with less than {GPU.max_items} work-items in
a group or {GPU.local_bytes >> 10} KiB of local memory may refuse more. What a device does not run,
another takes over, the CPU at last. Views (reshape, slice ...) run everywhere and are not listed.

A cell has the dtypes that run: of the first quantised operand, else of the first operand. A star
means that it depends on the other operands or the result.

| | |
|---|---|
"""


def devices() -> dict[str, Ask]:
    """What answers for each kind of device."""
    cuda = dataclasses.replace(GPU, dialect="cuda", max_items=1024, local_bytes=48 << 10)
    return {
        "cpu": cpu.open(cpu.probe()[0]).supports,
        "opencl": functools.partial(catalog.supports, capabilities=GPU),
        "cuda": functools.partial(catalog.supports, capabilities=cuda),
    }


def nodes() -> dict[str, dict[str, list[Node]]]:
    """Nodes of all cases by op and dtype, each once."""
    found: dict[str, dict[str, dict[Node, None]]] = {}
    for case in all_cases():
        for node in case.graph.nodes:
            if not node.is_leaf and not OPS[node.op].view:
                found.setdefault(node.op, {}).setdefault(dtype_of(node), {})[node] = None
    return {op: {d: list(some) for d, some in table.items()} for op, table in found.items()}


def dtype_of(node: Node) -> str:
    """The dtype that counts: of weights and caches where they are quantised."""
    values = [*node.operands, node]
    quantised = (value.dtype.name for value in values if value.dtype.quantised)
    return next(quantised, values[0].dtype.name)


def page() -> str:
    """The whole page."""
    asked = devices()
    groups = "".join(f"| {name} | {', '.join(some)} |\n" for name, some in GROUPS.items())
    parts = [HEAD, groups, "\n"]
    known = nodes()
    for family in dict.fromkeys(row.family for row in OPS.values()):
        names = [row.name for row in OPS.values() if row.family == family and row.name in known]
        if names:
            columns = " | ".join(asked)
            parts.append(
                f"## {family}\n\n| op | {columns} | why not |\n|{'---|' * (len(asked) + 2)}\n"
            )
            parts += [line(name, known[name], asked) for name in names]
            parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def line(op: str, table: Mapping[str, list[Node]], asked: Mapping[str, Ask]) -> str:
    """A row of the page."""
    cells = []
    reasons: dict[tuple[str, str], list[str]] = {}  # (device, reason) -> dtypes
    for device, ask in asked.items():
        refused = {dtype: refusals(ask, some) for dtype, some in table.items()}
        for dtype, texts in refused.items():
            for text in dict.fromkeys(QUANTISED.sub("quantised", text) for text in texts):
                reasons.setdefault((device, text), []).append(dtype)
        whole = [dtype for dtype, texts in refused.items() if not texts]
        partly = [dtype for dtype, texts in refused.items() if 0 < len(texts) < len(table[dtype])]
        cells.append(", ".join(filter(None, (shown(whole), shown(partly, "*")))) or "no")
    return f"| {op} | {' | '.join(cells)} | {why(reasons, set(table))} |\n"


def refusals(ask: Ask, some: Iterable[Node]) -> list[str]:
    """Why some nodes are not run, a reason for each that is not."""
    return [answer.reason for node in some if not (answer := ask(node))]


def why(reasons: Mapping[tuple[str, str], list[str]], whole: set[str]) -> str:
    """All reasons of an op, equal ones of several devices together."""
    together: dict[tuple[str, str], list[str]] = {}
    for (device, text), dtypes in reasons.items():
        of = "" if set(dtypes) == whole else f" ({shown(dtypes)})"
        together.setdefault((text, of), []).append(device)
    texts = (f"{', '.join(some)}: {text}{of}" for (text, of), some in together.items())
    return "; ".join(texts).replace("|", "\\|")


def shown(dtypes: Iterable[str], mark: str = "") -> str:
    """Names of dtypes, those of a whole group by its name."""
    left = set(dtypes)
    words = []
    for name, some in GROUPS.items():
        present = [dtype for dtype in some if dtype in left]
        words += [name] if len(present) == len(some) else present
        left -= set(some)
    return ", ".join(word + mark for word in [*words, *sorted(left)])


def main() -> int:
    """Write or check the page; the exit status."""
    text = page()
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
