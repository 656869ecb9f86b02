"""Sessions that share devices and weights, and the processes forked off them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import DeviceType
from hotplug.dtypes import get
from hotplug.errors import DeviceLostError, StatesLostError
from hotplug.formats.gguf import GGUFFile, write
from hotplug.graph import Graph
from hotplug.session import Session
from hotplug.session.turns import join
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.fakes import FakeDevice, Fault

X = np.ones((1, 64), np.float32)


def gpu(**options: object) -> FakeDevice:
    return FakeDevice("gpu:0", **options)  # type: ignore[arg-type]


def weight(*, writeable: bool = False) -> HostTensor:
    values = np.arange(64 * 64, dtype=np.float32) / 4096
    values.flags.writeable = writeable
    return HostTensor(TensorType(get("f32"), (64, 64)), values.view(np.uint8))


def product() -> Graph:
    w = ops.weight(name="w", dtype="f32", shape=(64, 64))
    return Graph.build({"y": ops.matmul(ops.input(name="x", dtype="f32", shape=(1, 64)), w)})


def run(session: Session) -> np.ndarray:
    result: np.ndarray = session.run(product(), {"x": X})["y"]
    return result


def test_weights_are_uploaded_once_and_freed_by_the_last() -> None:
    card, weights = gpu(), {"w": weight()}
    with Session([card], weights) as first:
        expected = run(first)
        alone = card.buffers.memory.used
        with Session([card], weights) as second:
            np.testing.assert_array_equal(run(second), expected)
            assert card.buffers.memory.used - alone < weights["w"].nbytes
        np.testing.assert_array_equal(run(first), expected)
    assert card.buffers.memory.used == 0


def test_weights_that_may_be_written_to_are_not_shared() -> None:
    card, weights = gpu(), {"w": weight(writeable=True)}
    with Session([card], weights) as first, Session([card], weights) as second:
        before = run(first).copy()
        weights["w"].data.view(np.float32)[:] = 1
        assert list(run(second)[0]) == [64.0] * 64
        np.testing.assert_array_equal(run(first), before)
        assert card.buffers.memory.used > 2 * weights["w"].nbytes


def test_a_model_file_opened_twice_has_its_weights_at_one_place(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write(path, {"general.architecture": "test"}, {"w": weight()})
    card = gpu(memory_bytes=int(1.5 * 64 * 64 * 4))  # there is no room for two
    with GGUFFile.open(path) as one, GGUFFile.open(path) as other:
        assert one.tensor("w").data.ctypes.data == other.tensor("w").data.ctypes.data
        with (
            Session([card], {"w": one.tensor("w")}, fallback="error") as first,
            Session([card], {"w": other.tensor("w")}, fallback="error") as second,
        ):
            np.testing.assert_array_equal(run(first), run(second))
    write(path, {"general.architecture": "test"}, {"w": weight(), "v": weight()})
    with GGUFFile.open(path) as changed:
        assert "v" in changed.tensors


def test_a_session_that_loses_a_device_takes_no_weights_from_others() -> None:
    card, weights = gpu(), {"w": weight()}
    with Session([card], weights) as other:
        expected = run(other)
        with Session([card, FakeDevice("spare:1")], weights, fallback="allow") as session:
            run(session)
            card.add_fault(
                Fault("run", DeviceLostError("gone"), call=card.calls["run"] + 1, times=1)
            )
            np.testing.assert_array_equal(run(session), expected)
            assert list(session.failed) == ["gpu:0"]
        np.testing.assert_array_equal(run(other), expected)
    assert card.buffers.memory.used == 0


def test_many_threads_share_a_device(gate) -> None:
    card, weights = gpu(), {"w": weight()}
    results: list[np.ndarray] = []

    def work() -> None:
        with Session([card], weights) as session:
            for _ in range(5):
                results.append(run(session))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 30
    assert all((result == results[0]).all() for result in results)
    assert card.buffers.memory.used == 0


@pytest.mark.parametrize("kind", [DeviceType.GPU, DeviceType.CPU])
def test_a_device_is_used_in_the_order_in_which_it_was_asked(kind, gate) -> None:
    """Runs of three sessions take turns, however fast one of them comes again."""
    order: list[str] = []
    device = FakeDevice("card:0", type=kind, is_host=kind is DeviceType.CPU)

    def work(name: str, session: Session) -> None:
        for _ in range(4):
            run(session)
            order.append(name)

    with (
        Session([device], {"w": weight()}) as a,
        Session([device], {"w": weight()}) as b,
        Session([device], {"w": weight()}) as c,
    ):
        for session in (a, b, c):
            run(session)
        turn = join(device)
        turn.acquire()  # until all have come
        threads = []
        for name, session in zip("abc", (a, b, c), strict=True):
            threads.append(threading.Thread(target=work, args=(name, session)))
            threads[-1].start()
            while len(turn._waiting) < len(threads):
                pass
        device.add_fault(Fault("run", lambda: _let_others_in(turn, order)))
        turn.release()
        for thread in threads:
            thread.join()
        turn.leave()
    assert "".join(order[:3]) == "abc"
    assert all(sorted(order[n : n + 3]) == ["a", "b", "c"] for n in (0, 3, 6))


def _let_others_in(turn: object, order: list[str]) -> None:
    """A run takes until all that are not done yet are waiting, this one aside."""
    done = [name for name in "abc" if order.count(name) == 4]
    for _ in range(2000):
        if len(turn._waiting) >= 2 - len(done):  # type: ignore[attr-defined]
            return
        threading.Event().wait(0.001)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_a_run_goes_on(gate, in_a_child) -> None:
    """Its threads are gone, locks are free, and states that the run was in are said to be lost."""
    host = FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)
    total = ops.state(name="total", dtype="f32", shape=(64,))
    grown = ops.add(total, ops.input(name="x", dtype="f32", shape=(64,)))
    graph = Graph.build({"total": grown}, {"total": grown})
    with Session([host], {"w": weight()}) as session:
        session.run(graph, {"x": X[0]})
        host.add_fault(Fault("run", gate.wait, call=2, times=1))
        thread = threading.Thread(target=session.run, args=(graph, {"x": X[0]}))
        thread.start()
        gate.reached.wait(600)

        def child() -> bool:
            with pytest.raises(StatesLostError, match="forked"):
                session.run(graph, {"x": X[0]})
            again = list(session.run(graph, {"x": X[0]})["total"])
            return again == [1.0] * 64 and run(session).shape == (1, 64)

        assert in_a_child(child)
        gate.open()
        thread.join()
        assert list(session.run(graph, {"x": X[0]})["total"]) == [3.0] * 64
