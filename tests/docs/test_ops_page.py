"""docs/ops.md says what the table says, and finds every op of ggml."""

from __future__ import annotations

import runpy
from pathlib import Path

from hotplug.ops import OPS, composed

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "make_ops_page.py"))


def test_the_page_is_up_to_date():
    assert TOOL["PAGE"].read_text(encoding="utf-8") == TOOL["page"](), (
        "run tools/make_ops_page.py after a change of the op table"
    )


def test_ggmls_ops_are_where_the_page_says():
    known = OPS.keys() | {f"composed.{name}" for name in composed.__all__}
    first = {place.replace(";", ",").split(",")[0] for place in TOOL["GGML"].values()}

    assert first <= known


def test_no_op_of_ggml_is_missing():
    """100 in ggml_op, of which UNARY and GLU stand for 22 and 7 functions."""
    kinds = [name.partition("_")[0] for name in TOOL["GGML"]]

    assert kinds.count("UNARY") == 22
    assert kinds.count("GLU") == 7
    others = TOOL["GGML"].keys() | set(TOOL["LEFT_OUT"])
    assert len([name for name in others if not name.startswith(("UNARY_", "GLU_"))]) == 98
