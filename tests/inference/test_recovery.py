"""A device is lost while a text is generated: the same tokens come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hotplug.backend import DeviceType
from hotplug.dtypes import get
from hotplug.errors import DeviceLostError, ExecutionError, FallbackWarning
from hotplug.formats.gguf import GGUFFile, write
from hotplug.session import Session
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.fakes import FakeDevice, Fault
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder
from hotplug_llm.evaluation import Evaluator

SHAPES = {
    "token_embd.weight": (40, 32),
    "output_norm.weight": (32,),
    **{
        f"blk.{layer}.{name}.weight": shape
        for layer in range(2)
        for name, shape in {
            "attn_norm": (32,),
            "attn_q": (32, 32),
            "attn_k": (16, 32),
            "attn_v": (16, 32),
            "attn_output": (32, 32),
            "ffn_norm": (32,),
            "ffn_gate": (64, 32),
            "ffn_up": (64, 32),
            "ffn_down": (32, 64),
        }.items()
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.gguf"
    rng = np.random.default_rng(1)
    tensors = {}
    for name, shape in SHAPES.items():
        values = rng.standard_normal(shape, np.float32)
        flat = values.reshape(-1).view(np.uint8)
        tensors[name] = HostTensor(TensorType(get("f32"), shape), flat)
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": 32,
        "llama.embedding_length": 32,
        "llama.block_count": 2,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    write(path, metadata, tensors)
    return path


def tokens(path: Path, devices: list[FakeDevice], count: int = 10) -> list[int]:
    """Greedy continuation of three tokens."""
    with GGUFFile.open(path) as file:
        types = {name: info.type for name, info in file.tensors.items()}
        decoder = Decoder(read_hyperparameters(file.fields()), types, context=32, cache_dtype="f32")
        weights = {name: file.tensor(name) for name in file.tensors}
        with Session(devices, weights, fallback="warn") as session:
            evaluator = Evaluator(session, decoder)
            ids = [3, 1, 4]
            logits = evaluator.last_logits(ids)
            while len(ids) < count:
                ids.append(int(logits.argmax()))
                logits = evaluator.last_logits(ids[-1:])
            return ids


def cpu() -> FakeDevice:
    return FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)


@pytest.mark.parametrize("call", [1, 2, 5, 8])
@pytest.mark.parametrize("error", [DeviceLostError("unplugged"), ExecutionError("bad luck")])
def test_the_same_tokens_with_and_without_a_fault(model: Path, error: Exception, call: int) -> None:
    expected = tokens(model, [cpu()])
    gpu = FakeDevice("gpu:0", faults=[Fault("run", error, call=call)])
    with pytest.warns(FallbackWarning, match="gpu:0 is set aside"):
        assert tokens(model, [gpu, cpu()]) == expected


def test_two_devices_lost_one_after_the_other(model: Path) -> None:
    expected = tokens(model, [cpu()])
    first = FakeDevice("gpu:0", faults=[Fault("run", DeviceLostError("one"), call=3)])
    # Lost again while the tokens read so far are being read once more.
    second = FakeDevice("gpu:1", faults=[Fault("run", DeviceLostError("two"), call=1)])
    with pytest.warns(FallbackWarning):
        assert tokens(model, [first, second, cpu()]) == expected


def test_layers_over_three_devices_give_the_same_tokens(model: Path) -> None:
    expected = tokens(model, [cpu()])
    devices = [FakeDevice(f"gpu:{n}", memory_bytes=60_000) for n in range(2)]
    assert tokens(model, [*devices, cpu()]) == expected
    assert all(device.calls["run"] for device in devices)


def test_a_device_too_full_for_its_arena_is_filled_less(model: Path) -> None:
    """No device is set aside: that would warn, and warnings are errors here."""
    expected = tokens(model, [cpu()])
    for memory_bytes in range(20_000, 90_000, 7_000):
        device = FakeDevice("gpu:0", memory_bytes=memory_bytes)
        assert tokens(model, [device, cpu()]) == expected
