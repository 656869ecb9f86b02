"""Products over random shapes, with 1, 2, 3 and 8 threads: each form of activations by itself.

Activations lie alone or within a larger tensor, rows or a bias may be added, and one number of the
activations or of the weights may be no finite one or a subnormal one, or one scale of the weights'
blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.cpu.test_random_kernels import LIES, THREADS, TINY, as_bytes, lying, run_twice

from hotplug import dtypes, ops, quants
from hotplug.graph import Graph
from hotplug_cpu.jit.target import multiplies_words
from hotplug_cpu.products import QUANTISED
from hotplug_cpu.tensor_view import convert

HUGE = 1e30
"""A number whose square float32 does not hold."""

TINY_16 = 3 * 2.0**-24
"""A number that f16 holds only as a subnormal one."""

STRANGE = (np.nan, np.inf, -np.inf)

KERNELS = {
    "blocks": "matvec_{}",
    "floats": "matvec_{}_f32",
    "tiles": "quantise_tiles",
    "words": "gemm_i16",
    "rows": "gemm_f32",
    "packed": "pack_rows",
}
"""A kernel that a form's plans have, of a type of weights."""

WORDS = multiplies_words()
FORMS = [form for form in KERNELS if form != "words" or WORDS]

FACTORS = {
    "q2_k": (80, 82),
    "q3_k": (108,),
    "q6_k": (208,),
    **dict.fromkeys(("q4_1", "q5_1", "q4_k", "q5_k"), (0, 2)),
}
"""Where the scales of a block in f16 lie; of the other types it is at the start."""


@dataclass(frozen=True)
class Case:
    name: str
    precision: str
    tokens: int
    rows: int
    width: int
    how: str
    added: str
    strange: str
    threads: int
    seed: int


TYPES = {
    "blocks": QUANTISED,
    "tiles": [name for name in QUANTISED if name not in WORDS],
    "words": list(WORDS),
}
"""Types of weights, where a form is not for all."""

TOKENS = {"blocks": (1, 5), "floats": (1, 4), "words": (max(WORDS.values(), default=0), 80)}
"""Fewest and most tokens, where it is not 6 to 40."""


def width_for(draw, form, step):
    """One that leads to a form, with weights in blocks of that length."""
    if form == "packed":
        return 1024 * draw(st.integers(1, 2))
    if step > 1:
        return step * draw(st.integers(1, 5))
    step = {"floats": 8, "words": 32}.get(form, 1)
    return step * draw(st.integers(1, 24 if step > 1 else 90))


@st.composite
def cases(draw, form):
    name = draw(st.sampled_from(TYPES.get(form, ("f32", "f16", "bf16", *QUANTISED))))
    block = dtypes.get(name).block
    width = width_for(draw, form, block)
    exact = form not in TYPES and (block > 1 or (name != "f32" and width % 32 == 0))
    free = form not in TYPES and not exact
    return Case(
        name,
        "exact" if exact or (free and draw(st.booleans())) else "default",
        draw(st.integers(*TOKENS.get(form, (6, 40)))),
        draw(st.integers(1, 75)),
        width,
        draw(st.sampled_from(("alone", "behind others") if form == "packed" else LIES)),
        draw(st.sampled_from(["nothing", "rows", "bias"])),
        draw(st.sampled_from(["no", "activation", "weight"])),
        draw(THREADS),
        draw(st.integers(0, 999)),
    )


def weights_of(case, random):
    """Their bytes, and what these stand for in float64."""
    dtype, shape = dtypes.get(case.name), (case.rows, case.width)
    values = random.standard_normal(shape).astype(np.float32) / np.sqrt(case.width)
    if case.strange == "weight" and not dtype.quantised:
        place = random.integers(case.rows), random.integers(case.width)
        values[place] = random.choice([*STRANGE, TINY, TINY_16])
    data = as_bytes(convert(values, dtype)).copy()
    if case.strange == "weight" and dtype.quantised:
        block = data.reshape(-1, dtype.block_bytes)[random.integers(len(data) // dtype.block_bytes)]
        at, scale = random.choice(FACTORS.get(case.name, (0,))), random.choice([*STRANGE, TINY_16])
        block[at : at + 2] = np.array([scale], np.float16).view(np.uint8)
    with np.errstate(invalid="ignore"):
        return data, quants.decode(data, dtype, shape).astype(np.float64)


def activations_of(case, random):
    x = random.standard_normal((case.tokens, case.width)).astype(np.float32)
    x[random.random(x.shape) < 0.1] = TINY
    x[random.integers(case.tokens), : min(32, case.width)] = TINY
    if case.strange == "activation":
        number = random.choice([*STRANGE, HUGE])
        x[random.integers(case.tokens), random.integers(case.width)] = number
    return x


def half_steps(x, steps):
    """By how much numbers may differ once blocks of 32 are multiples of a step that each has."""
    blocks = x.reshape(len(x), x.shape[1] // 32, 32)
    return np.repeat(0.501 * steps(blocks), 32, axis=1)


def bytes_of(blocks):
    return np.abs(blocks).max(-1) / 127


def words_of(blocks):
    return np.maximum(np.abs(blocks).max(-1) / 32767, np.linalg.norm(blocks, axis=-1) / 46360)


def words_of_weights(blocks):
    return np.abs(blocks).max(-1) / 4096


def bound(form, x, weights, added):
    """How far a form's results may be from exact ones."""
    found = 3e-6 * (np.abs(x) @ np.abs(weights).T) + 1e-7 * np.abs(added) + 1e-30
    if form in {"blocks", "tiles"}:
        found += half_steps(x, bytes_of) @ np.abs(weights).T
    elif form == "words":
        errors = half_steps(weights, words_of_weights)
        found += half_steps(x, words_of) @ (np.abs(weights) + errors).T + np.abs(x) @ errors.T
    return found


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=50)
@given(data=st.data())
def test_products(form, data):
    """Where the exact result is finite this is near to it; elsewhere it is not finite either."""
    case = data.draw(cases(form))
    random = np.random.default_rng(case.seed)
    x, (packed, weights) = activations_of(case, random), weights_of(case, random)
    added = random.standard_normal((case.tokens if case.added == "rows" else 1, case.rows))
    added = added.astype(np.float32) * np.float32(case.added != "nothing")
    held, node = lying("x", x, case.how, random)
    w = ops.weight(name="w", dtype=case.name, shape=weights.shape)
    y = ops.matmul(node, w, transpose_b=True, precision=case.precision)
    leaves = {"x": as_bytes(held), "w": packed}
    if case.added != "nothing":
        shape = added.shape if case.added == "rows" else added.shape[1:]
        y = ops.add(y, ops.input(name="add", dtype="f32", shape=shape))
        leaves["add"] = as_bytes(added)
    kernels = [KERNELS[form].format(case.name)] if case.how != "turned" else []
    found = run_twice(Graph.build({"y": y}), leaves, case.threads, *kernels)
    with np.errstate(all="ignore"):
        expected = x.astype(np.float64) @ weights.T + added
        near = np.abs(found - expected) <= bound(form, x.astype(np.float64), weights, added)
    finite = np.isfinite(expected)
    assert near[finite].all()
    assert not np.isfinite(found[~finite]).any()
