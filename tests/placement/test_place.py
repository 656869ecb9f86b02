"""Where nodes go, and why: pins, weights, support, budgets, copies, and what is told of it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotplug import ops
from hotplug.backend import DeviceInfo, DeviceType, Support
from hotplug.errors import DeviceNotFoundError, GraphError, PlacementError, UnsupportedOpError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement import Plan, Rates, Wishes, dot, place, svg
from hotplug.tensor import HostTensor
from hotplug.testing.fakes import FakeDevice
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.graphs import layers as chain
from hotplug.testing.oracle import evaluate


def gpu(index: int = 0, **options: object) -> FakeDevice:
    return FakeDevice(f"gpu:{index}", **options)  # type: ignore[arg-type]


def cpu(**options: object) -> FakeDevice:
    return FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True, **options)  # type: ignore[arg-type]


def layers(count: int = 4) -> Graph:
    return chain(count, width=8, rows=2)


def device_of(plan: Plan, op: str) -> list[str]:
    return [plan.choices[node].device for node in plan.graph.nodes if node.op == op]


def test_one_device_takes_the_graph_as_it_is() -> None:
    graph = layers()
    plan = place(graph, [cpu()])
    assert len(plan.parts) == 1
    assert plan.parts[0].graph is graph
    assert plan.devices == ("cpu:0",)
    assert not plan.copies


def test_the_first_device_takes_all_that_it_can() -> None:
    plan = place(layers(), [gpu(), cpu()])
    assert plan.devices == ("gpu:0",)


def test_no_device() -> None:
    with pytest.raises(PlacementError, match="no device"):
        place(layers(), [])


def test_a_node_that_nobody_runs_names_every_reason() -> None:
    devices = [
        gpu(unsupported={"relu"}),
        cpu(unsupported=lambda node: "too hot" * (node.op == "relu")),
    ]
    with pytest.raises(UnsupportedOpError) as caught:
        place(layers(), devices)
    assert caught.value.op == "relu"
    assert caught.value.reasons == {"gpu:0": "gpu:0 refuses relu", "cpu:0": "too hot"}


def test_a_device_whose_supports_raises_loses_the_node_and_no_more() -> None:
    class Broken(FakeDevice):
        def supports(self, node: Node) -> Support:
            if node.op == "relu":
                raise ZeroDivisionError("oops")
            return super().supports(node)

    plan = place(layers(1), [Broken("gpu:0"), cpu()])
    assert device_of(plan, "matmul") == ["gpu:0"]
    assert device_of(plan, "relu") == ["cpu:0"]
    relu = next(node for node in plan.graph.nodes if node.op == "relu")
    assert "oops" in plan.choices[relu].reason


def test_unsupported_ops_go_to_the_other_device_and_come_back() -> None:
    plan = place(layers(3), [gpu(unsupported={"relu"}), cpu()])
    assert device_of(plan, "matmul") == ["gpu:0"] * 3
    assert device_of(plan, "relu") == ["cpu:0"] * 3
    assert [part.device for part in plan.parts] == ["gpu:0", "cpu:0"] * 3
    assert [(copy.source, copy.target) for copy in plan.copies] == [
        ("gpu:0", "cpu:0"),
        ("cpu:0", "gpu:0"),
    ] * 2 + [("gpu:0", "cpu:0")]
    assert all(copy.nbytes == 2 * 8 * 4 for copy in plan.copies)


def test_pins_say_where_weights_live_and_nodes_follow() -> None:
    plan = place(layers(4), [gpu(0), gpu(1)], wishes=Wishes({r"blk\.[23]\.": "gpu:1"}))
    assert device_of(plan, "matmul") == ["gpu:0", "gpu:0", "gpu:1", "gpu:1"]
    assert len(plan.copies) == 1
    weight = plan.graph.weights["blk.2.w"]
    assert plan.choices[weight].reason == "pinned by 'blk\\\\.[23]\\\\.'"


def test_a_pin_to_a_device_not_in_use() -> None:
    with pytest.raises(DeviceNotFoundError) as caught:
        place(layers(), [gpu()], wishes=Wishes({".": "gpu:7"}))
    assert caught.value.available == ("gpu:0",)


def test_weights_fill_devices_in_order() -> None:
    nbytes = 8 * 8 * 4
    plan = place(
        layers(6), [gpu(0), gpu(1), cpu()], budgets={"gpu:0": 2 * nbytes, "gpu:1": 3 * nbytes}
    )
    assert device_of(plan, "matmul") == ["gpu:0"] * 2 + ["gpu:1"] * 3 + ["cpu:0"]
    assert len(plan.parts) == 3
    assert plan.memory["gpu:1"].weights == 3 * nbytes


def test_devices_without_a_link_do_not_take_turns_for_nothing() -> None:
    graph = decoder(SMALL)
    held = sum(node.type.nbytes for node in graph.nodes if node.op in {"weight", "state"})
    devices = [FakeDevice(f"cpu:{n}", type=DeviceType.CPU, is_host=True) for n in range(2)]
    plan = place(graph, devices, budgets={"cpu:0": held // 2})
    assert plan.devices == ("cpu:0", "cpu:1")
    assert len(plan.parts) <= 3


def test_a_full_device_stays_full_for_smaller_weights() -> None:
    x = ops.input(name="x", dtype="f32", shape=(1, 8))
    for name, rows in (("a", 8), ("b", 64), ("c", 8)):
        w = ops.weight(name=name, dtype="f32", shape=(rows, x.shape[-1]))
        x = ops.matmul(x, w, transpose_b=True)
    plan = place(Graph.build({"y": x}), [gpu(), cpu()], budgets={"gpu:0": 4096 - 1024})
    assert device_of(plan, "matmul") == ["gpu:0", "gpu:0", "cpu:0"]
    plan = place(Graph.build({"y": x}), [gpu(), cpu()], budgets={"gpu:0": 2000})
    assert device_of(plan, "matmul") == ["gpu:0", "cpu:0", "cpu:0"]


def test_no_room_anywhere_says_how_much_is_missing() -> None:
    with pytest.raises(PlacementError, match=r"256 bytes needed, 100 left") as caught:
        place(layers(), [gpu()], budgets={"gpu:0": 100})
    assert "gpu:0" in caught.value.reasons


def test_what_no_buffer_of_a_device_holds_goes_elsewhere_and_nothing_else_does() -> None:
    x = ops.input(name="x", dtype="f32", shape=(2, 8))
    for name, width in {"a": 8, "wide": 64, "b": 8}.items():
        x = ops.matmul(x, ops.weight(name=name, dtype="f32", shape=(x.shape[1], width)))
    small = gpu()
    small.buffers.max_bytes = 1024
    plan = place(Graph.build({"y": x}), [small, cpu()])
    homes = {node.name: plan.choices[node].device for node in plan.graph.nodes if node.is_leaf}
    assert homes == {"x": "gpu:0", "a": "gpu:0", "wide": "cpu:0", "b": "cpu:0"}
    with pytest.raises(PlacementError, match="at most 1024 bytes in one piece, 2048 needed"):
        place(Graph.build({"y": x}), [small])


@pytest.mark.parametrize(
    ("forbidden", "gone"),
    [
        ("relu@gpu:0", {"gpu:0"}),
        ("relu@gpu", {"gpu:0", "gpu:1"}),
        ("relu@gpu:1, RELU@gpu:0", {"gpu:0", "gpu:1"}),
        ("rope@gpu", set()),
    ],
)
def test_forbidden_ops_go_elsewhere(
    monkeypatch: pytest.MonkeyPatch, forbidden: str, gone: set[str]
) -> None:
    monkeypatch.setenv("HOTPLUG_FORBID", forbidden)
    plan = place(layers(), [gpu(0), gpu(1), cpu()])
    used = set(device_of(plan, "relu"))
    assert not used & gone
    assert used == {"gpu:0"} or gone
    assert set(device_of(plan, "matmul")) == {"gpu:0"}


def test_an_op_that_is_forbidden_everywhere_names_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOTPLUG_FORBID", "relu@gpu")
    with pytest.raises(UnsupportedOpError, match="gpu:0: HOTPLUG_FORBID names it"):
        place(layers(), [gpu()])


def test_settled_leaves_stay_and_take_no_budget() -> None:
    plan = place(
        layers(2),
        [gpu(0), gpu(1)],
        settled={"blk.0.w": "gpu:1", "blk.1.w": "gpu:1"},
        budgets={"gpu:1": 0},
    )
    assert device_of(plan, "matmul") == ["gpu:1", "gpu:1"]


def test_states_keep_their_users_together() -> None:
    graph = decoder(SMALL)
    plan = place(graph, [gpu(), cpu()], wishes=Wishes({"^k[0-9]": "cpu:0", "^v[0-9]": "cpu:0"}))
    assert set(device_of(plan, "scatter_rows")) == {"cpu:0"}
    assert set(device_of(plan, "scaled_dot_product_attention")) == {"cpu:0"}
    assert set(device_of(plan, "matmul")) == {"gpu:0"}


@pytest.mark.parametrize("shares", [None, (1, 0), (1, 1), (1, 0, 0), (3, 1, 1)])
@pytest.mark.parametrize("refused", ["scatter_rows", "scaled_dot_product_attention"])
def test_states_go_to_a_device_that_runs_all_that_is_done_with_them(
    refused: str, shares: tuple[float, ...] | None
) -> None:
    count = len(shares or "any")
    devices = [gpu(unsupported={refused}), gpu(1), cpu()][:count]
    plan = place(decoder(SMALL), devices, wishes=Wishes(shares=shares))
    (home,) = set(device_of(plan, "scatter_rows"))
    assert home != "gpu:0"
    for op in ("state", "scaled_dot_product_attention"):
        assert set(device_of(plan, op)) == {home}
    assert "gpu:0" in device_of(plan, "matmul")


def test_a_faster_device_wins_what_nothing_ties_down() -> None:
    slow = DeviceInfo("a", 0, "slow", DeviceType.CPU, properties={"flops": 1e6, "bandwidth": 1e6})
    fast = DeviceInfo("b", 0, "fast", DeviceType.CPU, properties={"flops": 1e9, "bandwidth": 1e9})
    x = ops.input(name="x", dtype="f32", shape=(64, 64))
    plan = place(Graph.build({"y": ops.matmul(x, x)}), [FakeDevice(slow), FakeDevice(fast)])
    assert plan.devices == ("b:0",)


def test_a_graph_that_breaks_a_rule_is_refused_first() -> None:
    x = ops.input(name="x", dtype="f32", shape=(2,))
    bad = Node("relu", (x,), (), ops.input(name="z", dtype="f32", shape=(3,)).type)
    with pytest.raises(GraphError):
        place(Graph.build({"y": bad}), [cpu()])


@pytest.mark.parametrize("empty", [False, True])
def test_graphs_that_take_nothing(empty: bool) -> None:
    x = ops.input(name="x", dtype="f32", shape=(0, 4) if empty else (2, 4))
    graph = Graph.build({"y": ops.relu(x) if empty else x})
    plan = place(graph, [gpu(), cpu()])
    assert plan.devices == ("gpu:0",)
    assert plan.seconds > 0
    assert "0 nodes, speeds" in svg(plan) or empty
    assert len(plan.parts) == 1
    assert dot(plan).startswith("digraph")


@pytest.mark.parametrize(
    ("count", "wishes", "speeds", "says"),
    [
        (1, Wishes(), {}, "expected; a guess, since `hotplug calibrate` has not measured gpu:0"),
        (
            2,
            Wishes(),
            {"gpu:0": Rates(1e9, 1e9)},
            "the order of the devices decided, since `hotplug calibrate` has not measured gpu:1",
        ),
        (6, Wishes(), {}, "has not measured 6 devices"),
        (2, Wishes(shares=(1, 1)), {}, "expected, in given shares; a guess, since"),
        (1, Wishes(), {"gpu:0": Rates(1e9, 1e9)}, "expected, the best there is by speeds 1 stated"),
    ],
)
def test_it_says_what_decided(
    count: int, wishes: Wishes, speeds: Mapping[str, Rates], says: str
) -> None:
    plan = place(layers(2), [gpu(n) for n in range(count)], wishes=wishes, speeds=speeds)
    assert says in plan.explain().splitlines()[0]
    assert bool(plan.doubt) == (len(speeds) < count)


def test_told_as_table_json_and_text() -> None:
    plan = place(layers(2), [gpu(unsupported={"relu"}), cpu()])
    lines = plan.table().splitlines()
    assert len(lines) == 2 + 4
    assert "gpu:0 refuses relu" in plan.table()
    told = json.loads(json.dumps(plan.to_json()))
    assert len(told["nodes"]) == len(plan.graph.nodes)
    assert told["memory"]["gpu:0"]["weights"] == 2 * 256
    assert {copy["bytes"] for copy in told["copies"]} == {64}
    text = plan.explain()
    assert "part 0: 1 nodes on gpu:0" in text
    assert "memory of gpu:0: 704 B (weights 512 B, states 0 B, values 192 B, arena 0 B" in text
    assert "2 node(s) on cpu:0: gpu:0 does not: gpu:0 refuses relu" in text


SMALL = DecoderShape(
    layers=2,
    width=32,
    hidden=64,
    heads=2,
    kv_heads=1,
    head=16,
    vocabulary=64,
    context=8,
    tokens=2,
    weights="q8_0",
)


def _numbers(node: Node, rng: np.random.Generator) -> np.ndarray:
    if node.dtype.name == "i32":
        return np.arange(node.type.size, dtype=np.int32)
    if node.dtype.name == "f32":
        return rng.standard_normal(node.type.size, dtype=np.float32)
    return np.zeros(node.type.nbytes, np.uint8)


def host_values(graph: Graph, seed: int) -> dict[str, HostTensor]:
    rng = np.random.default_rng(seed)
    values = {}
    for node in graph.nodes:
        if not node.is_leaf:
            continue
        values[node.name] = HostTensor(node.type, _numbers(node, rng).view(np.uint8))
    return values


def run_parts(plan: Plan, leaves: Mapping[str, HostTensor]) -> dict[str, np.ndarray]:
    """The plan's parts by the oracle, one after the other, states updated in between."""
    values = dict(leaves)
    results: dict[str, np.ndarray] = {}
    for part in plan.parts:
        made = evaluate(part.graph, {n.name: values[n.name] for n in part.graph.nodes if n.is_leaf})
        types = {name: node.type for name, node in part.graph.outputs}
        types |= {f"state:{name}": node.type for name, node in part.graph.updates}
        for name, array in made.items():
            kept = HostTensor(types[name], np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            values[name.removeprefix("state:")] = kept
            results[name] = array
    return {name: array for name, array in results.items() if not name.startswith("@")}


def random_graph(rng: random.Random) -> Graph:
    """Chains, joins, views, weights and states in no order in particular."""
    x = ops.input(name="x", dtype="f32", shape=(4, 4))
    y = ops.input(name="y", dtype="f32", shape=(4, 4))
    values = [x, y]
    states: dict[str, Node] = {}
    for number in range(rng.randint(1, 3)):
        states[f"s{number}"] = ops.state(name=f"s{number}", dtype="f32", shape=(4, 4))
    rows = ops.input(name="rows", dtype="i32", shape=(4,))
    updates = dict(states)
    for number in range(rng.randint(3, 14)):
        a, b = rng.choice(values), rng.choice(values)
        kind = rng.randrange(7)
        if kind == 0:
            values.append(ops.add(a, b))
        elif kind == 1:
            values.append(ops.relu(a))
        elif kind == 2:
            values.append(ops.transpose(a))
        elif kind == 3:
            w = ops.weight(name=f"w{number}", dtype="f32", shape=(4, 4))
            values.append(ops.matmul(a, w))
        elif kind == 4:
            name = rng.choice(sorted(states))
            updates[name] = ops.scatter_rows(updates[name], rows, a)
        elif kind == 5:
            values.append(ops.mul(updates[rng.choice(sorted(states))], a))
        else:
            name = rng.choice(sorted(states))
            updates[name] = ops.sub(updates[name], a)
    changed = {name: node for name, node in updates.items() if not node.is_leaf}
    return Graph.build({"out": values[-1], "other": rng.choice(values)}, changed)


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_any_split_computes_what_the_whole_does(seed: int) -> None:
    rng = random.Random(seed)
    graph = random_graph(rng)
    refused = {
        f"gpu:{n}": {
            rng.choice(["add", "relu", "mul", "sub", "matmul", "scatter_rows", "transpose"])
        }
        for n in range(2)
    }
    devices = [gpu(0, unsupported=refused["gpu:0"]), gpu(1, unsupported=refused["gpu:1"]), cpu()]
    pins = {f"^{name}$": rng.choice(["gpu:0", "gpu:1", "cpu:0"]) for name in graph.states}
    able = [name for name, ops_refused in refused.items() if "matmul" not in ops_refused]
    pins |= {f"^{name}$": rng.choice([*able, "cpu:0"]) for name in graph.weights}
    try:
        plan = place(graph, devices, wishes=Wishes(pins))
    except GraphError:
        # Reading a state after it was updated is refused for the whole graph already.
        return
    leaves = host_values(graph, seed)
    whole = evaluate(graph, leaves)
    parts = run_parts(plan, leaves)
    assert parts.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array)
    for node, choice in plan.choices.items():
        if not node.is_leaf:
            assert node.op not in refused.get(choice.device, ())
