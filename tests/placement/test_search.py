"""The search finds what trying everything finds, and keeps what it is told to keep."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotplug.placement.problem import Matrix, Problem, Step, price
from hotplug.placement.search import Solution, solve
from hotplug.placement.segments import segments

INF = math.inf


def crossing(rng: random.Random, devices: int) -> Matrix:
    scale = rng.choice([0.1, 1.0, 3.0])
    return tuple(
        tuple(0.0 if a == b else scale * rng.uniform(0.5, 1.5) for b in range(devices))
        for a in range(devices)
    )


def seconds(rng: random.Random, devices: int, refused: float) -> tuple[float, ...]:
    times = [INF if rng.random() < refused else rng.uniform(0.1, 3) for _ in range(devices)]
    return tuple(times) if min(times) < INF else (*times[:-1], 1.0)


def random_problem(rng: random.Random, devices: int, count: int, *, branches: bool) -> Problem:
    """A chain; with `branches` values are also read from up to three steps before."""
    matrices = [crossing(rng, devices) for _ in range(3)]
    steps, tie, tied = [], 0, 0
    for number in range(count):
        reads = [number - 1] if number else []
        if branches and number > 1 and rng.random() < 0.3:
            reads.append(rng.randrange(max(0, number - 3), number - 1))
        if not tied and rng.random() < 0.2:
            tie, tied = tie + 1, rng.randint(2, 3)
        tied = max(0, tied - 1)
        steps.append(
            Step(
                seconds(rng, devices, 0.0 if tied else 0.15),
                rng.choice(matrices),
                tuple(dict.fromkeys(reads)),
                tuple(item for item in range(2) if rng.random() < 0.25),
                (0,) if rng.random() < 0.2 else (),
                rng.choice([0, 0, 1, 2, 5]),
                tie if tied else -1,
            )
        )
    total = sum(step.need for step in steps)
    limited = rng.random() < 0.7
    return Problem(
        tuple(steps),
        tuple(rng.choice([0, 0.05, 0.5]) for _ in range(devices)),
        tuple(
            total * rng.uniform(0.2, 0.8) if limited and rng.random() < 0.6 else INF
            for _ in range(devices)
        ),
        tuple(tuple(rng.choice([0, 0.2, 1.0]) for _ in range(devices)) for _ in range(2)),
        (rng.randint(1, 6),),
    )


def cheapest(problem: Problem) -> float:
    """By trying all assignments; infinite if none keeps the budgets."""
    best = INF
    for devices in itertools.product(range(problem.devices), repeat=len(problem.steps)):
        cost = price(problem, devices)
        if cost.fits(problem.budgets):
            best = min(best, cost.seconds)
    return best


def check(problem: Problem, found: Solution | None) -> None:
    best = cheapest(problem)
    if found is None:
        assert best == INF
        return
    cost = price(problem, found.devices)
    assert cost.fits(problem.budgets)
    assert found.seconds == pytest.approx(cost.seconds)
    assert found.least <= found.seconds
    if found.exact:
        assert found.seconds == pytest.approx(best)
        assert found.least == pytest.approx(best)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**9), st.integers(2, 3), st.booleans())
def test_nothing_beats_what_is_found(seed: int, devices: int, branches: bool) -> None:
    rng = random.Random(seed)
    problem = random_problem(rng, devices, rng.randint(1, 9 - devices), branches=branches)
    found = solve(problem)
    check(problem, found)
    # Only where many steps cannot be cut apart may something better be missed.
    longest = max(len(piece.pattern.steps) for piece in segments(problem))
    assert found is None or found.exact or devices**longest > 300


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**9))
def test_a_long_chain_without_budgets_is_as_short_as_its_shortest_path(seed: int) -> None:
    """Against the textbook: Viterbi's recursion over steps and devices."""
    rng = random.Random(seed)
    devices = rng.randint(2, 4)
    steps = [
        Step(seconds(rng, devices, 0.1), crossing(rng, devices), (number - 1,) if number else ())
        for number in range(60)
    ]
    launch = tuple(rng.uniform(0, 1) for _ in range(devices))
    problem = Problem(tuple(steps), launch, (INF,) * devices)
    best = [step + begin for step, begin in zip(steps[0].seconds, launch, strict=True)]
    for before, step in itertools.pairwise(steps):
        best = [
            step.seconds[d]
            + min(
                best[o] + before.crossing[o][d] + (launch[d] if o != d else 0)
                for o in range(devices)
            )
            for d in range(devices)
        ]
    found = solve(problem)
    assert found is not None
    assert found.exact
    assert found.seconds == pytest.approx(min(best))


