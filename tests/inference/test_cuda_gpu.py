"""The demo model on a real GPU, where there is one, against an independent implementation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import hotplug_llm
from hotplug.errors import BackendLoadError
from hotplug_cuda import backend

if "HOTPLUG_CUDA_SIMULATE" in os.environ:
    pytest.skip("devices are simulated", allow_module_level=True)
try:
    if not backend.probe():
        pytest.skip("there is no NVIDIA GPU", allow_module_level=True)
except BackendLoadError as error:
    pytest.skip(str(error), allow_module_level=True)

CASES = json.loads(
    (Path(__file__).parent / "data" / "smollm2_f32.json").read_text(encoding="utf-8")
)
MARGIN = 0.02


@pytest.fixture(scope="module")
def model(demo_model):
    with hotplug_llm.load(demo_model, "cuda:0", "exact", context=256) as model:
        yield model


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"][:20])
def test_logits_and_greedy_ids(model, case):
    logits = model.logits(case["prompt_ids"])[-1]
    ids, values = zip(*case["last_logits_top8"], strict=True)
    np.testing.assert_allclose(logits[list(ids)], values, atol=5e-3)
    sure = next((n for n, lead in enumerate(case["greedy_margin"]) if lead < MARGIN), 32)
    answer = model.generate(
        case["prompt_ids"],
        max_tokens=min(sure, 32),
        sampling=hotplug_llm.SamplingOptions(temperature=0),
        ignore_eos=True,
    )
    for _ in answer:
        pass
    assert answer.ids == case["greedy_ids"][: len(answer.ids)]
    assert [info.id for info in model.devices] == ["cuda:0"]
