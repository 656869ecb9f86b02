"""Sessions: values in and out, weights and states in place, failures survived and explained."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import DeviceType
from hotplug.dtypes import get
from hotplug.errors import (
    DeviceLostError,
    ExecutionError,
    FallbackWarning,
    GraphError,
    KernelCompileError,
    OutOfDeviceMemoryError,
    PlacementError,
    StatesLostError,
    UnsupportedOpError,
    UsageError,
)
from hotplug.graph import Graph
from hotplug.progress import listen
from hotplug.registry import Registry
from hotplug.session import Session
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.fakes import FakeDevice, Fault, fake_backend

WEIGHT = np.arange(16, dtype=np.float32).reshape(4, 4) / 16
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def gpu(index: int = 0, **options: object) -> FakeDevice:
    return FakeDevice(f"gpu:{index}", **options)  # type: ignore[arg-type]


def cpu(**options: object) -> FakeDevice:
    return FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True, **options)  # type: ignore[arg-type]


def host(array: np.ndarray, dtype: str = "f32") -> HostTensor:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return HostTensor(TensorType(get(dtype), array.shape), flat)


def product() -> Graph:
    x = ops.input(name="x", dtype="f32", shape=(2, 4))
    w = ops.weight(name="w", dtype="f32", shape=(4, 4))
    return Graph.build({"y": ops.relu(ops.matmul(x, w, transpose_b=True))})


def counter(step: float = 1.0) -> Graph:
    """A state that grows by the input at every run, and is given back."""
    total = ops.state(name="total", dtype="f32", shape=(4,))
    x = ops.input(name="x", dtype="f32", shape=(4,))
    grown = ops.add(total, ops.scale(x, factor=step))
    return Graph.build({"total": grown}, {"total": grown})


WEIGHTS = {"w": host(WEIGHT)}
EXPECTED = np.maximum(X @ WEIGHT.T, 0)


@pytest.mark.parametrize("devices", [[cpu], [gpu], [gpu, cpu]])
def test_values_in_and_out(devices: list[Callable[[], FakeDevice]]) -> None:
    with Session([make() for make in devices], WEIGHTS) as session:
        program = session.compile(product())
        for sign in (1, -1):
            got = program.run({"x": sign * X})["y"]
            np.testing.assert_allclose(got, np.maximum(sign * X @ WEIGHT.T, 0), rtol=1e-6)


def test_results_are_copies() -> None:
    with Session([cpu()], WEIGHTS) as session:
        program = session.compile(product())
        first = program.run({"x": X})["y"]
        program.run({"x": -X})
        np.testing.assert_allclose(first, EXPECTED, rtol=1e-6)


def test_a_graph_over_two_devices() -> None:
    devices = [gpu(unsupported={"relu"}), cpu()]
    with Session(devices, WEIGHTS) as session:
        program = session.compile(product())
        np.testing.assert_allclose(program.run({"x": X})["y"], EXPECTED, rtol=1e-6)
        assert program.plan.devices == ("gpu:0", "cpu:0")
        assert "part 1 on cpu:0" in program.explain()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "lacks x"),
        ({"x": X, "z": X}, "has no input z"),
        ({"x": X[:1]}, r"takes f32\[2, 4\], given float32\[1, 4\]"),
        ({"x": X.astype(complex)}, "given complex128"),
        ({"x": host(X[:1])}, r"given f32\[1, 4\]"),
    ],
)
def test_wrong_inputs(inputs: dict[str, object], message: str) -> None:
    with Session([cpu()], WEIGHTS) as session, pytest.raises(UsageError, match=message):
        session.compile(product()).run(inputs)


def test_integers_are_converted_only_where_they_keep_their_value() -> None:
    x = ops.input(name="x", dtype="i32", shape=(2,))
    graph = Graph.build({"y": ops.add(x, x)})
    with Session([cpu()]) as session:
        program = session.compile(graph)
        assert list(program.run({"x": np.array([1, -2], np.int64)})["y"]) == [2, -4]
        with pytest.raises(UsageError):
            program.run({"x": np.array([1, 1 << 40])})
        with pytest.raises(UsageError):
            program.run({"x": np.array([0.5, 1.0])})


def test_dtypes_numpy_lacks_travel_as_host_tensors() -> None:
    x = ops.input(name="x", dtype="bf16", shape=(2,))
    graph = Graph.build({"y": ops.cast(x, dtype="f32"), "same": ops.contiguous(x)})
    with Session([gpu()]) as session:
        given = host(np.array([0x3F80, 0xC000], np.uint16), "bf16")
        result = session.compile(graph).run({"x": given})
        assert list(result["y"]) == [1.0, -2.0]
        assert isinstance(result["same"], HostTensor)
        assert bytes(result["same"].data) == bytes(given.data)
        with pytest.raises(UsageError, match="HostTensor"):
            session.compile(graph).run({"x": np.zeros(2, np.float32)})


@pytest.mark.parametrize("weights", [{}, {"w": host(WEIGHT[:2])}])
def test_missing_or_wrong_weights(weights: dict[str, HostTensor]) -> None:
    with Session([cpu()], weights) as session, pytest.raises(UsageError, match="'w'"):
        session.compile(product())


def test_weights_are_wrapped_where_possible_and_uploaded_once_elsewhere() -> None:
    near, far = cpu(), gpu()
    with Session([near], WEIGHTS) as session:
        session.compile(product())
        assert (
            near.buffers.memory.used
            == X.nbytes + EXPECTED.nbytes + session.plan(product()).parts[0].arena_bytes
        )
    with Session([far], WEIGHTS) as session:
        session.compile(product())
        written = far.calls["write"]
        x = ops.input(name="x", dtype="f32", shape=(1, 4))
        w = ops.weight(name="w", dtype="f32", shape=(4, 4))
        session.compile(Graph.build({"y": ops.matmul(x, w, transpose_b=True)}))
        assert far.calls["write"] == written == 1


def test_nothing_stays_allocated_after_close() -> None:
    devices = [gpu(unsupported={"relu"}), cpu()]
    with Session(devices, WEIGHTS) as session:
        session.compile(product()).run({"x": X})
    assert [device.buffers.memory.used for device in devices] == [0, 0]


def test_a_closed_session_computes_no_more(
    fakes: tuple[Registry, FakeDevice, FakeDevice],
) -> None:
    registry, first, second = fakes
    with Session("fake:0", registry=registry, fallback="warn") as session:
        program = session.compile(counter())
        program.run({"x": np.ones(4, np.float32)})
    session.close()
    for use in (
        lambda: program.run({"x": np.ones(4, np.float32)}),
        lambda: session.compile(product()),
        lambda: session.plan(product()),
        lambda: session.read("total"),
        lambda: session.write("total", np.zeros(4)),
    ):
        with pytest.raises(UsageError, match="the session is closed"):
            use()
    assert (first.open_count, second.open_count) == (0, 0)


@pytest.mark.parametrize("make", [cpu, gpu])
def test_states_last_from_run_to_run(make: Callable[[], FakeDevice]) -> None:
    with Session([make()]) as session:
        program = session.compile(counter())
        ones = np.ones(4, np.float32)
        for turn in range(1, 4):
            assert list(program.run({"x": ones})["total"]) == [turn] * 4
        assert list(session.read("total")) == [3.0] * 4
        session.write("total", np.full(4, 10, np.float32))
        other = session.compile(counter(2.0))
        assert list(other.run({"x": ones})["total"]) == [12.0] * 4
        session.reset()
        assert list(program.run({"x": ones})["total"]) == [1.0] * 4


def test_unknown_states_and_states_of_two_types() -> None:
    with Session([cpu()]) as session:
        with pytest.raises(UsageError, match="none yet"):
            session.read("total")
        session.compile(counter())
        with pytest.raises(UsageError, match="known: total"):
            session.write("nothing", np.zeros(4))
        longer = ops.state(name="total", dtype="f32", shape=(5,))
        with pytest.raises(GraphError, match="another graph"):
            session.compile(Graph.build({}, {"total": ops.relu(longer)}))


@pytest.mark.parametrize("step", ["read", "write"])
def test_a_device_that_does_not_give_or_take_a_state_is_set_aside(step: str) -> None:
    device = gpu()
    with Session([device, cpu()], fallback="allow") as session:
        session.run(counter(), {"x": np.ones(4, np.float32)})
        fault = Fault(step, ExecutionError("bad cable"), call=device.calls[step] + 1)  # type: ignore[arg-type]
        device.add_fault(fault)
        use = session.read if step == "read" else partial(session.write, value=np.zeros(4))
        with pytest.raises((ExecutionError, StatesLostError), match="bad cable"):
            use("total")
        assert list(session.failed) == ["gpu:0"]


def test_many_graphs_do_not_pile_up() -> None:
    device = gpu()
    with Session([device]) as session:
        programs = []
        for width in range(1, 40):
            x = ops.input(name="x", dtype="f32", shape=(width,))
            programs.append((width, session.compile(Graph.build({"y": ops.neg(x)}))))
        assert device.buffers.memory.used < 16 * 3 * 40 * 4 + 16 * 64
        for width, program in programs:  # a dropped one is simply made again
            assert list(program.run({"x": np.ones(width, np.float32)})["y"]) == [-1.0] * width


# --- devices from a registry


@pytest.fixture
def fakes() -> tuple[Registry, FakeDevice, FakeDevice]:
    first, second = FakeDevice("fake:0"), cpu()
    registry = Registry(list)
    registry.register(fake_backend("fake", first))
    registry.register(fake_backend("cpu", second))
    return registry, first, second


def test_a_selector_opens_devices_and_close_gives_them_back(
    fakes: tuple[Registry, FakeDevice, FakeDevice],
) -> None:
    registry, first, second = fakes
    with Session("fake:0", WEIGHTS, registry=registry) as session:
        assert [device.id for device in session.devices] == ["fake:0"]
        assert (first.open_count, second.open_count) == (1, 0)
    assert first.open_count == 0


def test_the_cpu_takes_over_what_the_named_device_refuses(
    fakes: tuple[Registry, FakeDevice, FakeDevice],
) -> None:
    registry = fakes[0]
    registry.register(fake_backend("other", FakeDevice("other:0", unsupported={"relu"})))
    with Session("other", WEIGHTS, registry=registry, fallback="warn") as session:
        with pytest.warns(FallbackWarning, match="relu"):
            program = session.compile(product())
        np.testing.assert_allclose(program.run({"x": X})["y"], EXPECTED, rtol=1e-6)
    with (
        Session("other", WEIGHTS, registry=registry, fallback="error") as session,
        pytest.raises(UnsupportedOpError, match="relu"),
    ):
        session.compile(product())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Session("other", WEIGHTS, registry=registry, fallback="allow") as session:
            session.compile(product())


# --- faults

FAULTS = [
    DeviceLostError("gone"),
    ExecutionError("bad launch"),
    OutOfDeviceMemoryError("full"),
    KernelCompileError("syntax"),
    ZeroDivisionError("a bug in the backend"),
]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("step", ["compile", "allocate", "run", "read", "write"])
def test_another_device_goes_on(step: str, error: Exception) -> None:
    devices = [gpu(faults=[Fault(step, error)]), cpu()]  # type: ignore[arg-type]
    with Session(devices, WEIGHTS, fallback="warn") as session:
        with pytest.warns(FallbackWarning, match="gpu:0 is set aside"):
            got = session.compile(product()).run({"x": X})["y"]
        np.testing.assert_allclose(got, EXPECTED, rtol=1e-6)
        assert [device.id for device in session.devices] == ["cpu:0"]
        assert session.failed["gpu:0"] is not None


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_policy_error_raises_what_happened(error: Exception) -> None:
    devices = [gpu(faults=[Fault("run", error)]), cpu()]
    with Session(devices, WEIGHTS, fallback="error") as session:
        program = session.compile(product())
        wanted = ExecutionError if isinstance(error, ZeroDivisionError) else type(error)
        with pytest.raises(wanted, match=str(error)):
            program.run({"x": X})


def test_when_the_last_device_fails_its_error_is_raised() -> None:
    devices = [
        gpu(faults=[Fault("run", ExecutionError("one"))]),
        cpu(faults=[Fault("run", ExecutionError("two"))]),
    ]
    with Session(devices, WEIGHTS, fallback="allow", registry=Registry(list)) as session:
        program = session.compile(product())
        with pytest.raises(ExecutionError, match="two"):
            program.run({"x": X})
        with pytest.raises(PlacementError, match="no device is left") as caught:
            program.run({"x": X})
        assert caught.value.reasons == {"gpu:0": "one", "cpu:0": "two"}


def test_a_fault_on_the_second_of_three_devices() -> None:
    devices = [
        gpu(0, unsupported={"relu"}),
        gpu(1, faults=[Fault("run", DeviceLostError("gone"), call=2)]),
        gpu(2),
    ]
    with Session(devices, WEIGHTS, fallback="allow") as session:
        program = session.compile(product())
        for _ in range(3):
            np.testing.assert_allclose(program.run({"x": X})["y"], EXPECTED, rtol=1e-6)
        assert [device.id for device in session.devices] == ["gpu:0", "gpu:2"]


def test_states_lost_in_a_run_are_said_to_be_lost() -> None:
    device = gpu()
    with Session([device, cpu()], fallback="allow") as session:
        program = session.compile(counter())
        ones = np.ones(4, np.float32)
        program.run({"x": ones})
        device.lose()
        with pytest.raises(StatesLostError, match="gpu:0"):
            program.run({"x": ones})
        assert list(program.run({"x": ones})["total"]) == [1.0] * 4


def test_states_are_carried_over_when_a_compilation_fails() -> None:
    device = gpu()
    with Session([device, cpu()], fallback="allow") as session:
        ones = np.ones(4, np.float32)
        program = session.compile(counter())
        program.run({"x": ones})
        device.add_fault(
            Fault("compile", KernelCompileError("no"), call=device.calls["compile"] + 1)
        )
        assert list(session.compile(counter(2.0)).run({"x": ones})["total"]) == [3.0] * 4
        assert list(program.run({"x": ones})["total"]) == [4.0] * 4
        assert [item.id for item in session.devices] == ["cpu:0"]


def test_states_of_a_device_lost_while_compiling_are_lost() -> None:
    device = gpu()
    with Session([device, cpu()], fallback="allow") as session:
        session.compile(counter()).run({"x": np.ones(4, np.float32)})
        device.lose()
        with pytest.raises(StatesLostError):
            session.compile(counter(2.0))


def test_a_model_too_large_for_one_device_is_spread() -> None:
    x = ops.input(name="x", dtype="f32", shape=(1, 64))
    weights = {}
    rng = np.random.default_rng(0)
    expected = x_value = rng.standard_normal((1, 64), dtype=np.float32)
    for layer in range(4):
        w = rng.standard_normal((64, 64), dtype=np.float32) / 8
        weights[f"w{layer}"] = host(w)
        expected = np.maximum(expected @ w.T, 0)
        leaf = ops.weight(name=f"w{layer}", dtype="f32", shape=(64, 64))
        x = ops.relu(ops.matmul(x, leaf, transpose_b=True))
    devices = [gpu(0, memory_bytes=40_000), gpu(1, memory_bytes=40_000)]
    with Session(devices, weights) as session:
        program = session.compile(Graph.build({"y": x}))
        assert program.plan.devices == ("gpu:0", "gpu:1")
        np.testing.assert_allclose(program.run({"x": x_value})["y"], expected, rtol=1e-4)


def test_a_backend_unloaded_by_force_is_left(
    fakes: tuple[Registry, FakeDevice, FakeDevice],
) -> None:
    registry, card, _ = fakes
    with Session("fake,cpu", WEIGHTS, registry=registry, fallback="allow") as session:
        first = session.run(product(), {"x": X})["y"]
        runs = card.calls["run"]
        registry.unload("fake", force=True)
        again = session.run(product(), {"x": X})["y"]
        assert [device.id for device in session.devices] == ["cpu:0"]
        assert isinstance(session.failed["fake:0"], DeviceLostError)
    np.testing.assert_array_equal(again, first)
    assert card.calls["run"] == runs


def test_states_of_a_backend_unloaded_by_force_are_lost(
    fakes: tuple[Registry, FakeDevice, FakeDevice],
) -> None:
    registry, _, _ = fakes
    with Session("fake,cpu", registry=registry, fallback="allow") as session:
        session.run(counter(), {"x": np.ones(4, np.float32)})
        registry.unload("fake", force=True)
        with pytest.raises(StatesLostError, match="the backend fake was unloaded"):
            session.run(counter(), {"x": np.ones(4, np.float32)})
        assert session.run(counter(), {"x": np.ones(4, np.float32)})["total"].tolist() == [1.0] * 4


def test_a_session_with_nothing_but_an_unloaded_backend_says_so(
    fakes: tuple[Registry, FakeDevice, FakeDevice],
) -> None:
    registry, _, _ = fakes
    with Session("fake", WEIGHTS, registry=registry, fallback="error") as session:
        session.run(product(), {"x": X})
        registry.unload("fake", force=True)
        with pytest.raises(DeviceLostError, match="fake:0 is gone: the backend fake was unloaded"):
            session.plan(product())


class Listener:
    """Collects what is told of tasks."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def start(self, label: str, total: int) -> None:
        self.seen.append((label, total))

    def advance(self, label: str, done: int) -> None:
        self.seen.append((label, done))

    def stop(self, label: str) -> None:
        self.seen.append((label, "end"))


def test_weights_are_copied_in_pieces_which_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotplug.session.weights._PIECE", 40)
    listener = Listener()
    with listen(listener), Session([gpu(), cpu()], {"w": host(WEIGHT)}) as session:
        program = session.compile(product())
        expected = np.maximum(X @ WEIGHT.T, 0)
        np.testing.assert_allclose(program.run({"x": X})["y"], expected, rtol=1e-6)
        session.compile(Graph.build({"z": dict(product().outputs)["y"]}))
    label = "load weights to gpu:0"
    assert listener.seen == [(label, 64), (label, 40), (label, 64), (label, "end")]
