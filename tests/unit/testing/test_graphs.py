"""The decoder for tests and benchmarks is a decoder."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.oracle import evaluate
from hotplug.verify import state_chains, verify

SHAPE = {"layers": 2, "width": 32, "hidden": 64, "heads": 4, "kv_heads": 2, "head": 8,
         "vocabulary": 20, "context": 8, "weights": "f32"}  # fmt: skip


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(0)
    nodes = decoder(DecoderShape(**SHAPE)).weights
    return {name: rng.normal(size=node.shape) / 4 for name, node in nodes.items()}


def run(weights, tokens, rows, states):
    graph = decoder(DecoderShape(**SHAPE, tokens=len(tokens)))
    inputs = {"tokens": tokens, "positions": rows, "rows": rows}
    leaves = {name: np.array(values) for name, values in inputs.items()}
    results = evaluate(graph, {**weights, **leaves, **states})
    return results["logits"], {n: results[f"state:{n}"] for n in graph.states}


def test_the_default_is_the_demo_model():
    graph = decoder()

    verify(graph)
    assert dict(graph.outputs)["logits"].shape == (1, 49152)
    assert len(graph.states) == 60
    assert len(state_chains(graph)) == 60  # each cache is written where it lies


def test_a_prompt_at_once_equals_its_tokens_one_by_one(weights):
    prompt = [3, 1, 4, 1, 5]
    states = {}
    for row, token in enumerate(prompt):
        one_by_one, states = run(weights, [token], [row], states)

    at_once, _ = run(weights, prompt, list(range(5)), {})

    np.testing.assert_allclose(one_by_one, at_once, rtol=1e-4, atol=1e-4)


def test_padding_changes_nothing(weights):
    # Padding comes first here, since the logits are those of the last token.
    padded, _ = run(weights, [0, 7], [-1, 0], {})
    alone, _ = run(weights, [7], [0], {})

    np.testing.assert_allclose(padded, alone, rtol=1e-5, atol=1e-6)
