"""Runs kernels of every file under Oclgrind, which sees invalid accesses and data races.

    python tools/check_kernels.py            two cases of each kind of kernel
    python tools/check_kernels.py matmul     kernels of some files alone
    python tools/check_kernels.py --all      every case of the suite that is not slow

Oclgrind interprets OpenCL for a device of version 1.2 without f16, by an older compiler than most,
so that what is not portable shows too. Work-groups, barriers and local memory are those of a GPU.
Kernels without f64 are compiled once more for a device that lacks it. Ends with 1 if anything is
found.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import llvmlite.binding

from hotplug import ops
from hotplug.backend import DeviceInfo, MemoryInfo
from hotplug.errors import HotplugError
from hotplug.gpu.device import GPUDevice
from hotplug.gpu.driver import Capabilities, Driver
from hotplug.gpu.sources import Variant, kernel_names, source_of
from hotplug.testing.conformance.case import Case, single
from hotplug.testing.conformance.check import Outcome, check
from hotplug.testing.conformance.suite import case_groups
from hotplug.testing.kernels import launches

LARGEST = 20_000
"""Work-items of the larger case of a kind, at most."""

GET = "apt-get install oclgrind"
WARNINGS = re.compile(r"(\d+ warnings? generated\.\s*)+")
DOUBLE = re.compile(r"\bdouble\b")


def main() -> int:
    """Run the checks; the exit status."""
    parser = argparse.ArgumentParser(description="kernels under Oclgrind")
    parser.add_argument("files", nargs="*", help="names of kernels' files, without suffix")
    parser.add_argument("--all", action="store_true", help="every case that is not slow")
    arguments = parser.parse_args()
    unknown = set(arguments.files) - set(kernel_names())
    if unknown:
        parser.error(f"there is no kernels/{', '.join(unknown)}.cl")
    library = oclgrind()
    if library is None:
        print(f"Oclgrind is not installed: {GET}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "oclgrind.log")
        simulate(library, log)
        return run(log, arguments.files, every=arguments.all)


def oclgrind() -> Path | None:
    """Oclgrind's driver, beside its command or in the system's libraries."""
    command = shutil.which("oclgrind")
    roots = [Path(command).resolve().parents[1]] if command else []
    roots.append(Path("/usr"))
    found = (file for root in roots for file in sorted(root.glob("lib*/**/liboclgrind-rt-icd.so")))
    return next(found, None)


def simulate(library: Path, log: Path) -> None:
    """Have the loader take Oclgrind alone, and put what that writes to standard error in a file."""
    sys.stderr = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.environ.update(
        OCL_ICD_VENDORS=str(library),
        OCLGRIND_DATA_RACES="1",
        OCLGRIND_CHECK_API="1",
        OCLGRIND_UNIFORM_WRITES="1",
        # What is left of functions that were inlined, Oclgrind 21.10 cannot always read.
        OCLGRIND_BUILD_OPTIONS="-fno-inline",
        HOTPLUG_CACHE="off",
    )


def run(log: Path, files: list[str], *, every: bool) -> int:
    """Check cases on the simulator and tell of each that is not clean."""
    info, driver = open_simulator()
    capabilities = driver.capabilities
    device = GPUDevice(info, driver, MemoryInfo(None, None))
    chosen = all_cases() if every else select(capabilities)
    wanted = [
        (case, variants)
        for case, variants in with_variants(chosen, capabilities)
        if not files or any(variant.file in files for variant in variants)
    ]
    seen: set[Variant] = set()
    bad = 0
    begun = time.monotonic()
    for case, variants in wanted:
        problems = complaints(device, case, log)
        bad += bool(problems)
        print("".join(f"FAIL {case.name}: {text}\n" for text in problems), end="")
        seen |= variants
    bad += refusals(driver, seen)
    seconds = time.monotonic() - begun
    done = {variant.file for variant in seen}
    missing = set(files or kernel_names()) - done
    print(f"{len(wanted)} cases, {len(seen)} kernels of {len(done)} files in {seconds:.0f} s")
    if missing:
        print(f"FAIL no case runs {', '.join(sorted(missing))}")
    print("FAIL" if bad or missing else "PASS no invalid access, no data race, no wrong result")
    return int(bool(bad or missing))


def open_simulator() -> tuple[DeviceInfo, Driver]:
    """Oclgrind's device, with the geometry of a GPU."""
    from hotplug_opencl import discovery
    from hotplug_opencl.driver import OpenCLDriver

    found = next(one for one in discovery.find() if one.platform.startswith("Oclgrind"))
    driver = OpenCLDriver(found)
    driver.capabilities = dataclasses.replace(driver.capabilities, is_cpu=False, int8=True)
    return found.info, driver


