from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from hotplug.errors import HotplugWarning, SettingsError
from hotplug.settings import KNOWN_VARIABLES, Settings, parse_backend_path, settings


@pytest.fixture
def environment(monkeypatch):
    import os

    for name in list(os.environ):
        if name.startswith("HOTPLUG_"):
            monkeypatch.delenv(name)
    return monkeypatch


def test_nothing_set_gives_the_defaults():
    assert Settings.read({}) == Settings()


def test_the_environment_is_read_at_every_call(environment):
    assert settings().device is None
    environment.setenv("HOTPLUG_DEVICE", "cuda:1")
    assert settings().device == "cuda:1"
    environment.delenv("HOTPLUG_DEVICE")
    assert settings().device is None


@pytest.mark.parametrize("text", ["1", "true", "YES", "On", " on "])
def test_switches_on(text):
    assert Settings.read({"HOTPLUG_AUTOLOAD": text}).autoload is True


@pytest.mark.parametrize("text", ["0", "false", "NO", "Off"])
def test_switches_off(text):
    assert Settings.read({"HOTPLUG_AUTOLOAD": text}).autoload is False
    assert Settings.read({"HOTPLUG_CACHE": text}).cache is False


def test_an_empty_value_counts_as_not_set():
    assert Settings.read(dict.fromkeys(KNOWN_VARIABLES, " ")) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("AUTOLOAD", "maybe", "off"),
        ("CACHE", "2", "off"),
        ("FALLBACK", "never", "error or warn or allow"),
        ("LOG", "loud", "debug"),
        ("PROBE", "fork", "thread or process"),
        ("PROBE_TIMEOUT", "soon", "seconds"),
        ("PROBE_TIMEOUT", "0", "seconds"),
        ("PROBE_TIMEOUT", "-1", "seconds"),
        ("PROBE_TIMEOUT", "nan", "seconds"),
        ("PROBE_TIMEOUT", "inf", "seconds"),
        ("THREADS", "0", "whole number"),
        ("THREADS", "two", "whole number"),
        ("THREADS", "-2", "whole number"),
        ("THREADS", "1.5", "whole number"),
        ("THREADS", "٣", "whole number"),
        ("CUDA_SIMULATE", "off", "whole number"),
        ("OPENCL_SUBDEVICES", "half", "whole number"),
        ("FORBID", "softmax", "op@backend"),
        ("FORBID", "@opencl", "op@backend"),
        ("FORBID", "soft max@opencl", "op@backend"),
        ("CACHE_BYTES", "0", "whole number from 1"),
        ("CACHE_BYTES", "1GB", "whole number"),
        ("CACHE_BYTES", "1e9", "whole number"),
        ("CACHE_BYTES", "9" * 5000, "whole number"),
        ("PRECISION", "high", "exact"),
        ("BACKENDS", "cpu;cuda", "commas"),
        ("BACKENDS", "-", "commas"),
        ("BACKEND_PATH", "module:object", "name=module:object"),
        ("BACKEND_PATH", "a=module", "name=module:object"),
        ("BACKEND_PATH", "a=/tmp/x.py:b", "name=module:object"),
    ],
)
def test_what_is_not_understood_names_variable_value_and_what_is_allowed(name, value, allowed):
    with pytest.raises(SettingsError) as caught:
        Settings.read({f"HOTPLUG_{name}": value})
    assert caught.value.variable == f"HOTPLUG_{name}"
    assert caught.value.value == value
    assert f"HOTPLUG_{name}" in str(caught.value)
    assert repr(value) in str(caught.value)
    assert allowed in str(caught.value)


def test_values_are_parsed():
    read = Settings.read(
        {
            "HOTPLUG_BACKENDS": "CPU, cuda",
            "HOTPLUG_BACKEND_PATH": "mine=my.module:Thing.backend, other=o:b",
            "HOTPLUG_FALLBACK": "Error",
            "HOTPLUG_CACHE_DIR": "some/where",
            "HOTPLUG_CACHE_BYTES": "5000000000",
            "HOTPLUG_LOG": "DEBUG",
            "HOTPLUG_PROBE_TIMEOUT": "0.25",
            "HOTPLUG_THREADS": "3",
            "HOTPLUG_CPU_ISA": "AVX2",
            "HOTPLUG_CUDA_SIMULATE": "2",
            "HOTPLUG_OPENCL_SUBDEVICES": "NUMA",
            "HOTPLUG_FORBID": "softmax@OpenCL, rope@cuda:1,",
            "HOTPLUG_PRECISION": "exact",
        }
    )
    assert read.allowed == ("cpu", "cuda")
    assert read.backend_path == (("mine", "my.module:Thing.backend"), ("other", "o:b"))
    assert (read.fallback, read.log, read.cpu_isa) == ("error", "debug", "avx2")
    assert (read.probe_timeout, read.threads, read.precision) == (0.25, 3, "exact")
    assert read.cuda_simulate == 2
    assert read.opencl_subdevices == "numa"
    assert read.forbid == (("softmax", "opencl"), ("rope", "cuda:1"))
    assert read.cache_directory == Path("some/where")
    assert read.cache_bytes == 5_000_000_000


def test_without_a_directory_the_systems_cache_is_used():
    assert Settings().cache_directory.is_absolute()
    assert "hotplug" in str(Settings().cache_directory)


@pytest.mark.parametrize(
    ("text", "allows", "refuses"),
    [
        ("", ["cpu", "cuda"], []),
        ("cpu", ["cpu", "CPU"], ["cuda"]),
        ("-cuda", ["cpu", "opencl"], ["cuda", "CUDA"]),
        ("cpu,cuda,-cuda", ["cpu"], ["cuda", "opencl"]),
    ],
)
def test_allow_list(text, allows, refuses):
    read = Settings.read({"HOTPLUG_BACKENDS": text})
    assert all(read.allows(name) for name in allows)
    assert not any(read.allows(name) for name in refuses)


def test_an_unknown_variable_is_warned_of_once_with_the_closest_name(environment):
    environment.setenv("HOTPLUG_FALLBAK", "error")
    with pytest.warns(HotplugWarning, match="HOTPLUG_FALLBAK .* HOTPLUG_FALLBACK"):
        settings()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings()


def test_an_unknown_variable_like_no_other(environment):
    environment.setenv("HOTPLUG_ZEBRA_STRIPES", "1")
    with pytest.warns(HotplugWarning, match="reads no such variable$"):
        settings()


def test_variables_of_backends_are_left_to_them(environment):
    for name in ("HOTPLUG_CUDA_GRAPHS", "HOTPLUG_OPENCL_PLATFORM", "HOTPLUG_RPC_SERVERS"):
        environment.setenv(name, "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings()


def test_every_variable_is_described_in_the_module():
    import hotplug.settings as module

    assert [name for name in KNOWN_VARIABLES if name not in (module.__doc__ or "")] == []


def test_backend_path_of_nothing_is_empty():
    assert parse_backend_path(" , ") == ()
