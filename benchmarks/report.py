"""docs/performance.md: its figures and pictures, made from the last measurements.

    python benchmarks/report.py      renders anew what docs/performance*.json hold

What was measured is kept in docs/performance.json, by section, so that a run of a few sections
renews only those. In the page each block between <!-- begin NAME --> and <!-- end NAME --> is
replaced.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from figures import Row, markdown
from pictures import Axis, Chart
from plan_trace import table

__all__ = ["blocks", "fill", "merged", "pictures", "write"]

DOCS = Path(__file__).resolve().parents[1] / "docs"
_PAGE, _FIGURES, _PICTURES = "performance.md", "performance.json", "pictures"
_OURS, _THEIRS, _ROOF = "#b5360b", "#1f5fa8", "#777777"
_FULL_ROUNDS = 5
_WORTH_SHOWING = 0.01
_NEAR = 1000
"""Tokens in the cache from which on a batch is left out of the roofline, to keep it clear."""


def write(measured: Mapping[str, Any], folder: Path = DOCS) -> None:
    """Take measurements into the page; those with one instruction set have files of their own."""
    isa = measured.get("isa")
    stored = folder / (f"performance-{isa}.json" if isa else _FIGURES)
    before = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
    document = merged(before, measured)
    stored.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    page = folder / _PAGE
    filled = fill(page.read_text(encoding="utf-8"), blocks(document))
    page.write_text(filled, encoding="utf-8")
    (folder / _PICTURES).mkdir(exist_ok=True)
    for name, svg in pictures(document).items():
        (folder / _PICTURES / name).write_text(svg, encoding="utf-8")


def merged(before: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """New sections beside the old ones, unless those are of another machine or model.

    They come in the order that `measured` says, which has no place for what is measured no more.
    """
    kept = before["sections"] if before and _setting(before) == _setting(measured) else {}
    found = {**kept, **measured["sections"]}
    ordered = {name: found[name] for name in measured["order"] if name in found}
    return {**measured, "sections": ordered}


def _setting(document: Mapping[str, Any]) -> tuple[Any, ...]:
    machine = document["machine"]
    return document["model"], machine["processor"], machine["threads"]


def fill(page: str, filling: Mapping[str, str]) -> str:
    """A page with its blocks replaced.

    Raises:
        ValueError: the page lacks a block.
    """
    for name, text in filling.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"the page has no block {name}")
        page = pattern.sub(lambda _: f"{begin}\n{text}\n{end}", page)  # noqa: B023 - used at once
    return page


def blocks(document: Mapping[str, Any]) -> dict[str, str]:
    """The page's blocks by name."""
    if isa := document.get("isa"):
        return {f"machine {isa}": machine(document), f"figures {isa}": figures(document)}
    found = {"machine": machine(document), "figures": figures(document)}
    for traced in document["sections"].get("trace", {}).get("traces", ()):
        name = f"trace {traced['tokens']} behind {traced['start']}"
        found[name] = f"A run takes {traced['ms']:g} ms.\n\n{table(traced, markdown=True)}"
    return found


def machine(document: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {value} |" for name, value in document["machine"].items()]
    return "\n".join(["| | |", "|---|---|", f"| model | {document['model']} |", *lines])


def figures(document: Mapping[str, Any]) -> str:
    """A table for each section."""
    parts = []
    for name, section in document["sections"].items():
        rounds = section["rounds"]
        state = f"{rounds} rounds" if rounds >= _FULL_ROUNDS else f"PROVISIONAL, {rounds} round(s)"
        head = f"**{section['title']}** (`--only {name}`, {section['measured']}, {state})"
        parts.append(f"{head}\n\n{markdown([Row.from_json(row) for row in section['rows']])}")
    return "\n\n".join(parts)


def pictures(document: Mapping[str, Any]) -> dict[str, str]:
    """The page's pictures by file name, as far as there are figures for them."""
    found: dict[str, str] = {}
    sections = {} if document.get("isa") else document["sections"]
    if "curve" in sections:
        found["batches.svg"] = batches(sections["curve"]["milliseconds_per_token"])
    if "trace" in sections:
        found["roofline.svg"] = roofline(sections["trace"])
    return found


def batches(curves: Mapping[str, Any]) -> str:
    """Time per token over the number of tokens read at once."""
    costs = [cost for points in curves.values() for _, cost in points]
    y = axis("milliseconds per token", min(costs), max(costs))
    x = Axis("tokens in a batch", 1, 512, [1 << n for n in range(10)])
    chart = Chart("Time per token, by size of batch (less is better)", x, y)
    for name, colour in (("llama.cpp", _THEIRS), ("hotplug", _OURS)):
        if name in curves:
            chart.line([(x, y) for x, y in curves[name]], colour, name)
    return chart.svg()


def roofline(section: Mapping[str, Any]) -> str:
    """Speed over operations per byte: the machine's limits, and kernels beneath them."""
    limits = section["limits"]
    near = [traced for traced in section["traces"] if traced["start"] < _NEAR]
    kernels = {traced["tokens"]: by_kernel(traced) for traced in near}
    points = [point for traced in kernels.values() for point in traced.values()]
    peak = max(limits["8-bit GOP/s"], limits["f32 GFLOP/s"])
    x = axis("operations per byte moved", 1, max(x for x, _ in points))
    y = axis("thousand million operations per second", min(y for _, y in points), peak)
    chart = Chart("Roofline: where kernels are, and where they could be", x, y)
    for name in ("f32 GFLOP/s", "8-bit GOP/s"):
        knee = limits[name] / limits["GB/s"]
        begin = max(x.low, y.low / limits["GB/s"])
        roof = [(begin, begin * limits["GB/s"]), (knee, limits[name]), (x.high, limits[name])]
        chart.line(roof, _ROOF, f"{name.split()[0]} peak", marked=False, dashed=True)
    labelled = [
        (place, _OURS if tokens == 1 else _THEIRS, f"{name}, {tokens} token{'s'[: tokens - 1]}")
        for tokens, traced in kernels.items()
        for name, place in traced.items()
    ]
    for place, colour, label in sorted(labelled, reverse=True):  # labels are to the right
        chart.point(*place, colour, label)
    return chart.svg()


def by_kernel(traced: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Operations per byte and per nanosecond, of kernels with operations and a share worth it."""
    sums: dict[str, list[float]] = {}
    for line in traced["kernels"]:
        if line["Mop"]:
            total = sums.setdefault(line["kernel"].split()[0], [0.0, 0.0, 0.0])
            for index, part in enumerate(("Mop", "MB", "ms")):
                total[index] += line[part]
    return {
        name: (mop / mb, mop / ms)
        for name, (mop, mb, ms) in sums.items()
        if ms > _WORTH_SHOWING * traced["ms"]
    }


def axis(label: str, least: float, most: float) -> Axis:
    """An axis that holds two values, marked at 1, 2, 5, 10 and so on."""
    marks = [
        step * 10.0**power
        for power in range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 2)
        for step in (1, 2, 5)
    ]
    low = max(mark for mark in marks if mark <= least)
    high = min(mark for mark in marks if mark >= most)
    return Axis(label, low, high, [mark for mark in marks if low <= mark <= high])


if __name__ == "__main__":
    for stored in DOCS.glob("performance*.json"):
        write(json.loads(stored.read_text(encoding="utf-8")))
