"""Modes and split points over the processor, OpenCL, simulated GPUs and fakes: the same tokens."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hotplug_llm
from hotplug.cli.program import main
from hotplug.dtypes import get
from hotplug.errors import PinError
from hotplug.formats.gguf import GGUFFile, write
from hotplug.placement import parallel
from hotplug.quants import encode
from hotplug.session import Session
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.fakes import FakeDevice
from hotplug_cpu import backend as processor
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder
from hotplug_llm.evaluation import Evaluator

CASES = json.loads(
    (Path(__file__).parent / "data" / "smollm2_f32.json").read_text(encoding="utf-8")
)
LAYERS, CONTEXT = 3, 128
PROMPT = [(7 * n + n * n // 3) % 40 for n in range(75)]
MODES = ("layer", "pipeline", "tensor")
BLOCK = {
    "attn_norm": (64,),
    "attn_q": (64, 64),
    "attn_k": (32, 64),
    "attn_v": (32, 64),
    "attn_output": (64, 64),
    "ffn_norm": (64,),
    "ffn_gate": (96, 64),
    "ffn_up": (96, 64),
    "ffn_down": (64, 96),
}
METADATA = {
    "general.architecture": "llama",
    "llama.context_length": CONTEXT,
    "llama.embedding_length": 64,
    "llama.block_count": LAYERS,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


@pytest.fixture(autouse=True)
def cut_small_weights(monkeypatch):
    monkeypatch.setattr(parallel, "_LEAST", 0)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "small.gguf"
    rng = np.random.default_rng(2)
    shapes = {"token_embd": (40, 64), "output_norm": (64,)}
    shapes |= {f"blk.{n}.{name}": shape for n in range(LAYERS) for name, shape in BLOCK.items()}
    tensors = {}
    for name, shape in shapes.items():
        dtype = get("q8_0" if len(shape) == 2 else "f32")
        values = rng.standard_normal(shape, np.float32) / 4
        tensors[f"{name}.weight"] = HostTensor(TensorType(dtype, shape), encode(values, dtype))
    write(path, METADATA, tensors)
    return path


def greedy(path, devices, mode, pins=None, tokens=5):
    """Tokens after the prompt, and the logits of each step."""
    with GGUFFile.open(path) as file:
        types = {name: info.type for name, info in file.tensors.items()}
        shape = read_hyperparameters(file.fields())
        decoder = Decoder(shape, types, context=CONTEXT, cache_dtype="f32", precision="exact")
        weights = {name: file.tensor(name) for name in file.tensors}
        with Session(devices, weights, pins=pins, fallback="error", mode=mode) as session:
            evaluator = Evaluator(session, decoder)
            seen = [np.array(evaluator.last_logits(PROMPT))]
            while len(seen) < tokens:
                seen.append(np.array(evaluator.last_logits([int(seen[-1].argmax())])))
            used = set(session.plan(decoder.graph(1)).devices)
            return [int(logits.argmax()) for logits in seen], np.array(seen), used


def planned(path, devices, pins):
    """What a token's graph would be in mode "tensor"."""
    with GGUFFile.open(path) as file:
        types = {name: info.type for name, info in file.tensors.items()}
        shape = read_hyperparameters(file.fields())
    decoder = Decoder(shape, types, context=CONTEXT, cache_dtype="f32", precision="exact")
    with Session(devices, pins=pins, fallback="error", mode="tensor") as session:
        return session.plan(decoder.graph(1))


@pytest.fixture(scope="module")
def expected(small):
    return greedy(small, [the_processor()], "layer")


def the_processor():
    return processor.open(processor.probe()[0])


def fakes():
    return [FakeDevice("gpu:0"), FakeDevice("gpu:1")]


def split_at(layer, first, second):
    """Layers up to one on a device, the others on another, each with its keys and values."""
    pins = {}
    for n in range(LAYERS):
        home = first if n < layer else second
        pins |= dict.fromkeys((rf"^blk\.{n}\.", rf"^[kv]\.{n}$"), home)
    return pins | {"token_embd": first, "output_norm": second}


def check(got, expected, devices):
    ids, logits, used = got
    assert ids == expected[0]
    np.testing.assert_allclose(logits, expected[1], atol=2e-3, rtol=2e-3)
    assert used == {device.id for device in devices}


@pytest.mark.parametrize("mode", ["layer", "pipeline"])
@pytest.mark.parametrize("layer", [1, 2])
def test_every_split_point_over_fakes_and_the_processor(small, expected, mode, layer):
    devices = [FakeDevice("gpu:0"), the_processor()]
    pins = split_at(layer, "gpu:0", "cpu:0")
    check(greedy(small, devices, mode, pins), expected, devices)


@pytest.mark.parametrize("count", [1, 2])
def test_pieces_of_products_over_fakes_and_the_processor(small, expected, monkeypatch, count):
    devices = [even(device, monkeypatch) for device in (the_processor(), *fakes()[:count])]
    check(greedy(small, devices, "tensor"), expected, devices)


