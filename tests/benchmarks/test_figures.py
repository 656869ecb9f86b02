"""Rows of the table: targets, ratios, and how they are shown."""

from __future__ import annotations

import pytest
from figures import Row, at_least, at_most, compare, geometric_mean, markdown, rounded, text

ROWS = [
    Row("decode", 1.5, "x llama.cpp", at_least(1.25), {"hotplug": 264.0, "llama.cpp": 176.0}),
    Row("start", 0.7, "s", at_most(0.6)),
    Row("speed-up", 1.9, "x"),
    Row("Q4_0", None, "x llama.cpp", at_least(1), {"why": "not installed"}),
]


def test_a_target_is_met_missed_absent_or_not_measured():
    assert [row.met for row in ROWS] == [True, False, None, None]


@pytest.mark.parametrize(("target", "met"), [(at_least(2), True), (at_most(2), True)])
def test_a_bound_itself_is_met(target, met):
    assert target.met(2) is met


def test_the_text_has_a_line_for_each_row_in_columns():
    head, *lines = text(ROWS).splitlines()
    assert [line.split()[0] for line in lines] == ["decode", "start", "speed-up", "Q4_0"]
    column = head.index("target")
    assert [line[column:].split("  ")[0].strip() for line in lines] == [
        ">= 1.25", "<= 0.6", "", ">= 1",
    ]  # fmt: skip
    assert "NO" in lines[1]
    assert "not measured" in lines[3]
    assert "hotplug 264, llama.cpp 176" in lines[0]


def test_markdown_is_a_table_of_five_columns():
    lines = markdown(ROWS).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert {line.count("|") for line in lines} == {6}


def test_rows_survive_json():
    assert [Row.from_json(row.as_json()) for row in ROWS] == ROWS


def test_ratios_are_medians_of_the_rounds_ratios_and_not_of_sums():
    pairs = [(100.0, 50.0), (10.0, 10.0), (90.0, 30.0)]
    found = compare(pairs)
    assert (found["ratio"], found["lowest"], found["highest"]) == (2, 1, 3)
    assert (found["hotplug"], found["llama.cpp"]) == (90, 30)


def test_of_seconds_less_is_better():
    assert compare([(1.0, 3.0)], faster=False)["ratio"] == 3


def test_geometric_mean():
    assert geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2)


@pytest.mark.parametrize(("value", "shown"), [(1234.56, 1235), (0.0123456, 0.01235), (0.0, 0.0)])
def test_figures_have_four_digits(value, shown):
    assert rounded(value) == shown
