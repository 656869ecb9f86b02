"""All that is to be known of a GPU and of what hotplug makes of it; prints text and a line of JSON.

    python benchmarks/gpu.py                                  the first CUDA or OpenCL device
    python benchmarks/gpu.py --device cuda:1 --json out.json  another one; JSON into a file as well
    python benchmarks/gpu.py --only matvec,gemm               some sections
    python benchmarks/gpu.py --quick                          some seconds; figures mean nothing

Figures stand beside the roofline of the device's data sheet, or of the bandwidth that a copy
reached where that is not known. Processors need smaller sizes, such as --width 512 --megabytes 32
--tokens 64 --depths 512.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from figures import Row, text
from gpu_bench import Bench, Sizes
from gpu_sections import SECTIONS
from machine import commit

from hotplug.backend import Backend, DeviceInfo
from hotplug.errors import BackendLoadError, HotplugError
from hotplug_cuda import backend as cuda
from hotplug_opencl import backend as opencl

BACKENDS = {"cuda": cuda, "opencl": opencl}


def main() -> None:
    options = arguments()
    backend, info = find(options.device)
    sizes = Sizes.quick() if options.quick else Sizes()
    changes = {
        "width": options.width,
        "memory": options.megabytes and options.megabytes << 20,
        "tokens": options.tokens,
        "depths": options.depths,
    }
    sizes = dataclasses.replace(sizes, **{key: value for key, value in changes.items() if value})
    bench = Bench(backend, info, sizes)
    report: dict[str, Any] = {"benchmark": "gpu", "commit": commit(), **about(bench)}
    print("\n".join(f"{name}: {value}" for name, value in report.items()))
    report["sections"] = {}
    for name in options.only:
        began = time.perf_counter()
        rows = measured(bench, name)
        print(f"\n{name} ({time.perf_counter() - began:.1f} s)\n{text(rows)}", flush=True)
        report["sections"][name] = [row.as_json() for row in rows]
    line = json.dumps(report)
    print(f"\n{line}")
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")


def measured(bench: Bench, name: str) -> list[Row]:
    """A section's rows; where it fails, one that says why, so that the others are not lost."""
    try:
        return list(SECTIONS[name](bench))
    except HotplugError as error:
        return [Row(name, None, "", None, {"why": f"{type(error).__name__}: {error}"})]


def find(wanted: str | None) -> tuple[Backend, DeviceInfo]:
    """A device by its id, or the first that there is."""
    reasons = []
    for name, backend in BACKENDS.items():
        if wanted is None or wanted.partition(":")[0] == name:
            try:
                for info in backend.probe():
                    if wanted in {None, name, info.id}:
                        return backend, info
            except BackendLoadError as error:
                reasons.append(f"{name}: {error}")
    sys.exit("\n".join([f"there is no device {wanted or 'of CUDA or OpenCL'}", *reasons]))


def about(bench: Bench) -> dict[str, Any]:
    """The device, its data sheet's limits, and versions."""
    info = bench.info
    facts = {
        name: getattr(info, name) for name in ("id", "name", "architecture", "units", "driver")
    }
    packages = ("hotplug-core", "numpy", "cupy-cuda12x", "cupy-cuda13x", "pyopencl")
    return {
        "device": {**facts, **info.properties},
        "data sheet": bench.peaks and dataclasses.asdict(bench.peaks),
        "versions": {"python": platform.python_version(), **versions(packages)},
        "sizes": dataclasses.asdict(bench.sizes),
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    installed = {dist.name for dist in metadata.distributions()}
    return {name: metadata.version(name) for name in packages if name in installed}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", help="such as cuda:0 or opencl:0")
    parser.add_argument("--only", type=chosen, default=list(SECTIONS), metavar="NAME,...")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--width", type=int, help="rows and columns of matrices")
    parser.add_argument("--megabytes", type=int, help="what is too large for caches")
    parser.add_argument("--tokens", type=numbers, metavar="N,...", help="rows of products")
    parser.add_argument("--depths", type=numbers, metavar="N,...", help="rows of caches")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def chosen(names: str) -> list[str]:
    unknown = set(names.split(",")) - set(SECTIONS)
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no {', '.join(unknown)}; there are {', '.join(SECTIONS)}"
        )
    return names.split(",")


if __name__ == "__main__":
    main()
