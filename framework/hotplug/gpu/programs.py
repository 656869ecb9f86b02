"""A device's compiled kernels: each is compiled once, or taken from the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from hotplug import progress
from hotplug.gpu.cache import BinaryCache
from hotplug.gpu.catalog.table import LibraryLaunch
from hotplug.gpu.driver import Argument, BoundLaunch, Driver, Memory, Program
from hotplug.gpu.series import Queued, SeriesProgram
from hotplug.gpu.sources import Variant, source_of
from hotplug.gpu.tensors import Place

__all__ = ["Programs"]

T = TypeVar("T")


class Programs:
    """Kernels of one opened device. Safe to use from several threads."""

    def __init__(self, driver: Driver, cache: BinaryCache) -> None:
        self._driver = driver
        self._cache = cache
        self._programs: dict[Variant | SeriesProgram, Program] = {}
        self._lock = threading.Lock()

    def prepare(self, variants: Iterable[Variant | SeriesProgram]) -> None:
        """Make kernels ready, telling how far it is while some are compiled.

        Raises:
            KernelCompileError: the device's compiler refused one.
        """
        missing = [variant for variant in dict.fromkeys(variants) if variant not in self._programs]
        if not missing:
            return
        with progress.task("compile kernels", len(missing)) as advance:
            for done, variant in enumerate(missing, start=1):
                self.get(variant)
                advance(done)

    def get(self, variant: Variant | SeriesProgram) -> Program:
        """The compiled kernel.

        Raises:
            KernelCompileError: the device's compiler refused it.
        """
        with self._lock:
            program = self._programs.get(variant)
            if program is None:
                program = self._programs[variant] = self._make(variant)
            return program

    def bind(self, launch: Queued, buffers: Mapping[str, Memory]) -> BoundLaunch:
        """A launch ready to be queued, its places in buffers of those names.

        Raises:
            KernelCompileError: the device's compiler refused the kernel.
        """
        if isinstance(launch, LibraryLaunch):
            operands = (buffers[place.buffer] for place in launch.operands)
            return self._driver.gemm(launch.gemm, *operands)
        arguments: list[Argument] = [
            buffers[part.buffer] if isinstance(part, Place) else part for part in launch.arguments
        ]
        program = self.get(launch.variant)
        return self._driver.bind(
            launch.variant.name, program, launch.groups, launch.items, arguments
        )

    def _make(self, variant: Variant | SeriesProgram) -> Program:
        able = self._driver.capabilities
        if isinstance(variant, SeriesProgram):
            texts = variant.sources(f64=able.f64)
            return self._loaded(variant.name, "".join(texts), self._driver.link, texts)
        text = source_of(variant, able.dialect, f64=able.f64)
        return self._loaded(variant.name, text, self._driver.compile, text)

    def _loaded(
        self, name: str, source: str, compile_: Callable[[str, T], Program], given: T
    ) -> Program:
        """A program from the disk, or else compiled and kept there."""
        binary = self._cache.get(name, source)
        known = self._driver.load(name, binary) if binary else None
        if known is not None:
            return known
        program = compile_(name, given)
        self._cache.put(name, source, self._driver.binary(program))
        return program
