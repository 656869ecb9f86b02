"""Plug-ins that are broken in every way cost their own devices and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hotplug.errors import BackendLoadError, DeviceNotFoundError, IncompatibleBackendError
from hotplug.registry import Stage, State

BACKEND = """
from hotplug.backend import API_VERSION, Backend, DeviceInfo, DeviceType

class Broken(Backend):
    name = "{name}"
    api_version = API_VERSION
    def probe(self):
        PROBE
    def open(self, info):
        raise NotImplementedError

backend = Broken()
"""


def probing(text: str) -> str:
    return BACKEND.replace("PROBE", text)


INFO = "DeviceInfo({backend!r}, {index}, 'x', DeviceType.GPU)"
FOREIGN = INFO.format(backend="cuda", index=0)
TWICE = INFO.format(backend="broken", index=0)

# name -> (code, state, what the reason must say)
BROKEN = {
    "raises": ("raise RuntimeError('no such luck')", State.IMPORT_FAILED, "no such luck"),
    "syntax": ("def", State.IMPORT_FAILED, "SyntaxError"),
    "imports": ("import no_such_vendor", State.IMPORT_FAILED, "no_such_vendor"),
    "exits": ("raise SystemExit(3)", State.IMPORT_FAILED, "SystemExit"),
    "recursion": ("def f(): f()\nf()", State.IMPORT_FAILED, "RecursionError"),
    "mute": (
        "class Mute(Exception):\n def __str__(self): 1 / 0\nraise Mute",
        State.IMPORT_FAILED,
        "Mute",
    ),
    "talkative": ("raise RuntimeError('x' * 100_000)", State.IMPORT_FAILED, "xxx..."),
    "no-object": ("", State.IMPORT_FAILED, "AttributeError"),
    "none": ("backend = None", State.INVALID, "lacks name, api_version, probe(), open(info)"),
    "no-open": (
        "class backend:\n name = '{name}'\n api_version = (1, 0)\n def probe(self): return []",
        State.INVALID,
        "lacks open(info)",
    ),
    "abstract": (
        probing("return []").replace("def open", "def other").replace("Broken()", "Broken"),
        State.INVALID,
        "lacks open(info)",
    ),
    "init": (
        probing("return []") + "\nclass backend(Broken):\n def __init__(self): 1 / 0",
        State.INVALID,
        "ZeroDivisionError",
    ),
    "newer": (
        probing("return []") + "\nBroken.api_version = (1, 999)",
        State.INCOMPATIBLE,
        "version 1.999 of the backend contract",
    ),
    "older": (
        probing("return []") + "\nBroken.api_version = (0, 1)",
        State.INCOMPATIBLE,
        "version 0.1 of the backend contract",
    ),
    "odd-version": (
        probing("return []") + "\nBroken.api_version = 'one'",
        State.INVALID,
        "lacks api_version",
    ),
    "renamed": (
        probing("return []") + "\nBroken.name = 'other'",
        State.INVALID,
        "calls itself 'other'",
    ),
    "empty": (probing("return []"), State.NO_DEVICE, "no device"),
    "no-driver": (
        probing(
            "from hotplug.errors import BackendLoadError\n"
            "        raise BackendLoadError('no driver', remedy='install one')"
        ),
        State.UNAVAILABLE,
        "no driver",
    ),
    "probe-raises": (probing("raise OSError('bus error')"), State.PROBE_FAILED, "bus error"),
    "probe-exits": (probing("raise SystemExit('bye')"), State.PROBE_FAILED, "bye"),
    "probe-none": (probing("return None"), State.INVALID, "NoneType"),
    "probe-names": (probing("return ['gpu']"), State.INVALID, "list of DeviceInfo"),
    "probe-foreign": (probing(f"return [{FOREIGN}]"), State.INVALID, "devices of cuda"),
    "broken": (probing(f"return [{TWICE}, {TWICE}]"), State.INVALID, "number twice"),
    "hangs": (
        probing("import threading; threading.Event().wait()"),
        State.TIMEOUT,
        "no answer within 0.2 s",
    ),
}


def telling(field: str, value: str) -> str:
    """A backend whose one device has a field that is not as the contract has it."""
    fields = {"backend": "'{name}'", "index": "0", "name": "'x'", "type": "DeviceType.GPU"}
    given = ", ".join(f"{name}={text}" for name, text in {**fields, field: value}.items())
    return probing(f"return [DeviceInfo({given})]")


WRONG_FIELDS = {
    "index": "-1",
    "name": "None",
    "type": "'gpu'",
    "uuid": "[1]",
    "units": "'many'",
    "properties": "{'a': object()}",
}
BROKEN |= {
    f"field-{field}": (telling(field, value), State.INVALID, f"whose {field} cannot be")
    for field, value in WRONG_FIELDS.items()
}


@pytest.mark.parametrize("name", BROKEN)
def test_costs_only_its_own_devices(name, site, registry, monkeypatch):
    monkeypatch.setenv("HOTPLUG_PROBE_TIMEOUT", "0.2")
    code, state, reason = BROKEN[name]
    site.install("healthy")
    site.install(name, code)
    registry.load_all()
    status = registry.status(name)
    assert status.state is state
    assert reason in status.reason
    assert status.devices == ()
    assert registry.select("auto").devices[0].id == "healthy:0"
    with registry.open("healthy:0") as handle:
        assert handle.device.memory() is not None
    with pytest.raises(BackendLoadError, match=name):
        registry.load(name)
    with pytest.raises(DeviceNotFoundError) as caught:
        registry.select(name)
    assert reason in str(caught.value)
    assert "healthy:0" in caught.value.available


def test_faults_say_what_to_do(site, registry):
    site.install("raises", "raise RuntimeError('x')")
    status = registry.load_all()
    mine = next(s for s in status if s.name == "raises")
    assert "--force-reinstall test-raises" in mine.remedy
    assert "HOTPLUG_BACKENDS=-raises" in mine.remedy
    assert "RuntimeError: x" in mine.traceback
    assert mine.stages[-1].stage is Stage.IMPORTED
    assert not mine.stages[-1].ok


def test_too_old_is_not_even_imported(site, registry):
    module = site.install("old", "raise SystemExit", requires="hotplug-core>=0.0.1,<0.0.2")
    with pytest.raises(IncompatibleBackendError, match=r"test-old 1\.5 needs hotplug-core"):
        registry.load("old")
    assert module not in sys.modules
    assert registry.status("old").state is State.INCOMPATIBLE
    assert "pip install --upgrade" in registry.status("old").remedy


def test_unreadable_requirement(site, registry):
    module = site.install("odd", requires="!!! what ???")
    registry.load_all()
    assert registry.status("odd").state is State.INVALID
    assert module not in sys.modules


def test_requirement_of_another_platform_does_not_count(site, registry):
    site.install("fine", requires="hotplug-core<0; sys_platform == 'amiga'")
    assert registry.load("fine").state is State.READY


def test_denied_is_not_imported(site, registry, monkeypatch):
    module = site.install("denied", "raise SystemExit")
    monkeypatch.setenv("HOTPLUG_BACKENDS", "-denied")
    registry.load_all()
    status = registry.status("denied")
    assert status.state is State.DISABLED
    assert "HOTPLUG_BACKENDS" in status.remedy
    assert module not in sys.modules


def test_denied_is_loaded_once_it_may_be(site, registry, monkeypatch):
    site.install("late")
    monkeypatch.setenv("HOTPLUG_BACKENDS", "-late")
    registry.load_all()
    monkeypatch.delenv("HOTPLUG_BACKENDS")
    assert registry.select("late").devices[0].id == "late:0"


@pytest.mark.parametrize("name", ["gpu", "auto", "Upper", "has space"])
def test_impossible_names(name, site, registry):
    site.install(name, "raise SystemExit", distribution="test-name")
    site.install("healthy")
    registry.load_all()
    assert registry.status(name).state is State.INVALID
    assert registry.select("gpu").devices[0].id == "healthy:0"


def test_malformed_entry_point(site, registry):
    site.install("malformed", target="{module}")
    registry.load_all()
    assert registry.status("malformed").state is State.INVALID
    assert "module:object" in registry.status("malformed").reason


def test_registered_twice(site, registry):
    site.install("same", distribution="test-a")
    site.install("same", distribution="test-b")
    rows = [status for status in registry.load_all() if status.name == "same"]
    assert [row.state for row in rows] == [State.READY, State.DUPLICATE]
    assert rows[0].provenance.distribution == "test-a"
    assert rows[1].provenance.distribution == "test-b"
    assert "test-a 1.5 offers the name 'same' as well" in rows[1].reason
    assert rows[1].remedy == "pip uninstall test-b"
    assert registry.select("same").devices[0].id == "same:0"


def test_a_distribution_further_down_the_path_is_no_duplicate(
    site, tmp_path, registry, monkeypatch
):
    site.install("same")
    other = tmp_path / "other"
    (other / "test_same-1.5.dist-info").mkdir(parents=True)
    for name in ("METADATA", "entry_points.txt"):
        text = (site.path / "test_same-1.5.dist-info" / name).read_text()
        (other / "test_same-1.5.dist-info" / name).write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(other)])
    states = [status.state for status in registry.load_all() if status.name == "same"]
    assert states == [State.READY]


def test_open_that_fails_takes_only_that_device(site, registry):
    code = """
