"""Every failure at every moment on every kind of device ends in the right tokens or in one error.

Real devices compute by their own kernels up to the fault, which a wrapper puts before one of their
steps. What is held on the device is counted: all of it is given back, whatever happened.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.rpc.servers import in_thread

from hotplug.backend import Device
from hotplug.errors import (
    DeviceHungError,
    DeviceLostError,
    ExecutionError,
    HotplugError,
    KernelCompileError,
    OutOfDeviceMemoryError,
)
from hotplug.formats.gguf import GGUFFile
from hotplug.session import Session
from hotplug.settings import Fallback
from hotplug.testing.fakes import FakeDevice
from hotplug.testing.faults import Fault, FaultyDevice, Step
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder
from hotplug_llm.evaluation import Evaluator
from hotplug_rpc.backend import RPCBackend

PROMPT = [(11 * n) % 250 for n in range(20)]
COUNT = 25
SPLIT = {"blk.1.*": "spare", "k.1": "spare", "v.1": "spare"}

FAILURES: dict[str, tuple[Step, type[HotplugError]]] = {
    "compile": ("compile", KernelCompileError),
    "allocation": ("allocate", OutOfDeviceMemoryError),
    "launch": ("run", ExecutionError),
    "copy in": ("write", ExecutionError),
    "copy out": ("read", ExecutionError),
    "hang": ("run", DeviceHungError),
    "lost": ("run", DeviceLostError),
}
MOMENTS = ("load", "prefill", "decode", "copy")
KINDS = ("fake", "opencl", "cuda", "cpu", "rpc")


class Failing:
    """A device that can be made to fail in one way.

    Attributes:
        hits: how often it did.
    """

    def __init__(self, inner: Device, failure: str) -> None:
        self.device = FaultyDevice(inner)
        self.hits = 0
        self._failure = failure
        self._open = threading.Event()

    def begin(self) -> None:
        """Fail from now on."""
        step, _ = FAILURES[self._failure]
        self.device.script.add(Fault(step, self._fail))

    def _fail(self) -> None:
        self.hits += 1
        if self._failure == "hang":
            self._open.wait(60)
            return
        if self._failure == "lost":
            self.device.lose()
        raise FAILURES[self._failure][1](f"{self._failure} failed")

    def have_hung_for_long(self, patch: pytest.MonkeyPatch) -> None:
        """Let hours pass whenever it hangs, so that nobody is taken to hang who is merely slow."""

        class Clock:
            @staticmethod
            def monotonic() -> float:
                return time.monotonic() + 36_000 * self.hits

        patch.setattr("hotplug.session.worker.time", Clock)
        patch.setattr("hotplug.session.worker._pause", lambda until, control: 0.01)
        patch.setattr("hotplug.session.worker._GRACE", 0.1)

    def end(self) -> None:
        """Let a call that hangs come back."""
        self._open.set()


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A device behind a server."""
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("HOTPLUG_RPC_KEYS", str(tmp_path_factory.mktemp("keys")))
        server = stack.enter_context(in_thread([FakeDevice("fake:1")]))
        backend = RPCBackend()
        stack.callback(backend.close)
        device = backend.open(backend.find(f"{server.address.server}/fake:1")[0])
        stack.callback(device.close)
        yield device


@pytest.fixture(scope="module")
def devices(request: pytest.FixtureRequest, opencl_devices: Any) -> Callable[[str], Device]:
    """An opened device of a kind; the same one each time, so that its kernels are compiled once."""
    held: dict[str, Device] = {}
    made = {
        "fake": lambda: FakeDevice("fake:0"),
        "opencl": lambda: _backend("opencl").open(opencl_devices(intel=False)),
        "cuda": lambda: _backend("cuda").open(_backend("cuda").probe()[0]),
        "cpu": lambda: _backend("cpu").open(_backend("cpu").probe()[0]),
        "rpc": lambda: request.getfixturevalue("remote"),
    }

    def of(kind: str) -> Device:
        if kind == "cuda":
            request.getfixturevalue("two_simulated_gpus")
        if kind not in held:
            held[kind] = made[kind]()
        return held[kind]

    return of


def _backend(name: str) -> Any:
    return importlib.import_module(f"hotplug_{name}").backend


