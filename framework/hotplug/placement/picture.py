"""A plan as a picture: what runs where, when, and what memory that takes; and as a graph for dot.

The picture has three panels. The *map* has a column for each layer and a square for each node,
coloured by device; a white dot marks a node that a value is brought to from another device. The
*schedule* has a lane for each device along the expected time, with the copies between them. The
*memory* bars show what a plan takes on each device, and the mark is its budget. Everything tells
more where the mouse rests.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from hotplug import ops
from hotplug.amounts import size_text, time_text
from hotplug.node import Node
from hotplug.placement.plan import Copy, MemoryUse, Plan

__all__ = ["dot", "svg"]

# Okabe and Ito's colours, which people who confuse red and green can tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31", "#666666")
_INK, _FAINT, _LINE = "#1a1a1a", "#666666", "#d9d9d9"
_WIDTH, _MARGIN = 960, 24
_LABEL = 150  # of lanes and bars, at their left
_SQUARE, _TALLEST = 14, 24
_LANE, _BAR = 30, 18


def svg(plan: Plan, title: str = "") -> str:
    """The plan as a picture that stands alone."""
    colours = _colours(plan)
    canvas = _Canvas(title or f"Plan of {sum(not n.is_leaf for n in plan.graph.nodes)} nodes")
    canvas.legend(plan, colours)
    _draw_map(canvas, plan, colours)
    _draw_schedule(canvas, plan, colours)
    _draw_memory(canvas, plan, colours)
    return canvas.text()


def _colours(plan: Plan) -> dict[str, str]:
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(plan.budgets)}


class _Canvas:
    """Grows downwards; `y` is where the next thing goes."""

    def __init__(self, title: str) -> None:
        self.y = 58.0
        self._width = float(_WIDTH)
        self._parts: list[str] = []
        self.words(_MARGIN, 34, title, size=18, weight="600")

    def text(self) -> str:
        """All of it."""
        size = f'viewBox="0 0 {self._width:.0f} {self.y + _MARGIN:.0f}"'
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} width="{self._width:.0f}" '
            'font-family="sans-serif" font-size="12">'
        )
        ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
        return "\n".join([head, ground, *self._parts, "</svg>\n"])

    def widen(self, to: float) -> None:
        """Make room to the right."""
        self._width = max(self._width, to + _MARGIN)

    def add(self, markup: str) -> None:
        """Any markup."""
        self._parts.append(markup)

    def words(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 12,
        fill: str = _INK,
        weight: str = "400",
        anchor: str = "start",
    ) -> None:
        """A line of text."""
        self.add(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
            f'text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'
        )

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, tip: str, radius: int = 2
    ) -> None:
        """A rectangle that tells something."""
        self.add(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'rx="{radius}" fill="{fill}"><title>{escape(tip)}</title></rect>'
        )

    def heading(self, text: str, note: str) -> None:
        """What the next panel shows."""
        self.y += 14
        self.add(
            f'<text x="{_MARGIN}" y="{self.y + 12:.1f}" font-size="14" font-weight="600" '
            f'fill="{_INK}">{escape(text)}<tspan dx="12" font-size="12" font-weight="400" '
            f'fill="{_FAINT}">{escape(note)}</tspan></text>'
        )
        self.y += 28

    def legend(self, plan: Plan, colours: Mapping[str, str]) -> None:
        """Which colour is which device, and what it does."""
        x = float(_MARGIN)
        nodes = [node for node in plan.graph.nodes if not node.is_leaf]
        for device, colour in colours.items():
            count = sum(plan.choices[node].device == device for node in nodes)
            label = f"{device}: {count} nodes, speeds {plan.rates[device].source}"
            self.box(x, self.y - 10, 12, 12, colour, label)
            self.words(x + 18, self.y, label)
            x += 18 + 6.6 * len(label) + 22
            self.widen(x)
        self.y += 8


def _draw_map(canvas: _Canvas, plan: Plan, colours: Mapping[str, str]) -> None:
    columns = _columns(plan)
    canvas.heading("What runs where", "a column for each layer, nodes from top to bottom")
    received: dict[Node, list[Copy]] = {}
    for copy in plan.copies:
        for user in plan.graph.consumers[copy.node]:
            if plan.choices[user].device == copy.target:
                received.setdefault(user, []).append(copy)
    x, top = float(_MARGIN), canvas.y
    for label, nodes in columns:
        canvas.words(x + _SQUARE / 2, top, label, size=9, fill=_FAINT, anchor="middle")
        for place, node in enumerate(nodes):
            y = top + 6 + place * (_SQUARE + 2)
            colour = colours[plan.choices[node].device]
            faint = ops.get(node.op).view
            size = _SQUARE / 2 if faint else _SQUARE
            shift = (_SQUARE - size) / 2
            tip = _tip(plan, node, received.get(node, ()))
            canvas.box(x + shift, y + shift, size, size, colour, tip)
            if node in received:
                canvas.add(
                    f'<circle cx="{x + _SQUARE / 2:.1f}" cy="{y + _SQUARE / 2:.1f}" r="{size / 5}" '
                    'fill="#ffffff" pointer-events="none"/>'
                )
        x += _SQUARE + 6
    _name_rows(canvas, columns, x, top + 6)
    canvas.widen(x)
    tallest = max([len(nodes) for _, nodes in columns], default=0)
    canvas.y = top + 6 + tallest * (_SQUARE + 2) + 6


def _name_rows(
    canvas: _Canvas, columns: Sequence[tuple[str, Sequence[Node]]], x: float, top: float
) -> None:
    """At the right of the map, the ops of the layers that are most frequent."""
    kinds = Counter(tuple([node.op for node in nodes]) for _, nodes in columns)
    row_ops, count = max(kinds.items(), key=lambda kind: kind[1], default=((), 0))
    if count < 3:
        return
    for place, op in enumerate(row_ops):
        y = top + place * (_SQUARE + 2) + _SQUARE - 4
        canvas.words(x + 4, y, op, size=10, fill=_FAINT)
    canvas.widen(x + 6 * max(map(len, row_ops)))


def _tip(plan: Plan, node: Node, received: Iterable[Copy]) -> str:
    choice = plan.choices[node]
    lines = [f"{node.label} {node.type}", f"{choice.device}: {choice.reason}"]
    lines += [f"{size_text(c.nbytes)} brought from {c.source}{_way(plan, c)}" for c in received]
    return "\n".join(lines)


def _columns(plan: Plan) -> list[tuple[str, list[Node]]]:
    """Nodes by layer, in graph order; long columns of graphs without layers are broken."""
    layer: dict[Node, int] = {}
    found: dict[int, list[Node]] = {}
    deepest = max([_number(n.name) for n in plan.graph.nodes if n.op in {"weight", "state"}] + [-1])
    for node in plan.graph.nodes:
        operands = [layer.get(operand, -1) for operand in node.operands]
        layer[node] = max([_number(node.name) if node.op in {"weight", "state"} else -1, *operands])
        if node.is_leaf:
            continue
        unnumbered = [n for n in node.operands if n.op == "weight" and _number(n.name) < 0]
        if unnumbered and max(operands) == deepest >= 0:
            layer[node] = deepest + 1  # what comes behind the last layer
        found.setdefault(layer[node], []).append(node)
    columns = []
    for number, nodes in sorted(found.items()):
        name = "in" if number < 0 else "out" if number > deepest else str(number)
        columns += [
            (name if not start else "", nodes[start : start + _TALLEST])
            for start in range(0, len(nodes), _TALLEST)
        ]
    return columns


def _number(name: str) -> int:
    """The layer that a name tells of, such as 3 of "blk.3.ffn_up.weight"; -1 for none."""
    whole = name.partition("[")[0]  # of "blk.3.ffn_up.weight[0:768]", a piece
    found = re.search(r"(?<![a-zA-Z0-9])[a-zA-Z_]*\.?(\d+)(?![a-zA-Z])", whole)
    return int(found[1]) if found else -1


def _draw_schedule(canvas: _Canvas, plan: Plan, colours: Mapping[str, str]) -> None:
    total = plan.seconds
    note = f"{len(plan.parts)} parts, {len(plan.copies)} copies, {time_text(total)} expected"
    canvas.heading("When", note if plan.stats.known else f"{note}, by speeds that are guesses")
    lanes = {device: canvas.y + place * _LANE for place, device in enumerate(plan.devices)}
    left, width = _MARGIN + _LABEL, _WIDTH - 2 * _MARGIN - _LABEL
    for device, y in lanes.items():
        canvas.words(_MARGIN, y + 15, device)
        canvas.box(left, y + 10, width, 1, _LINE, device, 0)
    ends = dict[str, tuple[float, float]]()
    for event in plan.timeline:
        part, seconds = plan.parts[event.task.part], event.ended - event.computed
        begin = left + width * event.computed / max(total, 1e-12)
        end = left + width * event.ended / max(total, 1e-12)
        y = lanes[part.device]
        for copy in part.receives:
            if copy.name in ends:
                size, way = size_text(copy.nbytes), _way(plan, copy)
                tip = f"{copy.node.name}: {size} from {copy.source} to {copy.target}{way}"
                _draw_copy(canvas, ends[copy.name], (begin, y + 10), tip)
        count = sum(not node.is_leaf for node in part.graph.nodes)
        what = f"part {event.task.part} on {part.device}: {count} nodes"
        tip = f"{what}, {time_text(seconds)} computing"
        canvas.box(begin, y + 2, max(1.5, end - begin), 16, colours[part.device], tip, 3)
        if end - begin > 60:
            canvas.words(begin + 6, y + 14, time_text(seconds), size=11, fill="#ffffff")
        for name, _ in part.graph.outputs:
            ends[name] = end, y + 10
    canvas.y += len(lanes) * _LANE
    _draw_axis(canvas, left, width, total)


def _way(plan: Plan, copy: Copy) -> str:
    return " directly" if plan.is_direct(copy) else ""


def _draw_copy(
    canvas: _Canvas, begin: tuple[float, float], end: tuple[float, float], tip: str
) -> None:
    (x, y), (u, v) = begin, end
    middle = (y + v) / 2
    canvas.add(
        f'<path d="M{x:.1f} {y:.1f} C{x:.1f} {middle:.1f} {u:.1f} {middle:.1f} {u:.1f} {v:.1f}" '
        f'fill="none" stroke="{_FAINT}" stroke-width="1.2"><title>{escape(tip)}</title></path>'
    )


def _draw_axis(canvas: _Canvas, left: float, width: float, total: float) -> None:
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + width * share
        canvas.box(x, canvas.y - 4, 1, 5, _FAINT, time_text(total * share), 0)
        anchor = "start" if not share else "end" if share == 1 else "middle"
        text = time_text(total * share)
        canvas.words(x, canvas.y + 13, text, size=10, fill=_FAINT, anchor=anchor)
    canvas.y += 18


_USES = (("weights", 1.0), ("states", 0.7), ("values", 0.5), ("arena", 0.35))


def _draw_memory(canvas: _Canvas, plan: Plan, colours: Mapping[str, str]) -> None:
    canvas.heading("Memory", "weights, KV cache and other states, values that cross, computing")
    uses = plan.memory
    most = max([1, *(max(use.total, use.budget or 0) for use in uses.values())])
    left, width = _MARGIN + _LABEL, _WIDTH - 2 * _MARGIN - _LABEL - 210
    for device, use in uses.items():
        x, y = float(left), canvas.y
        canvas.words(_MARGIN, y + 13, device)
        room = min(most, _known(plan, device, use))
        canvas.box(left, y, width * room / most, _BAR, "#efefef", device)
        for name, opacity in _USES:
            nbytes = getattr(use, name)
            span = width * nbytes / most
            canvas.add(f'<g fill-opacity="{opacity}">')
            canvas.box(x, y, span, _BAR, colours[device], f"{name}: {size_text(nbytes)}", 0)
            canvas.add("</g>")
            x += span
        if use.budget is not None and use.budget <= most:
            mark = left + width * use.budget / most
            tip = f"budget: {size_text(use.budget)}"
            canvas.box(mark - 1, y - 3, 2, _BAR + 6, "#c00000", tip, 0)
        canvas.words(left + width + 12, y + 13, _told(plan, device, use), fill=_FAINT)
        canvas.y += _BAR + 10


def _known(plan: Plan, device: str, use: MemoryUse) -> int:
    """Bytes that a device may be filled with, as far as that is known."""
    limits = [most for most in (use.budget, plan.free.get(device)) if most is not None]
    return min(limits, default=use.total)


def _told(plan: Plan, device: str, use: MemoryUse) -> str:
    free = plan.free.get(device)
    if use.budget is not None:
        return f"{size_text(use.total)} of a budget of {size_text(use.budget)}"
    return size_text(use.total) + ("" if free is None else f", {size_text(free)} free")


def dot(plan: Plan) -> str:
    """The plan for Graphviz: parts as clusters, nodes in their device's colour."""
    colours = _colours(plan)
    lines = [
        "digraph plan {",
        "  rankdir=TB;",
        '  node [shape=box, style=filled, fontname="sans"];',
    ]
    for number, part in enumerate(plan.parts):
        lines.append(f"  subgraph cluster_{number} {{")
        lines.append(f"    label={_quoted(f'part {number} on {part.device}')};")
        lines += _dot_nodes(number, part.graph.nodes, colours[part.device])
        lines.append("  }")
    made: dict[str, str] = {}
    for number, part in enumerate(plan.parts):
        for name, node in part.graph.inputs.items():
            if name in made:
                lines.append(
                    f"  {made[name]} -> {_id(number, node)} "
                    f"[style=bold, label={_quoted(size_text(node.type.nbytes))}];"
                )
        made |= {name: _id(number, node) for name, node in part.graph.outputs}
    return "\n".join([*lines, "}", ""])


def _dot_nodes(number: int, nodes: Sequence[Node], colour: str) -> list[str]:
    lines = []
    for node in nodes:
        fill = "#eeeeee" if node.is_leaf else colour
        ink = _INK if node.is_leaf else "#ffffff"
        label = f"{node.op if not node.is_leaf else node.name}\n{node.type}"
        lines.append(
            f"    {_id(number, node)} [label={_quoted(label)}, fillcolor={_quoted(fill)}, "
            f"fontcolor={_quoted(ink)}];"
        )
        lines += [
            f"    {_id(number, operand)} -> {_id(number, node)};" for operand in node.operands
        ]
    return lines


def _id(part: int, node: Node) -> str:
    return f"n{part}_{node.key}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
