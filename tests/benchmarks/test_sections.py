"""Sections of the table: what they cover, and the arithmetic of their rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bench
import pytest
import run
from bench import NO_PEER, Outcome, Section, bytes_per_token, ratio_row
from figures import Row, at_least
from programs import prompt, take_turns
from sections import batches, generation

from hotplug.formats.gguf import GGUFFile

RUN = Path(bench.__file__).with_name("run.py")


def test_every_row_of_the_table_has_a_section():
    done = subprocess.run(
        [sys.executable, RUN, "--only", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    names = done.stderr.rpartition("there are ")[2].strip().split(", ")
    assert len(set(names)) == len(names)
    wanted = "decode prefill depth types batches curve matvec gemm start first_run memory idle"
    several = "placement modes scheduler surviving scaling"
    assert {*wanted.split(), *several.split(), "threads", "accuracy", "trace"} == set(names)


def test_the_machine_its_versions_a_table_and_json_are_printed(monkeypatch, capsys):
    row = Row("decode", 1.5, "x llama.cpp", at_least(1.25))
    section = Section("made", "tokens", lambda bench: Outcome([row], {"threads": bench.threads}))
    monkeypatch.setattr(run, "SECTIONS", (section,))
    monkeypatch.setattr(sys, "argv", ["run.py", "--threads", "1"])
    run.main()
    lines, _, rest = capsys.readouterr().out.partition("{\n")
    document = json.loads("{" + rest)
    machine = document["machine"]
    versions = {"python", "hotplug-core", "numpy", "numba", "llvmlite", "llama-cpp-python"}
    assert versions | {"processor", "instruction set", "OpenBLAS", "load before"} <= set(machine)
    assert machine["read bandwidth, GB/s"] > 0.1
    assert all(f"{name}: {value}\n" in lines for name, value in machine.items())
    assert "decode  1.5 x llama.cpp  >= 1.25  yes" in lines
    (made,) = document["sections"].values()
    assert made["rows"] == [row.as_json()]
    assert (made["rounds"], made["threads"]) == (5, 1)


def test_a_share_of_the_bound_is_taken_round_by_round():
    row = generation.bound_row("decode", [1e9, 4e9, 2e9], [9.0, 36.0, 19.0], 100_000_000, 0.9)
    assert row.measured == 0.9
    assert row.met
    assert row.detail == {"MB per token": 100, "GB/s": 2}


def test_the_steepest_rise_is_against_the_next_smaller_batch():
    rates = {1: [1, 2, 1], 8: [4, 9, 8], 2: [2, 4, 2], 4: [1.8, 1, 3]}
    assert batches.steepest_rise(rates) == pytest.approx((2 / 1.8, 4))


def test_costs_are_medians():
    assert batches.milliseconds([[100.0, 50.0], [200.0, 40.0], [250.0, 80.0]]) == [5, 20]


def test_a_ratio_needs_llama_cpp():
    alone = ratio_row("decode", [[264.0], [260.0]], at_least(1.25))
    assert (alone.measured, alone.met) == (None, None)
    assert alone.detail == {"hotplug": 262.0, "llama.cpp": NO_PEER}
    both = ratio_row("decode", [[264.0, 132.0]], at_least(1.25))
    assert (both.measured, both.met) == (2, True)


def test_turns_alternate_after_one_for_warming_up():
    seen = []
    actions = [lambda name=name: seen.append(name) or len(seen) for name in "ab"]
    assert take_turns(actions, 2) == [[3, 4], [5, 6]]
    assert seen == list("ababab")


def test_prompts_have_no_token_twice():
    assert len(set(prompt(4096))) == 4096


def test_a_tied_embedding_is_read_whole(demo_model):
    with GGUFFile.open(demo_model) as file:
        assert "output.weight" not in file.tensors
        assert bytes_per_token(demo_model) == sum(t.type.nbytes for t in file.tensors.values())
