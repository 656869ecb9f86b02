"""What an op row is, and the decorator that makes one.

An op is written once, as its *rule*: a function whose positional parameters are the operands, whose
keyword-only parameters are the op's parameters, and which checks them and returns the result's
type. `@op(...)` turns it into a row of the table; calling the row builds a graph node:

    @op("matmul", flops=lambda node: ...)
    def matmul(a: Node, b: Node, *, transpose_b: bool = False) -> TensorType:
        '''Matrix product ...'''

    y = matmul(x, w, transpose_b=True)      # a Node

An operand with the default None is optional; `*tensors: Node` takes any number of operands.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, cast

from hotplug.errors import GraphError
from hotplug.node import Node, Param
from hotplug.tensor import TensorType

__all__ = ["OPS", "Op", "Operand", "Parameter", "fingerprint", "get", "op"]

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand of an op row."""

    name: str
    optional: bool = False
    variadic: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an op row; `annotation` is its type as written in the rule."""

    name: str
    annotation: str
    default: Param
    required: bool

    def convert(self, value: Any) -> Param:
        """The value as the rule expects it: lists become tuples, ints floats where those belong.

        Raises:
            GraphError: it is of another type.
        """
        if isinstance(value, list):
            value = tuple(value)
        wanted = self.annotation
        if wanted == "float" and type(value) is int:
            return _to_float(value)
        if type(value) is _SCALARS.get(wanted):
            return cast("Param", value)
        if value is None and wanted.endswith("| None"):
            return None
        if (
            wanted.startswith("tuple")
            and isinstance(value, tuple)
            and all(type(item) is int for item in value)
        ):
            return value
        raise GraphError(f"parameter {self.name!r} must be {wanted}, not {value!r}")


_SCALARS: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str}


def _to_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise GraphError("a float parameter is too large") from None


@dataclass(frozen=True, slots=True)
class Op(Generic[P]):
    """One row of the op table.

    Attributes:
        name: the op's name, unique in the table.
        family: the module it is written in, such as "elementwise".
        operands: operands in order.
        params: parameters in order.
        rule: checks operands and parameters and returns the result's type.
        flops: floating-point operations a node does.
        view: whether the result is another layout over the first operand's storage.
        inplace: operand positions whose storage the result may take over when it is the last use.
        updates: position of the operand that the op writes into, or None. The result is that
            operand with some rows replaced; a state operand must be updated where it lies.
    """

    name: str
    family: str
    operands: tuple[Operand, ...]
    params: tuple[Parameter, ...]
    rule: Callable[P, TensorType]
    flops: Callable[[Node], int]
    view: bool
    inplace: tuple[int, ...]
    updates: int | None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Node:
        """Build a node.

        Raises:
            GraphError: operands or parameters are not what the op takes.
        """
        inputs, params = self._bind(args, dict(kwargs))
        return self.build(inputs, params)

    def build(self, inputs: tuple[Node | None, ...], params: dict[str, Param]) -> Node:
        """Build a node from operands by position and a complete set of parameters by name.

        Raises:
            GraphError: as for calling the row.
        """
        self._check_operands(inputs)
        result = self.infer(inputs, params)
        ordered = tuple((p.name, params[p.name]) for p in self.params)
        return Node(self.name, inputs, ordered, result)

    def infer(self, inputs: tuple[Node | None, ...], params: dict[str, Param]) -> TensorType:
        """The result's type, by the rule; used to build nodes and to verify them."""
        rule = cast("Callable[..., TensorType]", self.rule)
        try:
            return rule(*inputs, **params)
        except GraphError as error:
            error.op = error.op or self.name
            error.operands = error.operands or tuple(str(n.type) for n in inputs if n is not None)
            raise

    def _check_operands(self, inputs: tuple[Node | None, ...]) -> None:
        if self.operands and self.operands[-1].variadic:
            if None in inputs:
                raise self._error("has an operand that is absent")
            return
        if len(inputs) != len(self.operands):
            raise self._error(f"takes {len(self.operands)} operands, given {len(inputs)}")
        for node, operand in zip(inputs, self.operands, strict=True):
            if node is None and not operand.optional:
                raise self._error(f"lacks its operand {operand.name!r}")

    def _bind(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Node | None, ...], dict[str, Param]]:
        variadic = bool(self.operands) and self.operands[-1].variadic
        if not variadic and len(args) > len(self.operands):
            raise self._error(f"takes {len(self.operands)} operands, given {len(args)}")
        inputs: list[Node | None] = list(args)
        if not variadic:
            inputs += [kwargs.pop(operand.name, None) for operand in self.operands[len(args) :]]
        for node in inputs:
            if node is not None and not isinstance(node, Node):
                raise self._error(f"takes graph nodes as operands, given {type(node).__name__}")
        return tuple(inputs), self._bind_params(kwargs)

    def _bind_params(self, kwargs: dict[str, Any]) -> dict[str, Param]:
        params: dict[str, Param] = {}
        for parameter in self.params:
            if parameter.name in kwargs:
                params[parameter.name] = self._converted(parameter, kwargs.pop(parameter.name))
            elif parameter.required:
                raise self._error(f"lacks its parameter {parameter.name!r}")
            else:
                params[parameter.name] = parameter.default
        if kwargs:
            raise self._error(f"has no parameter {next(iter(kwargs))!r}")
        return params

    def _converted(self, parameter: Parameter, value: Any) -> Param:
        try:
            return parameter.convert(value)
        except GraphError as error:
            error.op = self.name
            raise

    def _error(self, what: str) -> GraphError:
        return GraphError(f"op {self.name} {what}", op=self.name)


OPS: dict[str, Op[Any]] = {}
"""The op table. Filled when `hotplug.ops` is imported; never changed afterwards."""


def op(
    name: str,
    *,
    flops: Callable[[Node], int] | None = None,
    view: bool = False,
    inplace: tuple[int, ...] = (),
    updates: int | None = None,
) -> Callable[[Callable[P, TensorType]], Op[P]]:
    """Make a rule into a row of the op table; see the module's text."""

    def register(rule: Callable[P, TensorType]) -> Op[P]:
        operands, params = _signature(rule)
        family = rule.__module__.rpartition(".")[2]
        count = flops or (lambda node: node.type.size)
        row = Op(name, family, operands, params, rule, count, view, inplace, updates)
        if name in OPS:
            raise GraphError(f"op {name} is defined twice", op=name)
        OPS[name] = row
        return row

    return register


def get(name: str) -> Op[Any]:
    """Row of the table by name.

    Raises:
        GraphError: there is no such op.
    """
    row = OPS.get(name)
    if row is None:
        raise GraphError(f"there is no op {name!r}", op=name)
    return row


def fingerprint() -> str:
    """Hash of all names, operands and parameters: equal tables understand each other's graphs."""
    rows = sorted((row.name, row.operands, row.params) for row in OPS.values())
    return hashlib.blake2b(repr(rows).encode(), digest_size=8).hexdigest()


def _signature(
    rule: Callable[..., TensorType],
) -> tuple[tuple[Operand, ...], tuple[Parameter, ...]]:
    operands: list[Operand] = []
    params: list[Parameter] = []
    for item in inspect.signature(rule).parameters.values():
        if item.kind is inspect.Parameter.KEYWORD_ONLY:
            required = item.default is inspect.Parameter.empty
            default = None if required else item.default
            params.append(Parameter(item.name, str(item.annotation), default, required))
        elif item.kind is inspect.Parameter.VAR_POSITIONAL:
            operands.append(Operand(item.name, variadic=True))
        else:
            operands.append(Operand(item.name, optional=item.default is None))
    return tuple(operands), tuple(params)
