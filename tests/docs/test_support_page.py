"""docs/support.md says what devices answer."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from hotplug.ops import OPS

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "make_support_page.py"))


@pytest.fixture(scope="module")
def page():
    return TOOL["page"]()


def test_the_page_is_up_to_date(page):
    assert TOOL["PAGE"].read_text(encoding="utf-8") == page, (
        "run tools/make_support_page.py after a change of ops, cases or what a device runs"
    )


def test_every_op_that_computes_is_on_it_and_the_cpu_runs_all(page):
    rows = dict(line.split(" | ")[:2] for line in page.splitlines() if line.startswith("| "))
    computing = {row.name for row in OPS.values() if not row.view and row.family != "leaves"}
    assert {f"| {name}" for name in computing} <= rows.keys()
    assert all(rows[f"| {name}"] != "no" for name in computing)
    assert all("*" not in rows[f"| {name}"] for name in computing)


def test_a_refusal_comes_with_its_reason(page):
    lines = [line.split(" | ", 4) for line in page.splitlines() if line.count(" | ") >= 4]
    assert len(lines) > 80
    for op, *cells, why in lines:
        assert why.strip(" |") or not any(cell == "no" or "*" in cell for cell in cells), op


@pytest.mark.parametrize(
    ("dtypes", "text"),
    [
        ({"bf16", "f16", "f32", "f64"}, "floats"),
        ({"f16", "i8", "i16", "i32", "i64"}, "f16, integers"),
        ({"f32", "bool", "q8_0"}, "f32, q8_0, bool"),
        (set(), ""),
    ],
)
def test_dtypes_of_a_whole_group_have_its_name(dtypes, text):
    assert TOOL["shown"](dtypes) == text
