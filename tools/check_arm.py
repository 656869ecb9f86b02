"""Run tests of the CPU backend's kernels on emulated ARM processors: `make check-arm`.

    python tools/check_arm.py [--cpus neoverse-n1,max] [TEST ...]

QEMU runs Debian's Python for ARM, with the wheels that ARM machines get from PyPI, and this source.
Kernels are compiled here for each of the processors (`hotplug_cpu.jit.cross`) and found there in
the kernel cache: Numba would take minutes for each. A quarter of an hour for each on two cores.

Needs Linux, apt-get with a Debian mirror, and QEMU (`apt-get install qemu-user-static`); says so
and does nothing where they are missing. Everything goes into .arm, made once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".arm"
SYSTEM, WHEELS, CACHE = FOLDER / "system", FOLDER / "wheels", FOLDER / "cache"
CPUS = "cortex-a72,neoverse-n1,max"
"""QEMU's names of processors without dot products of bytes, with them, and with all there is."""

TESTS = [
    *(f"tests/unit/cpu/test_{name}_kernels.py" for name in ("decode", "attention", "random")),
    *(f"tests/unit/cpu/test_random_{name}.py" for name in ("products", "rows", "strides")),
    *(f"tests/unit/cpu/test_{name}.py" for name in ("gemm", "numbers", "threads", "words")),
]
PACKAGES = ["numpy", "numba", "llvmlite", "psutil", "platformdirs", "packaging", "rich"]
TOOLS = ["pytest", "pytest-timeout", "hypothesis"]
DESCRIBE = (
    "import dataclasses, json; from hotplug_cpu.jit.target import host_target; "
    "print(json.dumps(dataclasses.asdict(host_target())))"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cpus", type=lambda given: given.split(","), default=CPUS.split(","))
    parser.add_argument("tests", nargs="*", default=TESTS, metavar="TEST")
    options = parser.parse_args()
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    missing = "qemu-aarch64" if qemu is None else next(filter(absent, ("apt-get", "dpkg-deb")), "")
    if qemu is None or missing:
        print(f"check-arm: skipped, there is no {missing}; see tools/check_arm.py")
        return 0
    if not (FOLDER / "ready").exists():
        make_system()
        get_wheels()
        (FOLDER / "ready").touch()
    return max(check(qemu, cpu, options.tests) for cpu in options.cpus)


def absent(program: str) -> bool:
    return shutil.which(program) is None


def make_system() -> None:
    """Unpack Debian's Python for ARM and what it needs, without touching this system's packages."""
    state = FOLDER / "apt"
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    subprocess.run([*apt, "update"], check=True)
    wanted = ["python3", "libstdc++6"]
    subprocess.run([*apt, "install", "--download-only", "--yes", *wanted], check=True)
    for archive in sorted((state / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", archive, SYSTEM], check=True)


def python() -> Path:
    """The emulated interpreter; its name says its version."""
    return next(path for path in (SYSTEM / "usr/bin").glob("python3.*") if path.name[8:].isdigit())


def get_wheels() -> None:
    """Unpack what ARM machines get from PyPI, of the versions that are here."""
    platforms = [f"--platform=manylinux_2_{n}_aarch64" for n in (17, 26, 27, 28)]
    options = [
        f"--python-version={python().name.removeprefix('python')}",
        f"--constraint={ROOT / 'constraints.txt'}",
        f"--target={WHEELS}",
    ]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    subprocess.run([*pip, *platforms, *options, *PACKAGES, *TOOLS], check=True)


def check(qemu: str, cpu: str, tests: list[str]) -> int:
    """Run tests on a processor; their exit status."""
    environment = {
        **os.environ,
        "QEMU_CPU": cpu,
        "QEMU_LD_PREFIX": str(SYSTEM),
        "PYTHONPATH": os.pathsep.join(
            map(str, [WHEELS, ROOT / "framework", ROOT / "backends/cpu"])
        ),
        "PYTHONPYCACHEPREFIX": str(FOLDER / "pycache"),
        "XDG_CACHE_HOME": str(CACHE),  # tests do without any HOTPLUG_* variable
    }
    there = [qemu, str(python())]
    described = subprocess.run(
        [*there, "-c", DESCRIBE], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    print(f"check-arm: {cpu}: {described}", flush=True)
    cross = [sys.executable, "-m", "hotplug_cpu.jit.cross", described]
    here = {**os.environ, "XDG_CACHE_HOME": str(CACHE)}
    subprocess.run(cross, env=here, stdout=subprocess.DEVNULL, check=True)
    pytest = [*there, "-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=1800", *tests]
    return subprocess.run(pytest, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
