"""Exceptions as fields of a message, and back: same class, same fields.

Only classes of our own two trees are made again, and only their own attributes, with values of the
kinds that a message can hold. What names a class that is not there becomes `RemoteError`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from hotplug import errors as core
from hotplug.errors import ExecutionError, HotplugError, OutOfDeviceMemoryError, RemoteError
from hotplug_rpc import errors as ours

__all__ = ["from_body", "to_body"]

_log = logging.getLogger("hotplug.rpc")

_MOST_TEXT = 16_384
"""Characters of a message or field; a build log is cut at its beginning."""

_CLASSES: dict[str, type[HotplugError]] = {
    name: cls
    for module in (core, ours)
    for name in module.__all__
    if isinstance(cls := getattr(module, name), type) and issubclass(cls, HotplugError)
}


def to_body(error: BaseException) -> dict[str, Any]:
    """What FAILED says of an exception; the log has the traceback of one that is not ours."""
    if not isinstance(error, HotplugError):
        error = _foreign(error)
    values = {name: _plain(value) for name, value in vars(error).items() if name != "remedy"}
    return {
        "error": _known_name(type(error)),
        "message": _cut(str(error.args[0]) if error.args else ""),
        "fields": {name: value for name, value in values.items() if value is not ...},
        "remedy": error.remedy and _cut(error.remedy),
    }


def _foreign(error: BaseException) -> HotplugError:
    if isinstance(error, MemoryError):
        return OutOfDeviceMemoryError("the server has no memory left")
    _log.error("a device failed with what is no error of hotplug's", exc_info=error)
    return ExecutionError(f"{type(error).__name__}: {error}")


def _known_name(cls: type[BaseException]) -> str:
    return next((base.__name__ for base in cls.__mro__ if base.__name__ in _CLASSES), "RemoteError")


def _plain(value: object) -> Any:
    """A value as JSON has it; Ellipsis for what it cannot have."""
    if isinstance(value, str):
        return _cut(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value if _plain(item) is not ...]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if _plain(item) is not ...}
    return ...


def _cut(text: str) -> str:
    return text[-_MOST_TEXT:]


def from_body(
    body: Mapping[str, Any], endpoint: str, devices: Mapping[str, str] | None = None
) -> HotplugError:
    """The exception that a server told of.

    Args:
        body: of FAILED; anything may stand in it.
        endpoint: the server's address, for the text.
        devices: the server's device id -> the id it has here.
    """
    cls = _CLASSES.get(str(body.get("error")), RemoteError)
    error = cls(f"{endpoint}: {body.get('message', 'it says nothing')}")
    remedy = body.get("remedy")
    error.remedy = remedy if isinstance(remedy, str) else None
    values = body.get("fields")
    for name, value in values.items() if isinstance(values, dict) else ():
        _restore(error, name, value)
    if isinstance(error, RemoteError):
        error.endpoint = endpoint
    device = getattr(error, "device", None)
    if devices and isinstance(device, str):
        vars(error)["device"] = devices.get(device, device)
    return error


def _restore(error: HotplugError, name: str, value: object) -> None:
    """Set an attribute that the class has, if the value is of the kind that it holds."""
    held = vars(error).get(name, ...)
    if held is ...:
        return
    if isinstance(held, tuple) and isinstance(value, list):
        value = tuple(value)
    if held is None or value is None or type(value) is type(held):
        vars(error)[name] = value
