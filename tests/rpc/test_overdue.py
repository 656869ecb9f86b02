"""Runs that keep a device for too long."""

from __future__ import annotations

import threading

import pytest
from tests.rpc.services import HELLO, Bench, ready

from hotplug.cli import main
from hotplug.errors import RunCancelledError
from hotplug.testing.fakes import FakeDevice, Fault
from hotplug_rpc import requests as rq
from hotplug_rpc.server.build import Options, options_from_json, options_to_json
from hotplug_rpc.server.limits import Limits
from hotplug_rpc.server.overdue import ended_after
from hotplug_rpc.wire import Kind


class Stoppable:
    """Runs until it is told to stop."""

    def __init__(self):
        self.stopped = threading.Event()
        self.stop = self.stopped.set

    def run(self, seconds=20):
        if self.stopped.wait(seconds):
            raise RunCancelledError("stopped")


def test_a_run_that_takes_too_long_ends_and_others_go_on(monkeypatch):
    device, running = FakeDevice("fake:0"), Stoppable()
    compile_here = device.compile

    def compile_stoppable(partition):
        executable = compile_here(partition)
        executable.stop = running.stop
        return executable

    monkeypatch.setattr(device, "compile", compile_stoppable)
    bench = Bench(device, limits=Limits(run_seconds=0.05))
    bench.does(HELLO)
    ready(bench)
    device.add_fault(Fault("run", running.run, times=1))
    error, message = bench.fails(rq.Run(0, 1, [], []))
    assert error == "DeadlineExceededError"
    assert "0.05 s" in message
    assert bench.ask(rq.Run(0, 1, [], []))[0].kind is Kind.DONE
    bench.service.close()


def test_only_what_is_overdue_is_called_so():
    running = Stoppable()
    with ended_after(running, 60, "fake:0"):
        pass
    running.stop()
    for seconds in (60, None):
        with pytest.raises(RunCancelledError, match="stopped"), ended_after(running, seconds, "f"):
            running.run()


def test_after_a_run_nothing_is_stopped():
    running = Stoppable()
    with ended_after(running, 0.01, "fake:0"):
        pass
    assert not running.stopped.wait(0.1)


def test_processes_of_sessions_are_told():
    options = Options(limits=Limits(run_seconds=2.5))
    assert options_from_json(options_to_json(options)).limits.run_seconds == 2.5


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_what_is_no_limit(capsys, value):
    assert main(["serve-devices", "--devices", "cpu", "--run-limit", value]) == 2
    assert "--run-limit" in capsys.readouterr().err
