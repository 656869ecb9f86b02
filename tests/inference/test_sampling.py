from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hotplug.errors import ExecutionError, UsageError
from hotplug_llm.sampling import Sampler, SamplingOptions

PLAIN = SamplingOptions(temperature=1, top_k=0, top_p=1, min_p=0, seed=1)


def logits_of(*probabilities):
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities, np.float32))


def drawn(options, logits, history=(), count=300):
    sampler = Sampler(options)
    return Counter(sampler.sample(logits, history) for _ in range(count))


def expected_candidates(logits, options):
    """The documented steps, by sorting."""
    order = np.argsort(-logits, kind="stable")[: options.top_k or None]
    weights = np.exp((logits - logits.max())[order].astype(np.float64))
    reached = np.cumsum(weights) / weights.sum()
    if options.top_p < 1:
        order = order[: np.searchsorted(reached, options.top_p) + 1]
    shares = np.exp((logits - logits.max())[order].astype(np.float64))
    return set(order[shares >= options.min_p].tolist())


@given(arrays(np.float32, st.integers(1, 60), elements=st.floats(-50, 50, width=32)))
def test_temperature_0_takes_the_likeliest_and_of_equal_ones_the_first(logits):
    token = Sampler(SamplingOptions(temperature=0)).sample(logits, [])
    assert token == min(np.flatnonzero(logits == logits.max()))


@pytest.mark.parametrize("size", [5, 700, 50_000])
@pytest.mark.parametrize("spread", [0.1, 3.0])
@pytest.mark.parametrize(
    "filters",
    [
        {"top_k": 3},
        {"top_p": 0.9},
        {"min_p": 0.2},
        {"top_k": 40, "top_p": 0.7, "min_p": 0.1},
        {"top_k": 2000, "top_p": 0.97},
    ],
)
def test_only_candidates_are_drawn_and_all_of_them_can_be(size, spread, filters):
    # Eighths make equal logits, but no sum that is near a limit.
    source = np.random.default_rng(size)
    logits = (np.round(source.standard_normal(size) * 8 * spread) / 8).astype(np.float32)
    options = replace(PLAIN, **filters)
    expected = expected_candidates(logits, options)
    assert set(Sampler(options)._candidates(logits).tolist()) == expected
    assert drawn(options, logits, count=50).keys() <= expected


def test_draws_follow_the_probabilities():
    counts = drawn(PLAIN, logits_of(0.5, 0.3, 0.2), count=20_000)
    shares = [counts[token] / 20_000 for token in range(3)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.015)


def test_temperature_sharpens_or_flattens():
    logits = logits_of(0.8, 0.2)
    assert drawn(replace(PLAIN, temperature=0.2), logits)[1] < 5
    assert drawn(replace(PLAIN, temperature=50), logits)[1] > 100
    assert drawn(replace(PLAIN, temperature=1e-300), logits).keys() == {0}


def test_temperature_comes_after_the_filters():
    options = replace(PLAIN, temperature=100, top_p=0.75)
    assert drawn(options, logits_of(0.7, 0.2, 0.1)).keys() == {0, 1}


def test_top_p_0_leaves_the_likeliest():
    assert drawn(replace(PLAIN, top_p=0), logits_of(0.3, 0.4, 0.3)).keys() == {1}


def test_top_k_among_equal_logits_takes_the_first():
    assert drawn(replace(PLAIN, top_k=2), np.zeros(500, np.float32)).keys() == {0, 1}


def test_top_k_above_the_vocabulary_is_no_limit():
    assert drawn(replace(PLAIN, top_k=10**9), np.zeros(3, np.float32)).keys() == {0, 1, 2}


def test_tokens_ruled_out_are_never_drawn():
    assert drawn(PLAIN, logits_of(0.5, 0, 0.5, 0)).keys() == {0, 2}


def test_the_penalty_makes_recent_tokens_less_likely_on_either_side_of_zero():
    greedy = SamplingOptions(temperature=0, repetition_penalty=2)
    assert Sampler(greedy).sample(np.array([3, 2, -9], np.float32), [0]) == 1
    assert Sampler(greedy).sample(np.array([-3, -4, -9], np.float32), [0, 0, 0]) == 1
    assert Sampler(greedy).sample(np.array([3, 1, -9], np.float32), [0]) == 0


