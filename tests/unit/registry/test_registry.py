"""The life of backends and devices: found, loaded, held, let go, found again."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from hotplug.backend import MemoryInfo
from hotplug.errors import (
    BackendInUseError,
    BackendLoadError,
    BackendNotFoundError,
    DeviceLostError,
    DeviceNotFoundError,
    DeviceUnavailableError,
    SettingsError,
    UsageError,
)
from hotplug.registry import EventKind, Registry, Stage, State
from hotplug.testing.fakes import FakeDevice, Fault, fake_backend, fake_registry


@pytest.fixture
def gpu():
    return FakeDevice("fake:0")


@pytest.fixture
def backend(gpu):
    return fake_backend("fake", gpu, FakeDevice("fake:1"))


@pytest.fixture
def fakes(backend):
    return fake_registry(backend)


# Loading


def test_nothing_is_imported_before_it_is_needed(site, registry):
    wanted, other = site.install("wanted"), site.install("other")
    assert registry.names() == ["other", "wanted"]
    assert registry.status("wanted").state is State.DISCOVERED
    assert wanted not in sys.modules
    registry.select("wanted:0")
    assert wanted in sys.modules
    assert other not in sys.modules


def test_stages_are_recorded_with_their_times(site, registry):
    site.install("fake")
    registry.open("fake").close()
    status = registry.status("fake")
    assert [record.stage for record in status.stages] == list(Stage)
    assert all(record.ok and record.seconds >= 0 for record in status.stages)
    assert status.seconds > 0
    assert (status.provenance.distribution, status.provenance.version) == ("test-fake", "1.5")
    assert status.to_json()["stages"][3]["stage"] == "imported"


def test_loading_twice_probes_once(fakes, backend):
    fakes.load("fake")
    fakes.load_all()
    fakes.select("auto")
    assert backend.calls["probe"] == 1


def test_a_failure_lasts_until_refresh():
    backend = fake_backend(
        "fake", FakeDevice("fake:0"), faults=[Fault("probe", OSError(), times=1)]
    )
    fakes = fake_registry(backend)
    for _ in range(2):
        with pytest.raises(BackendLoadError):
            fakes.load("fake")
    assert backend.calls["probe"] == 1
    fakes.refresh()
    assert fakes.load("fake").state is State.READY


def test_absent_backends_are_known_by_name():
    registry = Registry(list)
    assert registry.names() == []
    assert [status.name for status in registry.load_all()] == ["cpu", "cuda", "opencl", "rpc"]
    assert all(status.state is State.ABSENT for status in registry.statuses())
    assert "pip install hotplug-cuda" in registry.status("cuda").remedy
    with pytest.raises(BackendNotFoundError, match="pip install hotplug-cuda"):
        registry.load("cuda")
    with pytest.raises(BackendNotFoundError):
        registry.status("nothing-like-it")
    with pytest.raises(DeviceNotFoundError, match="available: none"):
        registry.select("auto")
    with pytest.raises(DeviceNotFoundError, match="pip install hotplug-cuda"):
        registry.select("cuda:1")


def test_autoload_off_waits_to_be_asked(site, registry, monkeypatch):
    monkeypatch.setenv("HOTPLUG_AUTOLOAD", "off")
    module = site.install("fake")
    with pytest.raises(DeviceNotFoundError, match="HOTPLUG_AUTOLOAD is off"):
        registry.select("auto")
    assert module not in sys.modules
    registry.load("fake")
    assert registry.select("auto").devices[0].id == "fake:0"


def test_autoload_off_does_not_keep_a_name_from_being_used(site, registry, monkeypatch):
    monkeypatch.setenv("HOTPLUG_AUTOLOAD", "off")
    site.install("fake")
    assert registry.select("fake").devices[0].id == "fake:0"


def test_unreadable_setting_is_told_of(fakes, monkeypatch):
    monkeypatch.setenv("HOTPLUG_AUTOLOAD", "perhaps")
    with pytest.raises(SettingsError, match="HOTPLUG_AUTOLOAD='perhaps'"):
        fakes.load_all()


def test_loading_from_many_threads_probes_once(fakes, backend):
    barrier = threading.Barrier(8)

    def load(_):
        barrier.wait()
        return fakes.select("auto").devices[0].id

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(load, range(8))) == {"fake:0"}
    assert backend.calls["probe"] == 1


def test_one_that_hangs_keeps_nobody_from_the_others():
    release = threading.Event()
    stuck = fake_backend("stuck", FakeDevice("stuck:0"), faults=[Fault("probe", release.wait)])
    fakes = fake_registry(stuck, fake_backend("fake", FakeDevice("fake:0")))
    thread = threading.Thread(target=lambda: fakes.load("stuck"))
    thread.start()
    assert fakes.select("fake").devices[0].id == "fake:0"
    assert fakes.status("stuck").state is State.DISCOVERED
    release.set()
    thread.join()
    assert fakes.status("stuck").state is State.READY


# Registering


def test_register_an_object_a_class_and_a_target(site):
    module = site.install("text")
    registry = Registry(list)
    registry.register(fake_backend("object", FakeDevice("object:0")))
    registry.register(type(fake_backend("class", FakeDevice("class:0"))))
    registry.register(f"{module}:backend", "text")
    assert module not in sys.modules
    registry.load_all()
    assert registry.status("object").provenance.source == "register()"
    assert registry.status("class").state is State.NO_DEVICE  # made without devices
    assert registry.select("text").devices[0].id == "text:0"


def test_register_needs_a_name():
    with pytest.raises(UsageError, match="no name"):
        Registry(list).register("module:object")


def test_registered_counts_before_installed(site, registry):
    site.install("fake", "raise SystemExit")
    registry.names()
    registry.register(fake_backend("fake", FakeDevice("fake:0")))
    assert registry.load("fake").provenance.source == "register()"
    assert [s.state for s in registry.statuses() if s.name == "fake"] == [
        State.READY,
        State.DUPLICATE,
    ]


def test_register_leaves_what_is_loaded(site, registry):
    site.install("fake")
    registry.load("fake")
    other = fake_backend("fake", FakeDevice("fake:7"))
    with pytest.raises(BackendInUseError, match="test-fake"):
        registry.register(other)
    registry.unload("fake")
    registry.register(other)
    assert registry.select("fake").devices[0].id == "fake:7"


def test_backend_path(site, monkeypatch):
    module = site.install("unused")
    monkeypatch.setenv("HOTPLUG_BACKEND_PATH", f"unused={module}:backend")
    registry = Registry(list)
    assert registry.load("unused").provenance.source == "HOTPLUG_BACKEND_PATH"


# Opening


def test_a_device_is_opened_once_and_shared(fakes, gpu):
    with fakes.open("fake:0", "one") as one, fakes.open("fake:0", "two") as two:
        assert one.device is two.device is gpu
        assert gpu.open_count == 1
        one.close()
        assert two.is_open
        assert gpu.open_count == 1
        with pytest.raises(DeviceLostError, match="one has closed it"):
            one.device  # noqa: B018
    assert gpu.open_count == 0
    with fakes.open("fake:0") as again:
        assert again.device is gpu


def test_opening_from_many_threads_opens_once(fakes, backend, gpu):
    with ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(lambda _: fakes.open("fake:0"), range(32)))
    assert backend.calls["open"] == 1
    for handle in handles:
        handle.close()
    assert gpu.open_count == 0


def test_a_handle_that_is_dropped_counts_as_closed(fakes, gpu):
    handle = fakes.open("fake:0")
    assert gpu.open_count == 1
    del handle
    gc.collect()
    assert gpu.open_count == 0
    fakes.unload("fake")


def test_a_device_that_cannot_be_closed_is_let_go(caplog):
    class Sticky(FakeDevice):
        def close(self):
            raise OSError("it sticks")

    fakes = fake_registry(fake_backend("fake", Sticky("fake:0")))
    fakes.open("fake:0").close()
    assert "it sticks" in caplog.text
    fakes.unload("fake")


def test_memory_is_told_without_opening_where_the_backend_can(fakes, backend, gpu):
    gpu.buffers.memory.total = 500
    info = fakes.select("fake:0").devices[0]
    assert fakes.memory(info).total == 500
    assert backend.calls["open"] == 1
    assert gpu.open_count == 0
    type(backend).memory = lambda self, info: MemoryInfo(700, None)
    assert fakes.memory(info).total == 700
    assert backend.calls["open"] == 1


def test_handles_say_who_holds_what(fakes):
    with fakes.open("fake:1", "the editor") as handle:
        assert repr(handle) == "<DeviceHandle fake:1 held by the editor>"
    assert repr(handle) == "<DeviceHandle fake:1 held by the editor, closed>"


# Unloading


def test_unload_is_refused_while_somebody_holds_a_device(fakes, gpu):
    with fakes.open("fake:0", "the editor"), fakes.open("fake:1", "a session"):
        with pytest.raises(BackendInUseError) as caught:
            fakes.unload("fake")
        assert caught.value.users == ("the editor (fake:0)", "a session (fake:1)")
        assert gpu.open_count == 1
    fakes.unload("fake")
    assert fakes.status("fake").state is State.UNLOADED


def test_unload_by_force_takes_the_devices_away(fakes, gpu):
    handle = fakes.open("fake:0")
    fakes.unload("fake", force=True)
    assert gpu.open_count == 0
    with pytest.raises(DeviceLostError, match="the backend fake was unloaded"):
        handle.device  # noqa: B018
    handle.close()
    assert gpu.open_count == 0


def test_unloaded_stays_away_until_it_is_named_to_load(fakes, backend):
    fakes.load("fake")
    info = fakes.select("fake").devices[0]
    fakes.unload("fake")
    fakes.refresh()
    fakes.load_all()
    with pytest.raises(DeviceNotFoundError, match="it was unloaded"):
        fakes.select("fake")
    with pytest.raises(DeviceUnavailableError, match="it was unloaded"):
        fakes.open(info)
    fakes.load("fake")
    assert fakes.select("fake").devices[0].id == "fake:0"
    assert backend.calls["probe"] == 2


def test_a_backend_that_cannot_close_is_let_go(caplog):
    class Sticky(type(fake_backend("fake"))):
        def close(self):
            raise OSError("it sticks")

    fakes = fake_registry(Sticky([FakeDevice("fake:0")]))
    fakes.load("fake")
    fakes.unload("fake")
    assert "it sticks" in caplog.text
    assert fakes.status("fake").state is State.UNLOADED


# Refreshing, and being told


def kinds(events):
    return [(event.kind, event.device or event.backend) for event in events]


def test_a_backend_installed_meanwhile_is_found(site, registry):
    assert registry.load_all()[0].name == "cpu"
    site.install("late")
    assert "late" not in registry.names()
    assert kinds(registry.refresh()) == [(EventKind.FOUND, "late")]
    assert registry.select("late").devices[0].id == "late:0"


def test_a_backend_removed_meanwhile_is_gone(site, registry):
    site.install("fake")
    registry.load("fake")
    site.remove("test-fake")
    assert kinds(registry.refresh()) == [(EventKind.REMOVED, "fake")]
    assert registry.names() == []


def test_a_backend_removed_while_in_use_stays_until_it_is_let_go(site, registry):
    site.install("fake")
    with registry.open("fake") as handle:
        site.remove("test-fake")
        registry.refresh()
        assert handle.is_open
        assert registry.names() == ["fake"]
    registry.refresh()
    assert registry.names() == []


def test_a_backend_repaired_meanwhile_is_loaded(site, registry):
    module = site.install("fake", "raise RuntimeError")
    with pytest.raises(BackendLoadError):
        registry.load("fake")
    good = site.install("good")
    code = (site.path / f"{good}.py").read_text().replace("good", "fake")
    (site.path / f"{module}.py").write_text(code)
    registry.refresh()
    assert registry.load("fake").state is State.READY


def test_devices_come_and_go(fakes, backend):
    fakes.load("fake")
    backend.devices.append(FakeDevice("fake:2"))
    assert kinds(fakes.refresh()) == [(EventKind.DEVICE_ADDED, "fake:2")]
    del backend.devices[:2]
    assert kinds(fakes.refresh()) == [
        (EventKind.DEVICE_REMOVED, "fake:0"),
        (EventKind.DEVICE_REMOVED, "fake:1"),
    ]
    assert [info.id for info in fakes.select("auto").devices] == ["fake:2"]
    backend.devices.clear()
    fakes.refresh()
    assert fakes.status("fake").state is State.NO_DEVICE
    backend.devices.append(FakeDevice("fake:0"))
    fakes.refresh()
    assert fakes.select("fake").devices[0].id == "fake:0"


def test_a_probe_that_breaks_later_changes_nothing(fakes, backend):
    fakes.load("fake")
    backend.add_fault(Fault("probe", OSError("bus error")))
    assert fakes.refresh() == []
    assert len(fakes.select("fake").devices) == 2


def test_unloading_while_another_thread_refreshes(fakes, backend):
    fakes.load("fake")
    with ThreadPoolExecutor() as pool:
        refreshed = []

        def close():  # unload holds the backend's lock now, for which refresh has to wait
            refreshed.append(pool.submit(fakes.refresh))
            wait(refreshed, timeout=0.1)

        backend.close = close
        fakes.unload("fake")
        assert refreshed[0].result(timeout=10) == []
    assert fakes.status("fake").state is State.UNLOADED


def test_a_device_set_aside_is_not_chosen_until_refresh(fakes):
    fakes.load("fake")
    fakes.set_aside("fake:0", "it was lost")
    assert [info.id for info in fakes.select("auto").devices] == ["fake:1"]
    with pytest.raises(DeviceNotFoundError, match="it was lost"):
        fakes.select("fake:0")
    assert fakes.status("fake").device_faults == {"fake:0": "it was lost"}
    assert kinds(fakes.refresh()) == [(EventKind.DEVICE_ADDED, "fake:0")]
    assert fakes.select("auto").devices[0].id == "fake:0"


def test_subscribers_are_told(fakes):
    told = []
    cancel = fakes.subscribe(told.append)
    fakes.load("fake")
    fakes.set_aside("fake:1", "lost")
    fakes.unload("fake")
    assert kinds(told) == [
        (EventKind.LOADED, "fake"),
        (EventKind.DEVICE_REMOVED, "fake:1"),
        (EventKind.UNPLUGGING, "fake"),
        (EventKind.DEVICE_REMOVED, "fake:0"),
        (EventKind.DEVICE_REMOVED, "fake:1"),
        (EventKind.UNLOADED, "fake"),
    ]
    cancel()
    fakes.load("fake")
    assert len(told) == 6


def test_subscribers_are_told_of_failures():
    fakes = fake_registry(fake_backend("fake", faults=[Fault("probe", OSError("bus error"))]))
    told = []
    fakes.subscribe(told.append)
    fakes.load_all()
    [event] = told
    assert (event.kind, event.backend) == (EventKind.FAILED, "fake")
    assert "bus error" in event.reason


def test_a_subscriber_that_fails_harms_nobody(fakes, caplog):
    told = []
    fakes.subscribe(lambda event: 1 / 0)
    fakes.subscribe(told.append)
    fakes.load("fake")
    assert len(told) == 1
    assert "ZeroDivisionError" in caplog.text


def test_an_automatic_choice_is_logged_once(fakes, caplog):
    caplog.set_level("INFO", logger="hotplug")
    for _ in range(3):
        fakes.select("auto")
    lines = [record.message for record in caplog.records if "chosen" in record.message]
    assert lines == ["fake:0 (Fake fake:0) chosen for 'auto'; next fake:1"]


# Forking

FORKING = """
import os
from hotplug.errors import DeviceLostError
from hotplug.testing.fakes import FakeDevice, fake_backend, fake_registry

device = FakeDevice("fake:0")
fakes = fake_registry(fake_backend("fake", device))
handle = fakes.open("fake:0", "the parent")
pid = os.fork()
if pid == 0:
    try:
        handle.device
    except DeviceLostError as error:
        assert "forked" in str(error), error
    else:
        os._exit(1)
    handle.close()
    assert device.open_count == 1, "the child must not close what the parent uses"
    assert fakes.status("fake").state.value == "not loaded"
    with fakes.open("fake:0") as again:
        assert again.device is device
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert handle.is_open
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_begins_anew():
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
    assert "forked while ['fake:0'] were open" in done.stderr
