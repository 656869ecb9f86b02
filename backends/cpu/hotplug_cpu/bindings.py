"""What has to be there before a graph can run: kernels for its nodes, buffers and their memory."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hotplug.backend import Buffer
from hotplug.errors import ExecutionError, UnsupportedOpError
from hotplug.graph import Graph
from hotplug.ops import OPS
from hotplug_cpu import numpy_kernels
from hotplug_cpu.buffers import HostBuffer

__all__ = ["bytes_of", "check_supported", "required_buffers"]

Bytes: TypeAlias = npt.NDArray[np.uint8]


def required_buffers(graph: Graph) -> dict[str, tuple[int, bool]]:
    """For each buffer that a run needs: bytes, and whether it is written."""
    updated = {name for name, _ in graph.updates}
    required = {
        node.name: (node.type.nbytes, node.name in updated) for node in graph.nodes if node.is_leaf
    }
    required.update({f"output:{name}": (node.type.nbytes, True) for name, node in graph.outputs})
    return required


def bytes_of(name: str, buffer: Buffer, needed: int, written: bool, device: str) -> Bytes:
    """A buffer's memory.

    Raises:
        ExecutionError: it is not in host memory, too small, or to be written and read-only.
    """
    if isinstance(buffer, HostBuffer):
        data = buffer.array
    else:
        host = buffer.host()
        if host is None:
            raise ExecutionError(f"the buffer of {name!r} is not in host memory", device=device)
        data = np.frombuffer(host, np.uint8) if host.nbytes else np.empty(0, np.uint8)
    if data.nbytes < needed:
        raise ExecutionError(
            f"the buffer of {name!r} has {data.nbytes} bytes instead of {needed}", device=device
        )
    if written and needed and not data.flags.writeable:
        raise ExecutionError(
            f"the buffer of {name!r} is to be written and is read-only", device=device
        )
    return data


def check_supported(graph: Graph, device: str) -> None:
    """Refuse a graph with a node that not even NumPy computes.

    Raises:
        UnsupportedOpError: there is no kernel for a node.
    """
    for node in graph.nodes:
        if node.is_leaf or OPS[node.op].view:
            continue
        answer = numpy_kernels.supports(node)
        if not answer:
            raise UnsupportedOpError(
                f"{device} does not run {node.name}: {answer.reason}",
                op=node.op,
                reasons={device: answer.reason},
            )
