"""CUDA_VISIBLE_DEVICES is CUDA's to read: the library here does, by the rules of its guide."""

from __future__ import annotations

import ctypes
import os
import uuid

import pytest

from hotplug.errors import BackendLoadError
from hotplug_cuda import backend, libcuda, nvrtc

# ruff: noqa: N802 - the library's names


def identity(number):
    return uuid.UUID(int=number << 120)  # such that the first digits tell them apart


PARENT = identity(0xD0)
GPUS = [identity(number) for number in (0xA0, 0xB0, 0xC0)]
PARTS = [identity(number) for number in (0xE0, 0xE1)]  # of PARENT


class Library:
    """libcuda of a machine with three GPUs, and a fourth that is in two parts."""

    def cuInit(self, flags):
        self.shown = shown(os.environ.get("CUDA_VISIBLE_DEVICES"))
        return 0 if self.shown else 100

    def cuGetErrorName(self, status, text):
        text._obj.value = b"CUDA_ERROR_NO_DEVICE"
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = 12040
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.shown)
        return 0

    def cuDeviceGet(self, device, index):
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name, size, device):
        name.value = b"NVIDIA A100"
        return 0

    def cuDeviceGetPCIBusId(self, text, size, device):
        text.value = f"0000:{self.whole(device).hex[:2]}:00.0".encode()
        return 0

    def cuDeviceTotalMem_v2(self, nbytes, device):
        nbytes._obj.value = 40 << 30
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 8, 76: 0, 16: 108, 18: 0}[attribute]
        return 0

    def cuDeviceGetUuid(self, target, device):
        ctypes.memmove(target, self.whole(device).bytes, 16)
        return 0

    def cuDeviceGetUuid_v2(self, target, device):
        ctypes.memmove(target, self.shown[device].bytes, 16)
        return 0

    def whole(self, device):
        return PARENT if self.shown[device] in PARTS else self.shown[device]


def shown(wish):
    """What CUDA shows: all GPUs, or those named, until the first name that is none."""
    if wish is None:
        return GPUS
    result = []
    for entry in wish.split(","):
        found = named(entry.strip())
        if found is None:
            break
        if found in result:
            return []
        result.append(found)
        if found in PARTS:
            break
    return result


def named(entry):
    if entry.isdecimal():
        return GPUS[int(entry)] if int(entry) < len(GPUS) else None
    kind, _, text = entry.partition("-")
    candidates = {"GPU": GPUS, "MIG": PARTS}.get(kind, [])
    found = [one for one in candidates if text and str(one).startswith(text)]
    return found[0] if len(found) == 1 else None


@pytest.fixture
def probe(monkeypatch):
    """Which UUIDs are shown for a value of the variable, which stays as it is."""
    monkeypatch.delenv("HOTPLUG_CUDA_SIMULATE", raising=False)
    monkeypatch.setattr(libcuda, "load", Library)
    monkeypatch.setattr("hotplug_cuda.discovery._cupy_major", lambda driver: 12)
    monkeypatch.setattr(nvrtc, "open_compiler", lambda majors: majors)

    def probe(wish):
        if wish is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wish)
        try:
            infos = backend.probe()
        finally:
            assert os.environ.get("CUDA_VISIBLE_DEVICES") == wish
        assert [info.id for info in infos] == [f"cuda:{index}" for index in range(len(infos))]
        return [info.uuid for info in infos]

    return probe


A, B, C = (f"GPU-{one}" for one in GPUS)


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (None, [A, B, C]),
        ("1", [B]),
        ("2,0", [C, A]),
        (" 0 , 2 ", [A, C]),
        (B, [B]),
        (f"{C},{A}", [C, A]),
        ("GPU-b0,GPU-a0", [B, A]),
        (f"0,{B}", [A, B]),
        (f"MIG-{PARTS[1]}", [f"MIG-{PARTS[1]}"]),
    ],
)
def test_what_is_named_is_shown_in_that_order(probe, caplog, wish, expected):
    assert probe(wish) == expected
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("0,7,1", [A]),
        ("1,-1,0", [B]),
        ("0,GPU-ff", [A]),
        ("2,no", [C]),
        ("0,,1", [A]),
        (f"MIG-{PARTS[0]},MIG-{PARTS[1]}", [f"MIG-{PARTS[0]}"]),
    ],
)
def test_a_list_ends_at_what_is_no_device_and_the_log_says_so(probe, caplog, wish, expected):
    assert probe(wish) == expected
    assert f"CUDA_VISIBLE_DEVICES={wish!r} names" in caplog.text
    assert f"shows {len(expected)}: it stops at the first" in caplog.text


@pytest.mark.parametrize("wish", ["", "-1", "7,0", "NoDevFiles", "GPU-", "0,0", f"MIG-{A}"])
def test_where_nothing_is_left_the_variable_is_the_reason(probe, wish):
    with pytest.raises(BackendLoadError, match="hides every GPU") as caught:
        probe(wish)
    assert f"CUDA_VISIBLE_DEVICES={wish!r}" in str(caught.value)
    assert caught.value.remedy == "name GPUs in CUDA_VISIBLE_DEVICES, or unset it"


def test_a_part_of_a_gpu_has_the_address_of_the_whole(probe):
    probe(f"MIG-{PARTS[0]}")
    [info] = backend.probe()
    assert info.pci == f"0000:{PARENT.hex[:2]}:00.0"
