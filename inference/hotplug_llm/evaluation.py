"""Runs a decoder over token ids, a batch at a time, and keeps what the KV cache holds.

Graphs have fixed widths. A batch runs in the narrowest graph that holds it, the rest of which is
padding; widths are spaced so that padding stays under an eighth of the work above 8 tokens.
"""

from __future__ import annotations

import bisect
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hotplug.backend import DeviceType
from hotplug.errors import (
    ContextLengthError,
    HotplugError,
    OutOfDeviceMemoryError,
    RunCancelledError,
    StatesLostError,
)
from hotplug.graph import Graph
from hotplug.session import Control, Program, Session
from hotplug.settings import settings
from hotplug_llm.decoder import Decoder
from hotplug_llm.microbatches import MicroBatches

__all__ = ["BATCH", "LEAST_BATCH", "LOGIT_ROWS", "Evaluator", "width_for"]

_log = logging.getLogger("hotplug.llm")

BATCH = 512
"""Most tokens taken at once."""

_WIDTHS: tuple[int, ...] = (
    *range(1, 9),
    *(10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64),
    *(80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512),
)

_FEW = 8

LEAST_BATCH = 32
"""Where a device has no room for the values of so many tokens, weights have to leave it."""

LOGIT_ROWS = LEAST_BATCH
"""Rows of logits computed at once when all are wanted: a vocabulary of 50k takes 6 MB for them."""


def width_for(tokens: int) -> int:
    """The narrowest graph that holds that many tokens, at most BATCH."""
    return _WIDTHS[bisect.bisect_left(_WIDTHS, tokens)]


