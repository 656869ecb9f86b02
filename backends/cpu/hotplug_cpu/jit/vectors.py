"""LLVM vectors as Numba types, and functions made of LLVM instructions.

A `Vector` value lives in registers. `+ - * & |` work on two vectors of one type. Everything else is
an *instruction*: a Python function that writes IR, made callable from kernels by `instruction`.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

__all__ = [
    "F32",
    "F64",
    "HALF",
    "I8",
    "I16",
    "I32",
    "I64",
    "Vector",
    "address",
    "at_offset",
    "broadcast",
    "call",
    "concatenate",
    "f32",
    "f32x8",
    "i8x32",
    "i16x16",
    "i32x8",
    "instruction",
    "lanes",
    "load",
    "rolled",
    "shuffle",
    "splat",
    "store",
    "vector",
]

I8, I16, I32, I64 = (ir.IntType(width) for width in (8, 16, 32, 64))
HALF, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()

address = types.int64
f32 = types.float32


class Vector(types.Type):
    """`count` elements of one LLVM type in a register."""

    def __init__(self, name: str, element: ir.Type, count: int) -> None:
        self.element = element
        self.count = count
        super().__init__(name)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector_type: Vector) -> None:
        shape = ir.VectorType(vector_type.element, vector_type.count)
        super().__init__(manager, vector_type, shape)


f32x8 = Vector("f32x8", F32, 8)
i32x8 = Vector("i32x8", I32, 8)
i16x16 = Vector("i16x16", I16, 16)
i8x32 = Vector("i8x32", I8, 32)

Emitter = Callable[..., Any]


def instruction(result: types.Type, *operands: types.Type) -> Callable[[Emitter], Any]:
    """Make `emit(builder, *values)`, which writes IR and returns a value, callable from kernels.

    Args:
        result: Numba type of the value; `types.none` if there is none.
        operands: Numba types of the operands, to which arguments are converted.
    """

    def decorate(emit: Emitter) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            value = emit(builder, *values)
            return context.get_dummy_value() if value is None else value

        def define(_context: Any, *_arguments: Any) -> Any:
            return result(*operands), generate

        define.__name__ = emit.__name__
        define.__doc__ = emit.__doc__
        # Numba asks for the signature, and cannot lower calls of one that has a star.
        define.__signature__ = _plain_signature(len(operands))  # type: ignore[attr-defined]
        return intrinsic(define)

    return decorate


def _plain_signature(operands: int) -> inspect.Signature:
    names = ["context", *(f"operand{index}" for index in range(operands))]
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(name, positional) for name in names])


def vector(element: ir.Type, count: int) -> ir.VectorType:
    """LLVM type of a vector."""
    return ir.VectorType(element, count)


def splat(value: float, element: ir.Type, count: int) -> ir.Constant:
    """A constant vector of equal elements."""
    return ir.Constant(vector(element, count), [value] * count)


def shuffle(builder: Any, first: Any, second: Any, lanes: list[int]) -> Any:
    """Elements `lanes` of the two vectors put end to end."""
    return builder.shuffle_vector(first, second, ir.Constant(vector(I32, len(lanes)), lanes))


def lanes(builder: Any, value: Any, start: int, count: int) -> Any:
    """Some neighbouring elements of a vector."""
    return shuffle(builder, value, value, list(range(start, start + count)))


def broadcast(builder: Any, value: Any, count: int) -> Any:
    """A vector of equal elements."""
    undefined = ir.Constant(vector(value.type, count), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    return shuffle(builder, first, undefined, [0] * count)


def concatenate(builder: Any, parts: list[Any]) -> Any:
    """Vectors of one length put end to end; their number is a power of two."""
    while len(parts) > 1:
        lanes = list(range(2 * parts[0].type.count))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [shuffle(builder, a, b, lanes) for a, b in pairs]
    return parts[0]


def call(builder: Any, name: str, result: ir.Type, *values: Any) -> Any:
    """Call of an LLVM intrinsic by its full name."""
    kind = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)


def load(builder: Any, at: Any, kind: ir.Type) -> Any:
    """Value at an address of any alignment."""
    value = builder.load(builder.inttoptr(at, kind.as_pointer()))
    value.align = 1
    return value


def at_offset(builder: Any, base: Any, nbytes: int) -> Any:
    """An address so many bytes further on."""
    return builder.add(base, ir.Constant(I64, nbytes))


def store(builder: Any, at: Any, value: Any) -> None:
    """Put a value at an address of any alignment."""
    builder.store(value, builder.inttoptr(at, value.type.as_pointer())).align = 1


@contextlib.contextmanager
def rolled(builder: Any, count: int, place: Any) -> Iterator[Any]:
    """A loop that stays one, as LLVM does not see how often it runs; gives the number of a step.

    Where all registers hold sums, it would else take steps together that need more of them. `place`
    is any address: none has the highest bit set.
    """
    unknown = builder.add(ir.Constant(I64, count), builder.lshr(place, ir.Constant(I64, 63)))
    with cgutils.for_range(builder, unknown) as loop:
        yield loop.index


def _is_vector_pair(arguments: Any) -> bool:
    return len(arguments) == 2 and isinstance(arguments[0], Vector) and len(set(arguments)) == 1


def _define_operator(function: Any, for_floats: str, for_integers: str) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):  # type: ignore[misc]
        def generic(self, arguments: Any, _keywords: Any) -> Any:
            return signature(arguments[0], *arguments) if _is_vector_pair(arguments) else None

    @lower_builtin(function, Vector, Vector)  # type: ignore[untyped-decorator]
    def _lower(_context: Any, builder: Any, kind: Any, values: Any) -> Any:
        name = for_floats if kind.return_type.element is F32 else for_integers
        return getattr(builder, name)(*values)


_define_operator(operator.add, "fadd", "add")
_define_operator(operator.sub, "fsub", "sub")
_define_operator(operator.mul, "fmul", "mul")
_define_operator(operator.truediv, "fdiv", "sdiv")
_define_operator(operator.and_, "and_", "and_")
_define_operator(operator.or_, "or_", "or_")
