"""HOTPLUG_RPC_* variables that are numbers of seconds."""

from __future__ import annotations

import os

from hotplug.errors import SettingsError

__all__ = ["seconds_of"]


def seconds_of(name: str, default: float, most: float = 86400.0) -> float:
    """A variable's value; what is not set is `default`.

    Raises:
        SettingsError: it is no number of seconds up to `most`.
    """
    text = os.environ.get(name, "").strip()
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = -1.0
    if 0.001 <= seconds <= most:  # NaN compares false
        return seconds
    raise SettingsError(
        f"{name}={text!r} is not understood; allowed is a number of seconds up to {most:g}",
        variable=name,
        value=text,
    )