from hotplug.testing.fakes import FakeDevice, Fault, fake_backend
fault = Fault("open", RuntimeError("card on fire"), times=1)
backend = fake_backend("{name}", FakeDevice("{name}:0"), FakeDevice("{name}:1"), faults=[fault])
"""
    site.install("cards", code)
    from hotplug.errors import DeviceUnavailableError

    with pytest.raises(DeviceUnavailableError, match="card on fire"):
        registry.open("cards:0")
    assert [info.id for info in registry.select("cards").devices] == ["cards:1"]
    with pytest.raises(DeviceNotFoundError, match="card on fire"):
        registry.select("cards:0")
    registry.refresh()
    registry.open("cards:0").close()


def test_open_that_gives_no_device(site, registry):
    site.install(
        "liar",
        probing(f"return [{INFO.format(backend='liar', index=0)}]").replace(
            "raise NotImplementedError", "return object()"
        ),
    )
    from hotplug.errors import DeviceUnavailableError

    with pytest.raises(DeviceUnavailableError, match="lacks info, memory, supports"):
        registry.open("liar")


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("import os; os._exit(5)", "exit code 5"),
        ("import threading; threading.Event().wait()", "no answer within 1 s"),
        ("raise OSError('bus error')", "bus error"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="deaths are told by signals")
def test_crashing_driver_is_probed_in_a_child(death, reason, site, registry, monkeypatch):
    monkeypatch.setenv("HOTPLUG_PROBE", "process")
    # A busy machine takes seconds to start the child, which matters only where it shall answer.
    monkeypatch.setenv("HOTPLUG_PROBE_TIMEOUT", "1" if "wait()" in death else "60")
    site.install("crashes", probing(death))
    registry.load_all()
    assert reason in registry.status("crashes").reason
    assert registry.status("crashes").state.is_fault


def test_healthy_backend_probed_in_a_child(site, registry, monkeypatch):
    monkeypatch.setenv("HOTPLUG_PROBE", "process")
    site.install("healthy")
    [info] = registry.select("healthy").devices
    assert (info.id, info.type.value) == ("healthy:0", "gpu")
    registry.open(info).close()


def test_command_line_tells_of_all_of_them(site):
    """The whole program, in a process of its own, with every kind of fault installed."""
    expected = {}
    for name, (code, state, reason) in BROKEN.items():
        if name != "hangs":
            site.install(name, code)
            expected[name] = (state.value, reason)
    site.install("hangs", BROKEN["hangs"][0])
    environment = os.environ | {"PYTHONPATH": str(site.path), "HOTPLUG_PROBE_TIMEOUT": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "hotplug", "devices", "--json"],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    answer = json.loads(done.stdout)
    rows = {row["name"]: row for row in answer["backends"]}
    for name, (state, reason) in expected.items():
        assert rows[name]["state"] == state
        assert reason in rows[name]["reason"]
    assert rows["hangs"]["state"] == "timed out"
    assert rows["cpu"]["state"] == "ready"
    owners = {device["backend"] for device in answer["devices"]}
    assert "cpu" in owners
    assert not owners & {"hangs", *expected}


def test_a_backend_that_hangs_while_it_is_imported(site, registry, monkeypatch):
    monkeypatch.setattr("hotplug.registry.lifecycle.IMPORT_TIMEOUT", 0.2)
    monkeypatch.setenv("HOTPLUG_PROBE_TIMEOUT", "0.2")
    site.install("sleepy", "import threading; threading.Event().wait()")
    registry.load_all()
    status = registry.status("sleepy")
    assert status.state.value == "timed out"
    assert "importing it came to no end within 0.2 s" in status.reason
    assert status.remedy


def test_what_plug_ins_print_does_not_mix_with_json(site):
    site.install("chatty", "print('hello'); raise ImportError('no')")
    environment = os.environ | {"PYTHONPATH": str(site.path)}
    for command in ("devices", "backends"):
        done = subprocess.run(
            [sys.executable, "-m", "hotplug", command, "--json"],
            capture_output=True, text=True, env=environment, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)["backends"]
        assert "hello" in done.stderr


@pytest.mark.parametrize("told", ["'lots'", "MemoryInfo(-1, None)", "MemoryInfo(None, 'free')"])
def test_memory_that_is_none_is_refused(told, site, registry):
    code = probing("return [DeviceInfo('{name}', 0, 'x', DeviceType.GPU)]")
    told = f"    def memory(self, info): return {told}\n"
    site.install(
        "odd", "from hotplug.backend import MemoryInfo\n" + code.replace("\nback", f"{told}\nback")
    )
    info = registry.select("odd").devices[0]
    with pytest.raises(TypeError, match="the memory of odd:0 is told as"):
        registry.memory(info)
