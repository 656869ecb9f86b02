"""Experts in a device's memory: those not used for longest make room, and none is sent twice."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug.dtypes import get
from hotplug.errors import ExecutionError
from hotplug.session.pools import Pool
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.fakes import FakeDevice, Fault

EXPERTS = 6


def pool(room: int, *faults: Fault) -> Pool:
    values = np.repeat(np.arange(EXPERTS, dtype=np.float32), 4)
    weight = HostTensor(TensorType(get("f32"), (EXPERTS, 2, 2)), values.view(np.uint8))
    buffer = FakeDevice("gpu:0", faults=faults).buffers.allocate(room * 16)
    return Pool(weight, buffer, room)


def there(pool: Pool, ids: list[int]) -> list[float]:
    """The first number of each expert, read from where the pool says that it is."""
    places = pool.places(np.array(ids, np.int32))
    held = np.empty(pool.room * 4, np.float32)
    pool.buffer.read(0, held.view(np.uint8).data)
    return [float(held[4 * place]) for place in places.tolist()]


def test_what_is_there_is_not_sent_again() -> None:
    made = pool(4)
    assert there(made, [3, 1, 3]) == [3, 1, 3]
    assert there(made, [1, 5]) == [1, 5]
    assert (made.found, made.sent) == (1, 3)


def test_the_longest_unused_make_room() -> None:
    made = pool(3)
    for ids in ([0, 1], [2], [0], [4]):
        assert there(made, ids) == ids
    assert (made.found, made.sent) == (1, 4)
    assert there(made, [0, 2]) == [0, 2]  # it was 1 that went
    assert made.sent == 4


def test_those_of_one_run_never_push_each_other_out() -> None:
    made = pool(3)
    rng = np.random.default_rng(0)
    for _ in range(200):
        ids = rng.choice(EXPERTS, 3, replace=False).tolist()
        assert there(made, ids) == ids
    assert made.found + made.sent == 600
    assert made.found > 0


def test_ids_of_no_expert_have_no_place() -> None:
    made = pool(2)
    places = made.places(np.array([-1, 5, EXPERTS], np.int64)).tolist()
    assert places[::2] == [-1, -1]
    assert places[1] in {0, 1}


def test_one_that_did_not_arrive_is_not_there() -> None:
    made = pool(2, Fault("write", ExecutionError("bad cable"), times=1))
    with pytest.raises(ExecutionError):
        made.places(np.array([4], np.int32))
    assert there(made, [4, 5]) == [4, 5]
    assert made.sent == 2
