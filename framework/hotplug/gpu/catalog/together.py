"""Products of one value with several matrices, what makes the value, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hotplug.gpu.catalog import int8
from hotplug.gpu.catalog.table import Lowering
from hotplug.gpu.tensors import Tensor
from hotplug.node import Node

__all__ = ["Product", "Products"]


@dataclass(frozen=True, slots=True)
class Product:
    """A product of few rows and quantised weights, and what its columns go through.

    Attributes:
        matmul: the product.
        result: what is stored: the product, its sum with `addend`, or what it lets through as the
            gate of `through`.
        addend: of the sum.
        through: another product, of weights of the same dtype.
    """

    matmul: Node
    result: Node
    addend: Node | None = None
    through: Node | None = None

    @property
    def nodes(self) -> set[Node]:
        """All that is computed."""
        return {self.matmul, self.result} | ({self.through} if self.through else set())

    @property
    def kind(self) -> tuple[object, ...]:
        """What products have in common that are computed by one launch."""
        adds = self.addend and self.addend.type.size > self.addend.shape[-1]
        return self.matmul.operands[1].dtype, self.through is not None, self.addend is None, adds

    def matrices(self, tensors: Mapping[Node, Tensor]) -> list[int8.Matrix]:
        """As the kernel takes it."""
        added = tensors[self.addend] if self.addend else None
        result = tensors[self.result]
        both = [self.matmul, self.through] if self.through else [self.matmul]
        return [int8.Matrix(tensors[one.operands[1]], result, added) for one in both]


@dataclass(frozen=True, slots=True)
class Products:
    """All products of a value.

    Attributes:
        x: the value.
        products: with what.
        normed: whether the value is a norm that nobody else needs.
    """

    x: Node
    products: tuple[Product, ...]
    normed: bool

    def lower(
        self, lowering: Lowering, nodes: Sequence[Node], tensors: Mapping[Node, Tensor]
    ) -> None:
        """Add a launch for products of a kind, and one that rounds the value unless they do so."""
        del nodes
        norm = None
        if self.normed:
            steps = int8.rounded(lowering, self.x, tensors)
            norm = int8.Norm(self.x, tensors[self.x.operands[1]])
        else:
            steps = int8.quantise(lowering, self.x, tensors[self.x])
        for products in self._launches():
            matrices = [one for product in products for one in product.matrices(tensors)]
            gated = products[0].through is not None
            int8.beside(lowering, steps, matrices, gated=gated, norm=norm)

    def _launches(self) -> Iterator[Sequence[Product]]:
        for kind in dict.fromkeys(product.kind for product in self.products):
            alike = [product for product in self.products if product.kind == kind]
            most = 1 if alike[0].through else int8.MOST_MATRICES
            yield from (alike[i : i + most] for i in range(0, len(alike), most))