class Evaluator:
    """One sequence over one session.

    Attributes:
        context: most tokens that the sequence can hold.
        deterministic: whether the same ids are always read in the same batches, so that what was
            read before changes no bit of their logits.
        lock: to be held from `reuse` or `rewind` until the logits are there, so that no other
            thread puts its own sequence in between.
    """

    def __init__(self, session: Session, decoder: Decoder, batch: int = BATCH) -> None:
        self._session = session
        self._decoder = decoder
        self._past: list[int] = []
        self._met: set[int] = {1}  # widths that were wanted before
        self._batch = batch  # less where a device is short of memory
        self._micro = MicroBatches(session, decoder.graph)
        self.context = decoder.context
        self.deterministic = settings().deterministic
        self.lock = threading.RLock()
        _evaluators.add(self)

    @property
    def past(self) -> Sequence[int]:
        """The tokens whose keys and values the cache holds."""
        return tuple(self._past)

    def graph(self, tokens: int) -> Graph:
        """The graph that reads so many tokens, see `Decoder.graph`."""
        return self._decoder.graph(width_for(tokens))

    def program(
        self, tokens: int, outputs: int = 1, largest: int = 0, control: Control | None = None
    ) -> Program:
        """The compiled graph of one width, see `Decoder.graph`; made once."""
        graph, spill = self._decoder.graph(tokens, outputs, largest), tokens <= LEAST_BATCH
        while True:
            try:
                with self._doubting():
                    return self._session.compile(graph, spill=spill, control=control)
            except StatesLostError as error:
                self._recover(error, control)

    def finds(self, largest: int) -> bool:
        """Whether so many largest logits had better be found where they are computed.

        That is so on a device that is far from the host, as a GPU is, and has kernels for it.
        """
        device = next(iter(self._session.devices), None)  # none once it is closed
        if device is None or device.buffers.is_host or device.info.type is DeviceType.CPU:
            return False
        outputs = self._decoder.graph(1, 1, largest).outputs
        ids = dict(outputs)["ids"].operands[0]
        return bool(device.supports(ids))

    def prepare(self, count: int, largest: int = 0, control: Control | None = None) -> None:
        """Compile what reading so many tokens needs, for all logits or the largest."""
        for length in {length for _, length in self._pieces(count)}:
            try:
                self.program(width_for(length), largest=largest, control=control)
            except OutOfDeviceMemoryError as error:
                self._narrow(width_for(length), error)
                self.prepare(count, largest, control)
                return

    def _narrow(self, width: int, error: OutOfDeviceMemoryError) -> None:
        """Take fewer tokens at once from now on, or give up.

        Raises:
            OutOfDeviceMemoryError: it is the one given, and the batch is as small as can be.
        """
        if width <= LEAST_BATCH:
            self._past.clear()  # the device has been left, and no other may take over
            raise error
        self._batch = max(LEAST_BATCH, *(n for n in _WIDTHS if 2 * n <= width))
        _log.info("%s; from now on %d tokens are read at once", error, self._batch)

    def rewind(self, length: int) -> None:
        """Forget what comes after the first `length` tokens."""
        del self._past[length:]

    def reuse(self, ids: Sequence[int]) -> int:
        """Keep the cache of the longest common start of `ids` and the past; return its length.

        At least the last token stays to be evaluated, since its logits are wanted.
        """
        given = list(ids[:-1])
        if given != self._past:  # as a rule they are the same
            pairs = enumerate(zip(self._past, given, strict=False))
            shorter = min(len(self._past), len(given))
            self.rewind(next((i for i, (old, new) in pairs if old != new), shorter))
        return len(self._past)

    def last_logits(
        self,
        ids: Sequence[int],
        *,
        proceed: Callable[[int], None] | None = None,
        control: Control | None = None,
    ) -> npt.NDArray[np.float32]:
        """Continue the sequence by `ids`; logits (vocabulary,) after the last of them.

        Args:
            ids: at least one token id.
            proceed: called with the number of tokens done after each batch; may raise to stop.
            control: ends it from outside.

        Raises:
            ContextLengthError: the sequence would not fit in the context; nothing was evaluated.
            RunCancelledError: it was ended; batches done until then are part of the sequence.
        """
        logits: npt.NDArray[np.float32] = self._last(ids, 0, proceed, control)["logits"][0]
        return logits

    def last_largest(
        self,
        ids: Sequence[int],
        largest: int,
        *,
        proceed: Callable[[int], None] | None = None,
        control: Control | None = None,
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """Continue the sequence by `ids`; the largest logits after the last of them.

        Args:
            ids: at least one token id.
            largest: how many.
            proceed: as for `last_logits`.
            control: likewise.

        Returns:
            Token ids in ascending order, and their logits.

        Raises:
            ContextLengthError, RunCancelledError: as for `last_logits`.
        """
        found = self._last(ids, largest, proceed, control)
        order = found["ids"].argsort()
        return found["ids"][order].astype(np.intp), found["logits"][order]

    def _last(
        self,
        ids: Sequence[int],
        largest: int,
        proceed: Callable[[int], None] | None,
        control: Control | None,
    ) -> dict[str, npt.NDArray[Any]]:
        self.check_room(len(ids))
        begun, found = self._flow(ids, largest, control)
        if begun and proceed is not None:
            proceed(begun)
        for start, length in self._pieces(len(ids) - begun):
            start += begun  # noqa: PLW2901
            piece = ids[start : start + length]
            found = self._step(piece, last_only=True, largest=largest, control=control)
            if proceed is not None:
                proceed(start + length)
        self._met.add(width_for(len(ids) % self._batch))
        return found

    def _flow(
        self, ids: Sequence[int], largest: int, control: Control | None
    ) -> tuple[int, dict[str, npt.NDArray[Any]]]:
        """Read the start of a long prompt through a pipeline of devices, if they form one.

        Returns:
            Number of ids read, and what came out after the last of them.
        """
        width = self._micro.width(len(ids), self._batch)
        if width is None:
            return 0, {}
        graph = self._decoder.graph(width, 1, largest)
        starts = range(0, len(ids) - width + 1, width)
        while True:
            past = len(self._past)
            batch = [_inputs(ids[i : i + width], past + i, width, last_only=True) for i in starts]
            rows = [(past + i, past + i + width) for i in starts]
            try:
                with self._doubting():
                    found = self._session.run_all(
                        graph, batch, rows=rows, control=control, spill=width <= LEAST_BATCH
                    )
            except StatesLostError as error:
                self._recover(error, control)
            except OutOfDeviceMemoryError as error:
                self._narrow(width, error)
                return 0, {}
            else:
                read = width * len(starts)
                self._past.extend(ids[:read])
                return read, found[-1]

    def all_logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Continue the sequence by `ids`; logits (tokens, vocabulary) after each of them.

        Raises:
            ContextLengthError: the sequence would not fit in the context; nothing was evaluated.
        """
        self.check_room(len(ids))
        pieces = [
            self._step(ids[start : start + LOGIT_ROWS], last_only=False)["logits"]
            for start in range(0, len(ids), LOGIT_ROWS)
        ]
        return np.concatenate(pieces)

    def _pieces(self, count: int) -> list[tuple[int, int]]:
        """Start and length of what is read at once: batches, and of the last one a few tokens.

        A few tokens are read one by one where a graph of their width was never wanted before: to
        compile it takes longer.
        """
        full, rest = divmod(count, self._batch)
        pieces = [(number * self._batch, self._batch) for number in range(full)]
        new = rest <= _FEW and width_for(rest) not in self._met
        singly = new and not self.deterministic
        step = 1 if singly else max(rest, 1)
        return pieces + [(count - rest + start, step) for start in range(0, rest, step)]

    def _step(
        self,
        ids: Sequence[int],
        *,
        last_only: bool,
        largest: int = 0,
        control: Control | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Evaluate one batch, whatever becomes of devices: lost caches are made again."""
        while True:
            while len(ids) > self._batch:  # it has become smaller meanwhile, and may so again
                first, ids = ids[: self._batch], ids[self._batch :]
                self._step(first, last_only=True, control=control)
            try:
                return self._evaluate(ids, last_only=last_only, largest=largest, control=control)
            except StatesLostError as error:
                self._recover(error, control)
            except OutOfDeviceMemoryError as error:
                self._narrow(width_for(len(ids)), error)

    def _recover(self, error: StatesLostError, control: Control | None = None) -> None:
        kept = min(error.rows, len(self._past))
        _log.warning("%s; reading %d tokens again", error, len(self._past) - kept)
        lost = self._past[kept:]
        del self._past[kept:]
        for start in range(0, len(lost), self._batch):
            self._step(lost[start : start + self._batch], last_only=True, control=control)

    def _evaluate(
        self, ids: Sequence[int], *, last_only: bool, largest: int, control: Control | None
    ) -> dict[str, npt.NDArray[Any]]:
        count = len(ids)
        width = width_for(count)
        inputs = _inputs(ids, len(self._past), width, last_only=last_only)
        graph = self._decoder.graph(width, len(inputs["outputs"]), largest)
        result = self._run(graph, inputs, count, control)
        self._past.extend(ids)
        if not last_only:
            result["logits"] = result["logits"][:count]
        return result

    def _run(
        self, graph: Graph, inputs: dict[str, Any], count: int, control: Control | None
    ) -> dict[str, Any]:
        start = len(self._past)
        with self._doubting():
            return self._session.run(
                graph,
                inputs,
                rows=(start, start + count),
                control=control,
                spill=len(inputs["tokens"]) <= LEAST_BATCH,
            )

    @contextlib.contextmanager
    def _doubting(self) -> Iterator[None]:
        """Where a device fails and no other may take over, nobody knows what the cache holds."""
        try:
            yield
        except (StatesLostError, RunCancelledError, OutOfDeviceMemoryError):
            raise  # these say what is left, or have touched nothing
        except HotplugError:
            self._past.clear()
            raise

    def check_room(self, count: int) -> None:
        """Check that the sequence can go on for `count` tokens.

        Raises:
            ContextLengthError: it cannot.
        """
        needed = len(self._past) + count
        if needed > self.context:
            raise ContextLengthError(
                f"{needed} tokens do not fit in a context of {self.context}",
                tokens=needed,
                limit=self.context,
                remedy="shorten the text or raise the context size",
            )


def _inputs(
    ids: Sequence[int], start: int, width: int, *, last_only: bool
) -> dict[str, npt.NDArray[np.int32]]:
    """Inputs of a graph of some width for tokens from a position on."""
    count = len(ids)
    tokens = np.zeros(width, np.int32)
    tokens[:count] = ids
    positions = np.full(width, -1, np.int32)
    positions[:count] = np.arange(start, start + count)
    outputs = np.arange(count - 1, count) if last_only else np.arange(width)
    return {"tokens": tokens, "positions": positions, "outputs": outputs.astype(np.int32)}


_evaluators: weakref.WeakSet[Evaluator] = weakref.WeakSet()


def _after_fork() -> None:
    """In a forked child: a thread of the parent's may have held a lock."""
    for evaluator in tuple(_evaluators):
        evaluator.lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)
