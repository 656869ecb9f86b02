"""Compiled kernels on disk.

One file a kernel, named by a hash of all that could change what is in it: the source of the
compiler, of the kernel's module and of the kernel modules it imports, the processor, the versions
of what compiles. `hotplug.kernel_cache` keeps the files.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hotplug import kernel_cache
from hotplug_cpu.catalog import FIRST_ARGUMENT, ROW_WORDS, KernelSpec
from hotplug_cpu.jit.target import Target, kernel_target

__all__ = ["COMPILER", "ObjectCache", "kernel_modules"]

COMPILER = ("build", "forms", "reductions", "shared", "simd", "target", "vectors")
_KERNEL_IMPORT = re.compile(r"(?m)^from hotplug_cpu\.kernels(?:\.(\w+) import| import (.+))")


@dataclass(frozen=True)
class ObjectCache:
    """Object files of kernels.

    Attributes:
        directory: where they lie; None keeps nothing.
        key: what all of this process' files have in common.
    """

    directory: Path | None
    key: str

    @classmethod
    def open(cls) -> ObjectCache:
        """The cache that the settings name, for the present target."""
        return cls(kernel_cache.folder("cpu"), _key(kernel_target()))

    def path(self, spec: KernelSpec) -> Path | None:
        """Where a kernel's file lies or would lie."""
        key = f"{self.key}:{_kernel_digest(spec.module).hex()}:{spec}"
        return kernel_cache.path(self.directory, spec.name, key, "o")

    def get(self, spec: KernelSpec) -> bytes | None:
        """A kernel's object file, or None if there is no whole one."""
        return kernel_cache.read(self.path(spec))

    def put(self, spec: KernelSpec, code: bytes) -> None:
        """Keep a kernel's object file if that is possible."""
        kernel_cache.write(self.path(spec), code)


def _key(target: Target) -> str:
    digest = hashlib.sha256(repr(target).encode())
    for package in ("numba", "llvmlite"):
        digest.update(f"{package}={_version(package)};".encode())
    digest.update(f"{ROW_WORDS},{FIRST_ARGUMENT};".encode())
    digest.update(_source_digest(f"hotplug_cpu.jit.{name}" for name in COMPILER))
    return digest.hexdigest()


def _version(package: str) -> str:
    """Version from metadata: importing Numba to learn it would cost what the cache saves."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # Objects made while Numba was here cannot be told from others: nothing is found.
        return "none"


@functools.cache
def _kernel_digest(module: str) -> bytes:
    """Hash of the source of a kernel module and of those that it imports."""
    return _source_digest(sorted(kernel_modules(module)))


def kernel_modules(module: str) -> set[str]:
    """A kernel module and those of their kind that it imports, and these, and so on."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            for one, several in _KERNEL_IMPORT.findall(_source(name).decode()):
                names = [one] if one else several.replace(",", " ").split()
                waiting += [f"hotplug_cpu.kernels.{name}" for name in names]
    return found


def _source_digest(modules: Iterable[str]) -> bytes:
    digest = hashlib.sha256()
    for name in modules:
        digest.update(name.encode() + b"\0" + _source(name) + b"\0")
    return digest.digest()


def _source(module: str) -> bytes:
    path = Path(__file__).resolve().parent.parent.joinpath(*module.split(".")[1:])
    return path.with_suffix(".py").read_bytes()