@pytest.mark.parametrize(
    ("pins", "whole"),
    [
        ({r"blk\.1\.": "gpu:0"}, r"blk\.1\."),
        ({"ffn_up": "gpu:0", "ffn_down": "cpu:0"}, "ffn_(up|down)"),
        ({r"^[kv]\.0$": "gpu:0"}, r"^[kv]\.0"),
    ],
)
def test_what_is_pinned_is_whole_where_it_is_to_be(small, expected, monkeypatch, pins, whole):
    devices = [even(device, monkeypatch) for device in (the_processor(), FakeDevice("gpu:0"))]
    check(greedy(small, devices, "tensor", pins), expected, devices)
    plan = planned(small, devices, pins)
    leaves = {
        n.name: plan.choices[n].device for n in plan.graph.nodes if n.op in {"weight", "state"}
    }
    for pin, device in pins.items():
        found = {name: at for name, at in leaves.items() if re.search(pin, name)}
        assert set(found.values()) == {device}
    assert not [name for name in leaves if "[" in name and re.search(whole, name)]
    assert [name for name in leaves if "[" in name]  # all else is in pieces


def test_a_pin_of_pieces_says_what_else_could_be_done(small, monkeypatch):
    devices = [even(device, monkeypatch) for device in (the_processor(), FakeDevice("gpu:0"))]
    with pytest.raises(PinError, match="mode tensor has cut it: it is the piece of") as caught:
        planned(small, devices, {"matmul": "gpu:0"})
    assert "pin weights by their names" in caught.value.remedy


def opencl_device(opencl_devices):
    backend = importlib.import_module("hotplug_opencl").backend
    return backend.open(opencl_devices(intel=False))


def even(device, monkeypatch):
    """Let a device be taken for as fast as any other, so that it gets its share."""
    rates = {"bandwidth": 1e10, "flops": 1e11}
    info = replace(device.info, properties={**device.info.properties, **rates})
    monkeypatch.setattr(device, "info", info)
    return device


@pytest.mark.parametrize("mode", MODES)
def test_the_processor_and_opencl(small, expected, opencl_devices, monkeypatch, mode):
    devices = [opencl_device(opencl_devices), the_processor()]
    devices = [even(device, monkeypatch) for device in devices]
    pins = split_at(1, devices[0].id, devices[1].id) if mode != "tensor" else None
    check(greedy(small, devices, mode, pins), expected, devices)


@pytest.mark.parametrize("mode", MODES)
def test_two_simulated_gpus(small, expected, two_simulated_gpus, mode):
    backend = importlib.import_module("hotplug_cuda").backend
    devices = [backend.open(info) for info in backend.probe()[:2]]
    pins = split_at(2, devices[0].id, devices[1].id) if mode != "tensor" else None
    check(greedy(small, devices, mode, pins, tokens=3), [e[:3] for e in expected[:2]], devices)


def test_the_command_takes_a_mode(tiny_model, capsys):
    command = ["generate", "-m", str(tiny_model), "-d", "cpu", "-n", "3", "--temperature", "0"]
    said = []
    for mode in MODES:
        assert main([*command, "--mode", mode, "Hi"]) == 0
        said.append(capsys.readouterr().out)
    assert len(set(said)) == 1
    assert main([*command, "--mode", "sideways", "Hi"]) == 2


MARGIN = 0.02


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
def test_the_demo_model_over_opencl_and_the_processor(demo_model, opencl_devices, mode):
    """Every split point; ids up to where the reference itself hesitates."""
    case = CASES[0]
    first = opencl_devices(intel=False).id
    sure = next((n for n, lead in enumerate(case["greedy_margin"]) if lead < MARGIN), 8)
    wanted = case["greedy_ids"][: min(sure, 8)]
    for layer in range(1, 30) if mode != "tensor" else (0,):
        pins = {}
        for n in range(30):
            home = first if n < layer else "cpu:0"
            pins |= dict.fromkeys((rf"^blk\.{n}\.", rf"^[kv]\.{n}$"), home)
        with hotplug_llm.load(
            demo_model,
            f"{first},cpu",
            "exact",
            context=256,
            mode=mode,
            fallback="error",
            pins=pins if mode != "tensor" else None,
        ) as model:
            answer = model.generate(
                case["prompt_ids"],
                max_tokens=len(wanted),
                sampling=hotplug_llm.SamplingOptions(temperature=0),
                ignore_eos=True,
            )
            for _ in answer:
                pass
            assert answer.ids == wanted


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
def test_the_demo_model_over_three_devices(demo_model, opencl_devices, mode):
    """Two halves of an OpenCL device and the processor, each with its share."""
    if (opencl_devices(intel=False).units or 1) < 2:
        pytest.skip("it cannot be halved")
    case = CASES[0]
    sure = next((n for n, lead in enumerate(case["greedy_margin"]) if lead < MARGIN), 8)
    command = [
        *(sys.executable, "-m", "hotplug", "generate", "-m", str(demo_model), "--json", "--raw"),
        *("-d", "opencl:0,cpu,opencl:1", "--split", "1,1,1", "--mode", mode, "-c", "256"),
        *("--precision", "exact", "--fallback", "error", "--temperature", "0", "--ignore-eos"),
        *("-n", str(min(sure, 8)), case["prompt"]),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "HOTPLUG_OPENCL_SUBDEVICES": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["prompt_ids"] == case["prompt_ids"]
    assert told["devices"] == ["opencl:0", "cpu:0", "opencl:1"]
    assert told["ids"] == case["greedy_ids"][: len(told["ids"])]
