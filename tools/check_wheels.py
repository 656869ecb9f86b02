"""Builds every wheel and installs combinations of them in clean environments.

Each combination must list the backends that it has, and say of the others why they are missing and
which command adds them. Prints one line for each check; exits with 1 if one fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("cpu", "cuda", "opencl", "rpc")
DISTRIBUTIONS = ("framework", *(f"backends/{name}" for name in BACKENDS), "inference", ".")


@dataclass(frozen=True)
class Combination:
    """What is installed, which of our distributions that brings, and what must work."""

    name: str
    install: Sequence[str]
    backends: frozenset[str]
    commands: frozenset[str]


COMBINATIONS = (
    Combination("core alone", ["hotplug-core"], frozenset(), frozenset()),
    Combination("core and cpu", ["hotplug"], frozenset({"cpu"}), frozenset()),
    Combination(
        "all",
        ["hotplug[all]"],
        frozenset(BACKENDS),
        frozenset({"generate", "chat", "tokenize"}),
    ),
)


def build(wheels: Path) -> None:
    """Build every distribution's wheel into a folder."""
    for place in DISTRIBUTIONS:
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
        subprocess.run(
            [*command, str(wheels), str(ROOT / place)], check=True, stdout=subprocess.DEVNULL
        )
    print(f"PASS built {len(list(wheels.glob('*.whl')))} wheels")


def try_combination(combination: Combination, wheels: Path, folder: Path) -> list[str]:
    """Install a combination and return what is wrong with it."""
    venv.create(folder, with_pip=True)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(binaries / "python"), "-m", "pip", "--quiet", "install"]
    pins = ["--constraint", str(ROOT / "constraints.txt"), "--find-links", str(wheels)]
    subprocess.run([*pip, *pins, *combination.install], check=True)

    def hotplug(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(binaries / "hotplug"), *arguments],
            capture_output=True, text=True, timeout=120, check=False, cwd=folder,
        )  # fmt: skip

    return [*check_devices(combination, hotplug), *check_commands(combination, hotplug)]


Runner = Callable[..., "subprocess.CompletedProcess[str]"]


def check_devices(combination: Combination, hotplug: Runner) -> list[str]:
    """`hotplug devices --json` names every known backend, each with the right state."""
    listed = hotplug("devices", "--json")
    if listed.returncode:
        return [f"devices exits with {listed.returncode}: {listed.stderr.strip()}"]
    answer: dict[str, Any] = json.loads(listed.stdout)
    trouble = []
    has_cpu = any(device["id"] == "cpu:0" for device in answer["devices"])
    if has_cpu != ("cpu" in combination.backends):
        trouble.append(f"cpu:0 listed: {has_cpu}")
    rows = {row["name"]: row for row in answer["backends"]}
    working = {device["id"].partition(":")[0] for device in answer["devices"]}
    for name in BACKENDS:
        row = rows.get(name)
        if row is None:
            trouble.append(f"backend {name} is not mentioned")
        elif name not in combination.backends and f"hotplug-{name}" not in (row["remedy"] or ""):
            trouble.append(f"backend {name} is absent, and the remedy is {row['remedy']!r}")
        elif name not in working and not row["reason"]:
            trouble.append(f"backend {name} has no device, and no reason is given")
    return trouble


def check_commands(combination: Combination, hotplug: Runner) -> list[str]:
    """The help names the commands that are installed, and no others."""
    text = hotplug("--help").stdout
    trouble = [f"--help lacks {name}" for name in combination.commands if name not in text]
    if not combination.commands:
        missing = hotplug("generate", "-m", "model.gguf", "hello")
        if missing.returncode != 2 or "Traceback" in missing.stderr:
            trouble.append(f"generate without hotplug-llm: {missing.stderr.strip()[:200]}")
    return trouble


def main() -> int:
    """Build, try every combination, tell."""
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder / "wheels")
        for combination in COMBINATIONS:
            place = folder / combination.name.replace(" ", "-")
            trouble = try_combination(combination, folder / "wheels", place)
            failed = failed or bool(trouble)
            print(f"{'FAIL' if trouble else 'PASS'} {combination.name}", *trouble, sep="\n  ")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
