"""Teams of threads: every row is run, in its turn, whatever the threads do meanwhile."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from hotplug_cpu import threads
from hotplug_cpu.catalog import ROW_WORDS
from hotplug_cpu.jit import loader
from hotplug_cpu.kernels import control as at

COUNT = 64


class Counting:
    """A plan whose every row adds one to every element of `values`."""

    def __init__(self, rows):
        self.values = np.zeros(COUNT, np.float32)
        self._ones = np.ones(COUNT, np.float32)
        place, ones = self.values.ctypes.data, self._ones.ctypes.data
        self.plan = np.zeros((rows, ROW_WORDS), np.int64)
        self.plan[:, 0] = loader.load(["add"])["add"]
        self.plan[:, 1] = 1
        self.plan[:, 2:10] = [place, 0, ones, 0, 1, COUNT, place, 0]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_all_rows_are_run_by_any_number_of_threads(count):
    work = Counting(20)
    team = threads.team(count)
    for _ in range(5):
        team.run(work.plan)
    assert work.values.tolist() == [100.0] * COUNT


def test_an_empty_plan_does_nothing():
    threads.team(2).run(np.zeros((0, ROW_WORDS), np.int64))


def test_parked_threads_are_woken():
    work = Counting(2)
    team = threads.team(2)
    for pause in (0.0, 0.001, 0.02, 0.05, 0.0):
        time.sleep(pause)
        team.run(work.plan)
    assert work.values.tolist() == [10.0] * COUNT


def test_a_parked_thread_takes_part_again():
    """Without it the work would be done as well, by the others."""
    team, work = threads.Team(2), Counting(300)
    parked, runner = (place + at.THREAD_WORDS for place in (at.PARKED, at.RUNNER))
    for _ in range(3):
        assert _comes_true(lambda: team._words[parked] == 1)
        team._words[runner] = 0
        assert _comes_true(lambda: team.run(work.plan) or team._words[runner] == 1)
    team.close()


def test_a_thread_that_was_told_to_leave_takes_part_again():
    team, work = threads.Team(2), Counting(300)
    leave, runner = (place + at.THREAD_WORDS for place in (at.LEAVE, at.RUNNER))
    team._words[leave] = 1
    assert _comes_true(lambda: team.run(work.plan) or team._words[leave] == 0)
    team._words[runner] = 0
    assert _comes_true(lambda: team.run(work.plan) or team._words[runner] == 1)
    team.close()


def _comes_true(said):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if said():
            return True
        time.sleep(0.001)
    return False


@pytest.mark.parametrize("count", [2, 3, 8])
def test_no_row_begins_before_the_one_before_it_is_done(count):
    """Each row reads what the other end of the team wrote: numbers plus one, in reversed order."""
    groups, rows = 64, 200
    there, back = np.arange(8.0 * groups, dtype=np.float32), np.zeros(8 * groups, np.float32)
    expected, ones = there + rows, np.ones(8, np.float32)
    plan = np.zeros((rows, ROW_WORDS), np.int64)
    plan[:, 0] = loader.load(["add"])["add"]
    plan[:, 1] = 1
    for row, (source, target) in enumerate(((there, back), (back, there)) * (rows // 2)):
        last = source.ctypes.data + source.nbytes - 32
        plan[row, 2:10] = [last, -32, ones.ctypes.data, 0, groups, 8, target.ctypes.data, 32]
    for _ in range(10):
        threads.team(count).run(plan)
        np.testing.assert_array_equal(there, expected)
        expected = expected + rows


def test_a_team_is_shared():
    assert threads.team(2) is threads.team(2)
    assert threads.team(3) is not threads.team(2)


def test_callers_take_turns():
    works = [Counting(3) for _ in range(4)]
    callers = [
        threading.Thread(target=lambda w=w: [threads.team(2).run(w.plan) for _ in range(10)])
        for w in works
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(work.values.tolist() == [30.0] * COUNT for work in works)


def test_teams_of_several_sizes_run_at_once():
    """As sessions with other numbers of threads in one process have them, on few processors."""
    works = {count: Counting(5) for count in (1, 2, 3, 5)}

    def run(count):
        for _ in range(20):
            threads.team(count).run(works[count].plan)

    callers = [threading.Thread(target=run, args=(count,)) for count in works]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(work.values.tolist() == [100.0] * COUNT for work in works.values())


def test_beside_threads_of_the_user_s_own():
    """NumPy's OpenBLAS has threads that wait as busily as ours."""
    work, done = Counting(5), threading.Event()
    matrix = np.eye(300, dtype=np.float32) * 2
    products = []

    def multiply():
        with np.errstate(all="ignore"):  # on an emulated processor OpenBLAS divides by zero
            while not done.is_set():
                products.append(float((matrix @ matrix).sum()))

    user = threading.Thread(target=multiply)
    user.start()
    try:
        for _ in range(200):
            threads.team(2).run(work.plan)
    finally:
        done.set()
        user.join()
    assert work.values.tolist() == [1000.0] * COUNT
    assert set(products) == {1200.0}


