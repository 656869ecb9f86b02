"""Charts are SVG that shows every point, label and unit, within its bounds."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import pytest
from pictures import Axis, Chart

SVG = "{http://www.w3.org/2000/svg}"
X, Y = Axis("tokens", 1, 512, [1, 8, 64, 512]), Axis("ms <each>", 0.1, 10, [0.1, 1, 10])


def parsed(chart):
    return ET.fromstring(chart.svg())


def texts(root):
    return [element.text for element in root.iter(f"{SVG}text")]


@pytest.fixture
def chart():
    made = Chart("A & B", X, Y)
    made.line([(1, 10), (8, 1), (512, 0.1)], "#ff0000", "ours")
    made.point(64, 5, "#0000ff", "there")
    return made


def test_titles_units_ticks_and_labels_are_shown(chart):
    shown = texts(parsed(chart))
    assert {"A & B", "tokens", "ms <each>", "ours", "there"} <= set(shown)
    assert {"1", "8", "64", "512", "0.1", "10"} <= set(shown)


def test_everything_lies_within_the_picture(chart):
    root = parsed(chart)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for name, x, y in (("text", "x", "y"), ("circle", "cx", "cy"), ("line", "x1", "y1")):
        for element in root.iter(SVG + name):
            assert 0 <= float(element.attrib[x]) <= width
            assert 0 <= float(element.attrib[y]) <= height


def test_more_is_further_right_and_higher_up_by_equal_factors(chart):
    (line,) = parsed(chart).iter(f"{SVG}polyline")
    (x0, y0), (x1, y1), (x2, y2) = (
        tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()
    )
    assert x0 < x1 < x2
    assert y0 < y1 < y2  # downwards
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
    assert (x2 - x0) / (x1 - x0) == pytest.approx(3, abs=0.02)  # 512 is 8 three times


def test_labels_at_one_place_do_not_cover_each_other():
    chart = Chart("", X, Y)
    for name in ("one", "two", "three"):
        chart.point(8, 1, "#000000", name)
    heights = sorted(
        float(e.attrib["y"])
        for e in parsed(chart).iter(f"{SVG}text")
        if e.text in {"one", "two", "three"}
    )
    assert all(b - a >= 12 for a, b in itertools.pairwise(heights))


def test_an_axis_is_logarithmic():
    assert [X.share(value) for value in (1, 8, 512)] == pytest.approx([0, 1 / 3, 1])
