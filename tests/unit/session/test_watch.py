"""Traces and observers: what is seen of a run, that it is right, and that it ends when told to."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import DeviceType
from hotplug.dtypes import get
from hotplug.errors import RunCancelledError, UsageError
from hotplug.graph import Graph
from hotplug.session import Observation, Session, StepTime, Trace
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.fakes import FakeDevice
from hotplug_cpu import backend as processor

X = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
WEIGHT = np.arange(16, dtype=np.float32).reshape(4, 4) / 16


def devices() -> list[FakeDevice]:
    """What the first does not run goes to the second."""
    gpu = FakeDevice("gpu:0", unsupported={"tanh"})
    return [gpu, FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)]


def weights() -> dict[str, HostTensor]:
    return {
        "w": HostTensor(TensorType(get("f32"), (4, 4)), WEIGHT.reshape(-1).view(np.uint8)),
    }


def graph() -> Graph:
    """Three parts: on the first device, the second, and the first again."""
    x = ops.input(name="x", dtype="f32", shape=(2, 4))
    w = ops.weight(name="w", dtype="f32", shape=(4, 4))
    total = ops.state(name="total", dtype="f32", shape=(2, 4))
    bent = ops.tanh(ops.matmul(x, w, transpose_b=True))
    return Graph.build({"y": ops.relu(bent)}, {"total": ops.add(total, ops.square(bent))})


BENT = np.tanh(X @ WEIGHT.T)


def events(trace: Trace, kind: str) -> list[dict[str, Any]]:
    found = json.loads(json.dumps(trace.to_json()))["traceEvents"]
    return [event for event in found if event["ph"] == kind]


def test_lanes_of_devices_copies_and_runs() -> None:
    with Session(devices(), weights()) as session:
        with session.traced() as trace:
            session.run(graph(), {"x": X})
        session.run(graph(), {"x": X})  # nobody notes this one
    lanes = {event["tid"]: event["args"]["name"] for event in events(trace, "M")[1:]}
    assert next(iter(lanes.values())) == "run"
    assert set(lanes.values()) == {
        "run", "gpu:0", "cpu:0",
        "copies gpu:0 -> host", "copies gpu:0 -> cpu:0", "copies cpu:0 -> gpu:0",
    }  # fmt: skip
    spans = events(trace, "X")
    assert len([span for span in spans if lanes[span["tid"]] == "run"]) == 1
    parts = [span["name"] for span in spans if lanes[span["tid"]] in {"gpu:0", "cpu:0"}]
    assert [name.partition(":")[0] for name in parts] == ["part 0", "part 1", "part 2"]
    copied = [span["args"]["bytes"] for span in spans if "copies" in lanes[span["tid"]]]
    assert copied == [32, 32, 32]


def test_memory_curves() -> None:
    with Session(devices(), weights()) as session, session.traced() as trace:
        for _ in range(2):
            session.run(graph(), {"x": X})
        held = session.memory()
    counted = [event for event in events(trace, "C") if event["name"] == "memory of gpu:0"]
    assert len(counted) == 2
    assert counted[-1]["args"] == held["gpu:0"]
    assert held["gpu:0"]["weights"] == 64
    assert held["gpu:0"]["states"] == 32


@pytest.mark.parametrize("kernels", ["compiled", "numpy"])
def test_steps_lie_within_their_part(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = processor.probe()[0]
    device = processor.open(info)
    if kernels == "numpy":
        from hotplug_cpu.buffers import HostBufferType
        from hotplug_cpu.interpreter import NumpyExecutable

        memory = HostBufferType(device.id)
        monkeypatch.setattr(device, "compile", lambda part: NumpyExecutable(part, memory))
    with Session([device], weights()) as session:
        expected = session.run(graph(), {"x": X})["y"]
        steps = session.compile(graph()).explain().count("#")
        session.reset()
        with session.traced() as trace:
            got = session.run(graph(), {"x": X})["y"]
        np.testing.assert_allclose(session.read("total"), BENT**2, rtol=1e-5)  # done once
    np.testing.assert_array_equal(got, expected)
    part, *done = sorted(
        (span for span in trace.spans if span.lane == "cpu:0"), key=lambda span: -span.seconds
    )
    assert part.name.startswith("part 0")
    assert len(done) >= min(steps, 4)
    assert all(span.began >= part.began and span.seconds >= 0 for span in done)
    assert sum(span.seconds for span in done) <= part.seconds
    done.sort(key=lambda span: span.began)
    assert all(a.began + a.seconds <= b.began + 1e-9 for a, b in pairwise(done))


def test_steps_in_the_file_do_not_reach_into_each_other_by_rounding() -> None:
    trace = Trace(clock=lambda: 0.0)
    times = [StepTime("gpu:0", str(n), 1e-6 * (n % 7) / 3) for n in range(200)]
    trace.lay_out(1e-7 / 3, times)
    spans = events(trace, "X")
    nanoseconds = [(round(1e3 * span["ts"]), round(1e3 * span["dur"])) for span in spans]
    assert all(ts + dur == after for (ts, dur), (after, _) in pairwise(nanoseconds))


def test_a_trace_without_steps_has_parts_alone() -> None:
    device = processor.open(processor.probe()[0])
    with Session([device], weights()) as session, session.traced(steps=False) as trace:
        session.run(graph(), {"x": X})
    assert [span.lane for span in trace.spans] == ["cpu:0", "run"]


def test_a_file_that_is_valid(tmp_path) -> None:
    with Session(devices(), weights()) as session, session.traced() as trace:
        session.run(graph(), {"x": X})
    trace.save(tmp_path / "out.json")
    saved = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    for event in saved["traceEvents"]:
        assert event["ph"] in {"X", "C", "M"}
        assert isinstance(event["pid"], int)
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] >= 0


def test_values_of_nodes_with_their_devices() -> None:
    seen = {}

    def look(one: object) -> None:
        seen[one.op] = (one.device, one.value())  # type: ignore[attr-defined]

    with Session(devices(), weights()) as session:
        with session.observed(look, "tanh|^matmul.* w$"):
            result = session.run(graph(), {"x": X})
        assert list(seen) == ["matmul", "tanh"]
        assert seen["matmul"][0] == "gpu:0"
        assert seen["tanh"][0] == "cpu:0"
        np.testing.assert_allclose(seen["matmul"][1], X @ WEIGHT.T, rtol=1e-5)
        np.testing.assert_allclose(seen["tanh"][1], BENT, rtol=1e-5)
        assert list(result) == ["y"]


def test_nothing_is_left_when_nobody_looks_any_more() -> None:
    seen: list[object] = []
    gpu, cpu = devices()
    with Session([gpu, cpu], weights()) as session:
        session.run(graph(), {"x": X})
        before, compiled = session.memory(), gpu.calls["compile"]
        with session.observed(seen.append):
            session.run(graph(), {"x": X})
        assert len(seen) == 5
        session.run(graph(), {"x": X})
        assert len(seen) == 5
        assert session.memory() == before
        assert gpu.calls["compile"] == 2 * compiled  # once for itself, once to be looked at


def test_an_observer_ends_the_run_on_all_devices() -> None:
    gpu, cpu = devices()
    with Session([gpu, cpu], weights()) as session:
        with (
            session.observed(lambda one: one.op != "matmul"),
            pytest.raises(RunCancelledError, match=r"after matmul#.* w on gpu:0") as caught,
        ):
            session.run(graph(), {"x": X})
        assert caught.value.op == "matmul"
        assert gpu.calls["run"] == 1
        assert cpu.calls["run"] == 0
        assert session.failed == {}  # the devices are well
        np.testing.assert_allclose(
            session.run(graph(), {"x": X})["y"], np.maximum(BENT, 0), rtol=1e-5
        )


@pytest.mark.parametrize(
    "act",
    [
        lambda session: session.run(graph(), {"x": 2 * X}),
        lambda session: session.remove_device("gpu:0"),
        lambda session: session.reset(),
        lambda session: session.close(),
        lambda session: session.observed(print).__enter__(),
    ],
)
def test_an_observer_cannot_pull_away_what_the_run_works_on(act: Callable[[Session], Any]) -> None:
    def look(_: Observation) -> None:
        with pytest.raises(UsageError, match="cannot be done within a run"):
            act(session)

    with Session(devices(), weights()) as session:
        with session.observed(look):
            got = session.run(graph(), {"x": X})["y"]
        np.testing.assert_allclose(got, np.maximum(BENT, 0), rtol=1e-5)
        assert not session.failed
        session.remove_device("gpu:0")


def test_what_an_observer_raises_reaches_the_caller() -> None:
    def refuse(one: object) -> None:
        raise LookupError("not this one")

    with Session(devices(), weights()) as session:
        with session.observed(refuse), pytest.raises(LookupError, match="not this one"):
            session.run(graph(), {"x": X})
        assert session.failed == {}


@pytest.mark.parametrize(
    ("nodes", "message"), [("softmax", "no node of the graph"), ("(", "no regular expression")]
)
def test_nodes_that_are_not_there(nodes: str, message: str) -> None:
    with (
        Session(devices(), weights()) as session,
        pytest.raises(UsageError, match=message),
        session.observed(print, nodes),
    ):
        session.run(graph(), {"x": X})


def test_two_observers_see_what_each_wants() -> None:
    first: list[str] = []
    second: list[str] = []
    with (
        Session(devices(), weights()) as session,
        session.observed(lambda one: first.append(one.op), "relu"),
        session.observed(lambda one: second.append(one.op), lambda node: node.op == "add"),
    ):
        session.run(graph(), {"x": X})
    assert first == ["relu"]
    assert second == ["add"]