def layers(count: int, slow: float = 3.0, need: int = 10) -> Problem:
    """Layers of two steps, alike; the second device takes `slow` times as long, a copy five."""
    matrix: Matrix = ((0.0, 5.0), (5.0, 0.0))
    steps = []
    for number in range(2 * count):
        reads = (number - 1,) if number else ()
        steps.append(Step((1.0, slow), matrix, reads, need=need if number % 2 else 0))
    return Problem(tuple(steps), (0.0, 0.0), (INF, INF))


def with_budgets(problem: Problem, *budgets: float) -> Problem:
    return Problem(problem.steps, problem.launch, budgets, problem.outside, problem.shared)


def test_a_fast_device_is_filled_and_left_once() -> None:
    found = solve(with_budgets(layers(8), 50, INF))
    assert found is not None
    assert found.exact
    assert found.memory == (50, 30)
    assert found.devices == (0,) * 11 + (1,) * 5
    assert found.seconds == pytest.approx(16 + 2 * 5 + 5)


def test_large_problems_get_a_good_answer_and_a_bound() -> None:
    problem = with_budgets(layers(200), 777, INF)
    found = solve(problem, tolerance=0.01)
    assert found is not None
    assert price(problem, found.devices).fits(problem.budgets)
    assert found.least <= found.seconds
    assert found.seconds <= 1.02 * found.least


def test_of_equal_devices_the_first_is_taken() -> None:
    found = solve(layers(4, slow=1.0))
    assert found is not None
    assert set(found.devices) == {0}


def test_where_nothing_fits_there_is_no_solution() -> None:
    assert solve(with_budgets(layers(3), 10, 10)) is None


def test_equal_layers_are_one_pattern() -> None:
    pieces = segments(layers(20))
    assert len(pieces) == 40
    assert len({id(piece.pattern) for piece in pieces}) <= 4


def test_many_devices_are_taken_in_order() -> None:
    matrix = tuple(tuple(0.0 if a == b else 0.1 for b in range(12)) for a in range(12))
    steps = [
        Step((1.0,) * 12, matrix, (number - 1,) if number else (), need=10) for number in range(60)
    ]
    found = solve(Problem(tuple(steps), (0.0,) * 12, (50.0,) * 12), tolerance=0.01)
    assert found is not None
    assert found.devices == tuple(number // 5 for number in range(60))


def test_runs_go_round_steps_that_a_device_does_not_run() -> None:
    problem = layers(10)
    steps = list(problem.steps)
    for number in (4, 5, 13):
        steps[number] = Step(
            (INF, 3.0), steps[number].crossing, steps[number].reads, need=steps[number].need
        )
    limited = Problem(tuple(steps), problem.launch, (60, INF))
    found = solve(limited)
    assert found is not None
    assert price(limited, found.devices).fits(limited.budgets)
    assert found.seconds == pytest.approx(cheapest_of_runs(limited))


def cheapest_of_runs(problem: Problem) -> float:
    """The best with two changes of device at most, but for what the first does not run."""
    count = len(problem.steps)
    best = INF
    for start in range(count + 1):
        for stop in range(start, count + 1):
            devices = [int(not start <= n < stop) for n in range(count)]
            wanted = [
                d if s.seconds[d] < INF else 1 for d, s in zip(devices, problem.steps, strict=True)
            ]
            cost = price(problem, wanted)
            if cost.fits(problem.budgets):
                best = min(best, cost.seconds)
    return best
