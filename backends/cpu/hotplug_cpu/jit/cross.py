"""Kernels for another processor than this one, compiled here.

    python -m hotplug_cpu.jit.cross TARGET [KERNEL ...]                   into the kernel cache
    python -m hotplug_cpu.jit.cross TARGET [KERNEL ...] --assembly FOLDER to be looked at

TARGET is a name of `target.OTHERS`, or a JSON object with the fields of a `Target`: what
`host_target` says on that machine. A kernel cache filled so and carried there spares it compiling,
and Numba with it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from hotplug_cpu import catalog
from hotplug_cpu.jit import build
from hotplug_cpu.jit.cache import ObjectCache
from hotplug_cpu.jit.target import OTHERS, Target, choose

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Compile kernels, all of them if none is named, and print the name of each that is done."""
    parser = argparse.ArgumentParser(prog="python -m hotplug_cpu.jit.cross")
    parser.add_argument("target", type=_target)
    parser.add_argument("kernels", nargs="*", default=list(catalog.KERNELS), metavar="KERNEL")
    parser.add_argument("--assembly", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    choose(options.target)
    cache = ObjectCache.open()
    for name in options.kernels:
        spec = catalog.kernel(name)
        if options.assembly:
            path = options.assembly / f"{name}.s"
            path.write_text(build.assembly(spec), encoding="utf-8")
        elif not cache.get(spec):
            cache.put(spec, build.compile_kernel(spec))
        sys.stdout.write(name + "\n")
        sys.stdout.flush()


def _target(text: str) -> Target:
    return OTHERS[text] if text in OTHERS else Target(**json.loads(text))


if __name__ == "__main__":
    main()
