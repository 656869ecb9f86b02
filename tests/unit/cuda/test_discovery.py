"""What is said of CUDA devices, and of what is missing: the driver's library is the test's own."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import types
import uuid

import pytest

from hotplug.backend import DeviceType
from hotplug.errors import BackendLoadError, DeviceUnavailableError
from hotplug_cuda import backend, libcuda, nvrtc
from hotplug_cuda.libcuda import LibcudaError

OWN = uuid.UUID(int=0x5EED)
A100 = {"name": b"NVIDIA A100", "capability": (8, 0), "memory": 80 << 30, "pci": b"0000:C1:00.0"}
P100 = {"name": b"Tesla P100", "capability": (6, 0), "memory": 16 << 30, "pci": b"0000:0A:00.0"}


class Library:
    """libcuda.so.1 as far as it is asked, and no context is created by any of these calls."""

    # ruff: noqa: N802 - the library's names

    def __init__(self, *gpus, version=12040, status=0):
        self.gpus = gpus
        self.version = version
        self.status = status

    def cuInit(self, flags):
        assert flags == 0
        return self.status

    def cuGetErrorName(self, status, text):
        text._obj.value = b"CUDA_ERROR_MADE_UP"
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, device, index):
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name, size, device):
        name.value = self.gpus[device]["name"]
        return 0

    def cuDeviceGetPCIBusId(self, text, size, device):
        text.value = self.gpus[device]["pci"]
        return 0

    def cuDeviceTotalMem_v2(self, nbytes, device):
        nbytes._obj.value = self.gpus[device]["memory"]
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        gpu = self.gpus[device]
        major, minor = gpu["capability"]
        value._obj.value = {75: major, 76: minor, 16: 108, 18: gpu.get("integrated", 0)}[attribute]
        return 0

    def cuDeviceGetUuid(self, target, device):
        ctypes.memmove(target, OWN.bytes, 16)
        return 0


class PartsOfGPUs(Library):
    def cuDeviceGetUuid_v2(self, target, device):
        ctypes.memmove(target, uuid.UUID(int=0x916).bytes, 16)
        return 0


@pytest.fixture
def install(monkeypatch):
    """Puts a driver library and a CuPy in place."""
    monkeypatch.delenv("HOTPLUG_CUDA_SIMULATE", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(library, cupy_runtime=12090, is_hip=False):
        monkeypatch.setattr(libcuda, "load", lambda: library)
        runtime = types.SimpleNamespace(runtimeGetVersion=lambda: cupy_runtime, is_hip=is_hip)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
        monkeypatch.setattr(importlib, "import_module", lambda name: runtime)
        monkeypatch.setattr(nvrtc, "open_compiler", lambda majors: majors)

    return install


def test_devices_are_described_without_a_context(install):
    install(Library(A100))
    [info] = backend.probe()
    assert (info.id, info.name, info.type) == ("cuda:0", "NVIDIA A100", DeviceType.GPU)
    assert (info.uuid, info.pci) == (f"GPU-{OWN}", "0000:c1:00.0")
    assert (info.architecture, info.units, info.driver) == ("sm_80", 108, "CUDA 12.4")
    memory = backend.memory(info)
    assert (memory.total, memory.free) == (80 << 30, None)


def test_a_part_of_a_gpu_has_an_identity_of_its_own(install):
    install(PartsOfGPUs(A100))
    assert backend.probe()[0].uuid == f"MIG-{uuid.UUID(int=0x916)}"


def test_a_gpu_that_shares_the_processor_s_memory_is_integrated(install):
    install(Library({**A100, "capability": (8, 7), "integrated": 1}))
    assert backend.probe()[0].type is DeviceType.IGPU


def test_an_old_gpu_is_left_out_with_a_word_and_numbers_stay_cuda_s(install, caplog):
    install(Library(P100, A100))
    assert [info.id for info in backend.probe()] == ["cuda:1"]
    assert "cuda:0 (Tesla P100) has compute capability 6.0; 7.5 is needed" in caplog.text


def test_old_gpus_alone_are_a_reason(install):
    install(Library(P100))
    with pytest.raises(BackendLoadError, match=r"Tesla P100.*6\.0; 7\.5 is needed"):
        backend.probe()


def test_without_a_driver_the_library_is_named(monkeypatch):
    monkeypatch.delenv("HOTPLUG_CUDA_SIMULATE", raising=False)

    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(BackendLoadError, match=r"no NVIDIA driver: (libcuda|nvcuda)") as caught:
        backend.probe()
    assert "install NVIDIA's driver" in (caught.value.remedy or "")


def test_no_gpu_is_no_device_and_no_fault(install):
    install(Library(status=100))
    assert backend.probe() == []


def test_hidden_gpus_are_the_variable_s_doing(install, monkeypatch):
    install(Library(status=100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(BackendLoadError, match="CUDA_VISIBLE_DEVICES='-1' hides every GPU"):
        backend.probe()


def test_the_variable_is_never_rewritten(install, monkeypatch):
    install(Library(A100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5eed,1")
    backend.probe()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-5eed,1"


@pytest.mark.parametrize(
    ("status", "reason", "remedy"),
    [
        (3, "forked off", "spawn"),
        (803, "CUDA_ERROR_MADE_UP", "restart the computer"),
        (999, "cuInit gives CUDA_ERROR_MADE_UP", "nvidia-smi"),
    ],
)
def test_a_driver_that_fails_is_explained(install, status, reason, remedy):
    install(Library(A100, status=status))
    with pytest.raises(BackendLoadError, match=reason) as caught:
        backend.probe()
    assert remedy in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("version", "extra"),
    [(13010, "cuda13"), (12020, "cuda12"), (11080, "cuda12"), (14000, "cuda13")],
)
def test_without_cupy_the_remedy_fits_the_driver(install, monkeypatch, version, extra):
    install(Library(A100, version=version))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendLoadError, match="CuPy is not installed") as caught:
        backend.probe()
    assert caught.value.remedy == f"pip install 'hotplug-cuda[{extra}]'"


def test_a_broken_cupy_is_quoted_in_one_line(install, monkeypatch):
    install(Library(A100))

    def broken(name):
        raise ImportError("\n" + "libcublas.so.12: not found\nand much more\n")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(BackendLoadError, match="cannot be imported: libcublas") as caught:
        backend.probe()
    assert "much more" not in str(caught.value)
    assert "pip uninstall cupy-cuda12x cupy-cuda13x" in (caught.value.remedy or "")


def test_a_cupy_that_needs_a_newer_driver_is_refused(install):
    install(Library(A100, version=12080), cupy_runtime=13000)
    text = r"made for CUDA 13, but the driver serves CUDA 12\.8"
    with pytest.raises(BackendLoadError, match=text) as caught:
        backend.probe()
    assert "hotplug-cuda[cuda12]" in (caught.value.remedy or "")


def test_a_cupy_for_other_gpus_is_refused(install):
    install(Library(A100), cupy_runtime=60032830, is_hip=True)
    with pytest.raises(BackendLoadError, match="AMD") as caught:
        backend.probe()
    assert "hotplug-cuda[cuda12]" in (caught.value.remedy or "")


def test_without_a_compiler_the_remedy_installs_it(monkeypatch):
    monkeypatch.setattr(nvrtc, "library_paths", lambda majors: iter(["libnvrtc.so.of.no.one"]))
    with pytest.raises(BackendLoadError, match=r"NVRTC of CUDA 12 .*libnvrtc\.so\.of") as caught:
        nvrtc.open_compiler((12,))
    assert caught.value.remedy == "pip install 'hotplug-cuda[cuda12]'"


def test_a_device_that_is_not_there_is_not_opened(install):
    install(Library(A100))
    [info] = backend.probe()
    install(Library())
    with pytest.raises(DeviceUnavailableError, match="cuda:0"):
        backend.open(info)


def test_a_gpu_that_gives_no_context_is_unavailable(install, monkeypatch):
    install(Library(A100))
    [info] = backend.probe()
    broken = types.ModuleType("hotplug_cuda.cupy_runtime")

    def refuse(index):
        raise RuntimeError("cudaErrorDevicesUnavailable: busy")

    broken.CupyRuntime = refuse
    monkeypatch.setitem(sys.modules, "hotplug_cuda.cupy_runtime", broken)
    with pytest.raises(DeviceUnavailableError, match=r"cuda:0 gives no context: .*busy"):
        backend.open(info)


def test_calls_that_fail_carry_their_number():
    class Failing(Library):
        def cuDeviceGetCount(self, count):
            return 999

    with pytest.raises(LibcudaError, match="cuDeviceGetCount gives CUDA_ERROR_MADE_UP") as caught:
        libcuda.gpus(Failing(A100))
    assert caught.value.status == 999


def test_a_pool_is_opened_to_another_device():
    class Pools(Library):
        opened = ()

        def cuDeviceGetDefaultMemPool(self, pool, device):
            pool._obj.value = 0x900 + device
            return 0

        def cuMemPoolSetAccess(self, pool, access, count):
            one = access._obj
            self.opened = (pool.value, one.kind, one.device, one.allowed, count.value)
            return 0

    library = Pools(A100, A100)
    libcuda.open_pool(library, owner=1, reader=0)
    assert library.opened == (0x901, 1, 0, 3, 1)
