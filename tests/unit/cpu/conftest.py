"""Running one compiled kernel at a time, by real threads."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hotplug_cpu.catalog import FIRST_ARGUMENT, ROW_WORDS, kernel


def _word(value: Any) -> int:
    data = value.__array_interface__["data"][0] if isinstance(value, np.ndarray) else value
    return int(data)


class KernelRunner:
    """Calls kernels by name, as the rows of a plan are called; arrays stand for their addresses."""

    def address(self, name: str) -> int:
        from hotplug_cpu.jit import loader

        return loader.load([name])[name]

    def __call__(self, name: str, *, threads: int = 1, **arguments: Any) -> None:
        spec = kernel(name)
        assert tuple(arguments) == spec.arguments
        address = self.address(name)
        row = np.zeros(ROW_WORDS, np.int64)
        row[0] = address
        words = [_word(value) for value in arguments.values()]
        row[FIRST_ARGUMENT : FIRST_ARGUMENT + len(words)] = words
        function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(address)
        others = [
            threading.Thread(target=function, args=(row.ctypes.data, thread, threads))
            for thread in range(1, threads)
        ]
        for thread in others:
            thread.start()
        function(row.ctypes.data, 0, threads)
        for thread in others:
            thread.join()


@pytest.fixture(scope="module", autouse=True)
def small_plans_run_in_teams() -> Iterator[None]:
    """Tests are of small plans, whose threads are to be tested nevertheless."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hotplug_cpu.plan.FEW", 0)
        yield


@pytest.fixture(scope="session")
def run_kernel() -> KernelRunner:
    return KernelRunner()
