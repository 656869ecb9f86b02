"""The page of figures: blocks replaced, sections kept, the page in docs as its figures have it."""

from __future__ import annotations

import json
import re

import pytest
import report
from figures import Row, at_least

MACHINE = {"processor": "P", "threads": 2}
LINE = {
    "kernel": "gemm_u4 ffn_up", "rows": 30, "ms": 4.0, "MB": 100.0, "Mop": 2000.0,
    "on": "bytes", "GB/s": 25.0, "GOP/s": 500.0, "roof, ms": 3.0, "share": 0.75,
}  # fmt: skip
TRACES = [
    {"tokens": tokens, "start": 0, "ms": 5.0, "kernels": [LINE], "waiting, ms": 1.0, "roof, ms": 3}
    for tokens in (1, 512)
]


def section(measured, **more):
    row = Row("decode", measured, "x llama.cpp", at_least(1.25)).as_json()
    return {"title": "tokens", "measured": "today", "rounds": 5, "rows": [row], **more}


def document(**sections):
    order = ["decode", "prefill", "curve", "trace"]
    return {"model": "m.gguf", "machine": MACHINE, "order": order, "sections": sections}


FULL = document(
    decode=section(2.0),
    curve=section(2.0, milliseconds_per_token={"hotplug": [[1, 4.0], [8, 1.0]]}),
    trace=section(
        0.9,
        limits={"GB/s": 25.0, "f32 GFLOP/s": 200.0, "8-bit GOP/s": 800.0},
        traces=TRACES,
    ),
)


def test_blocks_are_replaced_and_the_rest_stays():
    page = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n<!-- begin y --><!-- end y -->\n"
    filled = report.fill(page, {"x": "new \\1", "y": "more"})
    assert filled == (
        "a\n<!-- begin x -->\nnew \\1\n<!-- end x -->\nb\n<!-- begin y -->\nmore\n<!-- end y -->\n"
    )
    assert report.fill(filled, {"x": "new \\1", "y": "more"}) == filled


def test_a_page_without_a_block_is_refused():
    with pytest.raises(ValueError, match="no block x"):
        report.fill("page", {"x": "new"})


def test_sections_that_were_not_measured_again_stay_in_their_order():
    before = document(gone=section(1.0), prefill=section(4.0))
    found = report.merged(before, document(decode=section(3.0)))
    assert list(found["sections"].items()) == [
        ("decode", section(3.0)),
        ("prefill", section(4.0)),
    ]


@pytest.mark.parametrize(
    "change", [{"machine": {"processor": "Q", "threads": 2}}, {"model": "other.gguf"}]
)
def test_figures_of_another_machine_or_model_are_not_mixed_in(change):
    before = {**document(prefill=section(4.0)), **change}
    found = report.merged(before, document(decode=section(3.0)))
    assert list(found["sections"]) == ["decode"]


def test_few_rounds_are_marked():
    assert "PROVISIONAL, 1 round" in report.figures(document(decode={**section(2.0), "rounds": 1}))
    assert "PROVISIONAL" not in report.figures(FULL)


def test_the_blocks_are_what_was_measured():
    found = report.blocks(FULL)
    assert "| decode | 2 x llama.cpp | >= 1.25 | yes |" in found["figures"]
    assert "gemm_u4 ffn_up" in found["trace 512 behind 0"]
    assert "80.0%" in found["trace 512 behind 0"]
    assert "| processor | P |" in found["machine"]


def test_pictures_show_both_programs_the_limits_and_the_kernels():
    curves = {"hotplug": [[1, 4.0], [512, 0.6]], "llama.cpp": [[1, 7.0], [512, 3.4]]}
    assert {"hotplug", "llama.cpp"} <= set(re.findall(">([^<>]+)</text>", report.batches(curves)))
    shown = set(re.findall(">([^<>]+)</text>", report.pictures(FULL)["roofline.svg"]))
    assert {"f32 peak", "8-bit peak", "gemm_u4, 1 token", "gemm_u4, 512 tokens"} <= shown


def test_a_page_is_written_with_its_pictures(tmp_path):
    page = "".join(f"<!-- begin {name} --><!-- end {name} -->\n" for name in report.blocks(FULL))
    (tmp_path / "performance.md").write_text(page)
    report.write(FULL, tmp_path)
    report.write(document(decode=section(3.0)), tmp_path)
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "batches.svg", "roofline.svg",
    }  # fmt: skip
    written = (tmp_path / "performance.md").read_text()
    assert "3 x llama.cpp" in written
    assert "gemm_u4 ffn_up" in written


def test_the_page_in_docs_is_what_its_figures_give():
    stored = json.loads((report.DOCS / "performance.json").read_text(encoding="utf-8"))
    page = (report.DOCS / "performance.md").read_text(encoding="utf-8")
    assert report.fill(page, report.blocks(stored)) == page
    for name, svg in report.pictures(stored).items():
        assert (report.DOCS / "pictures" / name).read_text(encoding="utf-8") == svg
