"""What is said where PyOpenCL, its loader or the drivers are missing or broken; Intel's runtime."""

from __future__ import annotations

import importlib
import os
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from hotplug.errors import BackendLoadError
from hotplug_opencl import backend, loader


@pytest.fixture(autouse=True)
def no_choice_of_drivers(monkeypatch):
    for name in loader.FOLDER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def vendors(monkeypatch, tmp_path):
    """The folder in which loaders look."""
    folder = tmp_path / "vendors"
    folder.mkdir()
    monkeypatch.setattr(loader, "VENDORS", folder)
    return folder


@pytest.fixture
def no_platform(cl, monkeypatch, failing):
    def get_platforms():
        raise failing(-1001)

    monkeypatch.setattr(cl, "get_platforms", get_platforms)


def test_without_pyopencl_the_remedy_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyopencl", None)
    with pytest.raises(BackendLoadError, match="PyOpenCL") as caught:
        backend.probe()
    assert caught.value.remedy == "pip install pyopencl"


def test_a_package_that_pyopencl_lacks_is_the_one_to_install(monkeypatch):
    def load(name):
        raise ModuleNotFoundError("No module named 'pytools'", name="pytools.persistent_dict")

    monkeypatch.setattr(importlib, "import_module", load)
    with pytest.raises(BackendLoadError, match="pytools") as caught:
        loader.platforms()
    assert caught.value.remedy == "pip install pytools"


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libOpenCL.so.1: cannot open shared object file: No such file or directory"),
        ImportError("_cl.so: undefined symbol: clSetContextDestructorCallback"),
        OSError("[WinError 193] %1 is not a valid Win32 application"),
    ],
    ids=["missing", "too old", "wrong kind"],
)
def test_a_loader_that_does_not_fit_is_quoted(monkeypatch, error):
    def load(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", load)
    with pytest.raises(BackendLoadError, match="loader") as caught:
        loader.platforms()
    assert str(error) in str(caught.value)
    assert "--force-reinstall" in (caught.value.remedy or "")


def test_without_a_driver_the_folder_and_a_remedy_are_named(vendors, no_platform):
    with pytest.raises(BackendLoadError, match="no OpenCL driver") as caught:
        backend.probe()
    assert str(vendors) in str(caught.value)
    assert "hotplug-opencl[pocl]" in (caught.value.remedy or "")


def test_no_platform_is_no_driver(vendors, platforms):
    platforms()
    with pytest.raises(BackendLoadError, match="no OpenCL driver"):
        backend.probe()


def test_a_driver_that_does_not_load_is_named(vendors, no_platform):
    (vendors / "gone.icd").write_text("libgone-opencl.so.1\n")
    with pytest.raises(BackendLoadError, match=r"gone\.icd: libgone-opencl\.so\.1") as caught:
        backend.probe()
    assert "repair" in (caught.value.remedy or "")


@pytest.mark.skipif(sys.platform != "linux", reason="it has other libraries")
@pytest.mark.parametrize(
    ("named", "why"),
    [
        (b"libc.so.6", "libc.so.6 is no OpenCL driver"),
        (b"\x00\xff\x1b[2J", "it names no library"),
        (b"", "it names no library"),
    ],
)
def test_what_is_no_driver_is_told_as_such(vendors, no_platform, named, why):
    (vendors / "odd.icd").write_bytes(named)
    with pytest.raises(BackendLoadError, match=rf"odd\.icd: {why}"):
        backend.probe()


@pytest.mark.skipif(sys.platform != "linux", reason="libraries are looked into in other ways")
def test_a_driver_without_a_device_is_not_called_missing(cl, vendors, no_platform):
    """As a GPU's driver does on a machine, or in a container, without that GPU."""
    (vendors / "idle.icd").write_text(cl._cl.__file__)  # the loader itself has what drivers have
    with pytest.raises(BackendLoadError, match=r"idle\.icd: .* finds no device of its own"):
        backend.probe()


def test_a_folder_that_the_user_chose_is_named(no_platform, monkeypatch, tmp_path):
    monkeypatch.setenv("OCL_ICD_VENDORS", str(tmp_path))
    with pytest.raises(BackendLoadError, match="OCL_ICD_VENDORS=") as caught:
        backend.probe()
    assert str(tmp_path) in str(caught.value)


def test_a_loader_that_fails_is_quoted(cl, monkeypatch, failing):
    def get_platforms():
        raise failing(-6, "OUT_OF_HOST_MEMORY")

    monkeypatch.setattr(cl, "get_platforms", get_platforms)
    with pytest.raises(BackendLoadError, match="OUT_OF_HOST_MEMORY"):
        backend.probe()


@pytest.fixture
def intel(monkeypatch, tmp_path):
    """Intel's runtime as pip leaves it: a library, and a file that names another machine's."""
    library = tmp_path / "lib" / "libintelocl.so"
    library.parent.mkdir()
    library.touch()

    def files(name):
        assert name == "intel-opencl-rt"
        names = ("lib/libcommon_clang.so", "lib/libintelocl.so")
        return [
            SimpleNamespace(name=Path(name).name, locate=lambda name=name: tmp_path / name)
            for name in names
        ]

    monkeypatch.setattr(metadata, "files", files)
    return library


@pytest.fixture
def shown(cl, monkeypatch):
    """Files of drivers, and what they hold, as the loader sees them while it begins."""
    seen = {}

    def get_platforms():
        folder = os.environ.get("OCL_ICD_VENDORS")
        if folder is not None:
            seen.update({file.name: file.read_text().strip() for file in Path(folder).iterdir()})
        return ["a platform"]

    monkeypatch.setattr(cl, "get_platforms", get_platforms)
    return seen


def test_intel_s_runtime_is_shown_beside_the_system_s_drivers(vendors, intel, shown):
    (vendors / "nvidia.icd").write_text("libnvidia-opencl.so.1\n")
    assert loader.platforms() == ["a platform"]
    assert shown == {"nvidia.icd": "libnvidia-opencl.so.1", "hotplug-intel.icd": str(intel)}
    assert "OCL_ICD_VENDORS" not in os.environ


def test_what_the_user_chose_stays(vendors, intel, shown, monkeypatch, tmp_path):
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "mine.icd").write_text("libmine.so")
    monkeypatch.setenv("OCL_ICD_VENDORS", str(chosen))
    loader.platforms()
    assert shown == {"mine.icd": "libmine.so"}
    assert os.environ["OCL_ICD_VENDORS"] == str(chosen)


def test_a_runtime_that_the_system_knows_is_not_shown_twice(vendors, intel, shown):
    (vendors / "intel.icd").write_text("/opt/intel/lib/libintelocl.so")
    loader.platforms()
    assert shown == {}


def test_without_intel_s_runtime_nothing_is_done(vendors, shown, monkeypatch):
    def files(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", files)
    assert loader.intel_library() is None
    loader.platforms()
    assert shown == {}
