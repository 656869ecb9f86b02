"""Charts with two logarithmic axes, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Chart"]

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 150, 44, 56
_INK, _GRID = "#222222", "#dddddd"
_LINE_HEIGHT = 15
_HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
    'font-family="sans-serif" font-size="12">'
)


@dataclass(frozen=True, slots=True)
class Axis:
    """What is shown along an edge: values from `low` to `high`, marked at `ticks`."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]

    def share(self, value: float) -> float:
        """How far along the axis a value lies, from 0 to 1."""
        return math.log(value / self.low) / math.log(self.high / self.low)


class Chart:
    """A picture that is added to, piece by piece."""

    def __init__(self, title: str, x: Axis, y: Axis) -> None:
        self._x, self._y = x, y
        self._taken: list[tuple[float, float]] = []
        self._parts = [
            _HEAD.format(width=_WIDTH, height=_HEIGHT),
            f"<title>{escape(title)}</title>",
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
            _text(_LEFT, 24, title, size=15),
        ]
        self._axes()

    def line(
        self,
        points: Iterable[tuple[float, float]],
        colour: str,
        label: str,
        *,
        marked: bool = True,
        dashed: bool = False,
    ) -> None:
        """Points joined by a line, with the label at its right end."""
        places = [self._place(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dashes = ' stroke-dasharray="6 4"' if dashed else ""
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
        )
        if marked:
            self._parts += [_dot(x, y, 2.5, colour) for x, y in places]
        self._label(*places[-1], label, colour)

    def point(self, x: float, y: float, colour: str, label: str) -> None:
        """A dot with a label beside it."""
        place = self._place(x, y)
        self._parts.append(_dot(*place, 5, colour))
        self._label(*place, label, colour)
        self._taken.append((place[0], place[1] + 4))

    def svg(self) -> str:
        """The picture."""
        return "\n".join([*self._parts, "</svg>", ""])

    def _place(self, x: float, y: float) -> tuple[float, float]:
        across, up = self._x.share(x), self._y.share(y)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    def _axes(self) -> None:
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        for value in self._x.ticks:
            x, _ = self._place(value, self._y.low)
            self._parts.append(_rule(x, _TOP, x, bottom))
            self._parts.append(_text(x, bottom + 18, f"{value:g}", anchor="middle"))
        for value in self._y.ticks:
            _, y = self._place(self._x.low, value)
            self._parts.append(_rule(_LEFT, y, right, y))
            self._parts.append(_text(_LEFT - 8, y + 4, f"{value:g}", anchor="end"))
        middle = (_LEFT + right) / 2
        self._parts.append(_text(middle, _HEIGHT - 14, self._x.label, anchor="middle"))
        height = (_TOP + bottom) / 2
        self._parts.append(
            _text(18, height, self._y.label, anchor="middle", turned=f"rotate(-90 18 {height})")
        )

    def _label(self, x: float, y: float, text: str, colour: str) -> None:
        """A label to the right of a place, moved up where something is in its way."""
        y += 4
        while any(abs(x - a) < _RIGHT and abs(y - b) < _LINE_HEIGHT for a, b in self._taken):
            y -= 1
        self._taken.append((x, y))
        self._parts.append(_text(x + 9, y, text, colour=colour))


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 12,
    anchor: str = "start",
    colour: str = _INK,
    turned: str = "",
) -> str:
    transform = f' transform="{turned}"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="{colour}"{transform}>{escape(text)}</text>'
    )


def _rule(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{_GRID}"/>'


def _dot(x: float, y: float, radius: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>'
