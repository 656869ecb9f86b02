"""Backends that this project offers: what each is for and how to get it.

Only advice is made from this table; a backend works the same whether or not it stands here. The
hints look at files that drivers leave behind and never call a driver.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KNOWN", "KnownBackend"]


@dataclass(frozen=True, slots=True)
class KnownBackend:
    """One row.

    Attributes:
        purpose: what hardware it is for.
        command: how to install it.
        traces: files that show that such hardware or its driver is here, by platform prefix; a
            pattern's last part may hold "*".
    """

    purpose: str
    command: str
    traces: tuple[tuple[str, str], ...] = ()

    def trace(self) -> str | None:
        """A file on this machine that shows this backend would have something to drive."""
        for platform, pattern in self.traces:
            if sys.platform.startswith(platform):
                found = _first_match(os.path.expandvars(pattern))
                if found:
                    return found
        return None

    def absence(self, name: str) -> str:
        """Why it is missing, as a sentence for the user."""
        trace = self.trace()
        if trace:
            return f"{trace} exists but hotplug-{name} is not installed"
        return f"hotplug-{name} is not installed; it is for {self.purpose}"


def _first_match(pattern: str) -> str | None:
    path = Path(pattern)
    try:
        return next((str(found) for found in sorted(path.parent.glob(path.name))), None)
    except OSError:  # a directory that may not be read shows nothing
        return None


KNOWN: dict[str, KnownBackend] = {
    "cpu": KnownBackend("the processor of every machine", "pip install hotplug-cpu"),
    "cuda": KnownBackend(
        "NVIDIA GPUs",
        "pip install hotplug-cuda",
        (
            ("linux", "/dev/nvidia[0-9]*"),
            ("linux", "/dev/nvidiactl"),
            ("linux", "/dev/dxg"),  # Windows Subsystem for Linux
            ("win32", r"%SystemRoot%\System32\nvcuda.dll"),
        ),
    ),
    "opencl": KnownBackend(
        "GPUs and processors with an OpenCL driver",
        "pip install hotplug-opencl",
        (
            ("linux", "/etc/OpenCL/vendors/*.icd"),
            ("linux", "/dev/dri/renderD*"),
            ("win32", r"%SystemRoot%\System32\OpenCL.dll"),
            ("darwin", "/System/Library/Frameworks/OpenCL.framework"),
        ),
    ),
    "rpc": KnownBackend("devices of other machines", "pip install hotplug-rpc"),
}
