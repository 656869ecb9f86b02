"""Modes: several devices at work at once give what one after the other gives, and fail as well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hotplug.backend import DeviceType
from hotplug.errors import (
    DeviceLostError,
    ExecutionError,
    FallbackWarning,
    OutOfDeviceMemoryError,
    RunCancelledError,
    StatesLostError,
)
from hotplug.graph import Graph
from hotplug.placement import parallel
from hotplug.quants import encode
from hotplug.session import CancelToken, Observation, Session
from hotplug.session.control import control_of
from hotplug.tensor import HostTensor
from hotplug.testing.fakes import FakeDevice, Fault
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.recompute import Verifier

TOKENS, RUNS, LAYERS = 3, 5, 4
SHAPE = DecoderShape(
    layers=LAYERS, width=32, hidden=64, heads=4, kv_heads=2, head=8, vocabulary=40,
    context=TOKENS * RUNS, tokens=TOKENS, weights="f32",
)  # fmt: skip


@pytest.fixture(autouse=True)
def cut_small_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_LEAST", 0)


def weights(graph: Graph) -> dict[str, HostTensor]:
    rng = np.random.default_rng(2)
    return {
        name: HostTensor(node.type, encode(rng.standard_normal(node.shape, np.float32), node.dtype))
        for name, node in graph.weights.items()
    }


def batch(runs: int = RUNS) -> list[dict[str, np.ndarray]]:
    """Runs that go on where the one before ended."""
    return [
        {
            "tokens": (np.arange(TOKENS, dtype=np.int32) * 7 + run) % 40,
            "positions": np.arange(TOKENS, dtype=np.int32) + run * TOKENS,
            "rows": np.arange(TOKENS, dtype=np.int32) + run * TOKENS,
        }
        for run in range(runs)
    ]


def rows(runs: int = RUNS) -> list[tuple[int, int]]:
    return [(run * TOKENS, run * TOKENS + TOKENS) for run in range(runs)]


def pins(*devices: str) -> dict[str, str]:
    """Layers and their states, in runs of equal length, on devices."""
    found: dict[str, str] = {}
    for layer in range(LAYERS):
        device = devices[layer * len(devices) // LAYERS]
        found |= dict.fromkeys((f"{layer}.*", f"k{layer}", f"v{layer}"), device)
    return found | {"embedding": devices[0], "norm": devices[0]}


def homes_in(mode: str) -> dict[str, str] | None:
    """Pieces belong to their devices: nothing may be pinned elsewhere."""
    return None if mode == "tensor" else pins("gpu:0", "gpu:1")


def devices(count: int, **options: Any) -> list[FakeDevice]:
    return [FakeDevice(f"gpu:{number}", **options) for number in range(count)]


@pytest.fixture(scope="module")
def expected() -> list[np.ndarray]:
    graph = decoder(SHAPE)
    with Session(devices(1), weights(graph)) as session:
        return [session.run(graph, inputs)["logits"] for inputs in batch()]


def compare(got: list[dict[str, np.ndarray]], expected: list[np.ndarray]) -> None:
    for one, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(one["logits"], wanted, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_runs_in_flight_give_what_one_after_the_other_gives(count: int, expected: Any) -> None:
    graph = decoder(SHAPE)
    used = devices(count)
    ids = [device.id for device in used]
    with Session(used, weights(graph), pins=pins(*ids), mode="pipeline") as session:
        compare(session.run_all(graph, batch(), rows=rows()), expected)
        assert session.plan(graph).devices == tuple(ids)


def test_layers_are_divided_for_all_to_be_equally_busy(expected: Any) -> None:
    graph = decoder(SHAPE)
    with Session(devices(2), weights(graph), mode="pipeline") as session:
        compare(session.run_all(graph, batch(), rows=rows()), expected)
        held = [uses["states"] for uses in session.memory().values()]
    assert held[0] == held[1]  # two layers each


def test_a_device_too_small_for_its_share_gets_less(expected: Any) -> None:
    graph = decoder(SHAPE)
    needed = sum(node.type.nbytes for node in graph.weights.values())
    used = [FakeDevice("gpu:0", memory_bytes=needed // 3), FakeDevice("gpu:1")]
    with Session(used, weights(graph), mode="pipeline", fallback="error") as session:
        compare(session.run_all(graph, batch(), rows=rows()), expected)
        assert session.plan(graph).devices == ("gpu:0", "gpu:1")


def test_a_device_goes_on_while_the_next_is_at_the_run_before(expected: Any) -> None:
    """The second device does not begin its first run before the first is at its second."""
    first, second = devices(2)
    further = threading.Event()
    graph = decoder(SHAPE)
    homes = pins("gpu:0", "gpu:1")
    with Session([first, second], weights(graph), pins=homes, mode="pipeline") as session:
        # Of the first run it has nothing more to do before the second device is done.
        first.add_fault(Fault("run", further.set, call=2))
        second.add_fault(Fault("run", lambda: further.wait(30) or pytest.fail("it never went on")))
        compare(session.run_all(graph, batch(), rows=rows()), expected)
    assert further.is_set()


def test_without_room_for_more_buffers_runs_share_those_there_are(expected: Any) -> None:
    graph = decoder(SHAPE)
    used = devices(2)
    homes = pins("gpu:0", "gpu:1")
    with Session(used, weights(graph), pins=homes, mode="pipeline", fallback="error") as session:
        session.compile(graph)
        before = session.memory()
        full = OutOfDeviceMemoryError("full", device="gpu:1")
        used[1].add_fault(Fault("allocate", full, call=used[1].calls["allocate"] + 2))
        compare(session.run_all(graph, batch(), rows=rows()), expected)
        assert session.memory() == before
        assert session.failed == {}


def test_a_trace_shows_runs_that_overlap() -> None:
    graph = decoder(SHAPE)
    used = devices(2)
    with Session(used, weights(graph), pins=pins("gpu:0", "gpu:1"), mode="pipeline") as session:
        with session.traced(steps=False) as trace:
            session.run_all(graph, batch(3), rows=rows(3))
        parts = session.plan(graph).parts
    lanes = [span.lane for span in trace.spans]
    assert lanes.count("run") == 1
    assert sum(lane.startswith("gpu") for lane in lanes) == 3 * len(parts)


@pytest.mark.parametrize("count", [2, 3])
def test_pieces_of_products_on_all_devices_at_once(count: int, expected: Any) -> None:
    graph = decoder(SHAPE)
    used = devices(count)
    with Session(used, weights(graph), mode="tensor") as session:
        got = [session.run(graph, inputs) for inputs in batch()]
        held = session.memory()
        assert not session.plan(graph).stats.fallbacks  # no device refuses another's piece
    compare(got, expected)
    assert all(device.calls["run"] for device in used)
    assert held["gpu:1"]["weights"] > 0
    assert held["gpu:1"]["states"] > 0


def test_two_devices_are_at_their_pieces_at_once() -> None:
    """Each waits in its first piece until the other is in its own."""
    graph = decoder(SHAPE)
    first, second = devices(2)
    with Session([first, second], weights(graph), mode="tensor") as session:
        session.run(graph, batch()[0])
        parts = session.plan(graph).parts
        alone = sum(part.device == "gpu:0" for part in parts[: _first_piece(parts)])
        both = threading.Barrier(2)
        for device, call in ((first, alone + 1), (second, 1)):
            begun = device.calls["run"]
            device.add_fault(Fault("run", lambda: both.wait(30), call=begun + call, times=1))
        session.run(graph, batch()[1])
    assert not both.broken


def _first_piece(parts: Any) -> int:
    """Number of the first part that a second device could do at the same time."""
    return next(
        n for n, part in enumerate(parts) if any("[" in name for name in part.graph.weights)
    )


@pytest.mark.parametrize("mode", ["layer", "pipeline", "tensor"])
def test_all_modes_are_verified(mode: Any, expected: Any) -> None:
    """In mode tensor it is pieces that are looked at."""
    graph = decoder(SHAPE)
    verifier = Verifier(fail=True)
    seen: list[Observation] = []
    with Session(devices(2), weights(graph), pins=homes_in(mode), mode=mode) as session:
        with session.observed(verifier), session.observed(seen.append, "ffn|down"):
            compare(session.run_all(graph, batch(2), rows=rows(2)), expected[:2])
        compare(session.run_all(graph, batch(), rows=rows()), expected)
    assert verifier.checked > 2 * 15 * LAYERS
    assert {one.device for one in seen} == {"gpu:0", "gpu:1"}
    assert all(("[" in one.name) == (mode == "tensor") for one in seen)


def heirs(mode: str) -> list[FakeDevice]:
    cpu = FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)
    return [*devices(2), cpu]


@pytest.fixture
def warned() -> Iterator[None]:
    with pytest.warns(FallbackWarning):
        yield


@pytest.mark.usefixtures("warned")
@pytest.mark.parametrize("call", [1, 2, 3, 5])
@pytest.mark.parametrize("error", [ExecutionError("bad luck"), DeviceLostError("gone")])
def test_a_fault_while_runs_are_in_flight(error: Exception, call: int, expected: Any) -> None:
    """What was done before it is kept; states that cannot be read are told of."""
    graph = decoder(SHAPE)
    used = heirs("pipeline")
    used[1].add_fault(Fault("run", error, call=call))
    with Session(used, weights(graph), pins=pins("gpu:0", "gpu:1"), mode="pipeline") as session:
        for _ in range(3):
            try:
                got = session.run_all(graph, batch(), rows=rows())
            except StatesLostError:
                continue
            break
        compare(got, expected)
        assert list(session.failed) == ["gpu:1"]


@pytest.mark.usefixtures("warned")
@pytest.mark.parametrize("error", [ExecutionError("bad luck"), DeviceLostError("gone")])
def test_heads_are_divided_anew_without_a_device(error: Exception, expected: Any) -> None:
    graph = decoder(SHAPE)
    used = heirs("tensor")
    with Session(used, weights(graph), mode="tensor") as session:
        session.run(graph, batch()[0], rows=rows()[0])
        used[1].add_fault(Fault("run", error, call=used[1].calls["run"] + 2))
        with pytest.raises(StatesLostError) as lost:
            session.run(graph, batch()[1], rows=rows()[1])
        assert lost.value.rows == 0
        got: list[dict[str, np.ndarray]] = []
        while len(got) < RUNS:
            got.append(session.run(graph, batch()[len(got)], rows=rows()[len(got)]))
        compare(got, expected)
        assert list(session.failed) == ["gpu:1"]


@pytest.mark.parametrize("mode", ["pipeline", "tensor"])
def test_an_error_of_one_device_ends_the_others(mode: Any) -> None:
    graph = decoder(SHAPE)
    used = devices(2)
    used[1].add_fault(Fault("run", ExecutionError("bad luck"), call=2))
    homes = homes_in(mode)
    with (
        Session(used, weights(graph), pins=homes, mode=mode, fallback="error") as session,
        pytest.raises(ExecutionError, match="bad luck"),
    ):
        session.run_all(graph, batch(), rows=rows())
    assert not [thread for thread in threading.enumerate() if "hotplug-run" in thread.name]


@pytest.mark.parametrize("mode", ["pipeline", "tensor"])
def test_runs_are_cancelled(mode: Any) -> None:
    graph = decoder(SHAPE)
    used = devices(2)
    token = CancelToken()
    used[1].add_fault(Fault("run", token.cancel, call=2))
    with Session(used, weights(graph), pins=homes_in(mode), mode=mode) as session:
        with pytest.raises(RunCancelledError):
            session.run_all(graph, batch(), rows=rows(), control=control_of(None, token))
        assert session.failed == {}


def test_nothing_leaks() -> None:
    used = devices(2, memory_bytes=10 << 20)
    free = [device.memory().free for device in used]
    graph = decoder(SHAPE)
    for mode in ("pipeline", "tensor"):
        with Session(used, weights(graph), pins=homes_in(mode), mode=mode) as session:
            session.run_all(graph, batch(), rows=rows())
        assert [device.memory().free for device in used] == free


def test_the_outlook_of_a_pipeline() -> None:
    graph = decoder(SHAPE)
    with Session(devices(2), weights(graph), pins=pins("gpu:0", "gpu:1"), mode="pipeline") as s:
        outlook = s.outlook(graph)
        s.mode = "layer"
        alone = s.outlook(graph)
    assert outlook.seconds(1) == pytest.approx(alone.seconds(1))
    assert outlook.seconds(1) < outlook.seconds(20) < alone.seconds(20)
    assert outlook.depth(20) > 1
    assert alone.depth(20) == 1


def test_the_outlook_of_pieces_is_that_of_devices_at_once() -> None:
    graph = decoder(SHAPE)
    with Session(devices(2), weights(graph), mode="tensor") as session:
        plan, outlook = session.plan(graph), session.outlook(graph)
    assert outlook.seconds(3) == pytest.approx(3 * plan.seconds)
    assert plan.seconds < sum(time.total for time in plan.times)
