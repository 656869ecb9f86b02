"""What sessions make of wishes: pins, shares, budgets, a workload; warnings that are given once."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import DeviceType, MemoryInfo
from hotplug.dtypes import get
from hotplug.errors import (
    DeviceLostError,
    DeviceNotFoundError,
    FallbackWarning,
    PinError,
    UnsupportedOpError,
    UsageError,
)
from hotplug.graph import Graph
from hotplug.placement import Link, Plan, Rates
from hotplug.session import Session
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.fakes import FakeDevice, Fault
from hotplug.testing.graphs import DecoderShape, decoder, layers

WIDTH, COUNT = 16, 4
BYTES = 4 * WIDTH * WIDTH
EYE = np.eye(WIDTH, dtype=np.float32)
WEIGHTS = {
    f"blk.{number}.w": HostTensor(
        TensorType(get("f32"), (WIDTH, WIDTH)), EYE.reshape(-1).view(np.uint8)
    )
    for number in range(COUNT)
}


def device(name: str, *faults: Fault, **options: object) -> FakeDevice:
    kind = DeviceType.CPU if name.startswith("cpu") else DeviceType.GPU
    host = name.startswith("cpu")
    return FakeDevice(name, type=kind, is_host=host, faults=faults, **options)  # type: ignore[arg-type]


def chain(rows: int = 1) -> Graph:
    return layers(COUNT, WIDTH, rows)


def homes(plan: Plan) -> list[str]:
    return [plan.choices[node].device for node in plan.graph.weights.values()]


def ones(rows: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.ones((rows, WIDTH), np.float32)}


def test_wishes_reach_the_plan_and_the_run() -> None:
    with Session(
        [device("a:0"), device("b:0")], WEIGHTS, split=(1, 1), pins={r"blk\.0": "b:0"}
    ) as session:
        program = session.compile(chain())
        assert homes(program.plan) == ["b:0", "a:0", "b:0", "b:0"]
        assert (program.run(ones())["y"] == 1).all()


def test_a_budget_is_kept_and_told() -> None:
    with Session([device("a:0"), device("b:0")], WEIGHTS, budgets={"a:0": 3 * BYTES}) as session:
        plan = session.plan(chain())
        assert 0 < plan.memory["a:0"].total <= 3 * BYTES
        assert plan.budgets["a:0"] == 3 * BYTES
        assert homes(plan)[-1] == "b:0"


@pytest.mark.parametrize(
    ("wishes", "error", "says"),
    [
        ({"pins": {"blk": "c:0"}}, DeviceNotFoundError, "the pin 'blk' names c:0"),
        ({"budgets": {"c:0": 1}}, DeviceNotFoundError, "a budget names c:0"),
        ({"split": (1, 2, 3)}, UsageError, "for each of the 2 devices"),
        ({"mode": "sideways"}, UsageError, "mode 'sideways' is none of layer, pipeline, tensor"),
        ({"mode": "tensor", "host_experts": True}, UsageError, "none stay on the host"),
        ({"device_timeout": 0}, UsageError, "seconds above 0, not 0"),
        ({"device_timeout": float("nan")}, UsageError, "seconds above 0, not nan"),
        ({"budgets": {"a:0": "8GiB"}}, UsageError, "a number of bytes, not '8GiB' of a:0"),
        ({"budgets": {"a:0": -1}}, UsageError, "a number of bytes, not -1 of a:0"),
        ({"fallback": "never"}, UsageError, "fallback 'never' is none of error, warn, allow"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(wishes, error, says) -> None:
    with pytest.raises(error, match=says):
        Session([device("a:0"), device("b:0")], WEIGHTS, **wishes)


def test_two_devices_of_one_name_are_refused_and_one_device_twice_is_one() -> None:
    card = device("a:0")
    assert len(Session([card, card], WEIGHTS).devices) == 1
    with pytest.raises(UsageError, match="two different devices are both called a:0"):
        Session([card, device("a:0")], WEIGHTS)


@pytest.mark.parametrize("often", [[], [-1], [0], [float("nan")], [float("inf")]])
def test_a_workload_that_is_none_is_refused(often: list[float]) -> None:
    with (
        Session([device("a:0"), device("b:0")], WEIGHTS) as session,
        pytest.raises(UsageError, match="workload"),
    ):
        session.settle({chain(rows): times for rows, times in enumerate(often, 1)})


def test_each_run_has_its_rows() -> None:
    with Session([device("a:0")], WEIGHTS) as session:
        with pytest.raises(UsageError, match="2 runs write 1 ranges of rows"):
            session.run_all(chain(), [ones(), ones()], rows=[(0, 1)])
        assert session.run_all(chain(), []) == []


def test_a_plan_for_some_of_the_devices_changes_nothing() -> None:
    devices = [device("a:0"), device("b:0"), device("cpu:0")]
    wishes = {"split": (1, 2, 1), "pins": {r"blk\.0": "a:0"}, "budgets": {"cpu:0": 10**6}}
    with Session(devices, WEIGHTS, **wishes) as session:  # type: ignore[arg-type]
        before = session.compile(chain()).plan
        plan = session.plan(chain(), "cpu,b")
        assert homes(plan) == ["cpu:0", "b:0", "b:0", "b:0"]
        assert tuple(plan.budgets) == ("cpu:0", "b:0")
        assert plan.budgets["cpu:0"] == 10**6
        assert homes(session.plan(chain(), "a:0")) == ["a:0"] * COUNT
        assert session.compile(chain()).plan is before
        assert homes(session.plan(chain())) == homes(before)
        with pytest.raises(DeviceNotFoundError, match="the plan names gpu:7, which is not among"):
            session.plan(chain(), "gpu:7")
        np.testing.assert_array_equal(session.run(chain(), ones())["y"], ones()["x"])


def test_where_a_device_cannot_tell_what_is_free_it_is_filled_up_to_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card, cpu = device("a:0"), device("cpu:0")
    monkeypatch.setattr(card, "memory", lambda: MemoryInfo(total=int(2.5 * BYTES), free=None))
    with Session([card, cpu], WEIGHTS) as session:
        for count, expected in ((2, []), (COUNT, ["cpu:0", "cpu:0"])):
            plan = session.compile(layers(count, WIDTH, 1)).plan
            assert homes(plan) == ["a:0", "a:0", *expected]
            assert plan.free["a:0"] is None


def test_the_first_graph_has_to_know_every_pin_and_later_ones_need_not() -> None:
    x = ops.input(name="x", dtype="f32", shape=(2,))
    other = Graph.build({"y": ops.exp(x)})
    pins = {r"blk\.1": "b:0", "relu": "b:0"}
    with Session([device("a:0"), device("b:0")], WEIGHTS, pins=pins) as session:
        session.compile(chain())
        assert session.plan(other).devices == ("a:0",)
    with (
        Session([device("a:0"), device("b:0")], WEIGHTS, pins=pins) as session,
        pytest.raises(PinError, match="fits no weight, state or op"),
    ):
        session.plan(other)


def test_pins_and_shares_of_a_device_that_failed_are_left() -> None:
    lost = device("b:0", Fault("run", DeviceLostError("gone")))
    pins, split = {r"blk\.0": "b:0"}, (1, 1)
    with Session(
        [device("a:0"), lost], WEIGHTS, pins=pins, split=split, fallback="allow"
    ) as session:
        program = session.compile(chain())
        assert "b:0" in homes(program.plan)
        assert (program.run(ones())["y"] == 1).all()
        assert set(homes(program.plan)) == {"a:0"}


SPEEDS = {
    "a:0": Rates(1e12, 1e11, Link(1e-9, 1e12), Link(1e-9, 1e12), gemv={"f32": 1e8}),
    "b:0": Rates(1e9, 1e11, Link(1e-9, 1e12), Link(1e-9, 1e12)),
}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "hotplug.session.planning.known_rates", lambda info, threads: SPEEDS.get(info.id)
    )


@pytest.mark.usefixtures("known")
def test_a_workload_is_settled_before_anything_is_stored() -> None:
    """The one reads weights slowly, the other computes slowly: one row is the other's, many not."""
    one, many = chain(1), chain(64)
    devices = [device("a:0"), device("b:0")]
    with Session(devices, WEIGHTS) as session:
        assert set(homes(session.plan(one))) != set(homes(session.plan(many)))
        plan = session.settle({one: 1.0, many: 1000.0})
        assert not any(d.calls["allocate"] for d in devices)
        assert session.plan(one) is plan
        home = set(homes(plan))
        assert home == set(homes(session.plan(many)))
        program = session.compile(many)
        program.run(ones(64))
        assert home == set(homes(session.compile(one).plan))


