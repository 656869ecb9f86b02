"""`devices`, `backends`, `doctor`, `info` and `cache`, run as the command line runs them."""

from __future__ import annotations

import errno
import json
import os
import threading

import pytest

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.cli import backends, devices, doctor, main
from hotplug.errors import DeviceLostError
from hotplug.testing.fakes import FakeDevice, Fault, fake_backend, fake_registry


@pytest.fixture
def shown(capsys):
    """Runs a command line and returns its exit code and output."""

    def run(*words):
        code = main([str(word) for word in words])
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def use(monkeypatch):
    """Puts fake backends in the place of those installed."""

    def put(*made):
        registry = fake_registry(*made)
        for module in (devices, backends, doctor):
            monkeypatch.setattr(module, "default", lambda: registry)
        monkeypatch.setattr("hotplug.devices.default", lambda: registry)
        return registry

    return put


def cpu(**options):
    return fake_backend("cpu", FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True, **options))


# devices


def test_devices_as_json(shown):
    code, text = shown("devices", "--json")
    assert code == 0
    answer = json.loads(text)
    [device] = [device for device in answer["devices"] if device["id"] == "cpu:0"]
    assert device["type"] == "cpu"
    assert device["threads"] >= 1
    assert 0 < device["memory_free"] <= device["memory_total"]
    assert device["instruction_set"]
    assert device["kernels"] in {"compiled", "numpy"}
    rows = {row["name"]: row for row in answer["backends"]}
    assert rows["cpu"]["state"] == "ready"
    for name in ("cuda", "opencl", "rpc"):
        assert rows[name]["reason"] or rows[name]["state"] == "ready"


def test_devices_as_a_table(shown, use):
    use(cpu(memory_bytes=2_000_000_000))
    code, text = shown("devices")
    assert code == 0
    assert "cpu:0" in text
    assert "2 GB" in text
    assert "oracle" in text
    assert "note" not in text
    assert "pip install hotplug-cuda" in text
    assert "not installed" in text


def test_facts_of_a_device_are_written_for_people(shown, use):
    facts = {
        "platform": "Portable", "memory": 123456789, "largest_buffer_bytes": 4294967296,
        "simulated": True, "part_of_units": 8,
    }  # fmt: skip
    info = DeviceInfo("cpu", 0, "a processor", DeviceType.CPU, properties=facts)
    use(fake_backend("cpu", FakeDevice(info, is_host=True)))
    code, text = shown("devices")
    assert code == 0
    notes = " ".join(text.replace("│", " ").split())
    for words in ("platform: Portable", "largest buffer: 4.29 GB", "simulated", "part of units: 8"):
        assert words in notes
    assert "123456789" not in notes
    assert "simulated:" not in notes


def test_no_device_at_all(shown, use):
    use()
    code, text = shown("devices")
    assert code == 0
    assert text.startswith("No device can be used.")
    assert "pip install hotplug-cpu" in text
    assert json.loads(shown("devices", "--json")[1])["devices"] == []


def test_a_device_that_cannot_be_asked_is_listed_with_the_reason(shown, use):
    lost = FakeDevice("fake:0", faults=[Fault("memory", DeviceLostError("it fell off"))])
    stuck = fake_backend("stuck", FakeDevice("stuck:0"), faults=[Fault("open", OSError("busy"))])
    use(cpu(), fake_backend("fake", lost), stuck)
    code, text = shown("devices", "--json")
    assert code == 0
    rows = {row["id"]: row for row in json.loads(text)["devices"]}
    assert "it fell off" in rows["fake:0"]["problem"]
    assert "busy" in rows["stuck:0"]["problem"]
    assert rows["cpu:0"]["problem"] == ""
    assert "it fell off" in shown("devices")[1]


