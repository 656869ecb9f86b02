"""The demo model against results of an independent implementation in float32."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotplug_llm

DATA = Path(__file__).parent / "data"
CASES: list[dict[str, Any]] = json.loads((DATA / "smollm2_f32.json").read_text(encoding="utf-8"))
MARGIN = 0.02
"""A first choice less far ahead than this may fall the other way by rounding alone."""


@pytest.fixture(scope="module")
def exact(demo_model: Path) -> Iterator[hotplug_llm.Model]:
    with hotplug_llm.load(demo_model, "cpu", "exact", context=1024) as model:
        yield model


@pytest.fixture(scope="module")
def quick(demo_model: Path) -> Iterator[hotplug_llm.Model]:
    with hotplug_llm.load(demo_model, "cpu", context=1024) as model:
        yield model


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"][:20])
class TestGolden:
    def test_token_ids(self, exact: hotplug_llm.Model, case: dict[str, Any]) -> None:
        assert exact.tokenize(case["prompt"]) == case["prompt_ids"]

    def test_last_logits(self, exact: hotplug_llm.Model, case: dict[str, Any]) -> None:
        logits = exact.logits(case["prompt_ids"])[-1]
        ids, values = zip(*case["last_logits_top8"], strict=True)
        np.testing.assert_allclose(logits[list(ids)], values, atol=5e-3)
        assert list(np.argsort(-logits)[:8]) == list(ids)

    def test_mean_nll(self, exact: hotplug_llm.Model, case: dict[str, Any]) -> None:
        assert exact.nll(case["prompt_ids"]) == pytest.approx(case["mean_nll"], abs=1e-3)

    def test_greedy_ids(self, exact: hotplug_llm.Model, case: dict[str, Any]) -> None:
        sure = sure_length(case)
        answer = exact.generate(
            case["prompt_ids"],
            max_tokens=sure,
            sampling=hotplug_llm.SamplingOptions(temperature=0),
            ignore_eos=True,
        )
        for _ in answer:
            pass
        assert answer.ids == case["greedy_ids"][:sure]

    def test_default_precision_makes_the_same_first_choice(
        self, quick: hotplug_llm.Model, case: dict[str, Any]
    ) -> None:
        """Rounding activations to 8 bits moves logits, but not past a margin of one unit."""
        if case["greedy_margin"][0] > 1:
            logits = quick.logits(case["prompt_ids"])[-1]
            assert int(logits.argmax()) == case["greedy_ids"][0]


def sure_length(case: dict[str, Any]) -> int:
    """Tokens before the first whose lead is too small to be sure of."""
    margins = case["greedy_margin"]
    close = [n for n, margin in enumerate(margins) if margin < MARGIN]
    return close[0] if close else len(margins)


def test_some_case_is_sure_for_long() -> None:
    assert max(sure_length(case) for case in CASES) >= 20


def test_default_precision_costs_under_half_a_percent(
    exact: hotplug_llm.Model, quick: hotplug_llm.Model
) -> None:
    text = (DATA / "workshop.txt").read_text(encoding="utf-8")
    ids = exact.tokenize(text)[:1000]
    assert len(ids) == 1000
    reference = exact.nll(ids)
    assert 1.0 < reference < 4.0  # prose that the model has never seen, and can read
    assert quick.nll(ids) == pytest.approx(reference, rel=5e-3)


def test_widths_agree(exact: hotplug_llm.Model) -> None:
    """One token at a time, in odd pieces, or all at once: the same logits."""
    ids = exact.tokenize((DATA / "workshop.txt").read_text(encoding="utf-8"))[:70]
    whole = exact.logits(ids)
    pieces = [1, 2, 3, 5, 9, 17, 33]
    evaluator = exact._evaluator
    evaluator.rewind(0)
    start = 0
    for length in pieces:
        logits = evaluator.last_logits(ids[start : start + length])
        start += length
        np.testing.assert_allclose(logits, whole[start - 1], atol=2e-3)
