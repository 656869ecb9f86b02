"""The demo model on an OpenCL device against an independent implementation in float32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import hotplug_llm
from hotplug.backend import DeviceType
from hotplug.errors import BackendLoadError
from hotplug.registry import default
from hotplug_opencl import backend

CASES = json.loads(
    (Path(__file__).parent / "data" / "smollm2_f32.json").read_text(encoding="utf-8")
)
MARGIN = 0.02


@pytest.fixture(scope="module", autouse=True)
def opencl():
    try:
        backend.probe()
    except BackendLoadError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def model(demo_model):
    with hotplug_llm.load(demo_model, "opencl:0", "exact", context=256) as model:
        yield model


def greedy(model, case, tokens):
    sure = next((n for n, lead in enumerate(case["greedy_margin"]) if lead < MARGIN), tokens)
    answer = model.generate(
        case["prompt_ids"],
        max_tokens=min(sure, tokens),
        sampling=hotplug_llm.SamplingOptions(temperature=0),
        ignore_eos=True,
    )
    for _ in answer:
        pass
    return answer.ids


def test_logits_and_first_choices(model):
    case = CASES[0]
    logits = model.logits(case["prompt_ids"])[-1]
    ids, values = zip(*case["last_logits_top8"], strict=True)
    np.testing.assert_allclose(logits[list(ids)], values, atol=5e-3)
    chosen = greedy(model, case, 8)
    assert chosen == case["greedy_ids"][: len(chosen)]
    assert [info.id for info in model.devices] == ["opencl:0"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"][:20])
def test_greedy_ids(model, case):
    chosen = greedy(model, case, 32)
    assert chosen == case["greedy_ids"][: len(chosen)]


def test_an_automatic_choice_takes_the_processor_once():
    chosen = default().select("auto").devices
    assert [info.id for info in chosen if info.type is DeviceType.CPU] == ["cpu:0"]