def test_a_device_that_hangs_keeps_no_other_from_the_list(shown, use, monkeypatch):
    monkeypatch.setenv("HOTPLUG_PROBE_TIMEOUT", "0.2")
    release = threading.Event()
    use(cpu(), fake_backend("fake", FakeDevice("fake:0", faults=[Fault("memory", release.wait)])))
    rows = {row["id"]: row for row in json.loads(shown("devices", "--json")[1])["devices"]}
    assert rows["fake:0"]["problem"] == "no answer within 0.2 s"
    assert rows["cpu:0"]["problem"] == ""
    release.set()


def test_one_card_seen_twice_is_said_to_be_one(shown, use):
    one, two = FakeDevice("one:0", uuid="GPU-1"), FakeDevice("two:0", uuid="gpu-1")
    use(fake_backend("one", one), fake_backend("two", two))
    rows = json.loads(shown("devices", "--json")[1])["devices"]
    assert [(row["id"], row["same_device_as"]) for row in rows] == [
        ("one:0", None),
        ("two:0", "one:0"),
    ]
    assert "the same device as one:0" in shown("devices")[1]


def test_devices_are_listed_with_autoload_off(shown, monkeypatch):
    monkeypatch.setenv("HOTPLUG_AUTOLOAD", "off")
    assert "cpu:0" in shown("devices")[1]


# backends


def test_backends(shown, use):
    use(cpu(), fake_backend("fake", faults=[Fault("probe", OSError("bus error"))]))
    code, text = shown("backends")
    assert code == 0
    assert "ready" in text
    assert "bus error" in text
    assert "Traceback" not in text
    assert "Traceback" in shown("backends", "--trace")[1]
    rows = {row["name"]: row for row in json.loads(shown("backends", "--json")[1])["backends"]}
    assert rows["fake"]["state"] == "probe failed"
    assert [stage["stage"] for stage in rows["cpu"]["stages"]][-1] == "probed"


# doctor


def test_doctor_of_this_machine(shown):
    code, text = shown("doctor", "--json", "--device", "cpu")
    answer = json.loads(text)
    assert (code, answer["ok"]) == (0, True), answer
    assert answer["devices"][0]["id"] == "cpu:0"


def test_doctor_passes_a_device_that_computes_right(shown, use):
    use(cpu(), fake_backend("fake", FakeDevice("fake:0", unsupported={"rms_norm"})))
    code, text = shown("doctor")
    assert code == 0
    assert "PASS cpu:0" in text
    assert "norm left out" in text
    assert "fake:0 refuses rms_norm" in text


def test_doctor_passes_a_device_that_only_adds(shown, use):
    def refuses(node):
        return "" if node.is_leaf or node.op == "add" else "it only adds"

    use(fake_backend("fake", FakeDevice("fake:0", unsupported=refuses)))
    code, text = shown("doctor")
    assert code == 0
    assert "PASS fake:0" in text
    assert "attention left out" in text
    assert "it only adds" in text


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (FakeDevice("fake:0", error=0.5), "matmul"),
        (FakeDevice("fake:0", faults=[Fault("run", DeviceLostError("it fell off"))]), "fell off"),
        (FakeDevice("fake:0", memory_bytes=100), "fake:0 has"),
        (FakeDevice("fake:0", unsupported=lambda node: "no ops at all"), "no ops at all"),
    ],
)
def test_doctor_fails_a_device_that_does_not(device, reason, shown, use):
    use(cpu(), fake_backend("fake", device))
    code, text = shown("doctor")
    assert code == 1
    [line] = [line for line in text.splitlines() if line.startswith("FAIL")]
    assert reason in line
    assert "PASS cpu:0" in text
    assert shown("doctor", "--device", "cpu")[0] == 0
    assert not json.loads(shown("doctor", "--json")[1])["ok"]


def test_doctor_gives_up_on_a_device_that_hangs(shown, use):
    release = threading.Event()
    use(cpu(), fake_backend("fake", FakeDevice("fake:0", faults=[Fault("run", release.wait)])))
    code, text = shown("doctor", "--timeout", "0.2")
    assert code == 1
    [line] = [line for line in text.splitlines() if line.startswith("FAIL")]
    assert line.startswith("FAIL fake:0")
    assert line.endswith("no answer within 0.2 s")
    assert "PASS cpu:0" in text
    release.set()


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_doctor_refuses_odd_timeouts(text, shown):
    assert shown("doctor", f"--timeout={text}") == (2, "")


