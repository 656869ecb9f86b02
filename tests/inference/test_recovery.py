"""A device is lost while a text is generated: the same tokens come out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotplug_llm
from hotplug.backend import DeviceType
from hotplug.dtypes import get
from hotplug.errors import (
    DeadlineExceededError,
    DeviceLostError,
    ExecutionError,
    FallbackWarning,
    OutOfDeviceMemoryError,
    RunCancelledError,
)
from hotplug.formats.gguf import GGUFFile, write
from hotplug.session import CancelToken, Session
from hotplug.settings import Fallback
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.fakes import FakeDevice, Fault, fake_backend, fake_registry
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder
from hotplug_llm.evaluation import Evaluator
from hotplug_llm.sampling import SamplingOptions

GREEDY = SamplingOptions(temperature=0)

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


@contextlib.contextmanager
def opened(
    path: Path, devices: list[FakeDevice], context: int = 32, fallback: Fallback = "warn"
) -> Iterator[tuple[Session, Evaluator]]:
    with GGUFFile.open(path) as file:
        types = {name: info.type for name, info in file.tensors.items()}
        shape = read_hyperparameters(file.fields())
        decoder = Decoder(shape, types, context=context, cache_dtype="f32")
        weights = {name: file.tensor(name) for name in file.tensors}
        with Session(devices, weights, fallback=fallback) as session:
            yield session, Evaluator(session, decoder)


def continued(evaluator: Evaluator, ids: list[int], count: int) -> list[int]:
    """Greedy continuation to so many tokens."""
    while len(ids) < count:
        logits = evaluator.last_logits(ids[len(evaluator.past) :])
        ids.append(int(logits.argmax()))
    return ids


def tokens(path: Path, devices: list[FakeDevice], count: int = 10) -> list[int]:
    """Greedy continuation of three tokens."""
    with opened(path, devices) as (_, evaluator):
        return continued(evaluator, [3, 1, 4], count)


def cpu() -> FakeDevice:
    return FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)


@pytest.mark.parametrize("call", [1, 2, 5, 7])
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


def lost_at_token(
    path: Path, devices: list[FakeDevice], token: int, faulty: FakeDevice
) -> tuple[list[int], int]:
    """Tokens where a device is lost at one of them, and how many were read again for that."""
    with opened(path, devices) as (_, evaluator):
        ids = continued(evaluator, [3, 1, 4], token)
        read = []
        with pytest.MonkeyPatch.context() as patch:
            step = Evaluator._step

            def counted(self: Evaluator, ids: list[int], **options: Any) -> object:
                read.append(len(ids))
                return step(self, ids, **options)

            patch.setattr(Evaluator, "_step", counted)
            faulty.lose()
            with pytest.warns(FallbackWarning, match=f"{faulty.id} is set aside"):
                continued(evaluator, ids, token + 1)
        return continued(evaluator, ids, 28), sum(read) - 1


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize(("limit", "again"), [(1 << 20, 5), (1200, 17), (0, 21)])
def test_what_the_host_has_copied_is_not_read_again(
    model: Path, monkeypatch: pytest.MonkeyPatch, limit: int, again: int, *, spread: bool
) -> None:
    """Of 21 rows, 16 were copied if there was room; a row of all states takes 256 bytes."""
    monkeypatch.setattr("hotplug.session.copies._EVERY", 8)
    monkeypatch.setattr("hotplug.session.copies._SHARE", float("inf"))
    monkeypatch.setenv("HOTPLUG_STATE_COPY_BYTES", str(limit))
    expected = tokens(model, [cpu()], 28)
    first = FakeDevice("gpu:0", memory_bytes=60_000 if spread else None)
    got, read = lost_at_token(model, [first, FakeDevice("gpu:1"), cpu()], 22, first)
    assert got == expected
    assert read == again


def test_rows_in_the_hosts_own_memory_are_not_copied_and_not_read_again(model: Path) -> None:
    """The states of a device that is lost are on the processor, and stay there."""
    expected = tokens(model, [cpu()])
    card = FakeDevice("gpu:0", memory_bytes=6000)
    with opened(model, [card, cpu()]) as (session, evaluator):
        ids = continued(evaluator, [3, 1, 4], 4)
        homes = session._storage.homes()
        assert homes["k.0"] == "cpu:0"
        assert "gpu:0" in homes.values()
        card.lose()
        with pytest.warns(FallbackWarning):
            assert continued(evaluator, ids, 10) == expected
        assert session._storage.copies.rows == 0


def test_after_a_rewind_copies_are_of_what_was_read_last(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotplug.session.copies._EVERY", 4)
    monkeypatch.setattr("hotplug.session.copies._SHARE", float("inf"))
    card = FakeDevice("gpu:0")
    with opened(model, [card, cpu()]) as (_, evaluator):
        continued(evaluator, [9, 8, 7, 6], 16)
        evaluator.rewind(2)
        ids = continued(evaluator, [9, 8, 3, 1, 4], 12)
        card.lose()
        with pytest.warns(FallbackWarning):
            ids = continued(evaluator, ids, 20)
    with opened(model, [cpu()]) as (_, evaluator):
        assert continued(evaluator, [9, 8, 3, 1, 4], 20) == ids


PROMPT = [(7 * n) % 40 for n in range(150)]


def needed(path: Path, width: int) -> int:
    """Bytes that a device needs for the graph of one width."""
    card = FakeDevice("gpu:0")
    with opened(path, [card], 256) as (_, evaluator):
        evaluator.program(width)
        return card.buffers.memory.used


def test_out_of_memory_fewer_tokens_are_read_at_once(model: Path) -> None:
    card = FakeDevice("gpu:0", memory_bytes=(needed(model, 40) + needed(model, 48)) // 2)
    with opened(model, [cpu()], 256) as (_, evaluator):
        expected = continued(evaluator, list(PROMPT), 155)
    with opened(model, [card, cpu()], 256) as (session, evaluator):  # a warning would be an error
        assert continued(evaluator, list(PROMPT), 155) == expected
        assert not session.failed
        assert set(session._storage.homes().values()) == {"gpu:0"}


def test_out_of_memory_at_a_run_fewer_tokens_are_read_at_once(model: Path) -> None:
    card = FakeDevice("gpu:0", faults=[Fault("run", OutOfDeviceMemoryError("full"), times=1)])
    with opened(model, [cpu()], 256) as (_, evaluator):
        expected = continued(evaluator, list(PROMPT), 155)
    with opened(model, [card, cpu()], 256) as (session, evaluator):
        assert continued(evaluator, list(PROMPT), 155) == expected
        assert not session.failed


def test_where_no_device_may_take_over_the_cache_is_empty_afterwards(model: Path) -> None:
    card = FakeDevice("gpu:0", faults=[Fault("run", ExecutionError("bad luck"), call=4, times=1)])
    expected = tokens(model, [cpu()])
    with opened(model, [card, cpu()], fallback="error") as (_, evaluator):
        with pytest.raises(ExecutionError, match="bad luck"):
            continued(evaluator, [3, 1, 4], 10)
        assert evaluator.past == ()
        assert continued(evaluator, [3, 1, 4], 10) == expected  # on what is left


def test_a_generation_keeps_its_seed(tiny_model: Path) -> None:
    options = SamplingOptions(temperature=0.9, seed=7)

    def answer(*faults: Fault) -> list[int]:
        registry = fake_registry(
            fake_backend("card", FakeDevice("card:0", faults=faults)), fake_backend("cpu", cpu())
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hotplug.session.fleet.default", lambda: registry)
            with hotplug_llm.load(tiny_model, "card", "exact", fallback="allow") as model:
                generation = model.generate("abc", max_tokens=12, sampling=options, ignore_eos=True)
                list(generation)
                return generation.ids

    undisturbed = answer()
    assert len(set(undisturbed)) > 3
    assert answer(Fault("run", DeviceLostError("unplugged"), call=7)) == undisturbed
    assert answer(Fault("read", ExecutionError("bad cable"), call=9)) == undisturbed


def test_a_generation_ends_by_its_deadline_and_when_it_is_cancelled(tiny_model: Path) -> None:
    with hotplug_llm.load(tiny_model, "cpu", "exact") as model:
        expected = model.generate("abc", max_tokens=5, ignore_eos=True, sampling=GREEDY)
        list(expected)
        with pytest.raises(DeadlineExceededError):
            list(model.generate("abc", ignore_eos=True, timeout=1e-6))
        token = CancelToken()
        answer = model.generate("abc", ignore_eos=True, cancel=token, sampling=GREEDY)
        next(answer)
        token.cancel("enough")
        with pytest.raises(RunCancelledError, match="enough"):
            list(answer)
        again = model.generate("abc", max_tokens=5, ignore_eos=True, sampling=GREEDY)
        list(again)
        assert again.ids == expected.ids
