"""All checks that only a real NVIDIA GPU can answer, in one command and eight minutes at most.

    make gpu-check
    python tools/gpu_check.py --out results     with the sources as they lie, not installed

Each step has its own time and log; one that fails does not keep the others from being done. Kernels
come first, compiled by many processes into a cache of the check's own, then what is right, then
what is fast. Needs CuPy and NVRTC, and for all of it cuBLAS and the demo model.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("framework", "backends/cpu", "backends/cuda", "backends/opencl", "inference")
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations=5", "-ra")


@dataclass(frozen=True)
class Step:
    """A command with the seconds that it may take."""

    name: str
    command: tuple[str, ...]
    seconds: float


def steps(device: str, out: Path, *, quick: bool) -> list[Step]:
    python = sys.executable
    bench = (python, "benchmarks/gpu.py", "--device", device, "--json", str(out / "gpu.json"))
    compiling = (python, __file__, "--device", device, "--compile")
    return [
        Step("doctor", (python, "-m", "hotplug", "doctor", "--device", device), 60),
        Step("kernels", compiling, 120),
        Step("conformance", (*PYTEST, "tests/conformance/test_cuda_gpu.py"), 150),
        Step("model", (*PYTEST, "tests/inference/test_cuda_gpu.py"), 60),
        Step("benchmarks", (*bench, *(["--quick"] if quick else [])), 180),
    ]


def run(step: Step, out: Path, left: float) -> tuple[str, float]:
    """Do a step; what became of it, and the seconds that it took."""
    began = time.monotonic()
    with (out / f"{step.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            step.command,
            cwd=ROOT,
            env=environment(out),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(max(0.0, min(step.seconds, left)))
            ended = "ok" if status == 0 else f"failed ({status})"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and what it has begun itself
            process.wait()
            ended = "out of time"
    return ended, time.monotonic() - began


def environment(out: Path) -> dict[str, str]:
    """The sources as they lie here, whether or not they are installed, and a cache of their own."""
    paths = [str(ROOT / part) for part in SOURCES]
    variables = {"HOTPLUG_CACHE_DIR": str(out / "cache"), **os.environ}
    if "cuda" not in metadata.entry_points(group="hotplug.backends").names:
        variables["HOTPLUG_BACKEND_PATH"] = "cuda=hotplug_cuda:backend,cpu=hotplug_cpu:backend"
    before = filter(None, [os.environ.get("PYTHONPATH")])
    return {**variables, "PYTHONPATH": os.pathsep.join([*paths, *before]), "PYTHONUNBUFFERED": "1"}


def compile_all(device: str, processes: int) -> None:
    """Every variant of every kernel into the cache, shared out to processes."""
    command = (sys.executable, __file__, "--device", device, "--compile")
    parts = [(*command, f"{number}/{processes}") for number in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        done = list(pool.map(lambda part: subprocess.run(part, check=False).returncode, parts))
    sys.exit(any(done))


def compile_part(device: str, number: int, of: int) -> None:
    # Only this part of the tool needs hotplug, which need not be where the tool is begun.
    from hotplug.gpu.cache import BinaryCache
    from hotplug.gpu.programs import Programs
    from hotplug.testing.kernels import variants
    from hotplug_cuda import discovery
    from hotplug_cuda.driver import CUDADriver

    [found] = [one for one in discovery.find() if one.info.id == device]
    driver = CUDADriver.open(found)
    cache = BinaryCache.open("cuda", driver.capabilities.identity)
    mine = variants(driver.capabilities)[number::of]
    Programs(driver, cache).prepare(mine)
    print(f"{number}: {len(mine)} kernels", flush=True)


def main() -> None:
    options = arguments()
    if options.compile is not None:
        if options.compile:
            number, _, of = options.compile.partition("/")
            compile_part(options.device, int(number), int(of))
        else:
            compile_all(options.device, min(16, os.cpu_count() or 1))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + options.seconds
    chosen = [
        step
        for step in steps(options.device, options.out.resolve(), quick=options.quick)
        if not options.only or step.name in options.only
    ]
    failed = [step.name for step in chosen if not report(step, options.out, until)]
    sys.exit(f"not passed: {', '.join(failed)}; see {options.out}" if failed else 0)


def report(step: Step, out: Path, until: float) -> bool:
    """Do a step, tell how it ended with the end of its log, and whether it passed."""
    ended, seconds = run(step, out.resolve(), until - time.monotonic())
    print(f"== {step.name}: {ended}, {seconds:.1f} s", flush=True)
    lines = (out / f"{step.name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines if step.name == "benchmarks" else lines[-12:]:
        print(f"   {line[:200]}", flush=True)
    return ended == "ok"


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="for logs and figures")
    parser.add_argument("--seconds", type=float, default=470, help="for all of it")
    parser.add_argument("--only", nargs="*", metavar="STEP")
    parser.add_argument("--quick", action="store_true", help="benchmarks in a few seconds")
    parser.add_argument("--compile", nargs="?", const="", help=argparse.SUPPRESS)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
