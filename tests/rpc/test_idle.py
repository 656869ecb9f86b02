"""What stays on a server's device after its last user, and gives way."""

from __future__ import annotations

import time

import numpy as np
import pytest
from tests.rpc.servers import in_thread

from hotplug import ops
from hotplug.backend import Partition
from hotplug.errors import OutOfDeviceMemoryError
from hotplug.graph import Graph
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.addresses import Address
from hotplug_rpc.contents import digest_of
from hotplug_rpc.requests import Weights
from hotplug_rpc.server.build import Options
from hotplug_rpc.server.idle import Idle
from hotplug_rpc.server.offers import Offer


class Counting(FakeDevice):
    """Counts what it compiled and what was copied to it."""

    compiled = written = 0

    def compile(self, partition):
        self.compiled += 1
        return super().compile(partition)

    def enter(self, what):
        self.written += what == "write"
        super().enter(what)


def add_weight():
    x = ops.input(name="x", dtype="f32", shape=(256,))
    weight = ops.weight(name="w", dtype="f32", shape=(256,))
    return Graph.build({"y": ops.add(ops.add(x, weight), x)})


def serving(device, **options):
    chosen = Options(bind=Address("127.0.0.1", 0), keep_seconds=60, **options)
    return in_thread([device], chosen)


def use(remote, weight, x):
    """x + weight + x, by a client that comes and goes."""
    executable = remote.compile(Partition(add_weight()))
    bindings = {name: remote.buffers.allocate(1024) for name in ("x", "output:y")}
    bindings["w"] = remote.buffers.wrap(memoryview(weight.tobytes()))
    bindings["x"].write(0, x.data)
    executable.run(bindings)
    got = np.empty(256, np.float32)
    bindings["output:y"].read(0, got.data)
    return got


def test_the_next_client_neither_compiles_nor_sends(backend):
    device = Counting("fake:0")
    weight, x = np.arange(256, dtype=np.float32), np.full(256, 3, np.float32)
    with serving(device) as server:
        address = f"{server.address.server}/fake:0"
        for turn in range(3):
            with backend.open(backend.find(address)[0]) as remote:
                assert (use(remote, weight, x + turn) == weight + 2 * (x + turn)).all()
            offer = server.service.shared.offers[0]
            wait_until(lambda offer=offer: offer.taken == 0)
        assert device.compiled == 1
        assert server.service.metrics.get("requests_total", 'kind="content"') == 1
        assert offer.idle.nbytes >= 1024
    assert offer.idle.nbytes == 0
    assert device.memory().free == device.memory().total


def test_a_weight_of_another_length_is_not_taken_up(connect):
    """Its bytes would count as taken while nobody has them."""
    with serving(Counting("fake:0")) as server:
        offer = server.service.shared.offers[0]
        remote = connect(f"{server.address.server}/fake:0")
        data = memoryview(bytes(range(256)))
        remote.buffers.wrap(data).free()
        wait_until(lambda: offer.idle.nbytes == 256)
        digest = digest_of(data)
        for nbytes in (255, 257):
            answer = remote.connection.request(Weights(0, [(9, digest, nbytes)])).body
            assert answer == {"missing": [[0, 0]]}
        assert (offer.taken, offer.idle.nbytes) == (0, 256)


def test_two_clients_at_once_have_executables_of_their_own(backend, connect):
    device = Counting("fake:0")
    with serving(device) as server:
        first = connect(f"{server.address.server}/fake:0")
        executables = [first.compile(Partition(add_weight())) for _ in range(2)]
        assert device.compiled == 2
        for executable in executables:
            executable.free()


def test_idle_things_give_way(backend):
    """Neither a budget nor memory is short because of what nobody uses."""
    device = FakeDevice("fake:0", memory_bytes=10_000)
    offer = Offer(device, budget=8000, idle_seconds=60)
    held = device.buffers.allocate(5000)
    offer.idle.put("a", held, 5000, held.free)
    assert offer.memory().free == 8000
    offer.take(2000)
    assert offer.idle.take("b") is None
    assert offer.idle.nbytes == 5000
    offer.take(4000)  # 2000 + 4000 + 5000 are more than the budget
    assert offer.idle.nbytes == 0
    assert offer.idle.take("a") is None
    with pytest.raises(OutOfDeviceMemoryError, match="2000 bytes left"):
        offer.take(3000)
    offer.desk.close()


def test_what_is_taken_up_counts_once():
    offer = Offer(FakeDevice("fake:0", memory_bytes=10_000), budget=6000, idle_seconds=60)
    held = offer.device.buffers.allocate(5000)
    offer.take(5000)
    offer.give_back(5000)
    offer.idle.put("a", held, 5000, held.free)
    assert offer.idle.take("a") is held
    offer.take(5000)
    assert offer.taken == 5000
    assert offer.memory().free == 1000
    offer.desk.close()


def test_idle_things_end_by_themselves():
    freed = []
    idle = Idle(seconds=0.05)
    for key in range(3):
        idle.put(key, key, 10, lambda key=key: freed.append(key))
    idle.put(0, "another", 10, lambda: freed.append("another"))  # one of each is enough
    assert freed == ["another"]
    assert idle.take(1) == 1
    time.sleep(0.06)
    idle.expire()
    assert freed == ["another", 0, 2]
    assert idle.nbytes == 0
    Idle(0).put("x", "x", 1, lambda: freed.append("x"))
    assert freed[-1] == "x"


def wait_until(holds, seconds=20):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_is_idle_is_bounded_by_its_cost():
    """A large executable takes little of a device and much of the host."""
    freed = []
    idle = Idle(60.0)
    for number, cost in enumerate([1, 4000, 90, 10]):
        idle.put(number, number, 0, lambda number=number: freed.append(number), cost)
    assert freed == [0, 1]
    assert idle.take(2) == 2
    idle.put(5, 5, 0, lambda: freed.append(5), 5000)
    assert freed == [0, 1, 3, 5]