@pytest.mark.parametrize("speeds", [False, True])
def test_what_is_shown_after_settling_is_what_runs_at_any_width(
    monkeypatch: pytest.MonkeyPatch, speeds: bool
) -> None:
    """The embedding, which is the last weight as well, is on both devices: two parts, not three."""
    if speeds:
        rate = Rates(1e9, 1e9, Link(1e-3, 1e8), Link(1e-3, 1e8), launch=1e-3, source="measured")
        monkeypatch.setattr("hotplug.session.planning.known_rates", lambda info, threads: rate)
    graphs = [decoder(replace(SMALL, tokens=width)) for width in (1, 4, 3)]
    weights = {
        name: HostTensor(node.type, np.zeros(node.type.nbytes, np.uint8))
        for name, node in graphs[0].weights.items()
    }
    with Session([device("a:0"), device("b:0")], weights, split=(1, 1)) as session:
        shown = session.settle({graphs[0]: 10.0, graphs[1]: 1.0})
        assert [part.device for part in shown.parts] == ["a:0", "b:0"]
        assert all("embedding" in part.graph.weights for part in shown.parts)
        for graph in (graphs[2], *graphs):
            plan = session.compile(graph).plan
            assert [part.device for part in plan.parts] == ["a:0", "b:0"]
            assert [choice.device for choice in plan.choices.values()] == [
                choice.device for choice in shown.choices.values()
            ]


