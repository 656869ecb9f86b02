"""The check of real GPUs runs, on a simulated one, as far as that can show it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "gpu_check.py"


def check(out, *options, **variables):
    command = [sys.executable, str(TOOL), "--out", str(out), *options]
    environment = {**os.environ, "HOTPLUG_CUDA_SIMULATE": "1", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_steps_are_done_and_logged(two_simulated_gpus, tmp_path):
    done = check(tmp_path, "--quick", "--only", "conformance", "model", "benchmarks")
    assert done.returncode in {0, 1}, done.stderr
    assert "== benchmarks: ok" in done.stdout
    assert json.loads((tmp_path / "gpu.json").read_text())["device"]["id"] == "cuda:0"
    # Tests of real GPUs are skipped whole, which pytest tells by its status.
    assert "== conformance: failed (5)" in done.stdout
    assert "devices are simulated" in (tmp_path / "model.log").read_text()
    assert f"not passed: conformance, model; see {tmp_path}" in done.stderr


def test_a_step_has_no_more_time_than_there_is(two_simulated_gpus, tmp_path):
    done = check(tmp_path, "--only", "benchmarks", "--seconds", "0")
    assert done.returncode == 1
    assert "== benchmarks: out of time" in done.stdout
