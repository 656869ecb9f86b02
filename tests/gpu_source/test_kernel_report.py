"""docs/cuda-kernels.md tells of every kernel; `tools/kernel_report.py` makes its tables."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from hotplug.gpu.sources import kernel_names
from hotplug_cuda.peaks import H100

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools"))

import kernel_report  # noqa: E402
import kernel_work  # noqa: E402

PAGE = (ROOT / "docs" / "cuda-kernels.md").read_text(encoding="utf-8")


def kernels_in(block):
    table = re.search(rf"<!-- begin {block} -->\n(.*)<!-- end {block} -->", PAGE, re.DOTALL)
    return re.findall(r"^\| (\w+) \|", table[1], re.MULTILINE)[1:]  # without the head


@pytest.mark.parametrize("block", ["h100", "architectures"])
def test_every_kernel_has_a_row(block):
    missing = set(kernel_names()) - set(kernels_in(block))
    names = " ".join(sorted(missing))
    assert not missing, f"python tools/kernel_report.py --write --most 8 --kernel {names}"
    assert set(kernels_in(block)) <= set(kernel_names())


def test_every_time_is_said_to_be_derived():
    rows = [line for line in PAGE.splitlines() if re.match(r"\| \w+ \| .* microseconds? \|", line)]
    assert len(rows) == 1  # the head
    block = PAGE.partition("<!-- begin h100 -->")[2].partition("<!-- end h100 -->")[0]
    lines = block.strip().splitlines()[2:]
    assert lines
    assert all(line.endswith(("| not measured |", "| |")) for line in lines)


def test_work_is_counted_by_hand():
    load = kernel_work.load_of("matvec", kernel_report.CUDA)
    assert load.nbytes == 4096 * 4096 * 18 // 32 + 2 * 4 * 4096
    assert load.flops == 2 * 4096 * 4096
    seconds = H100.seconds(load.nbytes, load.flops)
    assert seconds == load.nbytes / 3350e9
    assert kernel_report._limit(load) == ("memory", f"{1e6 * seconds:.3g}")


def test_a_kernel_without_an_entry_gets_a_test_case(monkeypatch):
    monkeypatch.setattr(kernel_work, "TYPICAL", {})
    load = kernel_work.load_of("triangle", kernel_report.CUDA)
    assert load.launch.variant.file == "triangle"
    assert load.nbytes > 0


def test_rows_are_renewed_beside_those_that_stay():
    page = "a\n<!-- begin t -->\nold\n|---|\n| argmax | 1 |\n| gone | 2 |\n<!-- end t -->\nb\n"
    filled = kernel_report.filled(page, "t", "head", {"add_rows": "| add_rows | 3 |"})
    assert filled == (
        "a\n<!-- begin t -->\nhead\n| add_rows | 3 |\n| argmax | 1 |\n<!-- end t -->\nb\n"
    )