SMALL = DecoderShape(
    layers=2, width=32, hidden=64, heads=2, kv_heads=1, head=16, vocabulary=64, context=8, tokens=1
)


@pytest.mark.usefixtures("known")
def test_what_was_settled_is_settled_anew_when_devices_come() -> None:
    one, many = chain(1), chain(64)
    with Session([device("b:0")], WEIGHTS) as session:
        session.settle({many: 1.0, one: 1.0})
        assert set(homes(session.plan(many))) == {"b:0"}
        session.add_device(device("a:0"), place=0)
        assert set(homes(session.plan(many))) == {"a:0"}


def test_a_warning_is_given_once() -> None:
    gone = DeviceLostError("it fell off")
    flaky = device("gpu:0", Fault("run", gone))
    with Session([flaky, device("cpu:0")], WEIGHTS, fallback="warn") as session:
        program = session.compile(chain())
        with pytest.warns(FallbackWarning, match="it fell off"):
            program.run(ones())
        session.restore("gpu:0")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (program.run(ones())["y"] == 1).all()
        assert "gpu:0" in session.failed


def test_ops_that_run_on_a_later_device_are_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    picky = device("gpu:0", unsupported={"relu"})
    with Session([picky, device("cpu:0")], WEIGHTS) as session:
        with caplog.at_level(logging.INFO, "hotplug.session"):
            plan = session.plan(chain(1))
            session.plan(chain(2))
        assert plan.stats.fallbacks == {("gpu:0", "relu"): COUNT}
        assert plan.to_json()["stats"]["fallbacks"] == [
            {"device": "gpu:0", "op": "relu", "nodes": COUNT}
        ]
    told = [text for text in caplog.messages if "does not run relu" in text]
    assert told == [f"gpu:0 does not run relu: {COUNT} node(s) run elsewhere"]


def test_a_later_device_does_not_take_over_where_that_is_an_error() -> None:
    devices = [device("gpu:0", unsupported={"relu"}), device("cpu:0")]
    with Session(devices, WEIGHTS, fallback="error") as session:
        told = "gpu:0 does not run relu, and no other device may: "
        with pytest.raises(UnsupportedOpError, match=told) as caught:
            session.compile(chain())
        assert caught.value.op == "relu"
        assert set(caught.value.reasons) == {"gpu:0"}
        assert "fallback policy" in (caught.value.remedy or "")
        with pytest.raises(UnsupportedOpError, match=told):
            session.settle({chain(): 1.0})


@pytest.mark.parametrize("wish", [{"split": (0, 1)}, {"budgets": {"gpu:0": 0}}])
def test_what_a_device_that_is_to_be_idle_does_not_run_is_no_fallback(wish) -> None:
    devices = [device("gpu:0", unsupported={"relu"}), device("cpu:0")]
    with Session(devices, WEIGHTS, fallback="error", **wish) as session:
        plan = session.compile(chain()).plan
    assert plan.devices == ("cpu:0",)
    assert plan.stats.refused == {("gpu:0", "relu"): COUNT}
    assert not plan.stats.fallbacks


def test_what_is_pinned_to_a_later_device_is_no_fallback() -> None:
    devices = [device("gpu:0", unsupported={"relu"}), device("cpu:0")]
    with Session(devices, WEIGHTS, pins={"relu": "cpu:0"}, fallback="error") as session:
        plan = session.compile(chain()).plan
    assert plan.stats.refused == {("gpu:0", "relu"): COUNT}
    assert not plan.stats.fallbacks