def test_threads_end_when_a_team_is_closed():
    before = threading.active_count()
    team = threads.Team(3)
    team.run(Counting(1).plan)
    assert threading.active_count() == before + 2
    team.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(in_a_child):
    work = Counting(4)
    threads.team(2).run(work.plan)

    def run():
        threads.team(2).run(work.plan)
        return work.values[0] == 8

    assert in_a_child(run)
    threads.team(2).run(work.plan)
    assert work.values[0] == 8


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_another_thread_s_run_can_run_too(in_a_child):
    busy, done = Counting(50), threading.Event()

    def run():
        while not done.is_set():
            threads.team(2).run(busy.plan)

    def run_too():
        work = Counting(4)
        threads.team(2).run(work.plan)
        return work.values.tolist() == [4.0] * COUNT

    other = threading.Thread(target=run)
    other.start()
    try:
        for _ in range(3):
            assert in_a_child(run_too)
    finally:
        done.set()
        other.join()


def test_an_interrupted_run_is_finished_by_the_next(monkeypatch):
    team = threads.Team(2)
    work = Counting(3)
    post = team._post

    def interrupted(*words):
        post(*words)
        raise KeyboardInterrupt

    monkeypatch.setattr(team, "_post", interrupted)
    with pytest.raises(KeyboardInterrupt):
        team.run(work.plan)
    monkeypatch.setattr(team, "_post", post)
    team.run(work.plan)
    assert work.values.tolist() == [6.0] * COUNT
    team.close()


def test_shares_of_a_thread_that_does_not_come_are_done_by_others(monkeypatch):
    monkeypatch.setattr(threads.Team, "_work", lambda _self, _number: None)
    work = Counting(5)
    team = threads.Team(3)
    for _ in range(3):
        team.run(work.plan)
    assert work.values.tolist() == [15.0] * COUNT


def test_a_thread_that_stays_away_for_a_while_comes_back(monkeypatch):
    team = threads.Team(2)
    serve, answers = team._serve, [at.LEFT, at.LEFT]
    monkeypatch.setattr(team, "_serve", lambda *of: answers.pop() if answers else serve(*of))
    work = Counting(4)
    runs = 0
    while answers and runs < 2000:
        team.run(work.plan)
        time.sleep(0.005)
        runs += 1
    assert not answers
    assert work.values.tolist() == [4.0 * runs] * COUNT
    team.close()


def test_idle_threads_come_to_rest():
    """However busy the machine is, there comes a moment in which the process does nothing."""
    team = threads.Team(3)
    team.run(Counting(2).plan)
    assert any(_is_at_rest() for _ in range(200))
    team.close()


def _is_at_rest():
    before = time.process_time()
    time.sleep(0.1)
    return time.process_time() - before < 0.01
