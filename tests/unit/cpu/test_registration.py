"""The CPU backend as the registry meets it."""

import importlib.util
import subprocess
import sys

import pytest

import hotplug_cpu
from hotplug.backend import API_VERSION, Backend, DeviceInfo, DeviceType
from hotplug.errors import DeviceUnavailableError, SettingsError
from hotplug_cpu.host import usable_threads
from hotplug_cpu.jit import target


def test_importing_and_probing_import_no_numpy_and_no_compiler() -> None:
    script = (
        "import sys, hotplug_cpu\n"
        "assert not {'numpy', 'llvmlite', 'numba'} & set(sys.modules)\n"
        "hotplug_cpu.backend.probe()\n"
        "assert not {'numpy', 'numba'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_backend_is_what_the_contract_asks_for() -> None:
    assert isinstance(hotplug_cpu.backend, Backend)
    assert hotplug_cpu.backend.name == "cpu"
    assert hotplug_cpu.backend.api_version == API_VERSION


def test_there_is_one_device_and_it_says_what_it_is() -> None:
    (info,) = hotplug_cpu.backend.probe()
    assert info.id == "cpu:0"
    assert info.type is DeviceType.CPU
    assert info.name
    assert info.units == usable_threads()
    assert info.architecture
    assert info.kernels in {"compiled", "numpy"}


def test_without_llvmlite_the_kernels_are_numpy_and_the_reason_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    (info,) = hotplug_cpu.backend.probe()
    assert info.kernels == "numpy"
    assert "llvmlite" in str(info.properties["compiler"])


def test_without_numba_the_kernels_are_numpy_and_the_reason_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "numba" else find(name)
    )
    (info,) = hotplug_cpu.backend.probe()
    assert info.kernels == "numpy"
    assert info.properties["compiler"] == "Numba is not installed"


def test_an_instruction_set_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPLUG_CPU_ISA", "z80")
    target.host_target.cache_clear()
    with pytest.raises(SettingsError, match="z80"):
        hotplug_cpu.backend.probe()


def test_a_device_that_is_not_there_cannot_be_opened() -> None:
    with pytest.raises(DeviceUnavailableError, match="cpu:1"):
        hotplug_cpu.backend.open(DeviceInfo("cpu", 1, "Other", DeviceType.CPU))
