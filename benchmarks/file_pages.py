"""A model file mapped with and without huge pages, beside anonymous memory; prints one JSON object.

    python benchmarks/file_pages.py [--model FILE] [--threads 2] [--repeats 40]

Two copies of the file are read cold: dropped from the system's cache, mapped, and touched once in
every page. Then the backend's compiled kernel `read` reads both, and as much memory in huge and in
small pages; all take turns, figures are medians. Linux only. See docs/decisions/0012.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from compiled import row
from demo import demo_model

from hotplug_cpu import threads as teams

Bytes = npt.NDArray[np.uint8]


def mapped(model: Path, folder: Path, *, huge: bool) -> tuple[Bytes, float]:
    """A cold copy of a file, and the seconds that touching it took."""
    path = folder / f"huge-{huge}.gguf"
    shutil.copy(model, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if huge:
        memory.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(memory, np.uint8)
    start = time.perf_counter()
    array[::4096].sum()
    return array, time.perf_counter() - start


def anonymous(nbytes: int, advice: int) -> Bytes:
    """Memory that is committed."""
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(advice)
    array = np.frombuffer(memory, np.uint8)
    array[:] = 1
    return array


def reading(memories: dict[str, Bytes], threads: int, repeats: int) -> dict[str, float]:
    """GB a second of each memory."""
    nbytes = min(array.nbytes for array in memories.values())
    sums, team = np.zeros(threads, np.float32), teams.team(threads)
    plans = {
        name: np.array([row("read", at=array, nbytes=nbytes, out=sums)], np.int64)
        for name, array in memories.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    for _ in range(repeats):
        for name, run in ((name, partial(team.run, plan)) for name, plan in plans.items()):
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: round(nbytes / statistics.median(all_) / 1e9, 1) for name, all_ in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("file_pages: only Linux is asked for huge pages")
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        model = options.model or demo_model()
        plain, cold = mapped(model, Path(folder), huge=False)
        large, cold_large = mapped(model, Path(folder), huge=True)
        memories = {
            "file": plain,
            "file, huge pages": large,
            "memory, huge pages": anonymous(plain.nbytes, mmap.MADV_HUGEPAGE),
            "memory, pages of 4 KB": anonymous(plain.nbytes, mmap.MADV_NOHUGEPAGE),
        }
        found = {
            "first_touch_seconds": {
                "file": round(cold, 3),
                "file, huge pages": round(cold_large, 3),
            },
            "read_gb_per_second": reading(memories, options.threads, options.repeats),
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
