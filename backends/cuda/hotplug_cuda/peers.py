"""Which GPUs a GPU gets copies from: what CUDA promises of two is tried once."""

from __future__ import annotations

import logging
import threading
from enum import Enum, auto
from typing import TYPE_CHECKING

from hotplug.errors import ExecutionError, OutOfDeviceMemoryError

if TYPE_CHECKING:
    from hotplug_cuda.driver import CUDADriver

__all__ = ["Peers"]

_log = logging.getLogger(__name__)

_TRIAL = bytes(range(256)) * 16


class Way(Enum):
    """How copies come from one device to another: not, by CUDA through the host, or directly."""

    NONE = auto()
    BY_CUDA = auto()
    DIRECT = auto()


class Peers:
    """What is known of other devices' copies to one. Safe to use from several threads.

    Args:
        driver: the device that receives.
    """

    def __init__(self, driver: CUDADriver) -> None:
        self._driver = driver
        self._known: dict[int, Way] = {}
        self._trying = threading.Lock()

    def receive_from(self, origin: CUDADriver) -> bool:
        """Whether copies from another device arrive.

        Raises:
            DeviceLostError: one of the two is gone.
        """
        return self._way_from(origin) is not Way.NONE

    def are_direct(self, origin: CUDADriver) -> bool:
        """Whether they arrive without the host's memory in between.

        Raises:
            DeviceLostError: one of the two is gone.
        """
        return self._way_from(origin) is Way.DIRECT

    def _way_from(self, origin: CUDADriver) -> Way:
        with self._trying:
            known = self._known.get(origin.index)
            if known is None:
                known = self._known[origin.index] = self._try(origin)
            return known

    def _try(self, origin: CUDADriver) -> Way:
        """Copy a few bytes: some systems let devices reach each other and lose what they send."""
        way = f"copies from {origin.id} to {self._driver.id}"
        try:
            direct = self._driver.reach(origin)
            arrived = self._sent(origin)
        except (ExecutionError, OutOfDeviceMemoryError) as error:
            _log.warning("%s go through the host: %s", way, error)
            return Way.NONE
        if arrived != _TRIAL:
            _log.warning("%s go through the host: others do not arrive as they were sent", way)
            return Way.NONE
        _log.info("%s are %s", way, "direct" if direct else "left to CUDA: no direct way is there")
        return Way.DIRECT if direct else Way.BY_CUDA

    def _sent(self, origin: CUDADriver) -> bytes:
        """What arrives of the trial."""
        source, target = (one.allocate(len(_TRIAL)) for one in (origin, self._driver))
        origin.write(source, 0, memoryview(_TRIAL))
        self._driver.queue_peer_copy(origin, source, target, len(_TRIAL))
        arrived = bytearray(len(_TRIAL))
        self._driver.read(target, 0, memoryview(arrived))
        return bytes(arrived)
