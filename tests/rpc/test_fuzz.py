"""Broken messages and handshakes, some thousands; tools/fuzz_rpc.py sends millions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools"))

import fuzz_rpc


@pytest.mark.parametrize("seed", [1, 2])
def test_broken_messages_break_nothing(seed):
    answer = fuzz_rpc.fuzz_messages(4000, seed)
    assert answer["broken"] == []
    answers = answer["answers"]
    assert {
        "ProtocolError",
        "UsageError",
        "DONE",
        "ContentError",
        "SerializationError",
    } <= answers.keys()
    assert "ExecutionError" not in answers or answers["ExecutionError"] < answers["DONE"]


def test_broken_handshakes_leave_nothing():
    answer = fuzz_rpc.fuzz_handshakes(count=30, half_open=60, seed=1)
    assert answer["rounds_of_another_client"] > 0
    assert answer["files_left"] == 0


@pytest.mark.slow
def test_half_open_peers_by_the_hundred():
    answer = fuzz_rpc.fuzz_handshakes(count=300, half_open=400, seed=2)
    assert answer["rounds_of_another_client"] > 20
    assert answer["files_left"] == 0
