"""What was asked and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hotplug.errors import HotplugError
from hotplug_rpc.errors import ProtocolError

__all__ = ["Pending"]


class Pending:
    """A request that was sent.

    Attributes:
        id: its number.
        nbytes: of its payload.
        body, frames: the answer, once it is there.
        error: or why there is none.
    """

    __slots__ = ("body", "done", "error", "frames", "id", "nbytes")

    def __init__(self, number: int, nbytes: int) -> None:
        self.id = number
        self.nbytes = nbytes
        self.done = False
        self.body: Mapping[str, Any] = {}
        self.frames: list[memoryview] = []
        self.error: HotplugError | None = None

    def contents(self, sizes: Sequence[int]) -> list[memoryview]:
        """The answer's frames, of so many bytes each.

        Raises:
            ProtocolError: others came.
        """
        came = [frame.nbytes for frame in self.frames]
        if came != list(sizes):
            raise ProtocolError(
                f"the server answered with frames of {came[:8]} bytes instead of {list(sizes)[:8]}"
            )
        return self.frames
