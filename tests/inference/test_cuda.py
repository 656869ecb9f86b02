"""A small random model on simulated CUDA devices says what it says on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug.dtypes import get
from hotplug.errors import FallbackWarning
from hotplug.formats.gguf import GGUFFile, write
from hotplug.gpu.memory import GPUBuffer
from hotplug.quants import encode
from hotplug.session import Session
from hotplug.tensor import HostTensor, TensorType
from hotplug_cpu import backend as cpu
from hotplug_cuda import backend, simulation
from hotplug_cuda.driver import CUDADriver
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder
from hotplug_llm.evaluation import Evaluator

LAYERS = 3
PROMPT = [3, 1, 4, 1, 5]

SHAPES = {
    "token_embd.weight": (40, 64),
    "output_norm.weight": (64,),
    **{
        f"blk.{layer}.{name}.weight": shape
        for layer in range(LAYERS)
        for name, shape in {
            "attn_norm": (64,),
            "attn_q": (64, 64),
            "attn_k": (32, 64),
            "attn_v": (32, 64),
            "attn_output": (64, 64),
            "ffn_norm": (64,),
            "ffn_gate": (96, 64),
            "ffn_up": (96, 64),
            "ffn_down": (64, 96),
        }.items()
    },
}


@pytest.fixture(scope="module", autouse=True)
def simulated_devices(two_simulated_gpus):
    """For all tests here."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "small.gguf"
    rng = np.random.default_rng(2)
    tensors = {}
    for name, shape in SHAPES.items():
        dtype = get("q8_0" if len(shape) == 2 else "f32")
        values = rng.standard_normal(shape, np.float32) / 4
        tensors[name] = HostTensor(TensorType(dtype, shape), encode(values, dtype))
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "llama.embedding_length": 64,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    write(path, metadata, tensors)
    return path


def run(path, devices, pins=None, tokens=8, fallback="error", meanwhile=None):
    """Greedy tokens, and the logits of each step."""
    with GGUFFile.open(path) as file:
        types = {name: info.type for name, info in file.tensors.items()}
        decoder = Decoder(read_hyperparameters(file.fields()), types, context=64, cache_dtype="f32")
        weights = {name: file.tensor(name) for name in file.tensors}
        with Session(devices, weights, pins=pins, fallback=fallback) as session:
            evaluator = Evaluator(session, decoder)
            ids = list(PROMPT)
            seen = [np.array(evaluator.last_logits(ids))]
            while len(seen) < tokens:
                ids.append(int(seen[-1].argmax()))
                if meanwhile and len(seen) == 3:
                    meanwhile()
                seen.append(np.array(evaluator.last_logits(ids[-1:])))
            return ids, np.array(seen)


@pytest.fixture
def expected(model):
    return run(model, [cpu.open(cpu.probe()[0])])


def simulated(count):
    return [backend.open(info) for info in backend.probe()[:count]]


def compare(got, expected):
    assert got[0] == expected[0]
    np.testing.assert_allclose(got[1], expected[1], atol=0.05)  # the CPU rounds activations


def test_one_device(model, expected):
    compare(run(model, simulated(1)), expected)


def test_layers_over_two_devices(model, expected, monkeypatch):
    copies = []
    copy_peer = CUDADriver.copy_peer

    def counted(driver, origin, *rest):
        copies.append((origin.index, driver.index))
        return copy_peer(driver, origin, *rest)

    monkeypatch.setattr(CUDADriver, "copy_peer", counted)
    pins = {"blk.0.*": "cuda:0", "blk.1.*": "cuda:1", "blk.2.*": "cuda:1"}
    compare(run(model, simulated(2), pins), expected)
    assert (0, 1) in copies


def test_decoding_replays_a_captured_graph(model, monkeypatch):
    captures = []
    capture = CUDADriver.capture

    def counted(driver, launches):
        captures.append(len(launches))
        return capture(driver, launches)

    monkeypatch.setattr(CUDADriver, "capture", counted)
    run(model, simulated(1), tokens=6)
    assert len(captures) == 1
    assert captures[0] > 20


def test_a_model_too_large_for_one_device_is_spread(model, expected, monkeypatch):
    monkeypatch.setattr(simulation, "MEMORY", 150_000)
    monkeypatch.setattr(simulation, "_devices", {})
    used = []
    launch = CUDADriver.launch

    def noted(driver, launches):
        used.append(driver.index)
        launch(driver, launches)

    monkeypatch.setattr(CUDADriver, "launch", noted)
    compare(run(model, [*simulated(2), cpu.open(cpu.probe()[0])]), expected)
    assert set(used) == {0, 1}


def test_a_device_lost_on_the_way_leaves_the_same_tokens(model, expected):
    def kernel_fault():
        simulation.device_at(0).error = simulation.SimulatedError(719, "unspecified launch failure")

    devices = [*simulated(1), cpu.open(cpu.probe()[0])]
    with pytest.warns(FallbackWarning, match="cuda:0 is set aside.*launch failure"):
        compare(run(model, devices, fallback="warn", meanwhile=kernel_fault), expected)


def test_of_a_gpu_s_logits_only_the_largest_are_read(model, monkeypatch):
    read = []
    reads = GPUBuffer.read

    def counted(buffer, offset, target):
        read.append(target.nbytes)
        reads(buffer, offset, target)

    monkeypatch.setattr(GPUBuffer, "read", counted)
    with GGUFFile.open(model) as file:
        types = {name: info.type for name, info in file.tensors.items()}
        shape = read_hyperparameters(file.fields())
        decoder = Decoder(shape, types, context=64, cache_dtype="f32", vocabulary=37)
        weights = {name: file.tensor(name) for name in file.tensors}
        with Session(simulated(1), weights) as session:
            evaluator = Evaluator(session, decoder)
            logits = np.array(evaluator.last_logits(PROMPT))[:37]
            assert evaluator.finds(1)
            assert evaluator.finds(5)
            for largest in (1, 5):
                read.clear()
                evaluator.rewind(0)
                ids, values = evaluator.last_largest(PROMPT, largest)
                assert sum(read) == 2 * 4 * largest
                assert ids.tolist() == sorted(np.argsort(-logits, kind="stable")[:largest])
                assert values.tolist() == logits[ids].tolist()


def test_a_processor_s_logits_are_at_hand(model):
    with GGUFFile.open(model) as file:
        types = {name: info.type for name, info in file.tensors.items()}
        decoder = Decoder(read_hyperparameters(file.fields()), types, context=64)
        with Session([cpu.open(cpu.probe()[0])]) as session:
            assert not Evaluator(session, decoder).finds(1)
