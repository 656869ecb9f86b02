"""`gpu.py` measures every section on whatever device there is: here on a simulated one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import figures
import gpu
import pytest

from hotplug.errors import BackendLoadError
from hotplug_cuda import backend
from hotplug_cuda.peaks import H100, peaks_of

MEASURED = {
    "memory": 2, "launches": 2, "matvec": 2, "gemm": 4, "attention": 2, "transfers": 3,
    "compile": 1,
}  # fmt: skip


def run(*options, **variables):
    command = [sys.executable, gpu.__file__, *options]
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_every_section_is_measured_on_two_simulated_devices(two_simulated_gpus, tmp_path):
    file = tmp_path / "gpu.json"
    done = run("--quick", "--json", str(file), HOTPLUG_CUDA_SIMULATE="2")
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == report
    assert report["device"]["id"] == "cuda:0"
    rows = {
        name: [figures.Row.from_json({k: v for k, v in row.items() if k != "met"}) for row in rows]
        for name, rows in report["sections"].items()
    }
    measured = {name: sum((row.measured or 0) > 0 for row in rows[name]) for name in rows}
    assert measured == {**MEASURED, "model": 0}
    assert {"f32 x q4_0, 32 rows, library", "f32 x q4_0, 32 rows, hotplug"} <= {
        row.what for row in rows["gemm"]
    }
    assert rows["matvec"][0].detail["roofline"] > 0


def test_a_device_that_is_not_there_is_said_to_be_missing(monkeypatch):
    monkeypatch.delenv("HOTPLUG_CUDA_SIMULATE", raising=False)
    try:
        if backend.probe():
            pytest.skip("there is a GPU")
    except BackendLoadError:
        pass
    done = run("--device", "cuda:0")
    assert done.returncode == 1
    assert "there is no device cuda:0" in done.stderr


def test_data_sheets_are_found_by_the_driver_s_names():
    assert peaks_of("NVIDIA H100 80GB HBM3") is H100
    assert peaks_of("NVIDIA L40S").name == "L40S"
    assert peaks_of("NVIDIA L4").name == "L4"
    assert peaks_of("NVIDIA GeForce RTX 4090 Laptop GPU") is None
    assert peaks_of("Tesla T4").f32 == 8.1e12


def test_the_roofline_is_the_larger_of_two_times():
    assert H100.seconds(3350e9, 1) == 1
    assert H100.seconds(1, 67e12) == 1
    assert H100.seconds(1, 989e12, tensor=True) == 1
