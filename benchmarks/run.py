"""`make bench`: the table of all targets, beside llama.cpp and OpenBLAS, as text and as JSON.

    python benchmarks/run.py                             all of it; a quarter of an hour
    python benchmarks/run.py --only decode,batches --rounds 1
    python benchmarks/run.py --write-docs                and renew docs/performance.md
    python benchmarks/run.py --isa avx2                  all programs without AVX-512

Programs stay loaded and take turns, so that whatever else the machine does hits both; what counts
is the median of the rounds' ratios. Rows appear as they are measured, on standard error; the whole
table and then one JSON object follow on standard output. Without `make bench-peers`, or with --isa
avx2 without `make bench-peers-avx2`, it measures hotplug alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import report
from bench import Bench, Section
from demo import demo_model
from figures import Row, text
from machine import commit, describe
from sections import (
    accuracy,
    batches,
    devices,
    generation,
    kernels,
    placement,
    resources,
    startup,
    tracing,
)

from hotplug.settings import settings
from hotplug_cpu import host

SECTIONS = (
    *generation.SECTIONS,
    *batches.SECTIONS,
    *kernels.SECTIONS,
    *startup.SECTIONS,
    *resources.SECTIONS,
    *accuracy.SECTIONS,
    *placement.SECTIONS,
    *devices.SECTIONS,
    *tracing.SECTIONS,
)

_OPENBLAS = {"avx2": "Haswell"}
"""What OpenBLAS calls a processor with an instruction set and no more."""


def main() -> None:
    options = arguments()
    bench = Bench(options.model or demo_model(), options.threads, options.rounds, options.types)
    head = describe(bench.threads, bench.reader.speed())
    sections: dict[str, Any] = {}
    order = [section.name for section in SECTIONS]
    document = {
        "isa": options.isa,
        "model": bench.model.name,
        "machine": head,
        "order": order,
        "sections": sections,
    }
    for section in SECTIONS:
        if section.name in options.only:
            sections[section.name] = measure(bench, section)
            if options.write_docs:  # at once: nothing is lost if a later section fails
                report.write(document)
    rows = [Row.from_json(row) for section in sections.values() for row in section["rows"]]
    print("\n".join(f"{name}: {value}" for name, value in head.items()))
    print(text(rows), end="\n\n")
    print(json.dumps(document, indent=2))


def measure(bench: Bench, section: Section) -> dict[str, Any]:
    """What a section found, ready for JSON."""
    print(f"{section.name}: {section.title} ...", file=sys.stderr, flush=True)
    began = time.perf_counter()
    outcome = section.measure(bench)
    print(text(outcome.rows), file=sys.stderr, flush=True)
    return {
        "title": section.title,
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "rounds": bench.rounds,
        "seconds": round(time.perf_counter() - began, 1),
        "rows": [row.as_json() for row in outcome.rows],
        **outcome.data,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [section.name for section in SECTIONS]
    parser.add_argument("--model", type=Path, help="a GGUF file (the demo model)")
    parser.add_argument("--isa", help="an instruction set that both programs are to keep to")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", type=lambda given: given.split(","), default=names, metavar="A,B")
    parser.add_argument(
        "--types", type=lambda given: given.split(","), help="of types and accuracy, only these"
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="renew the figures and pictures in docs/"
    )
    options = parser.parse_args()
    if options.isa:  # before anybody has read the settings
        os.environ["HOTPLUG_CPU_ISA"] = options.isa
        if options.isa in _OPENBLAS and "OPENBLAS_CORETYPE" not in os.environ:
            # OpenBLAS, loaded already, looks once.
            os.environ["OPENBLAS_CORETYPE"] = _OPENBLAS[options.isa]
            os.execv(sys.executable, [sys.executable, *sys.argv])
    options.threads = options.threads or settings().threads or host.usable_cores()
    unknown = set(options.only) - set(names)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return options


if __name__ == "__main__":
    main()
