"""Blocks on a device hold what `hotplug.quants` says they hold, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops, quants
from hotplug.backend import Partition
from hotplug.dtypes import DTYPES, get
from hotplug.errors import BackendLoadError
from hotplug.gpu import blocks
from hotplug.graph import Graph
from hotplug.quants import grids
from hotplug_opencl import backend

QUANTS = [name for name, dtype in DTYPES.items() if dtype.quantised]
ENCODED = [name for name in QUANTS if quants.can_encode(get(name))]
ROWS, COLUMNS = 8, 512


@pytest.fixture(scope="module")
def device():
    pytest.importorskip("pyopencl", reason="PyOpenCL is not installed")
    try:
        found = backend.probe()
    except BackendLoadError as error:
        pytest.skip(str(error))
    with backend.open(found[0]) as opened:
        yield opened


def computed(device, node, x):
    """The bytes of a node of one operand, `x`."""
    graph = Graph.build({"y": node})
    buffers = {"x": device.buffers.allocate(x.nbytes)}
    buffers["output:y"] = device.buffers.allocate(node.type.nbytes)
    buffers["x"].write(0, x.data)
    device.compile(Partition(graph)).run(buffers)
    result = np.empty(node.type.nbytes, np.uint8)
    buffers["output:y"].read(0, result.data)
    return result


@pytest.mark.parametrize("name", QUANTS)
def test_any_bytes_are_decoded_as_on_the_host(device, name):
    """Most blocks are no encoder's: every bit of a format is set somewhere."""
    data = np.random.default_rng(4).integers(0, 256, get(name).nbytes(ROWS * COLUMNS), np.uint8)
    with np.errstate(all="ignore"):
        wanted = quants.decode(data, get(name), (ROWS, COLUMNS))
    x = ops.input(name="x", dtype=name, shape=(ROWS, COLUMNS))
    values = computed(device, ops.cast(x, dtype="f32"), data).view(np.float32)
    np.testing.assert_array_equal(values.reshape(ROWS, COLUMNS), wanted)
    assert np.isfinite(wanted).mean() > 0.5


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize(("rows", "columns"), [(3, 256), (ROWS, COLUMNS)])
def test_numbers_are_encoded_as_on_the_host(device, name, rows, columns):
    """What is left beside whole vectors of work-items is often another program."""
    rng = np.random.default_rng(5)
    sizes = np.exp2(rng.integers(-6, 6, (rows, 1)))
    numbers = (sizes * rng.standard_normal((rows, columns))).astype(np.float32)
    numbers[0] = 0
    x = ops.input(name="x", dtype="f32", shape=(rows, columns))
    encoded = computed(device, ops.cast(x, dtype=name), numbers.view(np.uint8).reshape(-1))
    np.testing.assert_array_equal(encoded, quants.encode(numbers, get(name)))


def test_points_are_packed_as_numbers_of_their_levels():
    defined = blocks.definitions("iq3_s")
    assert (defined["iq3_s_BLOCK"], defined["iq3_s_BYTES"]) == ("256", "110")
    assert int(defined["GRID_SIZE"]) == len(grids.IQ3_S) == 512
    packed = np.array(defined["GRID"].split(", "), int)
    levels = 1 + 2 * (packed[:, np.newaxis] >> np.arange(0, 12, 3) & 7)
    np.testing.assert_array_equal(levels, grids.IQ3_S)