def test_the_penalty_forgets_what_is_outside_its_window():
    logits = np.array([3, 2], np.float32)
    greedy = SamplingOptions(temperature=0, repetition_penalty=2, repetition_window=2)
    assert Sampler(greedy).sample(logits, [1, 0]) == 0
    assert Sampler(greedy).sample(logits, [1, 0, 0]) == 1
    assert Sampler(greedy).sample(logits, [0, 1, 1]) == 0
    assert Sampler(replace(greedy, repetition_window=0)).sample(logits, [0]) == 0


def test_logits_are_not_changed():
    logits = np.array([3, 2, 1], np.float32)
    Sampler(replace(PLAIN, repetition_penalty=2)).sample(logits, [0, 1])
    assert logits.tolist() == [3, 2, 1]


def test_a_seed_gives_the_same_tokens_everywhere():
    logits = np.linspace(-3, 3, 1000, dtype=np.float32)
    sampler = Sampler(replace(PLAIN, seed=7))
    tokens = [sampler.sample(logits, []) for _ in range(8)]
    assert tokens == [813, 687, 928, 568, 896, 833, 532, 887]


def test_without_a_seed_answers_differ():
    logits = np.zeros(10_000, np.float32)
    first, second = (Sampler(replace(PLAIN, seed=None)) for _ in range(2))
    draws = range(4)
    assert [first.sample(logits, []) for _ in draws] != [second.sample(logits, []) for _ in draws]


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_error(temperature, bad):
    logits = np.zeros(100, np.float32)
    logits[42] = bad
    with pytest.raises(ExecutionError, match="token 42"):
        Sampler(replace(PLAIN, temperature=temperature)).sample(logits, [])


def test_nothing_to_choose_from_is_an_error():
    with pytest.raises(ExecutionError, match="no usable logits"):
        Sampler(PLAIN).sample(np.full(9, -math.inf, np.float32), [])


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("temperature", [-0.1, math.nan, math.inf, "1", None, True]),
        ("top_k", [-1, 1.5, math.nan, "40", None, True]),
        ("top_p", [-0.1, 1.1, math.nan, "1"]),
        ("min_p", [-0.1, 1.1, math.nan]),
        ("repetition_penalty", [0, -1, math.nan, math.inf]),
        ("repetition_window", [-1, 0.5]),
        ("seed", [-1, 0.5, "x"]),
    ],
)
def test_options_out_of_range_are_named(option, values):
    for value in values:
        with pytest.raises(UsageError, match=option):
            SamplingOptions(**{option: value})


@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(seed=3),
        SamplingOptions(seed=3, top_k=1),
        SamplingOptions(seed=3, temperature=2.5, top_k=200, top_p=0.7, min_p=0.0),
        SamplingOptions(temperature=0, top_p=0.1),
    ],
    ids=str,
)
def test_the_largest_logits_are_enough(options):
    """Many are equal, so that it matters which of them are taken."""
    random = np.random.default_rng(7)
    whole, few = Sampler(options), Sampler(options)
    for _ in range(50):
        logits = random.integers(-20, 6, 300).astype(np.float32) / 2
        ids = np.sort(np.argsort(-logits, kind="stable")[: few.needed])
        assert few.choose(ids, logits[ids]) == whole.sample(logits, [1, 2])


def test_when_all_logits_are_needed():
    assert Sampler(SamplingOptions(top_k=0)).needed is None
    assert Sampler(SamplingOptions(temperature=0, repetition_penalty=1.1)).needed is None
    assert Sampler(SamplingOptions(repetition_penalty=1.1, repetition_window=0)).needed == 40
    assert Sampler(SamplingOptions(temperature=0)).needed == 1


def test_a_largest_logit_that_is_no_number_is_an_error():
    ids = np.array([5, 9])
    with pytest.raises(ExecutionError, match="token 9 is nan"):
        Sampler(SamplingOptions()).choose(ids, np.array([1, math.nan], np.float32))
