"""Lanes and turns."""

from __future__ import annotations

import threading

import pytest

from hotplug_rpc.server.desk import Desk, Job


@pytest.fixture
def desk():
    made = Desk("test")
    yield made
    made.close()


def held(desk):
    """Keeps the desk's thread busy until the event is set."""
    gate, begun = threading.Event(), threading.Event()
    desk.submit("gate", Job(0, lambda: (begun.set(), gate.wait(20))))
    assert begun.wait(20)
    return gate


def finish(desk):
    done = threading.Event()
    desk.submit("last", Job(0, done.set))
    assert done.wait(20)


def test_lanes_take_turns(desk):
    gate, done = held(desk), []
    for lane in "abc":
        for number in range(3):
            desk.submit(lane, Job(number, lambda lane=lane, n=number: done.append(f"{lane}{n}")))
    assert desk.waiting == 9
    gate.set()
    desk.close()
    assert done == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


def test_clients_take_turns_however_many_lanes_they_have(desk):
    gate, done = held(desk), []
    for client, lanes in (("many", "abc"), ("one", "d")):
        for lane in lanes:
            for number in range(2):
                name = f"{lane}{number}"
                desk.submit(lane, Job(number, lambda name=name: done.append(name)), client)
    desk.clear("b")
    gate.set()
    desk.close()
    assert done == ["a0", "d0", "c0", "d1", "a1", "c1"]


def test_no_client_has_all_threads():
    desk = Desk("test", threads=2, most=1)
    open_, done = threading.Event(), []
    for lane in "ab":
        desk.submit(lane, Job(0, lambda: done.append(open_.wait(20))), "slow")
    quick = threading.Event()
    desk.submit("c", Job(0, quick.set), "quick")
    assert quick.wait(20)
    assert desk.serves("a")
    assert not desk.serves("d")
    open_.set()
    desk.close()
    assert done == [True, True]


def test_jobs_are_taken_back(desk):
    gate, done = held(desk), []
    for number in range(3):
        desk.submit("a", Job(number, lambda n=number: done.append(n), nbytes=number))
    assert desk.remove("a", 1).nbytes == 1
    assert desk.remove("a", 1) is None
    assert desk.remove("b", 0) is None
    assert desk.remove("gate", 0) is None
    gate.set()
    finish(desk)
    assert done == [0, 2]
    desk.submit("a", Job(5, lambda: done.append(5)))
    desk.submit("a", Job(6, lambda: done.append(6)))
    finish(desk)
    assert done == [0, 2, 5, 6]


def test_lanes_are_cleared(desk):
    gate, done = held(desk), []
    for lane in "ab":
        desk.submit(lane, Job(0, lambda lane=lane: done.append(lane)))
    desk.clear("a")
    desk.clear("nothing")
    gate.set()
    finish(desk)
    assert done == ["b"]


def test_a_job_that_raises_ends_nothing(desk):
    def fail():
        raise RuntimeError("oops")

    desk.submit("a", Job(0, fail))
    finish(desk)


def test_a_lane_is_served_by_one_thread_at_a_time():
    desk = Desk("test", threads=4)
    inside, overlaps, done = threading.Lock(), [], threading.Event()

    def work():
        overlaps.append(not inside.acquire(blocking=False))
        inside.release()
        if len(overlaps) == 200:
            done.set()

    for number in range(200):
        desk.submit("a", Job(number, work))
    assert done.wait(20)
    desk.close()
    assert not any(overlaps)
