"""How many tokens of a long prompt make a micro-batch, where several devices form a pipeline.

Narrow ones keep more devices at work for more of the time, wide ones use each device better. The
cost model knows both.
"""

from __future__ import annotations

from collections.abc import Callable

from hotplug.graph import Graph
from hotplug.session import Outlook, Session

__all__ = ["MicroBatches"]

_WIDTHS = (512, 256, 128, 64, 32)

_MORE = 16
"""Tokens that each micro-batch takes the time of besides its own: on the processor, products with
few rows run at so much less than their full speed."""


class MicroBatches:
    """Chooses widths for one session.

    Args:
        session: whose devices run them.
        graph: the graph of a width.
    """

    def __init__(self, session: Session, graph: Callable[[int], Graph]) -> None:
        self._session = session
        self._graph = graph
        self._outlooks: dict[tuple[int, tuple[str, ...]], Outlook] = {}

    def width(self, tokens: int, most: int) -> int | None:
        """Tokens of each micro-batch; None where a prompt had better be read as always.

        Args:
            tokens: of the prompt.
            most: of a batch.
        """
        if self._session.mode != "pipeline" or len(self._session.devices) < 2:
            return None
        able = [width for width in _WIDTHS if width <= most and 2 * width <= tokens]
        seconds = {
            width: (1 + _MORE / width) * self._outlook(width).seconds(-(-tokens // width))
            for width in able
        }
        return min(seconds, key=seconds.__getitem__, default=None)

    def _outlook(self, width: int) -> Outlook:
        key = width, tuple(device.id for device in self._session.devices)
        if key not in self._outlooks:
            self._outlooks[key] = self._session.outlook(self._graph(width))
        return self._outlooks[key]
