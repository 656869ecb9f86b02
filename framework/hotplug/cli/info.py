"""`hotplug info`: what a bug report needs to say."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import hotplug
from hotplug.backend import API_VERSION
from hotplug.cli.render import console, table
from hotplug.settings import PREFIX, Settings, settings

__all__ = ["InfoCommand", "command"]

_DISTRIBUTIONS = (
    "hotplug", "hotplug-core", "hotplug-cpu", "hotplug-cuda", "hotplug-opencl", "hotplug-rpc",
    "hotplug-llm", "numpy", "numba", "llvmlite", "cupy-cuda12x", "cupy-cuda13x", "pyopencl",
    "pyzmq",
)  # fmt: skip
_RESPECTED = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYOPENCL_CTX", "OCL_ICD_VENDORS",
    "XDG_CACHE_HOME", "OMP_NUM_THREADS",
)  # fmt: skip
"""Variables of others that change what devices there are or how they are used."""


class InfoCommand:
    """Shows versions, settings with their origin, and paths. Loads no backend."""

    name = "info"
    help = "show versions, settings and paths, for bug reports"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, arguments: argparse.Namespace) -> int:
        """Show; 0.

        Raises:
            SettingsError: a HOTPLUG_* variable is not understood.
        """
        answer = collect()
        if arguments.json:
            print(json.dumps(answer))
            return 0
        screen = console()
        for title in ("system", "versions", "paths", "environment"):
            rows = [(key, str(value)) for key, value in answer[title].items()]
            if rows:
                screen.print(table(title, ("what", "value"), rows))
        rows3 = [(r["name"], str(r["value"]), r["origin"]) for r in answer["settings"]]
        screen.print(table("settings", ("setting", "value", "origin"), rows3))
        return 0


def collect() -> dict[str, Any]:
    """All of it as plain values."""
    now = settings()
    return {
        "system": {
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "platform": platform.platform(),
            "machine": platform.machine(),
            "processors": os.cpu_count(),
        },
        "versions": {
            "backend contract": ".".join(map(str, API_VERSION)),
            **{name: _version(name) for name in _DISTRIBUTIONS},
        },
        "paths": {
            "python": sys.executable,
            "hotplug": str(Path(hotplug.__file__).parent),
            "cache": str(now.cache_directory),
        },
        "settings": [_setting(now, field) for field in dataclasses.fields(Settings)],
        "environment": {name: os.environ[name] for name in _RESPECTED if name in os.environ},
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _setting(now: Settings, field: dataclasses.Field[Any]) -> dict[str, Any]:
    # Two fields come from one variable, which lists what is allowed and what is denied.
    source = "BACKENDS" if field.name in {"allowed", "denied"} else field.name.upper()
    value = getattr(now, field.name)
    return {
        "name": field.name,
        "value": str(value) if isinstance(value, Path) else value,
        "origin": PREFIX + source if os.environ.get(PREFIX + source, "").strip() else "default",
    }


command = InfoCommand()
