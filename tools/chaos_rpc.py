"""Kill, stop and cut RPC servers at random moments of generations.

    python tools/chaos_rpc.py --events 500 --seed 1

A small model is shared out over two servers, each behind a link that can be cut, with a local
device to take over. While it generates, something happens: a server is killed, stopped for a while
or for good, its link is cut or falls silent. Each generation must give the tokens that one device
gives, or one typed error, within its deadline. In the end the server that was never killed must
hold no session's memory, and no more files and little more memory than after its first generation.
Prints what happened as JSON; the exit status is 1 if a rule was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from tests.rpc.models import continuation, write_model  # noqa: E402

from hotplug.backend import DeviceType  # noqa: E402
from hotplug.errors import HotplugError  # noqa: E402
from hotplug.testing.fakes import FakeDevice  # noqa: E402
from hotplug_rpc.addresses import Address  # noqa: E402
from hotplug_rpc.backend import RPCBackend  # noqa: E402
from hotplug_rpc.keys import KeyRing  # noqa: E402
from hotplug_rpc.server.build import Options, build  # noqa: E402
from hotplug_rpc.testing import Link  # noqa: E402

DEADLINE = 20.0
HEARTBEAT = "1.5"
EVENTS = ("kill", "stop", "stop for good", "cut", "silence")
_FORKING = multiprocessing.get_context("forkserver")


def serve(pipe: Pipe, keys: str) -> None:
    """The process of a server."""
    os.environ["HOTPLUG_RPC_HEARTBEAT"] = HEARTBEAT
    device = FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)
    server = build(Options(bind=Address("127.0.0.1", 0)), [device], KeyRing(Path(keys)))
    offer = server.service.shared.offers[0]

    def answer() -> None:
        pipe.send(server.address.port)
        while pipe.recv():
            pipe.send((offer.taken, len(server.service.peers)))

    threading.Thread(target=answer, daemon=True).start()
    server.run()


class Victim:
    """A server process behind a link."""

    def __init__(self, keys: Path) -> None:
        self._keys = keys
        self._start()
        self.link = Link(self.port)

    def _start(self) -> None:
        self.pipe, theirs = _FORKING.Pipe()
        self.process = _FORKING.Process(target=serve, args=(theirs, str(self._keys)), daemon=True)
        self.process.start()
        if not self.pipe.poll(60):
            raise RuntimeError("a server does not start")
        self.port = self.pipe.recv()

    @property
    def address(self) -> str:
        """Of the link."""
        return f"127.0.0.1:{self.link.port}/cpu:0"

    def suffer(self, event: str, seconds: float) -> None:
        """Let something happen; "stop" and "silence" pass after so many seconds."""
        if event == "kill":
            self.process.kill()
            self.process.join(10)
        elif event == "cut":
            self.link.cut()
        elif event == "silence":
            self.link.silence(silent=True)
        else:
            self._signal(signal.SIGSTOP)
            if event == "stop":
                time.sleep(seconds)
                self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self.process.pid or 0), number)

    def recover(self) -> None:
        """As it was before."""
        self.link.silence(silent=False)
        if self.process.is_alive():
            self._signal(signal.SIGCONT)
        else:
            self._start()
            self.link.target = self.port

    def state(self) -> dict[str, int]:
        """What it holds: bytes for sessions, sessions, files, resident bytes."""
        self.pipe.send(True)
        taken, sessions = self.pipe.recv()
        folder = Path(f"/proc/{self.process.pid}")
        found = {"taken": taken, "sessions": sessions}
        if folder.is_dir():
            pages = int((folder / "statm").read_text().split()[1])
            found |= {"files": len(list((folder / "fd").iterdir())), "resident": pages * 4096}
        return found

    def settled(self) -> dict[str, int]:
        """The state once all sessions have ended, and what they held is freed, or ought to be."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            state = self.state()
            if not (state["sessions"] or state["taken"]):
                break
            time.sleep(0.1)
        return state

    def end(self) -> None:
        self.link.close()
        self._signal(signal.SIGCONT)
        self.process.kill()
        self.process.join(10)


def generate(model: Path, victims: list[Victim]) -> list[int]:
    """Over both servers, and a device of this process where they fail."""
    backend = RPCBackend()
    devices = []
    try:
        for victim in victims:
            info = backend.find(victim.address)[0]
            devices.append(backend.open(info))
        local = FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)
        return continuation(model, [*devices, local], (1, 1, 0))
    finally:
        for device in devices:
            device.close()
        backend.close()


class Chaos:
    """Generations, and what came of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.model = write_model(folder / "small.gguf")
        self.expected = continuation(self.model, [FakeDevice("cpu:0", is_host=True)])
        self.victims = [Victim(folder / "keys"), Victim(folder / "keys")]
        self.outcomes: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.broken: list[str] = []
        self.longest = 0.0
        began = time.monotonic()
        if generate(self.model, self.victims) != self.expected:
            self.broken.append("wrong tokens without any event")
        self.usual = time.monotonic() - began

    def round(self) -> None:
        """One generation and one event."""
        event = self.random.choice(EVENTS)
        # The first server is never killed, so that what it holds can be compared.
        victim = self.victims[1 if event == "kill" else self.random.randrange(2)]
        moment = self.random.random() * self.usual
        pause = self.random.random() * 2.5
        timer = threading.Timer(moment, victim.suffer, (event, pause))
        began = time.monotonic()
        timer.start()
        outcome = self._attempt()
        seconds = time.monotonic() - began
        timer.join()
        self.longest = max(self.longest, seconds)
        self.outcomes[f"{event}: {outcome}"] += 1
        if seconds > DEADLINE:
            self.broken.append(f"{event} after {moment:.2f} s: {outcome} took {seconds:.1f} s")
        for one in self.victims:
            one.recover()

    def _attempt(self) -> str:
        try:
            tokens = generate(self.model, self.victims)
        except HotplugError as error:
            self.errors[type(error).__name__] += 1
            return "a typed error"
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.broken.append(f"{error!r:.300}")
            return "another error"
        if tokens != self.expected:
            self.broken.append(f"wrong tokens {tokens}")
            return "wrong tokens"
        return "the right tokens"

    def run(self, events: int) -> dict[str, Any]:
        """So many rounds."""
        before = self.victims[0].settled()
        for _ in range(events):
            self.round()
        if generate(self.model, self.victims) != self.expected:
            self.broken.append("wrong tokens in the end")
        after = self.victims[0].settled()
        if after["taken"] or after["sessions"] or after.get("files", 0) > before.get("files", 0):
            self.broken.append(f"the first server holds {after}, and held {before}")
        return {
            "events": events,
            "outcomes": dict(sorted(self.outcomes.items())),
            "errors": dict(self.errors),
            "longest_seconds": round(self.longest, 2),
            "usual_seconds": round(self.usual, 3),
            "server_before": before,
            "server_after": after,
            "broken": self.broken,
        }


@contextlib.contextmanager
def chaos(seed: int) -> Iterator[Chaos]:
    """Servers and a model, gone afterwards."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ["HOTPLUG_RPC_KEYS"] = str(Path(name) / "keys")
        os.environ["HOTPLUG_RPC_HEARTBEAT"] = HEARTBEAT
        made = Chaos(Path(name), seed)
        try:
            yield made
        finally:
            for victim in made.victims:
                victim.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with chaos(arguments.seed) as made:
        answer = made.run(arguments.events)
    print(json.dumps(answer, indent=1))
    return 1 if answer["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
