"""What the driver queues: kernels with their arguments, cuBLAS's products, captured graphs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hotplug.gpu.driver import Argument, BoundLaunch, Gemm, Memory, Operand
from hotplug_cuda.runtime import Blas, Graph, Matrices, Runtime

__all__ = ["Captured", "KernelLaunch", "ProductLaunch", "Program"]


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled program and its one kernel."""

    image: bytes
    function: Any


class KernelLaunch:
    """A kernel, its geometry, and its arguments where CUDA reads them."""

    __slots__ = ("_held", "_parameters", "block", "function", "grid", "parameters")

    def __init__(
        self, program: Program, grid: tuple[int, int], block: int, arguments: Sequence[Argument]
    ) -> None:
        self.function = program.function
        self.grid = grid
        self.block = block
        values = [
            ctypes.create_string_buffer(argument, len(argument))
            if isinstance(argument, bytes)
            else ctypes.c_uint64(argument.address)
            for argument in arguments
        ]
        self._held = (program, arguments, values)
        self._parameters = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        self.parameters = ctypes.addressof(self._parameters)

    def queue(self, runtime: Runtime, stream: Any) -> None:
        """Queue it."""
        runtime.launch(self.function, self.grid, self.block, self.parameters, stream)


class ProductLaunch:
    """Products by cuBLAS, which has columns where we have rows: it computes y^T = b a^T.

    Args:
        product: what is computed.
        a: memory of the left operand.
        b: memory of the right operand.
        y: memory of the result.
        blas: gives what queues on a stream.
    """

    __slots__ = ("_arguments", "_blas", "_held")

    def __init__(
        self, product: Gemm, a: Memory, b: Memory, y: Memory, blas: Callable[[Any], Blas]
    ) -> None:
        self._blas = blas
        self._held = (a, b, y)
        # Rows of ours are columns of cuBLAS's: what is transposed for one is not for the other.
        self._arguments = (
            product.dtype,
            (product.columns, product.rows, product.depth),
            _matrices(b, product.b, transposed=not product.b.transposed),
            _matrices(a, product.a, transposed=product.a.transposed),
            _matrices(y, product.y, transposed=False),
            product.batch,
        )

    def queue(self, runtime: Runtime, stream: Any) -> None:
        """Queue them."""
        del runtime
        self._blas(stream).gemm(*self._arguments)


def _matrices(memory: Memory, operand: Operand, *, transposed: bool) -> Matrices:
    return Matrices(memory.address + operand.at, operand.row, operand.batch, transposed)


class Captured:
    """Many launches as one graph."""

    __slots__ = ("_graph", "_held")

    def __init__(self, graph: Graph, launches: Sequence[BoundLaunch]) -> None:
        self._graph = graph
        self._held = tuple(launches)

    def queue(self, runtime: Runtime, stream: Any) -> None:
        """Queue all of them."""
        del runtime
        self._graph.launch(stream)
