"""Errors cross with their class and fields."""

from __future__ import annotations

import logging

import pytest

from hotplug import errors as core
from hotplug.errors import (
    ExecutionError,
    KernelCompileError,
    OutOfDeviceMemoryError,
    RemoteError,
    UnsupportedOpError,
    UsageError,
)
from hotplug_rpc import errors as ours
from hotplug_rpc.errors import LimitError, ServerLostError
from hotplug_rpc.faults import from_body, to_body

CLASSES = [
    cls
    for module in (core, ours)
    for name in module.__all__
    if isinstance(cls := getattr(module, name), type) and issubclass(cls, core.HotplugError)
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_crosses(cls):
    error = from_body(to_body(cls("it broke", remedy="mend it")), "host:1")
    assert type(error) is cls
    assert error.args == ("host:1: it broke",)
    assert error.remedy == "mend it"


def test_fields_cross():
    error = OutOfDeviceMemoryError("full", device="cuda:0", requested=10, free=5)
    back = from_body(to_body(error), "host:1", {"cuda:0": "rpc:3"})
    assert (back.device, back.requested, back.free) == ("rpc:3", 10, 5)
    error = KernelCompileError("refused", kernel="add", source="int x", log="line 1")
    assert from_body(to_body(error), "h:1").log == "line 1"
    error = UnsupportedOpError("no", op="rope", reasons={"cpu:0": "why not"})
    assert from_body(to_body(error), "h:1").reasons == {"cpu:0": "why not"}
    assert from_body(to_body(LimitError("much", limit=3, given=4)), "h:1").given == 4
    assert from_body(to_body(RemoteError("x", endpoint="other:2")), "h:1").endpoint == "h:1"


def test_what_is_not_ours_becomes_an_execution_error(caplog):
    with caplog.at_level(logging.ERROR, "hotplug.rpc"):
        back = from_body(to_body(ZeroDivisionError("by zero")), "h:1")
    assert type(back) is ExecutionError
    assert "ZeroDivisionError: by zero" in str(back)
    assert "ZeroDivisionError" in caplog.text
    assert type(from_body(to_body(MemoryError()), "h:1")) is OutOfDeviceMemoryError


def test_a_backend_s_own_class_becomes_the_nearest_of_ours():
    class SpecialError(UsageError):
        pass

    assert type(from_body(to_body(SpecialError("x")), "h:1")) is UsageError


@pytest.mark.parametrize(
    "body",
    [
        {}, {"error": "os.system"}, {"error": 5, "message": []}, {"fields": [1]},
        {"error": "DeviceLostError", "fields": {"args": 1, "__class__": 2, "device": {"a": 1}}},
        {"error": "OutOfDeviceMemoryError", "fields": {"requested": "many", "free": "few"}},
        {"error": "StatesLostError", "remedy": {}},
    ],
)  # fmt: skip
def test_any_body_gives_an_error(body):
    error = from_body(body, "h:1")
    assert isinstance(error, core.HotplugError)
    assert str(error).startswith("h:1: ")
    assert not isinstance(getattr(error, "requested", 0), str)


def test_long_texts_are_cut():
    body = to_body(KernelCompileError("x" * 10**6, source="y" * 10**6, log="z" * 10**6 + "end"))
    assert len(body["message"]) < 20_000
    assert body["fields"]["log"].endswith("end")


def test_a_lost_server_is_a_lost_device():
    error = ServerLostError("gone", endpoint="h:1", device="rpc:0")
    assert isinstance(error, core.DeviceLostError)
    assert isinstance(error, RemoteError)
    assert (error.endpoint, error.device) == ("h:1", "rpc:0")