def test_doctor_tells_of_broken_backends_and_of_having_no_device(shown, use):
    use(fake_backend("fake", faults=[Fault("probe", OSError("bus error"))]))
    code, text = shown("doctor")
    assert code == 1
    assert "FAIL backend fake: its probe failed: OSError: bus error" in text
    assert "FAIL no device can be used" in text


# info


def test_info(shown, monkeypatch):
    monkeypatch.setenv("HOTPLUG_THREADS", "3")
    monkeypatch.setenv("HOTPLUG_BACKENDS", "-cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    code, text = shown("info", "--json")
    assert code == 0
    answer = json.loads(text)
    assert answer["versions"]["hotplug-core"] == "0.1.0"
    assert answer["environment"]["CUDA_VISIBLE_DEVICES"] == "1"
    rows = {row["name"]: row for row in answer["settings"]}
    assert rows["threads"] == {"name": "threads", "value": 3, "origin": "HOTPLUG_THREADS"}
    assert rows["denied"]["origin"] == "HOTPLUG_BACKENDS"
    assert rows["fallback"] == {"name": "fallback", "value": "warn", "origin": "default"}
    table = shown("info")[1]
    assert "HOTPLUG_THREADS" in table
    assert "numpy" in table


# cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    directory = tmp_path / "kernels"
    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(directory))
    for number, (folder, size) in enumerate((("cpu", 300), ("cpu", 700), ("cuda", 24))):
        name = f"{folder}/add-{number:032x}.o"
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(bytes(size))
    for name in ("mine.txt", "cpu/mine.o", f"mine/deep/add-{0:032x}.o"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("not the cache's")
    outside = tmp_path / "outside.o"
    outside.write_bytes(bytes(5))
    (directory / "cpu" / f"link-{9:032x}.o").symlink_to(outside)
    return directory


def test_cache_is_listed(cache, shown):
    code, text = shown("cache", "--json")
    assert code == 0
    assert json.loads(text) == {
        "directory": str(cache),
        "enabled": True,
        "nbytes": 1024,
        "most_nbytes": 1 << 30,
        "cleared": False,
        "backends": [
            {"name": "cpu", "files": 2, "nbytes": 1000},
            {"name": "cuda", "files": 1, "nbytes": 24},
        ],
    }
    assert "1 kB" in shown("cache")[1]
    assert shown("cache", "size") == (0, "1024\n")
    assert shown("cache", "path") == (0, f"{cache}\n")


def test_cache_is_cleared_of_its_own_files_only(cache, tmp_path, shown):
    code, text = shown("cache", "clear")
    assert code == 0
    assert "removed 1.02 kB" in text
    assert json.loads(shown("cache", "--json")[1])["nbytes"] == 0
    kept = {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}
    assert kept == {"mine.txt", "cpu/mine.o", f"mine/deep/add-{0:032x}.o", f"cpu/link-{9:032x}.o"}
    assert (tmp_path / "outside.o").exists()


def test_no_cache(tmp_path, monkeypatch, shown):
    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("HOTPLUG_CACHE", "off")
    code, text = shown("cache")
    assert code == 0
    assert "nothing is kept there" in text
    assert "HOTPLUG_CACHE" in text
    assert shown("cache", "clear")[0] == 0


def test_a_cache_that_cannot_be_read_is_told(cache, monkeypatch, capsys):
    def refuse(directory):
        raise PermissionError(errno.EACCES, "Permission denied", str(directory))

    monkeypatch.setattr(os, "scandir", refuse)
    assert main(["cache", "list"]) != 0
    assert f"{cache} cannot be read: Permission denied" in capsys.readouterr().err
    assert main(["cache", "path"]) == 0