@contextlib.contextmanager
def opened(path: Path, devices: Sequence[Device], **options: Any) -> Iterator[Evaluator]:
    with GGUFFile.open(path) as file:
        types = {name: info.type for name, info in file.tensors.items()}
        shape = read_hyperparameters(file.fields())
        decoder = Decoder(shape, types, context=64, cache_dtype="f32", precision="exact")
        weights = {name: file.tensor(name) for name in file.tensors}
        with Session(devices, weights, **options) as session:
            yield Evaluator(session, decoder)


def tokens(evaluator: Evaluator, begins: dict[str, Callable[[], None]]) -> list[int]:
    """A greedy continuation; what is to happen at a moment is called when it comes."""
    begins.get("load", int)()
    evaluator.prepare(9)
    logits = evaluator.last_logits(PROMPT[:9])
    begins.get("prefill", int)()
    logits = evaluator.last_logits(PROMPT[9:])  # a graph of another width: compiled, then run
    ids = [*PROMPT, int(logits.argmax())]
    begins.get("decode", int)()
    while len(ids) < COUNT:
        logits = evaluator.last_logits(ids[len(evaluator.past) :])
        ids.append(int(logits.argmax()))
    return ids


@pytest.fixture(scope="module")
def expected(tiny_model: Path, devices: Callable[[str], Device]) -> list[int]:
    with opened(tiny_model, [devices("cpu")]) as evaluator:
        logits = evaluator.all_logits(PROMPT)
        top = np.sort(logits, axis=1)[:, -2:]
        assert (top[:, 1] - top[:, 0]).min() > 1e-3  # no near-ties to be decided by rounding
    with opened(tiny_model, [devices("cpu")]) as evaluator:
        return tokens(evaluator, {})


def cases() -> Iterator[Any]:
    for kind in KINDS:
        for failure in FAILURES:
            if kind == "cpu" and failure in {"copy in", "copy out", "hang"}:
                continue  # the host reads and writes its own memory, and cannot watch itself hang
            for moment in MOMENTS:
                for policy in ("allow", "error"):
                    marks = [] if _is_quick(kind, failure, moment, policy) else [pytest.mark.slow]
                    name = f"{kind}-{failure}-{moment}-{policy}"
                    yield pytest.param(kind, failure, moment, policy, id=name, marks=marks)


def _is_quick(kind: str, failure: str, moment: str, policy: str) -> bool:
    if kind == "fake":
        return policy == "allow" or moment == "decode"
    if kind == "opencl":
        return (moment in {"decode", "copy"}) and (policy == "allow" or failure == "launch")
    return failure in {"launch", "lost"} and moment == "decode" and policy == "allow"


@pytest.mark.parametrize(("kind", "failure", "moment", "policy"), list(cases()))
def test_matrix(
    tiny_model: Path,
    devices: Callable[[str], Device],
    expected: list[int],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    failure: str,
    moment: str,
    policy: Fallback,
) -> None:
    failing = Failing(devices(kind), failure)
    if failure == "hang":
        failing.have_hung_for_long(monkeypatch)
    spare = devices("cpu") if kind != "cpu" else devices("fake")
    begins = {"decode" if moment == "copy" else moment: failing.begin}
    pins = dict.fromkeys(SPLIT, spare.id) if moment == "copy" else {}
    try:
        with opened(
            tiny_model,
            [failing.device, spare],
            fallback=policy,
            pins=pins,
            device_timeout=600,
        ) as evaluator:
            session = evaluator._session
            if moment == "copy":
                assert set(evaluator.program(10).plan.devices) == {failing.device.id, spare.id}
            if policy == "error":
                with pytest.raises(FAILURES[failure][1]) as caught:
                    tokens(evaluator, begins)
                assert str(caught.value)
            else:
                assert tokens(evaluator, begins) == expected
            assert list(session.failed) == [failing.device.id]
            assert isinstance(session.failed[failing.device.id], FAILURES[failure][1])
        assert failing.hits
    finally:
        failing.end()
    deadline = time.monotonic() + 30
    while failing.device.held or failing.device.executables:
        assert time.monotonic() < deadline, "what the device held was not given back"
        time.sleep(0.01)
