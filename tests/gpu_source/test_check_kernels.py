"""The check of kernels under Oclgrind finds what it is for; and says how to get Oclgrind."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "check_kernels.py"


def test_without_oclgrind_one_line_says_how_to_get_it(monkeypatch, capsys):
    main = runpy.run_path(str(TOOL))["main"]
    monkeypatch.setitem(main.__globals__, "oclgrind", lambda: None)
    monkeypatch.setattr(sys, "argv", ["check_kernels.py"])
    assert main() == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == ["Oclgrind is not installed: apt-get install oclgrind"]
    assert not said.out


CHANGED = """
import runpy, sys
from hotplug.gpu import sources

intact = sources._text
sources._text = lambda name: intact(name).replace({what!r}, {by!r})
sys.argv = ["check_kernels.py", {file!r}]
runpy.run_path({tool!r}, run_name="__main__")
"""


def check(what, by, file):
    """What is said of a kernel's file in which something is replaced."""
    if runpy.run_path(str(TOOL))["oclgrind"]() is None:
        pytest.skip("Oclgrind is not installed")
    script = CHANGED.format(what=what, by=by, file=file, tool=str(TOOL))
    # Without PoCL's compiler settings or drivers of whoever runs the tests.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OCL")}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "by", "file", "said"),
    [
        ("barrier(CLK_LOCAL_MEM_FENCE)", "", "scan", "data race"),
        ("if (i < shape.size)", "", "copy", "Invalid write"),
        ("x##f", "x", "norm", "without f64"),
    ],
    ids=["a race", "beyond the end", "double"],
)
def test_a_fault_in_a_kernel_is_found(what, by, file, said):
    ended = check(what, by, file)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert said in ended.stdout
    assert ended.stdout.splitlines()[-1] == "FAIL"


@pytest.mark.slow
def test_a_kernel_as_it_is_passes():
    ended = check("", "", "copy")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1].startswith("PASS")
