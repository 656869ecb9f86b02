"""Unary functions and gated linear units."""

from __future__ import annotations

from hotplug.node import Node
from hotplug.ops.checks import require, require_float, require_same_dtype
from hotplug.ops.spec import Op, op
from hotplug.tensor import TensorType

__all__ = [
    "abs",
    "ceil",
    "clamp",
    "cos",
    "elu",
    "exp",
    "expm1",
    "floor",
    "geglu",
    "geglu_erf",
    "geglu_quick",
    "gelu",
    "gelu_erf",
    "gelu_quick",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "log",
    "neg",
    "reglu",
    "relu",
    "round",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softplus",
    "sqrt",
    "square",
    "step",
    "swiglu",
    "swiglu_clamped",
    "tanh",
    "trunc",
    "xielu",
]  # fmt: skip


def _unary(name: str, text: str, flops: int = 1) -> Op[[Node]]:
    def rule(x: Node) -> TensorType:
        require_float(x)
        return x.type

    rule.__doc__ = text
    return op(name, inplace=(0,), flops=lambda node: flops * node.type.size)(rule)


abs = _unary("abs", "|x|")
sign = _unary("sign", "-1, 0 or 1")
neg = _unary("neg", "-x")
step = _unary("step", "1 where x > 0, else 0")
tanh = _unary("tanh", "Hyperbolic tangent", 8)
elu = _unary("elu", "x where x > 0, else exp(x) - 1", 8)
relu = _unary("relu", "max(x, 0)")
sigmoid = _unary("sigmoid", "1 / (1 + exp(-x))", 8)
gelu = _unary("gelu", "0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))", 12)
gelu_erf = _unary("gelu_erf", "0.5 x (1 + erf(x / sqrt(2)))", 12)
gelu_quick = _unary("gelu_quick", "x sigmoid(1.702 x)", 10)
silu = _unary("silu", "x sigmoid(x)", 9)
hardswish = _unary("hardswish", "x clamp((x + 3) / 6, 0, 1)", 4)
hardsigmoid = _unary("hardsigmoid", "clamp((x + 3) / 6, 0, 1)", 3)
exp = _unary("exp", "e^x", 8)
expm1 = _unary("expm1", "e^x - 1, exact near 0", 8)
log = _unary("log", "Natural logarithm", 8)
softplus = _unary("softplus", "log(1 + e^x)", 12)
floor = _unary("floor", "Largest integer not above x")
ceil = _unary("ceil", "Smallest integer not below x")
round = _unary("round", "Nearest integer; halves go away from zero, as in C")
trunc = _unary("trunc", "Integer part")
square = _unary("square", "x^2")
sqrt = _unary("sqrt", "Square root")
sin = _unary("sin", "Sine", 8)
cos = _unary("cos", "Cosine", 8)


@op("leaky_relu", inplace=(0,))
def leaky_relu(x: Node, *, slope: float = 0.01) -> TensorType:
    """X where x > 0, else slope * x."""
    require_float(x)
    return x.type


@op("xielu", inplace=(0,))
def xielu(
    x: Node, *, alpha_n: float, alpha_p: float, beta: float = 0.5, eps: float = -1e-6
) -> TensorType:
    """alpha_p x^2 + beta x where x > 0, else (expm1(min(x, eps)) - x) alpha_n + beta x.

    See arXiv 2411.13010.
    """
    require_float(x)
    return x.type


@op("clamp", inplace=(0,))
def clamp(x: Node, *, low: float, high: float) -> TensorType:
    """min(max(x, low), high)."""
    require_float(x)
    require(low <= high, f"low {low} is above high {high}")
    return x.type


def _gated(name: str, text: str) -> Op[[Node, Node]]:
    def rule(gate: Node, up: Node) -> TensorType:
        return _glu_type(gate, up)

    rule.__doc__ = text
    return op(name, inplace=(0, 1), flops=lambda node: 10 * node.type.size)(rule)


def _glu_type(gate: Node, up: Node) -> TensorType:
    require_float(gate, up)
    require_same_dtype(gate, up)
    require(gate.shape == up.shape, f"{gate.type} and {up.type} must have one shape")
    return gate.type


reglu = _gated("reglu", "relu(gate) * up (arXiv 2002.05202)")
geglu = _gated("geglu", "gelu(gate) * up")
geglu_erf = _gated("geglu_erf", "gelu_erf(gate) * up")
geglu_quick = _gated("geglu_quick", "gelu_quick(gate) * up")
swiglu = _gated("swiglu", "silu(gate) * up")


@op("swiglu_clamped", inplace=(0, 1), flops=lambda node: 12 * node.type.size)
def swiglu_clamped(
    gate: Node, up: Node, *, alpha: float = 1.702, limit: float = 7.0, shift: float = 1.0
) -> TensorType:
    """G sigmoid(alpha g) (u + shift) with g = min(gate, limit), u = clamp(up, -limit, limit).

    With the defaults this is gpt-oss's form (ggml: swiglu_oai); shift 0 and alpha 1 give ggml's
    swiglu_clamp.
    """
    require(limit > 0, f"limit {limit} must be positive")
    return _glu_type(gate, up)
