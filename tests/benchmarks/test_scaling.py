"""The benchmark of simulated machines: all divisions are looked at, and the picture is one."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import scaling


def test_every_way_to_divide_layers():
    ways = list(scaling.divisions(4, 3))
    assert len(ways) == len(set(ways)) == 15
    assert all(sum(way) == 4 for way in ways)
    assert (0, 4, 0) in ways


def test_the_picture():
    rows = {
        "pipeline prompt": {1: 10.0, 2: 18.0},
        "tensor": {1: 5.0, 2: 6.0},
        "layer": {1: 5.0, 2: 5.0},
    }
    root = ET.fromstring(scaling.picture(rows))
    lines = [line for line in root.iter() if line.tag.endswith("polyline")]
    assert len(lines) == 4  # the ideal, too
    texts = [text.text for text in root.iter() if text.tag.endswith("text")]
    assert {"prompt, pipeline", "token, tensor", "token, layer", "ideal"} <= set(texts)


def test_tokens_a_second_of_a_machine():
    one = scaling.Cluster.of(scaling.KIND, 1)
    graph = scaling.model(1, 2)
    assert one.run(one.plan(graph, "tensor")).seconds == one.run(one.plan(graph)).seconds
