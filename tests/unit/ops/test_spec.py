"""Op rows: how arguments become operands and parameters, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hotplug import ops
from hotplug.errors import GraphError
from hotplug.ops.spec import OPS, op

ANY_OPS: Any = ops
"""The ops, for calls that a type checker would refuse."""


def x(name="x", shape=(2, 3)):
    return ops.input(name=name, dtype="f32", shape=shape)


def test_operands_by_position_and_by_name_are_the_same():
    assert ops.matmul(x(shape=(2, 4)), b=x("b", (4, 3))) == ops.matmul(
        a=x(shape=(2, 4)), b=x("b", (4, 3))
    )


def test_defaults_are_the_values_written_out():
    assert ops.rms_norm(x()) == ops.rms_norm(x(), None, eps=1e-6)


def test_lists_become_tuples():
    assert ops.reshape(x(), shape=[3, 2]) == ops.reshape(x(), shape=(3, 2))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ANY_OPS.add(x()), "op add lacks its operand 'b'"),
        (lambda: ANY_OPS.neg(x(), x()), "op neg takes 1 operands, given 2"),
        (lambda: ANY_OPS.neg(np.zeros(3)), "op neg takes graph nodes as operands, given ndarray"),
        (lambda: ANY_OPS.concat(x(), 3), "op concat takes graph nodes as operands, given int"),
        (lambda: ANY_OPS.clamp(x(), low=0.0), "op clamp lacks its parameter 'high'"),
        (lambda: ANY_OPS.neg(x(), slope=1.0), "op neg has no parameter 'slope'"),
        (lambda: ANY_OPS.reshape(x(), shape=np.zeros(2)), "parameter 'shape' must be"),
        (lambda: ops.get("mystery"), "there is no op 'mystery'"),
    ],
)
def test_wrong_calls_say_what_is_wrong(build, message):
    with pytest.raises(GraphError, match=message):
        build()


def test_a_rule_error_names_op_and_operands():
    with pytest.raises(GraphError) as caught:
        ops.add(x(), x("y", (2, 4)))

    assert caught.value.op == "add"
    assert caught.value.operands == ("f32[2, 3]", "f32[2, 4]")


def test_a_name_is_given_once():
    with pytest.raises(GraphError, match="op neg is defined twice"):
        op("neg")(lambda x: x.type)


def test_every_row_describes_itself():
    for name, row in OPS.items():
        assert row.name == name
        assert getattr(ops, name) is row
        assert row.rule.__doc__, name
        assert not row.view or not row.inplace
        assert all(position < max(1, len(row.operands)) for position in row.inplace)


def test_defaults_are_what_a_given_value_would_become():
    # Else a node built by default had another key than the same node read from bytes.
    for row in OPS.values():
        for parameter in row.params:
            if not parameter.required:
                assert repr(parameter.convert(parameter.default)) == repr(parameter.default), row


def test_flops_of_products():
    matmul = ops.matmul(x(shape=(2, 3)), x("b", (3, 5)))

    assert OPS["matmul"].flops(matmul) == 2 * 2 * 3 * 5
    assert OPS["input"].flops(x()) == 0
    assert OPS["neg"].flops(ops.neg(x())) == 6


def test_fingerprint_is_short_and_stable():
    assert ops.fingerprint() == ops.fingerprint()
    assert len(ops.fingerprint()) == 16
