"""One token times a matrix of weights, beside the speed of reading memory; prints one JSON object.

    python benchmarks/cpu_gemv.py [--threads 2] [--repeats 9] [--megabytes 64] [--types q4_1,q8_0]

Each type has so many matrices of 4096 rows that caches do not hold them, each multiplied with a row
of 4096 bytes, or of floats where the name says so. `read` sums the same memory and multiplies
nothing. All take turns; figures are GB of weights per second in the fastest of all turns.
"""

from __future__ import annotations

import argparse
import json
import os
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from compiled import Reader, fastest, row

from hotplug import dtypes
from hotplug_cpu import threads as teams
from hotplug_cpu.jit.target import host_target
from hotplug_cpu.kernels.sizes import BLOCK, x_row_bytes

WIDTH = ROWS = 4096
LEGACY = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl")
SUPER = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs")
BYTES = [*LEGACY, *SUPER]
TYPES = ",".join([*BYTES, *(f"{name}_f32" for name in (*BYTES, "f16", "bf16", "f32"))])


class Case:
    """Matrices of random bytes; of what they mean only that it costs the same matters."""

    def __init__(self, name: str, nbytes: int) -> None:
        dtype = dtypes.get(name.removesuffix("_f32") if name != "f32_f32" else "f32")
        floats = name.endswith("_f32")
        self.row_bytes = dtype.nbytes(WIDTH)
        self.matrices = max(1, nbytes // (ROWS * self.row_bytes))
        rng = np.random.default_rng(0)
        # 0x3c and less in every high byte: no f16 or f32 among them is infinite or denormal.
        shape = (self.matrices, ROWS, self.row_bytes)
        self.weights = rng.integers(16, 60, shape, np.uint8)
        self.out = np.zeros(ROWS, np.float32)
        self.x: npt.NDArray[Any] = np.zeros(x_row_bytes(WIDTH // BLOCK), np.uint8)
        source = rng.standard_normal(WIDTH).astype(np.float32)
        if floats:
            self.x = source
        else:
            words = {"rows": 1, "blocks": WIDTH // BLOCK, "out": self.x, "copies": 0}
            quantise = row("quantise", x=source, x_stride=0, **words)
            teams.team(1).run(np.array([quantise], np.int64))
        count = WIDTH // (BLOCK if dtype.quantised else 8)
        self.plan = np.array([self.product(name, m, count) for m in self.weights], np.int64)

    def product(self, name: str, matrix: npt.NDArray[np.uint8], count: int) -> list[int]:
        """The row of a plan that multiplies one matrix."""
        return row(
            f"matvec_{name}",
            weights=matrix,
            row_bytes=self.row_bytes,
            rows=ROWS,
            count=count,
            x=self.x,
            x_stride=0,
            tokens=1,
            out=self.out,
            out_stride=0,
            add=0,
            add_stride=0,
            x_copies=0,
            grain=4,
        )


def main() -> None:
    options = arguments()
    team = teams.team(options.threads)
    cases = {name: Case(name, options.megabytes << 20) for name in options.types.split(",")}
    reader = Reader(options.threads, options.megabytes << 20)
    actions = [partial(team.run, case.plan) for case in cases.values()]
    *seconds, base = fastest([*actions, reader.read], options.repeats)
    speeds = {
        name: round(case.weights.nbytes / second / 1e9, 2)
        for (name, case), second in zip(cases.items(), seconds, strict=True)
    }
    result = {
        "benchmark": "cpu_gemv",
        "instruction_set": host_target().isa,
        "threads": options.threads,
        "read_gigabytes_per_second": round(reader.nbytes / base / 1e9, 2),
        "gigabytes_per_second": speeds,
    }
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--types", default=TYPES)
    return parser.parse_args()


if __name__ == "__main__":
    main()
