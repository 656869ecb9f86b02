"""Elementwise functions as expressions in C: x and w are the operands, p0 to p3 the parameters.

`K(1.5)` is a literal of the type that is computed in. Comparisons are written so that NaN passes
through where the op says so.
"""

from __future__ import annotations

__all__ = [
    "COMPARISONS",
    "FLOAT_FUNCTIONS",
    "INTEGER_FUNCTIONS",
    "PARAMETERS",
    "cases",
    "number_of",
]

_SIGMOID = "1 / (1 + exp(-x))"
_GELU = "K(0.5) * x * (1 + tanh(K(0.79788456080286535588) * x * (1 + K(0.044715) * x * x)))"
_GELU_ERF = "K(0.5) * x * (1 + erf(x * K(0.70710678118654752440)))"
_GELU_QUICK = "x / (1 + exp(K(-1.702) * x))"
_SILU = "x / (1 + exp(-x))"
_RELU = "x < 0 ? 0 : x"
_CLAMP = "{0} < {1} ? {1} : {0} > {2} ? {2} : {0}"
_LIMITED_GATE = "(x > p1 ? p1 : x)"

FLOAT_FUNCTIONS = {
    "add": "x + w",
    "sub": "x - w",
    "mul": "x * w",
    "div": "x / w",
    "maximum": "x != x || x > w ? x : w",
    "minimum": "x != x || x < w ? x : w",
    "pow": "pow(x, w)",
    "abs": "fabs(x)",
    "sign": "x != x ? x : (x > 0) - (x < 0)",
    "neg": "-x",
    "step": "x > 0",
    "tanh": "tanh(x)",
    "elu": "x > 0 ? x : expm1(x)",
    "relu": _RELU,
    "sigmoid": _SIGMOID,
    "gelu": _GELU,
    "gelu_erf": _GELU_ERF,
    "gelu_quick": _GELU_QUICK,
    "silu": _SILU,
    "hardswish": f"x * ({_CLAMP.format('((x + 3) / 6)', '0', '1')})",
    "hardsigmoid": _CLAMP.format("((x + 3) / 6)", "0", "1"),
    "exp": "exp(x)",
    "expm1": "expm1(x)",
    "log": "log(x)",
    "softplus": "(x > 0 ? x : 0) + log1p(exp(-fabs(x)))",
    "floor": "floor(x)",
    "ceil": "ceil(x)",
    "round": "round(x)",
    "trunc": "trunc(x)",
    "square": "x * x",
    "sqrt": "sqrt(x)",
    "sin": "sin(x)",
    "cos": "cos(x)",
    "leaky_relu": "x > 0 ? x : p0 * x",
    "xielu": "x > 0 ? (p1 * x + p2) * x : (expm1(x < p3 ? x : p3) - x) * p0 + p2 * x",
    "clamp": _CLAMP.format("x", "p0", "p1"),
    "scale": "p0 * x + p1",
    "reglu": f"({_RELU}) * w",
    "geglu": f"{_GELU} * w",
    "geglu_erf": f"{_GELU_ERF} * w",
    "geglu_quick": f"{_GELU_QUICK} * w",
    "swiglu": f"{_SILU} * w",
    "swiglu_clamped": (
        f"{_LIMITED_GATE} / (1 + exp(-p0 * {_LIMITED_GATE})) * "
        f"(({_CLAMP.format('w', '-p1', 'p1')}) + p2)"
    ),
}
"""Of floats, giving their own dtype."""

INTEGER_FUNCTIONS = {
    "add": "(LONG)((ULONG)x + (ULONG)w)",
    "sub": "(LONG)((ULONG)x - (ULONG)w)",
    "mul": "(LONG)((ULONG)x * (ULONG)w)",
    "div": "divide(x, w)",
    "maximum": "x > w ? x : w",
    "minimum": "x < w ? x : w",
    "pow": "power(x, w)",
}
"""Of integers, giving their own dtype."""

COMPARISONS = {
    "equal": "x == w",
    "not_equal": "x != w",
    "less": "x < w",
    "less_equal": "x <= w",
    "greater": "x > w",
    "greater_equal": "x >= w",
    "logical_and": "x && w",
    "logical_or": "x || w",
    "logical_not": "!x",
}
"""Of all dtypes, giving bool."""

PARAMETERS: dict[str, tuple[str, ...]] = {
    "leaky_relu": ("slope",),
    "xielu": ("alpha_n", "alpha_p", "beta", "eps"),
    "clamp": ("low", "high"),
    "scale": ("factor", "offset"),
    "swiglu_clamped": ("alpha", "limit", "shift"),
}
"""The op parameters that are p0 to p3."""


def cases(functions: dict[str, str]) -> str:
    """The body of a switch over all functions of a table."""
    lines = (f"case {i}: r = {text}; break;" for i, text in enumerate(functions.values()))
    return "\n".join(lines)


def number_of(functions: dict[str, str], op: str) -> int:
    """A function's number in the switch."""
    return list(functions).index(op)
