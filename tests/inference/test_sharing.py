"""Models of one file in several threads share devices and weights, and say what they say alone."""

from __future__ import annotations

import threading

import pytest

import hotplug_llm
from hotplug.testing.fakes import FakeDevice, fake_backend, fake_registry

GREEDY = hotplug_llm.SamplingOptions(temperature=0)


def answer(model, prompt):
    generation = model.generate(prompt, max_tokens=8, sampling=GREEDY, ignore_eos=True)
    for _ in generation:
        pass
    return generation.ids


@pytest.mark.parametrize("selector", ["cpu", "opencl", "opencl,cpu"])
def test_models_in_threads(tiny_model, selector, opencl_devices):
    if "opencl" in selector:
        opencl_devices(intel=False)
    prompts = ["abc", "hello there", "x", "what"]
    with hotplug_llm.load(tiny_model, selector, "exact") as model:
        alone = [answer(model, prompt) for prompt in prompts]
    found = {}

    def work(prompt):
        with hotplug_llm.load(tiny_model, selector, "exact", fallback="error") as model:
            found[prompt] = [answer(model, prompt) for _ in range(2)]

    threads = [threading.Thread(target=work, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {prompt: [ids, ids] for prompt, ids in zip(prompts, alone, strict=True)}


def test_two_models_of_one_file_have_its_weights_on_a_card_once(tiny_model, monkeypatch):
    card = FakeDevice("card:0")
    registry = fake_registry(fake_backend("card", card))
    monkeypatch.setattr("hotplug.session.fleet.default", lambda: registry)
    with hotplug_llm.load(tiny_model, "card", "exact") as one:
        expected = answer(one, "abc")
        alone = card.buffers.memory.used
        with hotplug_llm.load(tiny_model, "card", "exact") as other:
            assert answer(other, "abc") == expected
            weights = sum(tensor.nbytes for tensor in other.weights.values())
            assert card.buffers.memory.used - alone == alone - weights
        assert answer(one, "abc") == expected
    assert card.buffers.memory.used == 0