def all_cases() -> Iterator[Case]:
    """Those of the suite, and what is too large for it."""
    for group in case_groups(slow=False).values():
        yield from group
    yield attention_in_parts()


def attention_in_parts() -> Case:
    """So many rows that they are shared by several groups, and put together by combine.cl."""
    q = ops.input(name="q", dtype="f32", shape=(1, 2, 4))
    k, v = (ops.input(name=name, dtype="f32", shape=(513, 1, 4)) for name in ("k", "v"))
    return single("attention in parts", ops.scaled_dot_product_attention(q, k, v))


def with_variants(
    cases: Iterable[Case], capabilities: Capabilities
) -> Iterator[tuple[Case, set[Variant]]]:
    """Cases with the kernels that they launch; none that the device does not run."""
    for case in cases:
        variants = {launch.variant for launch in launches(case.graph, capabilities)}
        if variants:
            yield case, variants


def select(capabilities: Capabilities) -> list[Case]:
    """The smallest case of each kind of kernel, and a larger one that is not too large."""
    chosen: dict[tuple[object, ...], list[tuple[int, Case]]] = {}
    for case in all_cases():
        work = launches(case.graph, capabilities)
        items = sum(launch.groups[0] * launch.groups[1] * launch.items for launch in work)
        for launch in work:
            chosen.setdefault(kind(launch.variant), []).append((items, case))
    cases = []
    for sized in chosen.values():
        sized.sort(key=lambda pair: pair[0])
        fitting = [case for items, case in sized if items <= LARGEST]
        cases += [sized[0][1], (fitting or [sized[0][1]])[-1]]
    return list({case.name: case for case in cases}.values())


def kind(variant: Variant) -> tuple[object, ...]:
    """What makes kernels different in what they reach: not which function, but how elements lie."""
    defines = dict(variant.defines)
    return variant.file, variant.name, *defines, defines.get("QUANT"), defines.get("TYPE")


def complaints(device: GPUDevice, case: Case, log: Path) -> list[str]:
    """What the case and Oclgrind's log say."""
    before = log.stat().st_size
    result = check(device, case)
    problems = [result.reason] if result.outcome is Outcome.FAILED else []
    with log.open(encoding="utf-8", errors="replace") as text:
        text.seek(before)
        said = text.read().split("\n\n")
    return problems + [text.strip() for text in said if text.strip() and not harmless(text)]


def harmless(text: str) -> bool:
    """Whether PyOpenCL has asked for what a device of OpenCL 1.2 does not know; or a count."""
    asked = "Function: clGetDeviceInfo" in text and "CL_INVALID_VALUE" in text
    return asked or WARNINGS.fullmatch(text.strip()) is not None


def refusals(driver: Driver, variants: Iterable[Variant]) -> int:
    """How many kernels are not for a device without f64, of those that compute nothing in it.

    The compiler takes constants such as 0.5 for double and says nothing; but its code shows them.
    """
    bad = 0
    for variant in variants:
        if "f64" in dict(variant.defines).values():
            continue
        try:
            program = driver.compile(variant.name, source_of(variant, "opencl", f64=False))
            code = str(llvmlite.binding.parse_bitcode(driver.binary(program)))
            doubtful = [line.strip() for line in code.splitlines() if DOUBLE.search(line)]
            why = f"it computes in double: {doubtful[0]}" if doubtful else ""
        except HotplugError as error:
            why = str(error)
        bad += bool(why)
        print(f"FAIL {variant} without f64: {why}\n" if why else "", end="")
    return bad


if __name__ == "__main__":
    sys.exit(main())
