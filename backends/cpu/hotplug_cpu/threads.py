"""Teams of threads that run plans together, kept for the next plan.

A team is shared by all executables that want as many threads; it runs one plan at a time. The
thread that asks leads; the others are Python threads that spend their life in compiled code and
without Python's lock. After a fork the child makes new ones.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hotplug_cpu.jit import loader
from hotplug_cpu.kernels import control as at

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Team", "team"]

_WORD = ctypes.c_int64
_HELD_UP = 0.0005
"""Seconds after which a thread that others wait for is taken to have lost its core."""

_AWAY = (0.01, 0.32)
"""Seconds for which it leaves at first, and at most when the same happens again and again."""


class Team:
    """Some threads, of which the caller of `run` is the first.

    Args:
        threads: how many, the caller included.

    Raises:
        KernelCompileError: compiled kernels cannot be had.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        kernels = loader.load(("alone", "post", "finish", "serve", "ticks"))
        self._alone = _function(kernels["alone"], 3)
        self._post = _function(kernels["post"], 3)
        self._finish = _function(kernels["finish"], 1)
        self._serve = _function(kernels["serve"], 2)
        self._words = _aligned_words(at.control_words(threads))
        self._words[at.THREADS] = threads
        self._words[at.YIELD] = _yield_address()
        self._words[at.PATIENCE] = _ticks_of(_HELD_UP, _function(kernels["ticks"], 0))
        self._address = int(self._words.ctypes.data)
        self._lock = threading.Lock()
        self._beds = [threading.Lock() for _ in range(threads)]
        self._keep: object = None
        for bed in self._beds:
            bed.acquire()
        for number in range(1, threads):
            threading.Thread(
                target=self._work, args=(number,), name=f"hotplug-cpu-{number}", daemon=True
            ).start()

    def run(self, rows: npt.NDArray[np.int64]) -> None:
        """Run rows of a plan to their end.

        Args:
            rows: contiguous, (rows, ROW_WORDS).
        """
        if not len(rows):
            return
        with self._lock:
            # An interrupt between the two calls must not leave the others waiting for the leader:
            # what was posted is finished first, even if that happens in the next run.
            self._join_in()
            self._keep = rows
            try:
                self._post(self._address, rows.ctypes.data, len(rows))
            finally:
                self._join_in()

    def alone(self, rows: npt.NDArray[np.int64]) -> Callable[[], object]:
        """A call that runs the same rows in the thread that makes it: for work of microseconds."""
        return partial(self._alone, rows.ctypes.data, len(rows), self.threads)

    def close(self) -> None:
        """Let the threads end. The team cannot be used any more."""
        with self._lock:
            self._join_in()
            self._words[at.STOP] = 1
            self._post(self._address, 0, 0)
            self._wake()

    def _join_in(self) -> None:
        self._wake()
        self._finish(self._address)

    def _wake(self) -> None:
        if not self._words[at.WAKE]:
            return
        for number in range(1, self.threads):
            parked = at.PARKED + number * at.THREAD_WORDS
            if self._words[parked] == 2:
                self._words[parked] = 0
                self._beds[number].release()
        self._words[at.WAKE] = 0

    def _work(self, number: int) -> None:
        away = _AWAY[0]
        back = time.monotonic()
        while why := self._serve(self._address, number):
            if why != at.LEFT:
                self._beds[number].acquire()
                continue
            lasted = time.monotonic() - back
            away = min(2 * away, _AWAY[1]) if lasted < 2 * away else _AWAY[0]
            time.sleep(away)
            back = time.monotonic()


_teams: dict[int, Team] = {}
_teams_lock = threading.Lock()


def team(threads: int) -> Team:
    """The team of that many threads, made when it is first asked for.

    Raises:
        KernelCompileError: compiled kernels cannot be had.
    """
    found = _teams.get(threads)
    if found is None:
        with _teams_lock:
            found = _teams.get(threads) or _teams.setdefault(threads, Team(threads))
    return found


def _forget_teams() -> None:
    """In a forked child: the threads stayed in the parent, and a lock may have been held there."""
    global _teams_lock
    _teams_lock = threading.Lock()
    _teams.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_teams)


def _function(address: int, words: int) -> Callable[..., Any]:
    """A compiled kernel as a function; Python's lock is free while it runs."""
    return ctypes.CFUNCTYPE(_WORD, *[_WORD] * words)(address)


def _ticks_of(seconds: float, ticks: Callable[[], int]) -> int:
    """How far the processor's clock gets in some time, at least 1."""
    start, first = time.perf_counter(), ticks()
    while (passed := time.perf_counter() - start) < seconds:
        pass
    return max(1, round((ticks() - first) * seconds / passed))


def _aligned_words(count: int) -> npt.NDArray[np.int64]:
    whole = np.zeros(count + 8, np.int64)
    return whole[-(whole.ctypes.data // 8) % 8 :][:count]


def _yield_address() -> int:
    """The C function that gives the processor to another thread; 0 where none is known."""
    try:
        if sys.platform == "win32":
            function = ctypes.WinDLL("kernel32").SwitchToThread
        else:
            function = ctypes.CDLL(None).sched_yield
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0
