"""What users ask of a placement: pins, shares, budgets; and what is decided for a workload."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hotplug import ops
from hotplug.backend import DeviceInfo, DeviceType
from hotplug.errors import PinError, PlacementError, UsageError
from hotplug.graph import Graph
from hotplug.placement import Plan, Rates, Wishes, pins_for, place
from hotplug.placement.cost import Link
from hotplug.testing.fakes import FakeDevice
from hotplug.testing.graphs import DecoderShape, decoder, layers

LINK = Link(1e-5, 1e10)
TINY = DecoderShape(
    layers=1,
    width=32,
    hidden=64,
    heads=2,
    kv_heads=1,
    head=16,
    vocabulary=64,
    context=8,
    weights="q8_0",
)


def device(name: str, **options: object) -> FakeDevice:
    return FakeDevice(name, **options)  # type: ignore[arg-type]


def chain(count: int = 6, rows: int = 1) -> Graph:
    return layers(count, 256, rows)


BYTES = 4 * 256 * 256


def homes(plan: Plan) -> dict[str, str]:
    return {name: plan.choices[node].device for name, node in plan.graph.weights.items()}


def test_a_pin_is_found_anywhere_in_a_name() -> None:
    plan = place(chain(), [device("a:0"), device("b:0")], wishes=Wishes({r"blk\.[45]": "b:0"}))
    assert list(homes(plan).values()) == ["a:0"] * 4 + ["b:0"] * 2


def test_the_first_pin_that_fits_counts() -> None:
    pins = {r"^blk\.3": "a:0", "blk": "b:0"}
    plan = place(chain(), [device("a:0"), device("b:0")], wishes=Wishes(pins))
    assert homes(plan)["blk.3.w"] == "a:0"
    assert sum(at == "b:0" for at in homes(plan).values()) == 5


def test_a_pin_may_name_an_op() -> None:
    plan = place(chain(2), [device("a:0"), device("b:0")], wishes=Wishes({"relu": "b:0"}))
    at = {node: choice for node, choice in plan.choices.items() if node.op == "relu"}
    assert {(choice.device, choice.reason) for choice in at.values()} == {
        ("b:0", "pinned by 'relu'")
    }
    assert set(homes(plan).values()) == {"a:0"}


def test_a_pin_that_fits_nothing_is_refused() -> None:
    with pytest.raises(PlacementError, match="'experts' is pinned to a:0, and fits no weight"):
        place(chain(), [device("a:0")], wishes=Wishes({"experts": "a:0"}))


def test_a_pin_that_is_no_expression_is_refused() -> None:
    with pytest.raises(PlacementError, match="is no regular expression"):
        place(chain(), [device("a:0")], wishes=Wishes({"blk(": "a:0"}))


def test_a_pin_is_refused_and_not_moved_where_the_device_does_not_run_it() -> None:
    able, unable = device("a:0"), device("b:0", unsupported={"matmul"})
    with pytest.raises(PlacementError, match="which does not run it: b:0 refuses matmul") as caught:
        place(chain(), [able, unable], wishes=Wishes({r"blk\.2": "b:0"}))
    assert caught.value.reasons == {"b:0": "b:0 refuses matmul"}


def test_a_pin_is_refused_where_the_weight_is_too_large_for_a_buffer() -> None:
    small = device("b:0")
    small.buffers.max_bytes = 1000
    with pytest.raises(PlacementError, match="at most 1000 bytes in one piece"):
        place(chain(), [device("a:0"), small], wishes=Wishes({r"blk\.2": "b:0"}))


def test_pins_that_contradict_each_other_are_refused() -> None:
    x = ops.input(name="x", dtype="f32", shape=(4,))
    one, two = (ops.weight(name=name, dtype="f32", shape=(4,)) for name in ("one", "two"))
    graph = Graph.build({"y": ops.where(ops.greater(x, x), one, two)})
    with pytest.raises(PlacementError, match="two is pinned to b:0"):
        place(graph, [device("a:0"), device("b:0")], wishes=Wishes({"one": "a:0", "two": "b:0"}))


def test_a_pinned_state_stays_where_it_is_pinned_and_is_copied_to_its_reader() -> None:
    graph = decoder(TINY)
    refuses = device("b:0", unsupported={"scaled_dot_product_attention"})
    plan = place(graph, [device("a:0"), refuses], wishes=Wishes({"^[kv][0-9]": "b:0"}))
    at = {node.op: choice.device for node, choice in plan.choices.items()}
    assert {plan.choices[state].device for state in graph.states.values()} == {"b:0"}
    assert at["scatter_rows"] == "b:0"
    assert at["scaled_dot_product_attention"] == "a:0"


def test_room_is_kept_for_what_is_pinned() -> None:
    devices = [device("a:0"), device("b:0")]
    plan = place(
        chain(), devices, wishes=Wishes({r"blk\.5": "a:0"}), budgets={"a:0": 2 * BYTES + 100}
    )
    assert list(homes(plan).values()) == ["a:0"] + ["b:0"] * 4 + ["a:0"]
    with pytest.raises(PlacementError, match=f"a:0: no room: {BYTES} bytes needed, 100 left"):
        place(chain(), devices, wishes=Wishes({"blk": "a:0"}), budgets={"a:0": 2 * BYTES + 100})


@pytest.mark.parametrize(
    ("shares", "counts"),
    [((1, 1), (3, 3)), ((2, 1), (4, 2)), ((0, 1), (0, 6)), ((5, 1), (5, 1)), ((1, 0), (6, 0))],
)
def test_shares_of_the_bytes(shares: tuple[int, int], counts: tuple[int, int]) -> None:
    plan = place(chain(), [device("a:0"), device("b:0")], wishes=Wishes(shares=shares))
    at = list(homes(plan).values())
    assert at == ["a:0"] * counts[0] + ["b:0"] * counts[1]


def test_shares_and_pins_together() -> None:
    wishes = Wishes({r"blk\.0": "b:0"}, shares=(1, 1))
    plan = place(chain(), [device("a:0"), device("b:0")], wishes=wishes)
    assert homes(plan)["blk.0.w"] == "b:0"
    assert homes(plan)["blk.1.w"] == "a:0"


@pytest.mark.parametrize("shares", [(1,), (1, -1), (0, 0), (1, 2, 3)])
def test_shares_that_make_no_sense(shares: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="a share of 0 or more for each of the 2 devices"):
        place(chain(), [device("a:0"), device("b:0")], wishes=Wishes(shares=shares))


def test_shares_beyond_a_budget_are_refused_with_the_numbers() -> None:
    with pytest.raises(PlacementError, match=f"a:0: room for {2 * BYTES} bytes"):
        place(
            chain(),
            [device("a:0"), device("b:0")],
            wishes=Wishes(shares=(1, 1)),
            budgets={"a:0": 2 * BYTES},
        )


def test_a_limit_counts_intermediate_values_as_well() -> None:
    graph = chain(6, rows=100)
    limit = 4 * BYTES
    plan = place(graph, [device("a:0"), device("b:0")], wishes=Wishes(limits={"a:0": limit}))
    assert plan.memory["a:0"].total <= limit
    assert plan.memory["a:0"].arena > 0
    assert 0 < sum(at == "a:0" for at in homes(plan).values()) < 4


def test_a_limit_that_cannot_be_kept_is_refused_with_the_numbers() -> None:
    with pytest.raises(PlacementError) as caught:
        place(chain(), [device("a:0")], wishes=Wishes(limits={"a:0": 3 * BYTES}))
    assert "a:0" in caught.value.reasons
    assert f"{BYTES} bytes needed" in str(caught.value)


def test_speeds_that_are_known_decide_and_unknown_ones_do_not() -> None:
    graph = chain()
    slow, fast = device("a:0"), device("b:0")
    speeds = {"a:0": Rates(1e9, 1e9, LINK, LINK), "b:0": Rates(1e11, 1e11, LINK, LINK)}
    assert set(homes(place(graph, [slow, fast])).values()) == {"a:0"}
    plan = place(graph, [slow, fast], speeds=speeds)
    assert set(homes(plan).values()) == {"b:0"}
    first = next(node for node in graph.nodes if node.op == "matmul")
    assert plan.choices[first].reason.startswith("fastest there: ")


def test_a_small_gain_is_not_worth_a_copy() -> None:
    quick = Rates(1e12, 1e12, LINK, LINK)
    graph = chain(2)
    slow_link = Rates(1.1e12, 1.1e12, Link(1.0, 1e9), Link(1.0, 1e9))
    plan = place(graph, [device("a:0"), device("b:0")], speeds={"a:0": quick, "b:0": slow_link})
    assert plan.devices == ("a:0",)
    relu = next(node for node in graph.nodes if node.op == "relu")
    assert "less than going there costs" in plan.choices[relu].reason


def test_a_workload_decides_by_all_its_graphs_and_how_often_they_run() -> None:
    one, many = chain(4, rows=1), chain(4, rows=512)
    wide = Rates(flops=1e12, bandwidth=1e9, upload=LINK, download=LINK)
    quick = Rates(flops=1e9, bandwidth=1e11, upload=LINK, download=LINK)
    devices, speeds = [device("a:0"), device("b:0")], {"a:0": wide, "b:0": quick}

    def home(workload: dict[Graph, float]) -> set[str]:
        plan = place(one, devices, speeds=speeds, workload=workload)
        return set(homes(plan).values())

    assert home({one: 1}) == {"b:0"}
    assert home({one: 1, many: 1}) == {"a:0"}
    assert home({one: 10000, many: 1}) == {"b:0"}


def test_a_workload_of_other_graphs_is_refused() -> None:
    graph = chain(4)
    with pytest.raises(UsageError, match="lacks the graph"):
        place(graph, [device("a:0")], workload={chain(5): 1})
    with pytest.raises(UsageError, match="nothing but sizes"):
        place(graph, [device("a:0")], workload={graph: 1, chain(5): 1})


def test_what_was_chosen_before_is_kept_and_takes_memory() -> None:
    devices = [device("a:0"), device("b:0")]
    before = place(chain(2), devices, wishes=Wishes({r"blk\.0\.w": "b:0"}))
    plan = place(chain(2), devices, like=before)
    assert homes(plan) == {"blk.0.w": "b:0", "blk.1.w": "a:0"}
    with pytest.raises(PlacementError):
        place(chain(2), devices, like=before, budgets={"b:0": 10})


@pytest.mark.parametrize("speeds", [None, {"a:0": Rates(1e9, 1e9)}])
def test_where_computing_takes_too_much_that_is_what_is_said(speeds) -> None:
    with pytest.raises(
        PlacementError, match=r"of them to compute .* more than allowed: a:0: 20000"
    ):
        place(
            layers(2, 8, 1000), [device("a:0")], wishes=Wishes(limits={"a:0": 20000}), speeds=speeds
        )


def test_shares_that_do_not_fit_are_said_to_be_the_reason() -> None:
    wishes = Wishes(shares=(1, 0))
    with pytest.raises(PlacementError, match="do not fit in given shares") as caught:
        place(chain(2), [device("a:0"), device("b:0")], wishes=wishes, budgets={"a:0": 10})
    assert caught.value.remedy == "use other shares, or none"


def test_pins_that_others_leave_nothing_to_are_refused() -> None:
    devices = [device("a:0"), device("b:0")]
    with pytest.raises(PinError, match=r"all that it fits to a:0 before: blk\.1\.w") as caught:
        place(chain(2), devices, wishes=Wishes({"blk": "a:0", r"blk\.1": "b:0"}))
    assert caught.value.remedy == "name the more special pin first"
    with pytest.raises(PinError, match="all that it fits to a:0 before: relu, pinned by"):
        place(chain(2), devices, wishes=Wishes({"relu|matmul": "a:0", "relu": "b:0"}))
    plan = place(chain(2), devices, wishes=Wishes({r"blk\.1": "b:0", "blk": "a:0"}))
    assert homes(plan) == {"blk.0.w": "a:0", "blk.1.w": "b:0"}
    plan = place(chain(2), devices, wishes=Wishes({"blk": "a:0", r"blk\.1": "a:0"}))
    assert set(homes(plan).values()) == {"a:0"}


def test_of_later_graphs_only_those_pins_count_that_are_left_something() -> None:
    pins = {r"blk\.1": "b:0", "blk": "a:0", "matmul": "b:0", "relu": "a:0", "no": "a:0"}
    assert pins_for(pins, chain(2)) == {pin: at for pin, at in pins.items() if pin != "no"}
    weight = ops.weight(name="blk.1.w", dtype="f32", shape=(2,))
    assert pins_for(pins, Graph.build({"y": ops.relu(weight)})) == {r"blk\.1": "b:0", "relu": "a:0"}


def test_states_live_with_those_who_read_them_by_cost_too() -> None:
    graph = decoder(replace(TINY, layers=4, width=64, hidden=128, head=32, context=64))
    speeds = {
        "a:0": Rates(1e12, 1e11, Link(1e-7, 1e10), Link(1e-7, 1e10), 1e-7, 1e-7),
        "b:0": Rates(1e9, 1e9, Link(1e-7, 1e10), Link(1e-7, 1e10), 1e-7, 1e-7),
    }
    whole = sum(node.type.nbytes for node in graph.nodes if node.op in {"weight", "state"})
    plan = place(graph, [device("a:0"), device("b:0")], speeds=speeds, budgets={"a:0": whole // 2})
    assert plan.memory["a:0"].weights + plan.memory["a:0"].states <= whole // 2
    assert plan.devices == ("a:0", "b:0")
    for node in graph.nodes:
        for operand in node.operands:
            if operand.op == "state":
                assert plan.choices[node].device == plan.choices[operand].device


def test_a_tied_weight_counts_where_it_is_used() -> None:
    info = DeviceInfo("a", 0, "A", DeviceType.GPU)
    graph = decoder(replace(TINY, vocabulary=256))
    plan = place(graph, [FakeDevice(info)])
    held = sum(node.type.nbytes for node in graph.weights.values())
    assert plan.memory["a:0"].weights == held
