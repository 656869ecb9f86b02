"""UUID and PCI address, from what each kind of driver answers."""

from __future__ import annotations

import struct
import uuid

import pytest

from hotplug_opencl.identity import asker, pci_of, uuid_of

NUMBER = uuid.UUID("1234abcd-0000-1111-2222-333344445555")


def answering(**answers):
    """What a driver says to queries, by their codes in hexadecimal."""
    known = {int(code.removeprefix("x"), 16): raw for code, raw in answers.items()}

    def ask(query, size):
        raw = known.get(query)
        assert raw is None or len(raw) == size
        return raw

    return ask


@pytest.mark.parametrize(
    ("vendor", "text"),
    [("NVIDIA Corporation", f"GPU-{NUMBER}"), ("Intel(R) Corporation", str(NUMBER))],
)
def test_the_uuid_is_written_as_the_vendor_s_tools_do(vendor, text):
    ask = answering(x106A=NUMBER.bytes)
    assert uuid_of("cl_khr_fp64 cl_khr_device_uuid", vendor, ask) == text


@pytest.mark.parametrize(
    ("extensions", "raw"),
    [
        ("cl_khr_fp64", NUMBER.bytes),
        ("cl_khr_device_uuid", None),
        ("cl_khr_device_uuid", bytes(16)),
    ],
    ids=["no extension", "no answer", "zeros"],
)
def test_what_a_driver_does_not_tell_is_not_made_up(extensions, raw):
    assert uuid_of(extensions, "Test", answering(x106A=raw)) is None


@pytest.mark.parametrize(
    ("extensions", "answers", "address"),
    [
        ("cl_khr_pci_bus_info", {"x410F": struct.pack("4I", 1, 0xC1, 2, 3)}, "0001:c1:02.3"),
        (
            "cl_nv_device_attribute_query",
            {
                "x400A": struct.pack("I", 0),
                "x4008": struct.pack("I", 0x41),
                "x4009": struct.pack("I", 2 << 3 | 1),
            },
            "0000:41:02.1",
        ),
        (
            "cl_amd_device_attribute_query",
            {"x4037": struct.pack("I17x3B", 1, 0x83, 0, 0)},
            "0000:83:00.0",
        ),
        ("cl_amd_device_attribute_query", {"x4037": bytes(24)}, None),
        ("cl_khr_pci_bus_info cl_nv_device_attribute_query", {}, None),
        ("", {"x410F": struct.pack("4I", 1, 2, 3, 4)}, None),
    ],
    ids=["Khronos", "NVIDIA", "AMD", "AMD, no PCI", "no answer", "no extension"],
)
def test_the_pci_address_by_each_extension(extensions, answers, address):
    assert pci_of(extensions, answering(**answers)) == address


def test_the_loader_is_asked_directly(found):
    """A processor's number of units, which PyOpenCL tells too; and something that nobody knows."""
    device = found[0].device
    ask = asker(device)
    assert ask(0x1002, 4) == struct.pack("I", device.max_compute_units)
    assert ask(0x1002, 8) is None
    assert ask(0x7FFF, 4) is None


def test_every_uuid_that_a_driver_has_is_told(found):
    for one in found:
        assert (one.info.uuid is not None) == ("cl_khr_device_uuid" in one.device.extensions)
