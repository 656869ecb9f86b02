"""The demo model goes on where its OpenCL device is lost, and on that device when it is back."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

import hotplug_llm
from hotplug.errors import DeviceLostError
from hotplug.registry import default

CASE = json.loads(
    (Path(__file__).parent / "data" / "smollm2_f32.json").read_text(encoding="utf-8")
)[0]
MARGIN = 0.02
SURE = next((n for n, lead in enumerate(CASE["greedy_margin"]) if lead < MARGIN), 32)


def begun(model: hotplug_llm.Model) -> hotplug_llm.Generation:
    return model.generate(
        CASE["prompt_ids"],
        max_tokens=SURE,
        sampling=hotplug_llm.SamplingOptions(temperature=0),
        ignore_eos=True,
    )


@pytest.mark.slow
def test_a_card_is_pulled_out_and_put_back(demo_model, opencl_devices):
    card = opencl_devices(intel=False).id
    told = []
    with hotplug_llm.load(
        demo_model, f"{card},cpu", "exact", context=256, fallback="allow"
    ) as model:
        model.session.subscribe(lambda event: told.append((event.kind.value, event.device)))
        answer = begun(model)
        list(islice(answer, 3))
        device = model.session.devices[0]
        device.driver._lost = "somebody has pulled it out"
        list(answer)
        assert answer.ids == CASE["greedy_ids"][:SURE]
        assert isinstance(model.session.failed[card], DeviceLostError)
        assert default().problem(card) == "somebody has pulled it out"
        assert [info.id for info in model.devices] == ["cpu:0"]

        model.session.restore(card)
        assert default().problem(card) == ""
        assert model.session.devices[0] is not device
        again = begun(model)
        list(again)
        assert again.ids == answer.ids
        assert f"on {card}:" in model.explain()
    assert told == [("quarantined", card), ("restored", card)]
