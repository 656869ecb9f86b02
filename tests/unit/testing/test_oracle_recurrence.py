"""The oracle's recurrences against closed forms, and each other where one is a case of another."""

from __future__ import annotations

import numpy as np

from hotplug import ops
from hotplug.graph import Graph
from hotplug.testing.oracle import evaluate

RNG = np.random.default_rng(11)
BATCH, TOKENS, HEADS, N, D = 2, 6, 3, 4, 5


def run(op, **arrays):
    leaves = [ops.input(name=n, dtype="f64", shape=a.shape) for n, a in arrays.items()]
    return evaluate(Graph.build({"y": ops.get(op)(*leaves)}), arrays)["y"]


def keys(scale=0.5):
    return scale * RNG.normal(size=(BATCH, TOKENS, HEADS, N))


def values():
    return RNG.normal(size=(BATCH, TOKENS, HEADS, D))


def gates():
    return RNG.uniform(0.2, 1, size=(BATCH, TOKENS, HEADS, N))


def states():
    return RNG.normal(size=(BATCH, N, HEADS, D))


def test_linear_attention_without_gates_is_attention_without_softmax():
    q, k, v = keys(), keys(), values()
    ones, zeros = np.ones_like(k), np.zeros((BATCH, N, HEADS, D))

    got = run("gated_linear_attention", q=q, k=k, v=v, g=ones, state=zeros)

    scores = np.tril(np.einsum("bthn,bshn->bhts", q, k)) / np.sqrt(N)
    np.testing.assert_allclose(got[:, :TOKENS], np.einsum("bhts,bshd->bthd", scores, v))
    np.testing.assert_allclose(got[:, TOKENS:], np.einsum("bshn,bshd->bnhd", k, v))


def test_a_state_goes_on_where_it_was_left():
    arrays = {"q": keys(), "k": keys(), "v": values(), "g": gates()}
    state = states()
    whole = run("gated_linear_attention", **arrays, state=state)

    first = run("gated_linear_attention", **{n: a[:, :2] for n, a in arrays.items()}, state=state)
    rest = {n: a[:, 2:] for n, a in arrays.items()}
    second = run("gated_linear_attention", **rest, state=first[:, 2:])

    np.testing.assert_allclose(np.concatenate([first[:, :2], second], axis=1), whole)


def test_wkv7_that_removes_nothing_is_linear_attention():
    r, k, v, w, state = keys(), keys(), values(), gates(), states()
    nothing = np.zeros_like(k)

    got = run("wkv7", r=r, w=w, k=k, v=v, a=nothing, b=keys(), state=state)

    linear = run("gated_linear_attention", q=r, k=k, v=v, g=w, state=state)
    linear[:, :TOKENS] *= np.sqrt(N)
    np.testing.assert_allclose(got, linear)


def test_wkv6_reads_before_it_writes():
    r, k, v, w, u, state = keys(), keys(), values(), gates(), RNG.normal(size=(HEADS, N)), states()

    got = run("wkv6", r=r, k=k, v=v, u=u, w=w, state=state)

    first = np.einsum("bhn,bnhd->bhd", r[:, 0], state)
    first += np.einsum("bhn,hn,bhn->bh", r[:, 0], u, k[:, 0])[..., None] * v[:, 0]
    np.testing.assert_allclose(got[:, 0], first)
    linear = run("gated_linear_attention", q=r, k=k, v=v, g=w, state=state)
    np.testing.assert_allclose(got[:, TOKENS:], linear[:, TOKENS:])


def test_the_delta_rule_replaces_what_was_stored_under_a_key():
    k, v, state = keys(), values(), states()
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    no_decay, whole = np.zeros((BATCH, TOKENS, HEADS, 1)), np.ones((BATCH, TOKENS, HEADS))

    got = run("gated_delta_rule", q=k, k=k, v=v, g=no_decay, beta=whole, state=state)

    np.testing.assert_allclose(got[:, :TOKENS] * np.sqrt(N), v)


def test_the_delta_rule_is_a_case_of_wkv7():
    q, k, v, g, state = keys(), keys(), values(), -gates(), states()
    beta = RNG.uniform(size=(BATCH, TOKENS, HEADS))

    got = run("gated_delta_rule", q=q, k=k, v=v, g=g, beta=beta, state=state)

    decay, written = np.exp(g), beta[..., None] * k
    wkv = run(
        "wkv7", r=q / np.sqrt(N), w=decay, k=written, v=v, a=k * decay, b=-written, state=state
    )
    np.testing.assert_allclose(got, wkv)


def test_selective_scan_is_linear_attention_with_a_step_width():
    x, dt, a = values(), RNG.normal(size=(BATCH, TOKENS, HEADS)), -RNG.uniform(size=(HEADS, N))
    b, c = (RNG.normal(size=(BATCH, TOKENS, 1, N)) for _ in range(2))
    state = states()

    got = run("selective_scan", x=x, dt=dt, a=a, b=b, c=c, state=state)

    span = np.logaddexp(0, dt)[..., None]
    wide = np.ones((1, 1, HEADS, 1))
    linear = run(
        "gated_linear_attention",
        q=c * wide, k=b * span, v=x, g=np.exp(span * a), state=state,
    )  # fmt: skip
    linear[:, :TOKENS] *= np.sqrt(N)
    np.testing.assert_allclose(got, linear)


def test_solve_triangular_undoes_the_product():
    a, x = RNG.normal(size=(2, 5, 5)) + 3 * np.eye(5), RNG.normal(size=(2, 5, 3))
    for lower in (True, False):
        for unit in (True, False):
            triangle = np.tril(a) if lower else np.triu(a)
            if unit:
                triangle[:, range(5), range(5)] = 1
            b = triangle @ x
            left = ops.input(name="a", dtype="f64", shape=a.shape)
            right = ops.input(name="b", dtype="f64", shape=b.shape)
            node = ops.solve_triangular(left, right, lower=lower, unit_diagonal=unit)

            got = evaluate(Graph.build({"y": node}), {"a": a, "b": b})["y"]

            np.testing.assert_allclose(got, x)
