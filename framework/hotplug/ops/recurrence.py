"""Recurrences along tokens whose state is a matrix per head: linear attention and state spaces.

All have one form. A state of shape (batch, n, heads, d) is, for each head, a matrix S of n rows,
one per key element, and d columns, one per value element. At each token it is changed and then,
or before, read by a query of n numbers. A node has one result, so the outputs and the last state
come in one tensor (batch, tokens + n, heads, d): the first `tokens` rows are the outputs, the
others the state as the next call takes it. `slice` along axis 1 parts them without a copy.

Operands but the state share a dtype. States and results are f64 if that is f64, else f32: what is
added up over thousands of tokens wants the room.
"""

from __future__ import annotations

from hotplug.dtypes import get
from hotplug.node import Node
from hotplug.ops.checks import require, require_float, require_rank, require_same_dtype
from hotplug.ops.spec import op
from hotplug.tensor import TensorType

__all__ = ["gated_delta_rule", "gated_linear_attention", "selective_scan", "wkv6", "wkv7"]


def _flops(node: Node) -> int:
    """About six per element of the state and token."""
    batch, n, heads, d = node.operands[-1].shape
    return 6 * batch * n * heads * d * (node.shape[1] - n)


def _recurrent(state: Node, values: Node, keys: tuple[Node, ...], *others: Node) -> TensorType:
    """Check values (batch, tokens, heads, d) and keys (..., n); the type of outputs and state."""
    require_float(values, *keys, *others)
    require_same_dtype(values, *keys, *others)
    require_rank(state, 4)
    require_rank(values, 4)
    batch, n, heads, d = state.shape
    tokens = values.shape[1]
    dtype = get("f64" if values.dtype.name == "f64" else "f32")
    require(state.dtype == dtype, f"the state of {values.type} must be {dtype}, not {state.type}")
    require(
        values.shape == (batch, tokens, heads, d),
        f"values {values.type} do not go with state {state.type}",
    )
    for key in keys:
        expected = (batch, tokens, heads, n)
        require(key.shape == expected, f"{key.type} must be {list(expected)}")
    return TensorType(dtype, (batch, tokens + n, heads, d))


@op("selective_scan", flops=_flops)
def selective_scan(x: Node, dt: Node, a: Node, b: Node, c: Node, state: Node) -> TensorType:
    """State space model of Mamba and Mamba-2 (arXiv 2312.00752, 2405.21060; ggml's ssm_scan).

    Per head and token, with t = softplus(dt): S_ij = exp(t a_i) S_ij + t b_i x_j, and then
    y_j = sum over i of c_i S_ij.

    Args:
        x: (batch, tokens, heads, d). Mamba has d = 1 and as many heads as channels.
        dt: (batch, tokens, heads).
        a: (heads, n), or (heads,) if all rows of a head decay alike; negative.
        b: (batch, tokens, groups, n); head h takes group h // (heads / groups).
        c: as b.
        state: (batch, n, heads, d); see the module's text, also for the result.
    """
    result = _recurrent(state, x, (), dt, a, b, c)
    batch, n, heads, _ = state.shape
    tokens = x.shape[1]
    require(dt.shape == (batch, tokens, heads), f"dt must be {[batch, tokens, heads]}")
    require(a.shape in {(heads,), (heads, n)}, f"a must be {[heads]} or {[heads, n]}")
    require(len(b.shape) == 4 and b.shape == c.shape, f"{b.type} and {c.type} must have one shape")
    groups = b.shape[2]
    require(b.shape == (batch, tokens, groups, n), f"b and c must be {[batch, tokens, groups, n]}")
    require(groups > 0 and heads % groups == 0, f"{heads} heads in {groups} groups")
    return result


@op("wkv6", flops=_flops)
def wkv6(r: Node, k: Node, v: Node, u: Node, w: Node, state: Node) -> TensorType:
    """RWKV-6's time mixing (arXiv 2404.05892).

    Per head and token y_j = sum over i of r_i (u_i k_i v_j + S_ij), and then
    S_ij = w_i S_ij + k_i v_j.

    Args:
        r: (batch, tokens, heads, n), the receptance.
        k: (batch, tokens, heads, n).
        v: (batch, tokens, heads, d).
        u: (heads, n), the bonus of the present token.
        w: (batch, tokens, heads, n), the decay.
        state: (batch, n, heads, d); see the module's text, also for the result.
    """
    result = _recurrent(state, v, (r, k, w), u)
    _, n, heads, _ = state.shape
    require(u.shape == (heads, n), f"u must be {[heads, n]}, given {u.type}")
    return result


@op("wkv7", flops=_flops)
def wkv7(r: Node, w: Node, k: Node, v: Node, a: Node, b: Node, state: Node) -> TensorType:
    """RWKV-7's time mixing (arXiv 2503.14456).

    Per head and token, with s_j = sum over i of a_i S_ij: S_ij = w_i S_ij + k_i v_j + b_i s_j, and
    then y_j = sum over i of r_i S_ij.

    Args:
        r: (batch, tokens, heads, n), the receptance.
        w: (batch, tokens, heads, n), the decay.
        k: (batch, tokens, heads, n).
        v: (batch, tokens, heads, d).
        a: (batch, tokens, heads, n), what is removed.
        b: (batch, tokens, heads, n), what replaces it.
        state: (batch, n, heads, d); see the module's text, also for the result.
    """
    return _recurrent(state, v, (r, w, k, a, b))


@op("gated_linear_attention", flops=_flops)
def gated_linear_attention(
    q: Node, k: Node, v: Node, g: Node, state: Node, *, scale: float = 0.0
) -> TensorType:
    """Linear attention with a gate per key element (arXiv 2312.06635).

    Per head and token S_ij = g_i S_ij + k_i v_j, and then y_j = scale * sum over i of q_i S_ij.

    Args:
        q: (batch, tokens, heads, n).
        k: (batch, tokens, heads, n).
        v: (batch, tokens, heads, d).
        g: (batch, tokens, heads, n), factors between 0 and 1.
        state: (batch, n, heads, d); see the module's text, also for the result.
        scale: factor on the outputs; 0 stands for 1 / sqrt(n).
    """
    return _recurrent(state, v, (q, k, g))


@op("gated_delta_rule", flops=_flops)
def gated_delta_rule(
    q: Node, k: Node, v: Node, g: Node, beta: Node, state: Node, *, scale: float = 0.0
) -> TensorType:
    """Gated DeltaNet (arXiv 2412.06464) and Kimi's delta attention (ggml's gated_delta_net).

    Per head and token S_ij = exp(g_i) S_ij; then, with e_j = beta (v_j - sum over i of k_i S_ij),
    S_ij = S_ij + k_i e_j; and then y_j = scale * sum over i of q_i S_ij.

    Args:
        q: (batch, tokens, heads, n).
        k: (batch, tokens, heads, n).
        v: (batch, tokens, heads, d).
        g: (batch, tokens, heads, n), or (batch, tokens, heads, 1) if all rows decay alike; the
            logarithm of the decay.
        beta: (batch, tokens, heads), the share of an old value that is replaced.
        state: (batch, n, heads, d); see the module's text, also for the result.
        scale: factor on the outputs; 0 stands for 1 / sqrt(n).
    """
    result = _recurrent(state, v, (q, k), g, beta)
    lead = v.shape[:3]
    n = state.shape[1]
    require(g.shape in {(*lead, 1), (*lead, n)}, f"g must be {[*lead, 1]} or {[*lead, n]}")
    require(beta.shape == lead, f"beta must be {list(lead)}, given {beta.type}")
    return result
