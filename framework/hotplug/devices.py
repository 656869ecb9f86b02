"""Devices as a program asks for them, from the registry of the process.

Which device is meant is said in four places, the nearest of which counts: the argument, then
`with device("cuda:1"):`, then HOTPLUG_DEVICE, then "auto".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial

from hotplug.backend import DeviceInfo
from hotplug.registry import default
from hotplug.registry import watch as watch_registry
from hotplug.registry.choice import group, ranked
from hotplug.registry.selectors import parse
from hotplug.settings import settings

__all__ = [
    "device",
    "group",
    "list_backends",
    "list_devices",
    "load",
    "load_all",
    "refresh",
    "register",
    "unload",
    "wanted",
    "watch",
]

load = default().load
load_all = default().load_all
unload = default().unload
refresh = default().refresh
register = default().register
list_backends = default().statuses
watch = partial(watch_registry, default())

_chosen: ContextVar[str | None] = ContextVar("hotplug.device", default=None)


def list_devices() -> list[DeviceInfo]:
    """Every usable device, best first; one seen through two backends stands there twice.

    Raises:
        SettingsError: a HOTPLUG_* variable is not understood.
    """
    return ranked(default())


@contextlib.contextmanager
def device(selector: str) -> Iterator[None]:
    """What is begun inside the context runs on the devices that `selector` names.

    Raises:
        SelectorError: the selector is not of the grammar.
    """
    parse(selector)
    token = _chosen.set(selector)
    try:
        yield
    finally:
        _chosen.reset(token)


def wanted(selector: str | None = None) -> str:
    """The selector that counts: the argument, the context's, HOTPLUG_DEVICE, "auto".

    Raises:
        SettingsError: a HOTPLUG_* variable is not understood.
    """
    if selector is not None:
        return selector
    return _chosen.get() or settings().device or "auto"
