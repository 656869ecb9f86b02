"""Which devices are told of, and what is said where none can be used."""

from __future__ import annotations

import pytest
from tests.unit.opencl.conftest import device, platform

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.errors import BackendLoadError, DeviceUnavailableError, OutOfDeviceMemoryError
from hotplug_opencl import backend
from hotplug_opencl.discovery import find
from hotplug_opencl.quirks import QUIRKS


def test_devices_of_all_platforms_are_numbered_through(platforms):
    platforms(platform(device(name="a "), device(name="b")), platform(device(name="c")))
    assert [(one.info.id, one.info.name) for one in find()] == [
        ("opencl:0", "a"), ("opencl:1", "b"), ("opencl:2", "c"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"type": 4}, DeviceType.GPU),
        ({"type": 4, "host_unified_memory": 1}, DeviceType.IGPU),
        ({"type": 2}, DeviceType.CPU),
        ({"type": 8}, DeviceType.ACCELERATOR),
    ],
)
def test_types(platforms, facts, kind):
    platforms(platform(device(**facts)))
    assert find()[0].info.type is kind


UNUSABLE = {
    "not available": {"available": 0},
    "has no compiler": {"compiler_available": 0},
    "big-endian": {"endian_little": 0},
    "1.2 is needed": {"version": "OpenCL 1.1 old"},
}


@pytest.mark.parametrize("reason", UNUSABLE)
def test_a_device_that_cannot_be_used_is_left_out(platforms, reason):
    platforms(platform(device(name="bad", **UNUSABLE[reason]), device(name="good")))
    assert [(one.info.index, one.info.name) for one in find()] == [(0, "good")]


@pytest.mark.parametrize("reason", UNUSABLE)
def test_the_reason_is_told_where_no_other_is_there(platforms, reason):
    platforms(platform(device(**UNUSABLE[reason]), name="Some Driver"))
    with pytest.raises(BackendLoadError, match=f"Test GPU of Some Driver: .*{reason}"):
        backend.probe()


def test_a_platform_without_devices_costs_no_others(platforms, failing):
    empty = platform(error=failing(-1, "DEVICE_NOT_FOUND"))
    platforms(empty, platform(device()))
    assert len(find()) == 1


def test_platforms_without_devices_are_named_with_what_helps(platforms, failing):
    platforms(platform(name="rusticl", error=failing(-1, "DEVICE_NOT_FOUND")))
    with pytest.raises(BackendLoadError, match=r"rusticl has no device \(DEVICE_NOT") as caught:
        backend.probe()
    assert "RUSTICL_ENABLE" in (caught.value.remedy or "")


def test_a_layer_over_others_devices_is_used_where_those_are_not_there(platforms):
    layer = platform(device(name="again"), name="OpenCLOn12")
    platforms(layer, platform(device(name="itself")))
    assert [one.info.name for one in find()] == ["itself"]
    platforms(layer)
    assert [one.info.name for one in find()] == ["again"]


def test_an_emulator_is_no_device(platforms):
    emulator = platform(device(), name="Intel(R) FPGA Emulation Platform for OpenCL(TM)")
    platforms(emulator, platform(device(name="real")))
    assert [one.info.name for one in find()] == ["real"]


def test_quirks_go_with_a_device(platforms):
    platforms(platform(device(), name="NVIDIA CUDA"), platform(device()))
    assert [[-5 in quirk.lost for quirk in one.quirks] for one in find()] == [[True], []]


def test_every_quirk_has_a_source_and_an_effect():
    for quirk in QUIRKS:
        assert quirk.what
        assert quirk.source.startswith("https://")
        assert quirk.refusal or quirk.remedy or quirk.last or quirk.lost


class Splittable:
    """A device of eight units in two parts of the memory."""

    def __init__(self, cl):
        kinds, numa = cl.device_partition_property, cl.device_affinity_domain.NUMA
        self.layouts = {
            (kinds.EQUALLY, 2): 4,
            (kinds.BY_AFFINITY_DOMAIN, numa): 2,
        }
        self.error = cl.RuntimeError

    def split(self, how):
        if tuple(how) not in self.layouts:
            raise self.error("CL_DEVICE_PARTITION_FAILED")
        parts = self.layouts[tuple(how)]
        whole = device()
        return [device(max_compute_units=8 // parts, parent_device=whole) for _ in range(parts)]


@pytest.mark.parametrize(
    ("setting", "units"), [("numa", [4, 4]), ("2", [2, 2, 2, 2]), ("3", [8]), ("", [8])]
)
def test_sub_devices_stand_for_a_device_where_they_are_asked_for(
    cl, platforms, monkeypatch, setting, units
):
    monkeypatch.setenv("HOTPLUG_OPENCL_SUBDEVICES", setting)
    platforms(platform(device(create_sub_devices=Splittable(cl).split)))
    infos = backend.probe()
    assert [info.units for info in infos] == units
    whole = 8 if len(units) > 1 else None
    assert [info.properties.get("part_of_units") for info in infos] == [whole] * len(units)


def test_sub_devices_of_the_processor_compute(found, monkeypatch):
    if found[0].device.partition_max_sub_devices < 2:
        pytest.skip("the device has one unit alone")
    monkeypatch.setenv("HOTPLUG_OPENCL_SUBDEVICES", "1")
    parts = backend.probe()
    assert {info.units for info in parts} == {1}
    with backend.open(parts[1]) as opened:
        buffer = opened.buffers.allocate(8)
        buffer.write(0, memoryview(b"abcdefgh"))
        got = bytearray(8)
        buffer.read(0, memoryview(got))
    assert got == b"abcdefgh"


def test_devices_are_told_of_without_a_context(found):
    infos = backend.probe()
    assert [info.index for info in infos] == list(range(len(found)))
    for info in infos:
        assert info.name
        assert info.driver
        assert info.units
        total = backend.memory(info).total
        assert total is not None
        assert total > 0


def test_a_device_that_is_not_there_is_not_opened(found):
    missing = DeviceInfo("opencl", len(found), "none", DeviceType.GPU)
    with pytest.raises(DeviceUnavailableError, match=f"opencl:{len(found)}"):
        backend.open(missing)


def test_more_than_one_buffer_may_hold_is_refused_with_the_limit(found):
    with backend.open(found[0].info) as opened:
        limit = opened.buffers.max_bytes
        assert limit is not None
        with pytest.raises(OutOfDeviceMemoryError, match=str(limit)) as caught:
            opened.buffers.allocate(limit + 1)
    assert caught.value.requested == limit + 1
