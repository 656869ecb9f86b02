"""Benchmarks are scripts beside each other: their folder has to be where modules are looked for."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = str(Path(__file__).resolve().parents[2] / "benchmarks")

if FOLDER not in sys.path:
    # Last, so that trace.py does not stand in for Python's own module of that name.
    sys.path.append(FOLDER)
