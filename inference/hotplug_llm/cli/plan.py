"""`hotplug plan`: what would run where, before anything is loaded."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hotplug.amounts import time_text
from hotplug.cli.render import amount, console, table
from hotplug.errors import UsageError
from hotplug.placement import Copy, Part, Plan, dot, svg
from hotplug_llm.cli.options import add_model, open_model
from hotplug_llm.evaluation import BATCH
from hotplug_llm.model import Model

__all__ = ["PlanCommand", "command"]


class PlanCommand:
    """Shows devices, parts, copies, memory and expected times of generating a token."""

    name = "plan"
    help = "show what of a GGUF model would run where, and why"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        add_model(parser)
        parser.add_argument(
            "--tokens",
            type=int,
            default=1,
            metavar="N",
            help="show the graph that reads so many tokens at once (%(default)s)",
        )
        parser.add_argument(
            "--nodes", action="store_true", help="show every node with its device and the reason"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument("--svg", type=Path, metavar="FILE", help="write a picture of the plan")
        parser.add_argument("--dot", type=Path, metavar="FILE", help="write a graph for Graphviz")

    def run(self, arguments: argparse.Namespace) -> int:
        """Plan; 0, or an error where nothing fits."""
        if not 1 <= arguments.tokens <= BATCH:
            raise UsageError(f"--tokens must be from 1 to {BATCH}, not {arguments.tokens}")
        with open_model(arguments) as model:
            plan = model.plan(arguments.tokens)
            many = "one token" if arguments.tokens == 1 else f"{arguments.tokens} tokens at once"
            title = f"{model.name}: {many}"
            for path, text in ((arguments.svg, svg(plan, title)), (arguments.dot, dot(plan))):
                if path is not None:
                    _write(path, text)
            if arguments.json:
                told = {"model": model.name, "context": model.context, "fitted": model.fitted}
                print(json.dumps(told | plan.to_json()))
            else:
                _print(model, plan, nodes=arguments.nodes)
        return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _print(model: Model, plan: Plan, *, nodes: bool) -> None:
    screen = console()
    screen.print(f"{model.name}, context of {model.context} tokens", markup=False)
    screen.print(table("", *_devices(model, plan)))
    screen.print(table("", *_parts(plan)))
    if plan.copies:
        screen.print(table("", *_copies(plan)))
    if nodes:
        screen.print(plan.table(), markup=False, soft_wrap=True)
    for line in plan.explain().splitlines():
        if line.lstrip()[:1].isdigit():  # the reasons, and the sentence that sums it all up
            screen.print(line, markup=False)


_Table = tuple[list[str], list[tuple[str, ...]], list[str]]


def _devices(model: Model, plan: Plan) -> _Table:
    names = {info.id: info.name for info in model.devices}
    headings = ["device", "name", "speeds", "weights", "KV", "compute", "total", "budget", "free"]
    rows: list[tuple[str, ...]] = []
    for device in plan.budgets:
        use = plan.memory.get(device)
        taken = (use.weights, use.states, use.values + use.arena, use.total) if use else (0,) * 4
        rows.append(
            (
                device,
                names.get(device, ""),
                plan.rates[device].source,
                *map(amount, taken),
                amount(plan.budgets[device]) or "no limit",
                amount(plan.free.get(device)),
            )
        )
    return headings, rows, headings[3:]


def _parts(plan: Plan) -> _Table:
    headings = ["part", "device", "nodes", "weights from", "to", "brought", "expected"]
    rows: list[tuple[str, ...]] = []
    for number, (part, time) in enumerate(zip(plan.parts, plan.times, strict=True)):
        first, last = _ends(part)
        count = sum(not node.is_leaf for node in part.graph.nodes)
        brought = sum(copy.nbytes for copy in part.receives)
        rows.append(
            (
                str(number),
                part.device,
                str(count),
                first,
                last,
                amount(brought) if brought else "",
                time_text(time.total),
            )
        )
    return headings, rows, ["nodes", "brought", "expected"]


def _ends(part: Part) -> tuple[str, str]:
    weights = list(part.graph.weights)
    return (weights[0], weights[-1]) if weights else ("", "")


def _copies(plan: Plan) -> _Table:
    headings = ["copies", "from", "to", "way", "bytes", "expected"]
    ways: dict[tuple[str, str, bool], list[Copy]] = {}
    for copy in plan.copies:
        ways.setdefault((copy.source, copy.target, plan.is_direct(copy)), []).append(copy)
    rows: list[tuple[str, ...]] = []
    for (source, target, direct), copies in ways.items():
        way = "direct" if direct else "by the host"
        nbytes = sum(copy.nbytes for copy in copies)
        seconds = sum(plan.copy_seconds(copy) for copy in copies)
        rows.append((str(len(copies)), source, target, way, amount(nbytes), time_text(seconds)))
    return headings, rows, ["copies", "bytes", "expected"]


command = PlanCommand()
