"""The demo model on an OpenCL device against an independent implementation in float32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import hotplug_llm
from hotplug.backend import DeviceType
from hotplug.cli.program import main
from hotplug.errors import FallbackWarning
from hotplug.registry import default
from hotplug_llm.evaluation import Evaluator

CASES = json.loads(
    (Path(__file__).parent / "data" / "smollm2_f32.json").read_text(encoding="utf-8")
)
MARGIN = 0.02


@pytest.fixture(scope="module", params=[False, True], ids=["other", "intel"])
def opencl(request, opencl_devices):
    """A device's id."""
    return opencl_devices(intel=request.param).id


@pytest.fixture(scope="module")
def model(demo_model, opencl):
    with hotplug_llm.load(demo_model, opencl, "exact", context=256) as model:
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


def test_logits_and_first_choices(model, opencl, monkeypatch):
    # As on a GPU, from which ids alone are read.
    monkeypatch.setattr(Evaluator, "finds", lambda evaluator, largest: largest == 1)
    case = CASES[0]
    logits = model.logits(case["prompt_ids"])[-1]
    ids, values = zip(*case["last_logits_top8"], strict=True)
    np.testing.assert_allclose(logits[list(ids)], values, atol=5e-3)
    chosen = greedy(model, case, 8)
    assert chosen == case["greedy_ids"][: len(chosen)]
    assert [info.id for info in model.devices] == [opencl]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"][:20])
def test_greedy_ids(model, case):
    chosen = greedy(model, case, 32)
    assert chosen == case["greedy_ids"][: len(chosen)]


def forbid(monkeypatch, *names):
    monkeypatch.setenv("HOTPLUG_FORBID", ",".join(f"{name}@opencl" for name in names))


def steps(explained):
    """Device -> what it does, from where each step runs."""
    found = {}
    device = ""
    for row in explained.splitlines():
        if row.startswith("part ") and row.endswith(":"):
            device = row.removesuffix(":").split()[-1]
        elif device:
            found[device] = found.get(device, "") + row + "\n"
    return found


def test_forbidden_ops_fall_back_node_by_node(demo_model, opencl, monkeypatch):
    """Every layer goes to the processor and back."""
    forbid(monkeypatch, "rope", "rms_norm")
    case, both = CASES[0], f"{opencl},cpu"
    with hotplug_llm.load(demo_model, both, "exact", context=64) as model:
        done = steps(model.explain())
        chosen = greedy(model, case, 4)
        assert [info.id for info in model.devices] == [opencl, "cpu:0"]
    assert done[opencl].count("matvec(") > 200
    assert "rope(" not in done[opencl]
    assert "normalise(" not in done[opencl]
    assert len(chosen) == 4
    assert chosen == case["greedy_ids"][:4]


def test_the_processor_takes_over_with_a_warning(demo_model, opencl, monkeypatch):
    forbid(monkeypatch, "rope")
    with hotplug_llm.load(demo_model, opencl, "exact", context=64, fallback="warn") as model:
        with pytest.warns(FallbackWarning, match=r"the CPU takes over .*HOTPLUG_FORBID"):
            chosen = greedy(model, CASES[0], 2)
        assert [info.id for info in model.devices] == [opencl, "cpu:0"]
    assert chosen == CASES[0]["greedy_ids"][: len(chosen)]


@pytest.mark.parametrize("others", ["", ",cpu"])
@pytest.mark.parametrize("by", ["option", "variable"])
def test_fallback_error_refuses(demo_model, opencl, monkeypatch, capsys, by, others):
    forbid(monkeypatch, "rope")
    option = ["--fallback", "error"] if by == "option" else []
    if by == "variable":
        monkeypatch.setenv("HOTPLUG_FALLBACK", "error")
    devices = ["--device", opencl + others]
    command = ["generate", "-m", str(demo_model), *devices, "-n", "2", *option, "hello"]
    assert main(command) != 0
    said = capsys.readouterr()
    assert "rope" in said.err
    assert opencl in said.err
    assert "HOTPLUG_FORBID names it" in said.err
    assert said.out == ""


def test_an_automatic_choice_takes_the_processor_once(opencl):
    chosen = default().select("auto").devices
    assert [info.id for info in chosen if info.type is DeviceType.CPU] == ["cpu:0"]
