"""Python time for each launch of a plan that is replayed on an OpenCL device.

The plan is a decoder's step over tiny matrices. A run queues its launches behind an event that has
not happened yet, so that no kernel takes processor time meanwhile; nothing is waited for. By turns:

    whole     as the backend does it: PyOpenCL's call for each launch
    native    the loader's function by ctypes, its arguments made beforehand
    nothing   ctypes calls a function of the C library that returns at once, with the same arguments
    python    whole, less what native takes beyond nothing, which is the driver's own work

Prints JSON, microseconds for a launch, medians.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import pyopencl as cl
from pyopencl import _cl

from hotplug.backend import Partition
from hotplug.gpu.device import GPUDevice
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug_opencl import backend, discovery
from hotplug_opencl.driver import OpenCLDriver

SHAPE = DecoderShape(
    width=64, hidden=64, heads=2, kv_heads=1, head=32, vocabulary=64, context=64, weights="f32"
)
TURNS = 200


class Driver(OpenCLDriver):
    """A driver that may queue launches in another way."""

    function: Callable[..., Any] | None = None
    _prepared: Sequence[Any] | None = None
    _arguments: Sequence[tuple[Any, ...]] = ()

    def launch(self, launches: Sequence[Any]) -> None:
        if self.function is None:
            super().launch(launches)
            return
        if self._prepared is not launches:
            self._prepared = launches
            self._arguments = [self._native(*launch) for launch in launches]
        function = self.function
        for arguments in self._arguments:
            function(*arguments)
        self._queue.flush()

    def _native(
        self, kernel: cl.Kernel, total: tuple[int, int], group: tuple[int, int]
    ) -> tuple[Any, ...]:
        pointer, number, sizes = ctypes.c_void_p, ctypes.c_uint, ctypes.c_size_t * 2
        return (
            pointer(self._queue.int_ptr), pointer(kernel.int_ptr), number(2), None, sizes(*total),
            sizes(*group), number(0), None, None,
        )  # fmt: skip

    def held_back(self, work: Callable[[], Any]) -> float:
        """Seconds that queueing takes, while what is queued has to wait."""
        gate = cl.UserEvent(self._context)
        cl.enqueue_marker(self._queue, wait_for=[gate])
        began = time.perf_counter()
        work()
        taken = time.perf_counter() - began
        gate.set_status(cl.command_execution_status.COMPLETE)
        self.synchronise()
        return taken


def main() -> None:
    found = discovery.find()[0]
    driver = Driver(found)
    # One by one, as on a GPU; a processor's small launches would be joined.
    driver.capabilities = dataclasses.replace(driver.capabilities, threads=0)
    with GPUDevice(found.info, driver, backend.memory(found.info)) as device:
        executable = device.compile(Partition(decoder(SHAPE)))
        bindings = {name: device.buffers.allocate(n) for name, n in executable.required.items()}
        stream, count = device.stream(), len(executable.explain())
        ways = {
            "whole": None,
            "native": ctypes.CDLL(_cl.__file__).clEnqueueNDRangeKernel,
            "nothing": ctypes.CDLL(None).getppid,  # C lets it be given what it does not take
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, driver.function in ways.items():
                seconds = driver.held_back(lambda: executable.run(bindings, stream))
                taken[name].append(1e6 * seconds / count)
    times = {name: statistics.median(values[TURNS // 4 :]) for name, values in taken.items()}
    times["python"] = times["whole"] - (times["native"] - times["nothing"])
    about = {"device": found.info.name, "pyopencl": cl.VERSION_TEXT, "launches": count}
    rounded = {f"{name}_us": round(value, 2) for name, value in times.items()}
    print(json.dumps({**about, **rounded}, indent=2))


if __name__ == "__main__":
    main()
