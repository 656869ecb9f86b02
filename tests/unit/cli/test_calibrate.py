"""`hotplug calibrate`: measuring, showing and forgetting, on devices that take no time."""

from __future__ import annotations

import dataclasses
import json

import pytest

from hotplug.cli import main
from hotplug.errors import DeviceLostError
from hotplug.placement import known_link, known_rates
from hotplug.testing.fakes import FakeDevice, Fault, fake_backend, fake_registry


@pytest.fixture
def devices(monkeypatch, tmp_path):
    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HOTPLUG_CACHE", "on")
    good, bad = FakeDevice("fake:0"), FakeDevice("broken:0")
    registry = fake_registry(fake_backend("fake", good), fake_backend("broken", bad))
    for module in ("hotplug.cli.calibrate", "hotplug.devices"):
        monkeypatch.setattr(f"{module}.default", lambda: registry)
    monkeypatch.setattr("hotplug.cli.calibrate.list_devices", lambda: [good.info, bad.info])
    return good, bad


ARGUMENTS = ["calibrate", "--seconds", "0.05", "--dtypes", "f32"]


def test_a_device_is_measured_shown_and_forgotten(devices, capsys):
    good, _ = devices
    assert main([*ARGUMENTS, "-d", "fake:0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == {}
    assert told["devices"]["fake:0"]["source"] == "measured"
    found = known_rates(good.info)
    assert found is not None
    assert found.launch == told["devices"]["fake:0"]["launch"]
    assert main(["calibrate", "--show", "-d", "fake:0"]) == 0
    assert "us to launch a part" in capsys.readouterr().out
    assert main(["calibrate", "--forget", "-d", "fake:0"]) == 0
    assert known_rates(good.info) is None
    assert main(["calibrate", "--show", "-d", "fake:0"]) == 0
    assert "Nothing was measured" in capsys.readouterr().out


class Neighbour(FakeDevice):
    """Receives from the first device directly."""

    def direct_from(self, source):
        if source.id == "broken:1":
            raise DeviceLostError("it fell off the bus", device=source.id)
        return 4096 if source.id == "fake:0" else None


def test_links_are_measured_shown_and_forgotten(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HOTPLUG_CACHE", "on")
    cards = [FakeDevice("fake:0"), Neighbour("fake:1")]
    broken = [Neighbour("broken:0"), FakeDevice("broken:1")]
    registry = fake_registry(fake_backend("fake", *cards), fake_backend("broken", *broken))
    for module in ("hotplug.cli.calibrate", "hotplug.devices"):
        monkeypatch.setattr(f"{module}.default", lambda: registry)
    assert main([*ARGUMENTS, "-d", "fake", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["links"].keys() == {"fake:0 -> fake:1"}
    found = known_link(cards[0].info, cards[1].info)
    assert found is not None
    assert told["links"]["fake:0 -> fake:1"] == {**dataclasses.asdict(found), "least": 4096}
    assert main(["calibrate", "--show", "-d", "fake"]) == 0
    assert "fake:0 -> fake:1 directly: " in capsys.readouterr().out
    assert main(["calibrate", "--forget", "-d", "fake"]) == 0
    assert known_link(cards[0].info, cards[1].info) is None
    assert main([*ARGUMENTS, "-d", "broken"]) == 1
    assert "broken:1 -> broken:0: it fell off the bus" in capsys.readouterr().out


def test_a_device_that_fails_costs_the_others_nothing(devices, capsys):
    good, bad = devices
    bad.add_fault(Fault("run", ZeroDivisionError("oops")))
    assert main([*ARGUMENTS, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert "oops" in told["failed"]["broken:0"]
    assert "fake:0" in told["devices"]
    assert bad.memory().free is None
    assert known_rates(good.info) is not None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--seconds", "0"], "--seconds must be above 0"),
        (["--threads", "0"], "the number of threads must be from 1 to"),
        (["--dtypes", ""], "there is no dtype ''"),
        (["--dtypes", "f32,foo"], "there is no dtype 'foo'"),
        (["--dtypes", "i32"], "dtypes of weights, which i32 is not"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_measured(devices, capsys, options, says):
    assert main(["calibrate", *options]) == 2
    assert says in capsys.readouterr().err
    assert not devices[0].calls["compile"]
