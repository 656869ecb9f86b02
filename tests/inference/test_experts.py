"""Mixtures of experts: right by an independent computation, on one device and from the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.dtypes import get
from hotplug.formats.gguf import GGUFFile, write
from hotplug.quants import decode, encode
from hotplug.session import Session
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.fakes import FakeDevice
from hotplug_cpu import backend as processor
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder
from hotplug_llm.evaluation import Evaluator

EXPERTS, USED, WIDTH, INNER, LAYERS = 6, 2, 32, 64, 2
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
BLOCK = {
    "attn_norm": (WIDTH,),
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (WIDTH, WIDTH),
    "attn_v": (WIDTH, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "attn_q_norm": (8,),
    "attn_k_norm": (8,),
    "ffn_norm": (WIDTH,),
    "ffn_gate_inp": (EXPERTS, WIDTH),
    "ffn_gate_exps": (EXPERTS, INNER, WIDTH),
    "ffn_up_exps": (EXPERTS, INNER, WIDTH),
    "ffn_down_exps": (EXPERTS, WIDTH, INNER),
}
METADATA = {
    "general.architecture": "qwen3moe",
    "qwen3moe.context_length": 32,
    "qwen3moe.embedding_length": WIDTH,
    "qwen3moe.block_count": LAYERS,
    "qwen3moe.feed_forward_length": 999,
    "qwen3moe.expert_feed_forward_length": INNER,
    "qwen3moe.expert_count": EXPERTS,
    "qwen3moe.expert_used_count": USED,
    "qwen3moe.attention.head_count": 4,
    "qwen3moe.attention.head_count_kv": 4,
    "qwen3moe.attention.layer_norm_rms_epsilon": 1e-5,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "experts.gguf"
    rng = np.random.default_rng(4)
    shapes = {"token_embd": (40, WIDTH), "output_norm": (WIDTH,)}
    shapes |= {f"blk.{n}.{name}": shape for n in range(LAYERS) for name, shape in BLOCK.items()}
    tensors = {}
    for name, shape in shapes.items():
        dtype = get("q8_0" if len(shape) == 3 else "f32")
        values = rng.standard_normal(shape, np.float32) / 3
        tensors[f"{name}.weight"] = HostTensor(TensorType(dtype, shape), encode(values, dtype))
    write(path, METADATA, tensors)
    return path


def opened(path, devices, **options):
    """An evaluator, its session and the weights; precision exact."""
    file = GGUFFile.open(path)
    types = {name: info.type for name, info in file.tensors.items()}
    shape = read_hyperparameters(file.fields())
    decoder = Decoder(shape, types, context=32, cache_dtype="f32", precision="exact")
    weights = {name: file.tensor(name) for name in file.tensors}
    session = Session(devices, weights, fallback="error", **options)
    return Evaluator(session, decoder), session, weights, file


def greedy(path, devices, tokens=4, **options):
    evaluator, session, _, file = opened(path, devices, **options)
    with file, session:
        seen = [np.array(evaluator.last_logits(PROMPT))]
        while len(seen) < tokens:
            seen.append(np.array(evaluator.last_logits([int(seen[-1].argmax())])))
        return np.array(seen), evaluator.program(1).plan


def the_processor():
    return processor.open(processor.probe()[0])


@pytest.fixture(scope="module")
def expected(model):
    return greedy(model, [the_processor()])[0]


def mixture(h, weights, prefix):
    """A block's experts one token and one expert at a time, in float64."""

    def matrix(name):
        tensor = weights[f"{prefix}{name}.weight"]
        return decode(tensor.data, tensor.dtype, tensor.shape).astype(np.float64)

    router, gate, up, down = map(
        matrix, ("ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
    )
    out = np.zeros_like(h, np.float64)
    for token, x in enumerate(h.astype(np.float64)):
        scores = np.exp(router @ x)
        best = np.argsort(-scores)[:USED]
        for expert in best:
            inner = gate[expert] @ x
            inner = inner / (1 + np.exp(-inner)) * (up[expert] @ x)
            out[token] += scores[expert] / scores[best].sum() * (down[expert] @ inner)
    return out


def test_a_block_of_experts_against_another_computation(model):
    evaluator, session, weights, file = opened(model, [the_processor()])
    values = []

    def look(one):
        values.append((one.name, one.value()))

    with file, session, session.observed(look, "ffn_norm|^sum"):
        evaluator.last_logits(PROMPT)
    norms = [value for name, value in values if "ffn_norm" in name]
    sums = [value for name, value in values if name.startswith("sum") and value.shape[-1] == WIDTH]
    assert len(norms) == len(sums) == LAYERS
    for layer, (h, got) in enumerate(zip(norms, sums, strict=True)):
        np.testing.assert_allclose(got, mixture(h, weights, f"blk.{layer}."), atol=1e-4, rtol=1e-4)


def devices(host_flops, link):
    """A GPU that is far, and a processor."""
    gpu = {"flops": 1e13, "bandwidth": 1e12, "link_bandwidth": link, "link_latency": 1e-9}
    cpu = {"flops": host_flops, "bandwidth": host_flops / 10}
    return [
        FakeDevice(DeviceInfo("gpu", 0, "Fake", DeviceType.GPU, properties=gpu)),
        FakeDevice(DeviceInfo("cpu", 0, "Fake", DeviceType.CPU, properties=cpu), is_host=True),
    ]


def test_only_the_experts_that_are_used_are_sent(model, expected):
    got, plan = greedy(model, devices(1e4, 1e12), host_experts=True)
    np.testing.assert_allclose(got, expected, atol=1e-3, rtol=1e-3)
    sent = [copy for copy in plan.copies if copy.node.dtype.name == "q8_0"]
    assert len(sent) == 3 * LAYERS
    assert {copy.node.shape[0] for copy in sent} == {USED}
    homes = {node.name: choice.device for node, choice in plan.choices.items() if node.is_leaf}
    assert {homes[name] for name in homes if "exps" in name} == {"cpu:0"}
    assert homes["blk.0.attn_q.weight"] == "gpu:0"


def decoded(path, monkeypatch, cache_bytes, tokens=12):
    """Logits of tokens one by one with so many bytes for experts, and what the session counted."""
    monkeypatch.setenv("HOTPLUG_EXPERT_CACHE_BYTES", str(cache_bytes))
    evaluator, session, _, file = opened(path, devices(1e4, 1e12), host_experts=True)
    with file, session:
        seen = [np.array(evaluator.last_logits([7 * n % 40])) for n in range(tokens)]
        return np.array(seen), session.experts(), session.memory()


def test_experts_that_were_sent_are_kept_within_a_bound(model, monkeypatch):
    expected, counted, _ = decoded(model, monkeypatch, 0)
    assert counted == {}
    needed = 12 * 3 * LAYERS * USED
    for share in (1, USED / EXPERTS):  # room for all, and for those of one token
        most = int(share * sum(node_bytes(model)))
        got, counted, memory = decoded(model, monkeypatch, most)
        np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)
        counts = counted["gpu:0"]
        assert counts["found"] + counts["sent"] == needed
        assert counts["found"] > 0
        assert counts["pool_bytes"] <= most
        assert counts["sent_bytes"] % counts["sent"] == 0
        assert memory["gpu:0"]["weights"] >= counts["pool_bytes"]
        if share == 1:
            assert counts["sent"] <= 3 * LAYERS * EXPERTS


