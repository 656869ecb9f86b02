"""Looking on while a model generates: traces, verification, and the same bits on every run."""

from __future__ import annotations

import json

import numpy as np
import pytest

import hotplug_llm
from hotplug.cli.program import main
from hotplug.testing.conformance import bounds
from hotplug_llm.evaluation import Evaluator

GREEDY = hotplug_llm.SamplingOptions(temperature=0)


def generate(path, *options):
    return main(
        ["generate", "-m", str(path), "-d", "cpu", "-n", "3", "--temperature", "0", *options, "Hi"]
    )


def test_a_trace_of_an_answer(tiny_model, tmp_path, capsys):
    assert generate(tiny_model) == 0
    expected = capsys.readouterr().out
    assert generate(tiny_model, "--trace", str(tmp_path / "out.json")) == 0
    assert capsys.readouterr().out == expected
    events = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["traceEvents"]
    lanes = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    names = [(lanes[event["tid"]], event["name"]) for event in events if event["ph"] == "X"]
    assert sum(lane == "run" for lane, _ in names) == 9  # 7 tokens of prompt, and 2
    assert any((lane == "cpu:0" and "matvec" in name) or "matmul" in name for lane, name in names)
    assert {event["name"] for event in events if event["ph"] == "C"} == {"memory of cpu:0"}


def test_a_trace_that_cannot_be_written(tiny_model, tmp_path, capsys):
    assert generate(tiny_model, "--trace", str(tmp_path / "none" / "out.json")) == 2
    said = capsys.readouterr()
    assert "out.json cannot be written" in said.err
    assert said.out == ""


def test_a_model_that_is_right(tiny_model, capsys):
    assert generate(tiny_model, "--verify") == 0
    said = capsys.readouterr()
    assert "nodes were computed again, and none differs" in said.err
    assert generate(tiny_model, "--verify", "--verify-runs", "0") == 2


def test_a_model_that_is_wrong(tiny_model, monkeypatch, capsys):
    """Nothing is right where not even rounding is allowed; the first product is named."""
    allowed = bounds.allowed
    monkeypatch.setattr(
        bounds, "allowed", lambda node, *rest: allowed(node, *rest) * (node.op != "matmul")
    )
    assert generate(tiny_model, "--verify") == 2
    said = capsys.readouterr().err
    assert "matmul#" in said
    assert "blk.0.attn_" in said
    assert "on cpu:0 is off by" in said
    assert "Traceback" not in said


@pytest.fixture
def read(monkeypatch):
    """Widths of all that is run, and the logits that are given out."""
    widths, logits = [], []
    program, last = Evaluator.program, Evaluator.last_logits

    def noted(evaluator, tokens, *rest, **named):
        widths.append(tokens)
        return program(evaluator, tokens, *rest, **named)

    def kept(evaluator, *rest, **named):
        logits.append(last(evaluator, *rest, **named))
        return logits[-1]

    monkeypatch.setattr(Evaluator, "program", noted)
    monkeypatch.setattr(Evaluator, "last_logits", kept)
    return widths, logits


def answer(model, ids, read):
    widths, logits = read
    widths.clear()
    logits.clear()
    answer = model.generate(ids, max_tokens=4, sampling=GREEDY, ignore_eos=True)
    for _ in answer:
        pass
    return answer.ids, list(widths), np.array(logits)


@pytest.mark.parametrize("deterministic", [True, False])
def test_what_ran_before_changes_nothing(tiny_model, monkeypatch, read, deterministic):
    monkeypatch.setenv("HOTPLUG_DETERMINISTIC", str(deterministic))
    first, other = [5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25], [5, 7, 9, 11, 13, 2]
    with hotplug_llm.load(tiny_model, "cpu", threads=3) as model:
        before = answer(model, first, read)
        answer(model, other, read)
        after = answer(model, first, read)
    assert after[0] == before[0]
    assert (after[1] == before[1]) == deterministic  # else what is held is not read again
    if deterministic:
        np.testing.assert_array_equal(after[2], before[2])


def test_two_answers_at_once_are_read_as_if_alone(tiny_model, monkeypatch, read):
    monkeypatch.setenv("HOTPLUG_DETERMINISTIC", "on")
    first, other = [5, 7, 9, 11, 13, 15, 17, 19, 21], [6, 8, 10]
    with hotplug_llm.load(tiny_model, "cpu", threads=3) as model:
        _, _, alone = answer(model, first, read)
        both = [
            model.generate(ids, max_tokens=4, sampling=GREEDY, ignore_eos=True)
            for ids in (first, other)
        ]
        texts = [list(pieces) for pieces in zip(*both, strict=False)]
        assert texts
    np.testing.assert_array_equal(read[1][0], alone[0])
    assert any(np.array_equal(read[1][n], alone[2]) for n in range(3, len(read[1])))


def test_what_is_read_again_can_be_ended_as_well(tiny_model, monkeypatch):
    monkeypatch.setenv("HOTPLUG_DETERMINISTIC", "on")
    last, ends = Evaluator.last_logits, []

    def noted(evaluator, ids, *, control=None, **named):
        ends.append(control is not None)
        return last(evaluator, ids, control=control, **named)

    monkeypatch.setattr(Evaluator, "last_logits", noted)
    with hotplug_llm.load(tiny_model, "cpu") as model:
        both = [
            model.generate(ids, max_tokens=8, sampling=GREEDY, ignore_eos=True, timeout=600)
            for ids in ([5, 7, 9], [6, 8])
        ]
        list(zip(*both, strict=False))
    assert len(ends) > 16  # more than both have tokens
    assert all(ends)


def test_a_seed_is_chosen(tiny_model, monkeypatch):
    monkeypatch.setenv("HOTPLUG_DETERMINISTIC", "on")
    hot = hotplug_llm.SamplingOptions(temperature=2)
    with hotplug_llm.load(tiny_model, "cpu") as model:
        texts = {"".join(model.generate("Hi", max_tokens=8, sampling=hot)) for _ in range(3)}
    assert len(texts) == 1


def test_the_processor_gives_the_same_bits(tiny_model):
    """Threads share work as they come to it; who does what changes nothing."""
    ids = list(range(1, 50))
    seen = set()
    for _ in range(4):
        with hotplug_llm.load(tiny_model, "cpu", threads=4) as model:
            seen |= {model.logits(ids).tobytes() for _ in range(4)}
    assert len(seen) == 1
