"""Devices fail, come and go at random while a text is made: every token is the right one."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from hotplug.backend import DeviceType
from hotplug.errors import (
    BackendInUseError,
    DeviceLostError,
    ExecutionError,
    HotplugError,
    KernelCompileError,
    OutOfDeviceMemoryError,
    UsageError,
)
from hotplug.formats.gguf import GGUFFile
from hotplug.registry import Registry
from hotplug.session import Session
from hotplug.testing.fakes import FakeDevice, Fault, fake_backend, fake_registry
from hotplug.testing.faults import Step
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder
from hotplug_llm.evaluation import Evaluator

CONTEXT = 64
STEPS: tuple[Step, ...] = ("memory", "compile", "allocate", "write", "run", "read")
ERRORS = (DeviceLostError, ExecutionError, KernelCompileError, OutOfDeviceMemoryError, OSError)


class Chaos:
    """Five fake devices of three backends, and all that may befall them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cards = [
            FakeDevice(name, memory_bytes=90_000) for name in ("a:0", "a:1", "b:0", "b:1")
        ]
        self.host = FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)
        self.registry: Registry = fake_registry(
            fake_backend("a", *self.cards[:2]),
            fake_backend("b", *self.cards[2:]),
            fake_backend("cpu", self.host),
        )

    def befall(self, session: Session) -> None:
        """Let something happen."""
        events: list[Callable[[Session], object]] = [
            *[self.fault] * 4, *[self.lose] * 2, *[self.restore] * 4, self.remove, self.add,
            self.refresh, self.unload,
        ]  # fmt: skip
        self.random.choice(events)(session)

    def fault(self, session: Session) -> None:
        """One call of a device will fail."""
        card = self.random.choice(self.cards)
        step = self.random.choice(STEPS)
        error = cast("Any", self.random.choice(ERRORS))(f"{step} failed")
        call = card.calls[step] + self.random.randint(1, 4)
        card.add_fault(Fault(step, error, call, self.random.choice((1, 1, 3, None))))

    def lose(self, session: Session) -> None:
        """All of them will."""
        self.random.choice(self.cards).lose()

    def restore(self, session: Session) -> None:
        """A device that failed is repaired and brought back."""
        for name in list(session.quarantine)[:1]:
            for card in self.cards:
                if card.info.id == name:
                    card.revive()
                    card._script.faults.clear()
                    self.quietly(partial(session.restore, name))

    def remove(self, session: Session) -> None:
        """A device is left."""
        device = self.random.choice(session.devices).id
        if device != "cpu:0":
            self.quietly(partial(session.remove_device, device))

    def add(self, session: Session) -> None:
        """Devices of a backend are taken in."""
        self.quietly(partial(session.add_device, self.random.choice("ab")))

    def refresh(self, session: Session) -> None:
        """Somebody looks what there is."""
        self.registry.refresh()

    def unload(self, session: Session) -> None:
        """A backend goes, and is there again, for those who ask for it."""
        name = self.random.choice("ab")
        forced = self.random.random() < 0.5
        self.quietly(partial(self.registry.unload, name, force=forced))
        self.quietly(partial(self.registry.load, name))

    @staticmethod
    def quietly(work: Callable[[], object]) -> None:
        """What cannot be done just now is not: a device is not there, or fails again."""
        try:
            work()
        except (HotplugError, UsageError, BackendInUseError):
            return


def generate(path: Path, chaos: Chaos | None, tokens: int) -> list[int]:
    """Greedy tokens of one text after the other, each of which begins as the last one did."""
    made: list[int] = []
    texts = random.Random(0)
    with GGUFFile.open(path) as file:
        types = {name: info.type for name, info in file.tensors.items()}
        shape = read_hyperparameters(file.fields())
        decoder = Decoder(shape, types, context=CONTEXT, cache_dtype="f32", precision="exact")
        weights = {name: file.tensor(name) for name in file.tensors}
        calm = chaos or Chaos(0)
        with Session(
            "a,b,cpu", weights, registry=calm.registry, fallback="allow", hot_plug=True
        ) as session:
            evaluator = Evaluator(session, decoder)
            ids = [1, 2, 3]
            while len(made) < tokens:
                if chaos is not None:
                    chaos.befall(session)
                held = evaluator.reuse(ids)
                ids.append(int(evaluator.last_logits(ids[held:]).argmax()))
                made.append(ids[-1])
                if len(ids) > CONTEXT - 20:
                    ids = ids[: texts.randint(1, 20)] + [texts.randrange(250) for _ in range(14)]
        assert not any(card.buffers.memory.used for card in (*calm.cards, calm.host))
    return made


@pytest.fixture(scope="module")
def expected(tiny_model: Path) -> list[int]:
    return generate(tiny_model, None, 100)


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 60))]
)
def test_every_token_is_right(
    tiny_model: Path, expected: list[int], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("hotplug.session.copies._EVERY", random.Random(seed).choice((4, 16, 64)))
    assert generate(tiny_model, Chaos(seed), len(expected)) == expected
