"""The fastest geometry of a kernel, found by trying, for shapes as they really occur.

Rows of the catalog that have a choice ask `Lowering.choose` with a question, a kernel with its
dtypes and sizes, and the geometries that there are, of which the first is right for most devices.
`Tuner.learn` puts each question of a graph that has no answer yet: every geometry computes the node
on zeros, and the fastest is kept beside the device's compiled kernels. See docs/decisions/0009.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hotplug import kernel_cache, progress
from hotplug.errors import ExecutionError, KernelCompileError, OutOfDeviceMemoryError
from hotplug.gpu.catalog.table import ROWS, Chooser, Geometry, Lowering, first
from hotplug.gpu.driver import Driver, Memory
from hotplug.gpu.programs import Programs
from hotplug.gpu.tensors import Place, Tensor, contiguous
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.ops import OPS
from hotplug.settings import settings

__all__ = ["Answers", "Tuner"]

_log = logging.getLogger(__name__)
_TIMES = 3  # a candidate is run; its fastest counts
_LARGEST = 1 << 29  # bytes of a node's operands and result, for which memory is taken


class Answers:
    """What was found out on a device, in a file that processes share. Damaged ones count as empty.

    Args:
        path: where it lies; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known = self._read()

    @classmethod
    def of(cls, backend: str, identity: str) -> Answers:
        """Those of a device, in the cache that the settings name."""
        folder = kernel_cache.folder(backend)
        return cls(kernel_cache.path(folder, "geometry", f"1\0{identity}", "json"))

    def get(self, question: str, candidates: Sequence[Geometry]) -> Geometry | None:
        """The candidate that was found to be fastest; None if none of these was."""
        known = self._known.get(question)
        return next((one for one in candidates if dict(one) == known), None)

    def put(self, question: str, geometry: Geometry) -> None:
        """Keep an answer, beside those that other processes found meanwhile."""
        self._known = {**self._read(), **self._known, question: dict(geometry)}
        text = json.dumps(self._known, indent=1, sort_keys=True)
        kernel_cache.write(self._path, text.encode())

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(kernel_cache.read(self._path) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class Tuner:
    """Answers questions about geometry on one device.

    Args:
        driver: the device.
        programs: its kernels.
        answers: what is known.
        seconds: how long all trying may take in this process; 0 tries nothing.
        clock: seconds that have passed since some moment.
    """

    def __init__(
        self,
        driver: Driver,
        programs: Programs,
        answers: Answers,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._driver = driver
        self._programs = programs
        self._answers = answers
        self._left = seconds
        self._clock = clock
        self._lock = threading.Lock()

    @classmethod
    def open(cls, backend: str, driver: Driver, programs: Programs) -> Tuner:
        """As the settings want it: with what is known and some time, or with neither."""
        now, able = settings(), driver.capabilities
        tried = now.autotune == "all" or (now.autotune == "gpu" and not able.is_cpu)
        # What others found may be missing tomorrow, and another geometry adds in another order.
        if not tried or able.simulated or now.deterministic:
            return cls(driver, programs, Answers(None), 0)
        answers = Answers.of(backend, able.identity)
        return cls(driver, programs, answers, now.autotune_seconds)

    def choose(self, question: str, candidates: Sequence[Geometry]) -> Geometry:
        """The geometry that is known to be fastest, or else the first."""
        return self._answers.get(question, candidates) or candidates[0]

    def learn(self, graph: Graph) -> None:
        """Find answers to what a graph asks, as long as there is time left."""
        with self._lock:
            questions = list(self._questions(graph)) if self._left > 0 else []
            if not questions:
                return
            began = self._clock()
            with progress.task("try kernels", len(questions)) as advance:
                for done, asked in enumerate(questions, start=1):
                    if self._clock() < began + self._left:
                        self._try(*asked, began + self._left)
                    advance(done)
            self._left -= self._clock() - began

    def _try(self, node: Node, question: str, candidates: Sequence[Geometry], until: float) -> None:
        try:
            self._answer(node, question, candidates, until)
        except OutOfDeviceMemoryError as error:
            _log.info("no geometry is tried for %s: %s", question, error)

    def _questions(self, graph: Graph) -> Iterator[tuple[Node, str, Sequence[Geometry]]]:
        """Each open question of a graph, and a node that asks it."""
        asked: dict[str, Sequence[Geometry]] = {}
        seen = set()
        for node in graph.nodes:
            kind = (node.op, node.type, node.params, *(operand.type for operand in node.operands))
            if node.is_leaf or OPS[node.op].view or kind in seen or not node.type.size:
                continue
            seen.add(kind)
            before = set(asked)
            self._lower(node, lambda question, candidates: _note(asked, question, candidates))
            for question in asked.keys() - before:
                candidates = asked[question]
                if (
                    len(candidates) > 1
                    and _bytes(node) <= _LARGEST
                    and self._answers.get(question, candidates) is None
                ):
                    yield node, question, candidates

    def _lower(self, node: Node, choose: Chooser) -> Lowering:
        """A node's launches, its operands and its result each in a buffer of its own."""
        lowering = Lowering(self._driver.capabilities, choose=choose)
        operands = [
            None if item is None else _own(f"operand {i}", item)
            for i, item in enumerate(node.inputs)
        ]
        ROWS[node.op].lower(lowering, node, operands, _own("result", node))
        return lowering

    def _answer(
        self, node: Node, question: str, candidates: Sequence[Geometry], until: float
    ) -> None:
        """Try all geometries; nothing is kept where time does not suffice for that."""
        named = {"result": node}
        named |= {f"operand {i}": item for i, item in enumerate(node.inputs) if item is not None}
        taken: list[tuple[float, int]] = []
        with ExitStack() as held:
            buffers = {name: self._zeros(held, one.type.nbytes) for name, one in named.items()}
            for number, geometry in enumerate(candidates):
                if self._clock() >= until:
                    _log.info("there was no time to try all geometries for %s", question)
                    return
                seconds = self._seconds(node, question, geometry, buffers)
                if seconds is not None:
                    taken.append((seconds, number))
        if taken:
            best = candidates[min(taken)[1]]
            _log.debug("%s: %s of %s", question, best, taken)
            self._answers.put(question, best)

    def _seconds(
        self, node: Node, question: str, geometry: Geometry, buffers: Mapping[str, Memory]
    ) -> float | None:
        """How long the node takes with a geometry; None if the device does not take that."""

        def choose(asked: str, candidates: Sequence[Geometry]) -> Geometry:
            return geometry if asked == question else self.choose(asked, candidates)

        lowering = self._lower(node, choose)
        with ExitStack() as held:
            constants = self._zeros(held, len(lowering.constants))
            self._driver.write(constants, 0, memoryview(lowering.constants))
            own = {
                "constants": constants,
                "held": self._zeros(held, lowering.held_bytes),
                "kept": self._zeros(held, lowering.kept_bytes),
                "scratch": self._zeros(held, lowering.scratch),
            }
            try:
                bound = [
                    self._programs.bind(launch, {**buffers, **own}) for launch in lowering.launches
                ]
                return min(sum(self._driver.timed(bound)) for _ in range(_TIMES))
            except (KernelCompileError, ExecutionError) as error:
                _log.info("%s is not possible with %s: %s", question, dict(geometry), error)
                return None

    def _zeros(self, held: ExitStack, nbytes: int) -> Memory:
        """Memory for a while. Zeros, because no value makes arithmetic slower."""
        memory = self._driver.allocate(max(1, nbytes))
        held.callback(self._driver.free, memory)
        self._driver.zero(memory, max(1, nbytes))
        return memory


def _note(
    asked: dict[str, Sequence[Geometry]], question: str, candidates: Sequence[Geometry]
) -> Geometry:
    asked[question] = candidates
    return first(question, candidates)


def _bytes(node: Node) -> int:
    return node.type.nbytes + sum(operand.type.nbytes for operand in node.operands)


def _own(buffer: str, node: Node) -> Tensor:
    return contiguous(Place(buffer), node.dtype, node.shape)
