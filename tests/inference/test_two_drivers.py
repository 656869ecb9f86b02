"""One model over the processor, PoCL, Intel's runtime and a fake GPU, all in one process.

Both drivers have to be installed, as `make check-intel` sees to.
"""

from __future__ import annotations

import itertools

import pytest
from tests.inference.test_modes import CASES, LAYERS, MARGIN, check, even, greedy, the_processor
from tests.inference.test_modes import small as small  # noqa: PLC0414 - a fixture

import hotplug_llm
from hotplug.placement import parallel
from hotplug.testing.fakes import FakeDevice
from hotplug_opencl import backend

BORDERS = list(itertools.combinations_with_replacement(range(LAYERS + 1), 2))
DEMO_LAYERS = 30
DEMO_BORDERS = [(n // 2, n) for n in range(31)] + [(n, (30 + n) // 2) for n in range(31)]
"""Each of both borders is everywhere."""


@pytest.fixture(scope="module")
def drivers(opencl_devices):
    """A device of PoCL and one of Intel's."""
    with (
        backend.open(opencl_devices(intel=False)) as pocl,
        backend.open(opencl_devices(intel=True)) as intel,
    ):
        yield [pocl, intel]


@pytest.fixture(scope="module")
def expected(small):
    return greedy(small, [the_processor()], "layer")


@pytest.fixture(autouse=True)
def cut_small_weights(monkeypatch):
    monkeypatch.setattr(parallel, "_LEAST", 0)


def shared_out(devices, borders, layers):
    """Layers up to each border on the next device, each with its keys and values."""
    pins = {"token_embd": devices[0], "output_norm": devices[-1]}
    for layer in range(layers):
        home = devices[sum(layer >= border for border in borders)]
        pins |= dict.fromkeys((rf"^blk\.{layer}\.", rf"^[kv]\.{layer}$"), home)
    return pins


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["layer", "pipeline"])
@pytest.mark.parametrize("borders", BORDERS, ids=str)
def test_every_pair_of_borders(small, expected, drivers, borders, mode):
    devices = [*drivers, the_processor()]
    pins = shared_out([device.id for device in devices], borders, LAYERS)
    used = [device for device in devices if device.id in pins.values()]
    check(greedy(small, devices, mode, pins), expected, used)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["layer", "pipeline"])
def test_four_devices_a_layer_each_way(small, expected, drivers, mode):
    devices = [the_processor(), drivers[0], FakeDevice("gpu:0"), drivers[1]]
    pins = shared_out([device.id for device in devices], (0, 1, 2), LAYERS)
    check(greedy(small, devices, mode, pins), expected, devices)


@pytest.mark.slow
@pytest.mark.parametrize("names", ["pocl intel", "cpu intel", "pocl intel fake"])
def test_pieces_of_products(small, expected, drivers, monkeypatch, names):
    there = {"cpu": the_processor(), "fake": FakeDevice("gpu:0")}
    there |= dict(zip(("pocl", "intel"), drivers, strict=True))
    devices = [even(there[name], monkeypatch) for name in names.split()]
    check(greedy(small, devices, "tensor"), expected, devices)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["layer", "pipeline", "tensor"])
def test_the_demo_model(demo_model, drivers, mode):
    """Ids up to where the reference itself hesitates."""
    case = CASES[0]
    sure = next((n for n, lead in enumerate(case["greedy_margin"]) if lead < MARGIN), 8)
    wanted = case["greedy_ids"][: min(sure, 8)]
    ids = [drivers[0].id, "cpu:0", drivers[1].id]
    for borders in DEMO_BORDERS if mode != "tensor" else (None,):
        pins = shared_out(ids, borders, DEMO_LAYERS) if borders else None
        with hotplug_llm.load(
            demo_model, ",".join(ids), "exact",
            context=256, mode=mode, fallback="error", pins=pins,
        ) as model:  # fmt: skip
            answer = model.generate(
                case["prompt_ids"],
                max_tokens=len(wanted),
                sampling=hotplug_llm.SamplingOptions(temperature=0),
                ignore_eos=True,
            )
            for _ in answer:
                pass
            assert answer.ids == wanted
