"""Send an RPC server broken messages, by the million.

    python tools/fuzz_rpc.py --messages 2000000 --handshakes 2000 --seed 1

Damaged messages (fuzz_rpc_messages.py) go straight into the server's dispatcher, whose device is a
fake with a megabyte of memory. Nothing may be raised, no request may hang, what a session holds
must stay within its limits, and after every thousand messages another session's run must give the
right result.

Handshakes go over real sockets, some cut short and left open, while a client with a key goes on
computing. Prints what happened as JSON; the exit status is 1 if a rule was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from fuzz_rpc_messages import MEMORY, Fuzzer, doubled

from hotplug.backend import Partition
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.addresses import Address
from hotplug_rpc.client.connection import Connection
from hotplug_rpc.client.device import RemoteDevice
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.server.build import Options, build
from hotplug_rpc.server.loop import Server


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A real server with a fake device, in a thread."""
    options = Options(bind=Address("127.0.0.1", 0))
    server = build(options, [FakeDevice("fake:0", memory_bytes=MEMORY)], KeyRing(folder))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.drain(0)
        thread.join(20)


def greeting(random_: random.Random, mechanism: bytes = b"CURVE") -> bytes:
    """ZMTP 3.1's greeting and the beginning of CURVE's HELLO. Source: https://rfc.zeromq.org/spec/37/"""
    head = b"\xff" + bytes(7) + b"\x01\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes(32)
    hello = b"\x05HELLO" + b"\x01\x00" + bytes(72) + random_.randbytes(32 + 8 + 80)
    return head + b"\x04" + bytes([len(hello)]) + hello


def handshakes(address: Address, count: int, half_open: int, seed: int) -> None:
    """Broken handshakes one after the other, beside many that are begun and left open."""
    random_ = random.Random(seed)
    with contextlib.ExitStack() as stack:
        for _ in range(half_open):
            raw = stack.enter_context(socket.create_connection((address.host, address.port), 10))
            raw.sendall(greeting(random_)[: random_.randrange(64)])
        for _ in range(count):
            data = bytearray(greeting(random_, random_.choice((b"CURVE", b"NULL", b"PLAIN", b"X"))))
            for _ in range(random_.randrange(4)):
                data[random_.randrange(len(data))] = random_.randrange(256)
            with (
                contextlib.suppress(OSError),
                socket.create_connection((address.host, address.port), 10) as raw,
            ):
                raw.settimeout(0.01)
                raw.sendall(bytes(data[: random_.randrange(1, len(data) + 1)]))
                with contextlib.suppress(TimeoutError):
                    raw.recv(4096)


def fuzz_handshakes(count: int, half_open: int, seed: int) -> dict[str, Any]:
    """Rounds that a client with a key made meanwhile, and what came of memory and files."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "keys") as server:
        ring = KeyRing(Path(folder) / "keys")
        with contextlib.closing(_Client(server.address, ring)) as client:
            client.round()
            before = open_files()
            attack = threading.Thread(
                target=handshakes, args=(server.address, count, half_open, seed), daemon=True
            )
            attack.start()
            rounds = 0
            while attack.is_alive():
                client.round()
                rounds += 1
            deadline = time.monotonic() + 20
            while open_files() > before and time.monotonic() < deadline:
                client.round()
                time.sleep(0.1)
            return {
                "handshakes": count,
                "half_open": half_open,
                "rounds_of_another_client": rounds,
                "files_left": max(0, open_files() - before),
            }


class _Client:
    """Doubles numbers over there."""

    def __init__(self, address: Address, ring: KeyRing) -> None:
        identity = ring.identity()
        self._connection = Connection(address, identity.public, identity, 20)
        info = self._connection.describe(0, 0)
        self._device = RemoteDevice(info, self._connection, 0, self._connection.leave)
        graph = doubled()
        self._executable = self._device.compile(Partition(graph))
        allocate = self._device.buffers.allocate
        self._bindings = {"x": allocate(32), "output:y": allocate(32)}
        self._x = np.arange(8, dtype=np.float32)

    def round(self) -> None:
        self._bindings["x"].write(0, self._x.data)
        self._executable.run(self._bindings)
        got = np.empty(8, np.float32)
        self._bindings["output:y"].read(0, got.data)
        assert (got == 2 * self._x).all(), "another client's result is wrong"

    def close(self) -> None:
        self._device.close()


def open_files() -> int:
    process = psutil.Process()
    return int(process.num_handles() if sys.platform == "win32" else process.num_fds())


def fuzz_messages(count: int, seed: int) -> dict[str, Any]:
    fuzzer = Fuzzer(seed)
    warm = min(count // 10, 100_000)
    fuzzer.run(warm)
    process = psutil.Process()
    before, began = process.memory_info().rss, time.perf_counter()
    fuzzer.run(count - warm)
    seconds = time.perf_counter() - began
    fuzzer.service.close()
    return {
        "messages": count,
        "messages_per_second": round((count - warm) / seconds) if seconds else 0,
        "answers": dict(fuzzer.answers.most_common()),
        "growth_bytes": process.memory_info().rss - before,
        "broken": fuzzer.broken,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=2_000_000)
    parser.add_argument("--handshakes", type=int, default=2000)
    parser.add_argument("--half-open", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    answer = {
        "dispatcher": fuzz_messages(arguments.messages, arguments.seed),
        "sockets": fuzz_handshakes(arguments.handshakes, arguments.half_open, arguments.seed),
    }
    print(json.dumps(answer, indent=1))
    return 1 if answer["dispatcher"]["broken"] or answer["sockets"]["files_left"] else 0


if __name__ == "__main__":
    sys.exit(main())
