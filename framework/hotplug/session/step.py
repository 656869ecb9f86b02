"""One part of a plan: values in, one call to a device, values out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from hotplug.backend import Buffer, Executable
from hotplug.errors import RunCancelledError
from hotplug.session.faults import DeviceFault, at_device
from hotplug.session.pools import Selection
from hotplug.session.trace import StepTime, Trace
from hotplug.session.turns import Turn
from hotplug.session.values import Slot

__all__ = ["Step", "Transfer"]


@dataclass(slots=True)
class Transfer:
    """A value that is brought from another device.

    Attributes:
        name: of the value.
        source: id of the device it comes from.
        made: where it lies there.
        received: where it is put.
        staged: host memory in between, filled by the part that makes the value; None where the two
            devices can do without.
    """

    name: str
    source: str
    made: Buffer
    received: Buffer
    staged: memoryview | None


@dataclass(slots=True)
class Step:
    """One part of a plan, ready to run: values in, one call, values out.

    Attributes:
        name: which part it is, and of how many nodes.
        device: id of the device.
        executable: what it runs.
        bindings: with these buffers.
        turn: to be taken where other sessions use the device, too.
        limit: seconds after which the device counts as hung.
        long: whether it takes so long that it should be possible to interrupt it.
        inputs: which of the run's arrays are put where before it begins.
        transfers: values brought from other devices.
        made: all values that it gives out.
        handed: host memory that it puts some of them in, once for all devices that take them from
            there. They would have to wait longer: a device that has begun its next run gives
            nothing out before that is done.
        selections: experts that it needs in pools of its device.
        outputs: those that are read when it is done.
        at: id of the device that something is asked of just now.
    """

    name: str
    device: str
    executable: Executable
    turn: Turn
    limit: float | None
    long: bool
    bindings: dict[str, Buffer] = field(default_factory=dict)
    inputs: list[tuple[int, Slot]] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    made: dict[str, Slot] = field(default_factory=dict)
    handed: dict[str, memoryview] = field(default_factory=dict)
    selections: list[Selection] = field(default_factory=list)
    outputs: list[tuple[str, Slot]] = field(default_factory=list)
    at: str = ""

    def run(
        self,
        arrays: list[npt.NDArray[Any]],
        results: dict[str, Any],
        trace: Trace | None = None,
    ) -> None:
        """Do it, and add to the results.

        Args:
            arrays: of the whole run.
            results: get what is read when it is done.
            trace: notes how long each copy took, and the part or its steps.

        Raises:
            DeviceFault: a device failed.
        """
        clean, self.at = True, self.device
        try:
            self._receive(arrays, trace)
            clean = False
            if trace is None:
                self.executable.run(self.bindings)
            else:
                self._run_traced(trace)
            self._hand_out(trace)
            for name, slot in self.outputs:
                results[name] = slot.read()
        except RunCancelledError:
            raise
        except Exception as error:
            raise DeviceFault(self._culprit(error), error, clean=clean) from error

    def _run_traced(self, trace: Trace) -> None:
        began = trace.now()
        times = self._timed() if trace.steps else []
        if not times:
            self.executable.run(self.bindings)
        trace.span(self.device, self.name, began)
        trace.lay_out(began, times)

    def profile(self, arrays: list[npt.NDArray[Any]]) -> list[StepTime]:
        """Do it with clocks beside every step of the device, where it has any.

        Raises:
            DeviceFault: a device failed.
        """
        with at_device(self.device):
            self._receive(arrays)
            times = self._timed()
            if not times:
                self.executable.run(self.bindings)
            self._hand_out()
            return times

    def _timed(self) -> list[StepTime]:
        """Run with clocks beside each step; empty where the device cannot, and has not run."""
        seconds = self.executable.profile(self.bindings)
        lines = self.executable.explain() if seconds else []
        return [StepTime(self.device, *pair) for pair in zip(lines, seconds, strict=True)]

    def stop(self) -> None:
        """Ask the device to end the run early; it need not be able to."""
        stop = getattr(self.executable, "stop", None)  # a backend need not derive from the contract
        if stop is not None:
            stop()

    def _receive(self, arrays: list[npt.NDArray[Any]], trace: Trace | None = None) -> None:
        for index, slot in self.inputs:
            slot.store(arrays[index])
        for transfer in self.transfers:
            began = trace.now() if trace else 0.0
            self._transfer(transfer)
            if trace:
                lane = f"copies {transfer.source} -> {self.device}"
                trace.span(lane, transfer.name, began, bytes=transfer.made.nbytes)
        for selection in self.selections:
            began = trace.now() if trace else 0.0
            nbytes = selection.bring()
            if trace:
                lane = f"copies {selection.source} -> {self.device}"
                trace.span(lane, "experts", began, bytes=nbytes)

    def _transfer(self, transfer: Transfer) -> None:
        if transfer.staged is not None:
            transfer.received.write(0, transfer.staged)
            return
        self.at = transfer.source if transfer.made.host() is None else self.device
        transfer.received.copy_from(transfer.made)
        self.at = self.device

    def _hand_out(self, trace: Trace | None = None) -> None:
        for name, staged in self.handed.items():
            began = trace.now() if trace else 0.0
            self.made[name].buffer.read(0, staged)
            if trace:
                trace.span(f"copies {self.device} -> host", name, began, bytes=staged.nbytes)

    def _culprit(self, error: Exception) -> str:
        """Of two devices that copy, the one that the error names."""
        named = getattr(error, "device", None)
        there = {self.device, *(transfer.source for transfer in self.transfers)}
        return named if named in there else self.at
