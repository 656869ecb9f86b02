"""Which device is meant, and which are one and the same."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hotplug
from hotplug.backend import DeviceInfo, DeviceType
from hotplug.devices import device, group, list_devices, wanted
from hotplug.errors import SelectorError


def info(backend: str, index: int = 0, **more: str | None) -> DeviceInfo:
    return DeviceInfo(backend, index, "Fake", DeviceType.GPU, **more)  # type: ignore[arg-type]


def test_the_nearest_wish_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wanted() == "auto"
    monkeypatch.setenv("HOTPLUG_DEVICE", "cuda:3")
    assert wanted() == "cuda:3"
    with device("gpu"):
        assert wanted() == "gpu"
        with device("cpu"):
            assert wanted() == "cpu"
            assert wanted("cuda:1") == "cuda:1"
        assert wanted() == "gpu"
    assert wanted() == "cuda:3"
    assert wanted("") == ""  # which is no selector, and no wish for a default either


def test_a_context_is_left_as_it_was_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), device("gpu"):
        raise ZeroDivisionError
    assert wanted() == "auto"


def test_a_context_is_its_threads_own() -> None:
    seen = []
    with device("gpu"):
        thread = threading.Thread(target=lambda: seen.append(wanted()))
        thread.start()
        thread.join()
    assert seen == ["auto"]


def test_a_context_refuses_what_is_no_selector() -> None:
    with pytest.raises(SelectorError), device("cuda:"):
        pass


def test_a_session_follows_the_context() -> None:
    with device("cpu"), hotplug.Session() as session:
        assert [opened.id for opened in session.devices] == ["cpu:0"]


def test_the_processor_is_listed() -> None:
    assert "cpu:0" in [found.id for found in list_devices()]


def test_one_card_through_two_backends_is_one() -> None:
    cards = [
        info("cuda", 0, uuid="GPU-1", pci="0000:01:00.0"),
        info("cuda", 1, uuid="GPU-2", pci="0000:02:00.0"),
        info("opencl", 0, pci="0000:02:00.0"),
        info("vulkan", 0, uuid="gpu-2"),
        info("opencl", 1),
        info("vulkan", 1),
    ]
    groups = [[found.id for found in mates] for mates in group(cards)]
    assert groups == [["cuda:0"], ["cuda:1", "opencl:0", "vulkan:0"], ["opencl:1"], ["vulkan:1"]]


ids = st.none() | st.sampled_from(["a", "b", "c"])
infos = st.builds(info, st.sampled_from(["x", "y", "z"]), st.integers(0, 3), uuid=ids, pci=ids)


@given(st.lists(infos, max_size=8, unique_by=lambda found: found.id))
def test_grouping_loses_and_doubles_nothing(found: list[DeviceInfo]) -> None:
    groups = group(found)
    assert sorted(mate.id for mates in groups for mate in mates) == sorted(i.id for i in found)
    firsts = [mates[0] for mates in groups]
    assert firsts == [one for one in found if one in firsts]
