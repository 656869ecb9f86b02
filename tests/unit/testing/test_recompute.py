"""The verifier finds the node that a device computes wrong, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import DeviceType, Executable, Partition
from hotplug.errors import VerificationError
from hotplug.graph import Graph
from hotplug.quants import encode
from hotplug.session import Session
from hotplug.tensor import HostTensor
from hotplug.testing.fakes import FakeDevice, FakeExecutable
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.oracle import Array
from hotplug.testing.recompute import Verifier
from hotplug_cpu import backend as processor

SHAPE = DecoderShape(
    layers=2, width=64, hidden=96, heads=4, kv_heads=2, head=16, vocabulary=40, context=16, tokens=3
)


class FaultyDevice(FakeDevice):
    """Computes one op wrong."""

    op = "swiglu"
    fault = 1e-3

    def compile(self, partition: Partition) -> Executable:
        device = self

        class Faulty(FakeExecutable):
            def compute(self, leaves: Mapping[str, HostTensor]) -> dict[str, Array]:
                values = super().compute(leaves)
                for name, node in self.graph.outputs:
                    if node.op == device.op:
                        values[name] = values[name].copy()
                        values[name][1, 5] += device.fault
                return values

        return Faulty(self, partition)


def weights(graph: Graph) -> dict[str, HostTensor]:
    rng = np.random.default_rng(0)
    return {
        name: HostTensor(
            node.type, encode(rng.standard_normal(node.shape, np.float32) / 4, node.dtype)
        )
        for name, node in graph.weights.items()
    }


def inputs() -> dict[str, np.ndarray]:
    return dict.fromkeys(("tokens", "positions", "rows"), np.arange(3, dtype=np.int32))


def run(session: Session, graph: Graph, verifier: Verifier, times: int = 1) -> None:
    with session.observed(verifier):
        for _ in range(times):
            session.run(graph, inputs())


def test_the_first_wrong_node_is_named() -> None:
    graph = decoder(SHAPE)
    held = weights(graph)
    wrong = FaultyDevice("gpu:0")
    cpu = FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)
    with (
        Session([wrong, cpu], held, pins={r"^0\.": "cpu:0"}) as session,
        pytest.raises(VerificationError, match="first node that differs") as caught,
    ):
        run(session, graph, Verifier(fail=True))
    error = caught.value
    # That of the second layer: the first is on the other device, and right.
    assert (error.op, error.device) == ("swiglu", "gpu:0")
    assert error.error == pytest.approx(1e-3, rel=1e-3)
    assert error.allowed is not None
    assert error.allowed < 1e-5


def test_an_error_does_not_spread() -> None:
    """All later nodes are recomputed from wrong values, and are right for those."""
    graph = decoder(SHAPE)
    held = weights(graph)
    with Session([FaultyDevice("gpu:0")], held) as session:
        verifier = Verifier()
        run(session, graph, verifier)
    found = [one for one in verifier.differences if one.node.op == "swiglu"]
    assert len(found) == SHAPE.layers
    assert "is off by 0.001" in str(found[0])


@pytest.mark.parametrize("dtype", ["f32", "q8_0", "q4_1"])
@pytest.mark.parametrize("tokens", [1, 40])
def test_the_processor_is_right(dtype: str, tokens: int) -> None:
    graph = decoder(replace(SHAPE, weights=dtype, tokens=tokens, context=64))
    held = weights(graph)
    ids = np.arange(tokens, dtype=np.int32) % 40
    with Session([processor.open(processor.probe()[0])], held) as session:
        verifier = Verifier(fail=True)
        with session.observed(verifier):
            session.run(graph, {"tokens": ids, "positions": ids, "rows": ids})
    assert verifier.checked > 30


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("tokens", [1, 512])
def test_products_that_round_both_operands(dtype: str, tokens: int) -> None:
    x = ops.input(name="x", dtype="f32", shape=(tokens, 512))
    w = ops.weight(name="w", dtype=dtype, shape=(64, 512))
    graph = Graph.build({"y": ops.matmul(x, w, transpose_b=True)})
    held = weights(graph)
    values = np.random.default_rng(1).standard_normal((tokens, 512), np.float32)
    with (
        Session([processor.open(processor.probe()[0])], held) as session,
        session.observed(Verifier(fail=True)),
    ):
        session.run(graph, {"x": values})


def test_only_the_first_runs_are_checked() -> None:
    graph = decoder(SHAPE)
    held = weights(graph)
    with Session([FakeDevice("gpu:0")], held) as session:
        once, twice = Verifier(runs=1), Verifier(runs=2)
        run(session, graph, once, times=3)
        run(session, graph, twice, times=3)
    assert once.checked > 0
    assert twice.checked == 2 * once.checked