def node_bytes(path):
    """Bytes of each weight of experts."""
    with GGUFFile.open(path) as file:
        return [t.type.nbytes for name, t in file.tensors.items() if "exps" in name]


def test_of_many_rows_all_experts_are_sent(model):
    evaluator, session, _, file = opened(model, devices(1e4, 1e12), host_experts=True)
    with file, session:
        plan = evaluator.program(len(PROMPT)).plan
    sent = [copy for copy in plan.copies if copy.node.dtype.name == "q8_0"]
    assert {copy.node.shape[0] for copy in sent} == {EXPERTS}


def test_nothing_is_sent_where_the_processor_is_faster(model, expected):
    got, plan = greedy(model, devices(1e13, 1e3), host_experts=True)
    np.testing.assert_allclose(got, expected, atol=1e-3, rtol=1e-3)
    assert not [copy for copy in plan.copies if copy.node.dtype.name == "q8_0"]
    products = [choice.device for n, choice in plan.choices.items() if n.op == "matmul_grouped"]
    assert products == ["cpu:0"] * 3 * LAYERS


def test_experts_in_pieces(model, expected, monkeypatch):
    from hotplug.placement import parallel

    monkeypatch.setattr(parallel, "_LEAST", 0)
    pair = [replace(device.info, properties={}) for device in devices(1, 1)]
    used = [FakeDevice(replace(pair[0], index=n)) for n in range(2)]
    got, plan = greedy(model, used, mode="tensor")
    np.testing.assert_allclose(got, expected, atol=1e-3, rtol=1e-3)
    assert any("ffn_down_exps.weight[:, :, " in node.name for node in plan.graph.nodes)


def test_experts_over_the_processor_and_opencl(model, expected, opencl_devices):
    import importlib

    backend = importlib.import_module("hotplug_opencl").backend
    used = [backend.open(opencl_devices(intel=False)), the_processor()]
    got, _ = greedy(model, used, host_experts=True)
    np.testing.assert_allclose(got, expected, atol=1e-3, rtol=1e-3)
