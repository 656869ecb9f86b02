"""What measurements were made on, and with which versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from figures import rounded
from programs import peer_python

from hotplug_cpu import host
from hotplug_cpu.jit.target import architecture, host_target

__all__ = ["commit", "describe"]

_PACKAGES = ("hotplug-core", "numpy", "numba", "llvmlite")
_PEER = Path(__file__).with_name("peer_llama.py")


def describe(threads: int, bandwidth: float) -> dict[str, Any]:
    """The machine, ready for JSON.

    Args:
        threads: with how many was measured.
        bandwidth: bytes per second that they read.
    """
    target = host_target()
    return {
        "processor": host.processor_name(),
        "microarchitecture": target.cpu,
        "instruction set": f"{architecture()} ({target.isa} kernels)",
        "cores": psutil.cpu_count(logical=False),
        "threads": threads,
        "memory, GB": rounded(psutil.virtual_memory().total / 1e9),
        "read bandwidth, GB/s": rounded(bandwidth / 1e9),
        "bandwidth measured by": f"hotplug's compiled kernel `read`, {threads} threads, 256 MiB",
        "system": f"{platform.system()} {platform.machine()}",
        "load before": load_average(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
        "OpenBLAS": openblas(),
        **peer_versions(),
    }


def openblas() -> str:
    """What NumPy multiplies matrices with."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas.get('version', 'unknown')} ({blas['name']}, in NumPy)"


def load_average() -> float | None:
    """How many processes wanted to run in the last minute, where the system tells."""
    return rounded(os.getloadavg()[0]) if hasattr(os, "getloadavg") else None


def peer_versions() -> dict[str, str]:
    """What llama.cpp is and was built for."""
    python = peer_python()
    if python is None:
        return {"llama-cpp-python": "not installed"}
    command = [str(python), str(_PEER), "--versions"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def commit() -> str:
    """The source's commit, if it is a checkout and git is here."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
