"""Servers of tests: processes on loopback, or threads of the test's own process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from hotplug.backend import Device
from hotplug_rpc.addresses import Address
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.server.build import Options, build
from hotplug_rpc.server.loop import Server

__all__ = ["ServerProcess", "in_thread", "serve"]

_READY_SECONDS = 60


class ServerProcess:
    """`hotplug serve-devices` as a user starts it.

    Attributes:
        addresses: what a selector says after rpc://, of every device.
        process: the process.
    """

    def __init__(self, *options: str, keys: Path | None = None, port: int = 0) -> None:
        environment = {**os.environ, **({"HOTPLUG_RPC_KEYS": str(keys)} if keys else {})}
        command = [sys.executable, "-m", "hotplug", "serve-devices", *options]
        self.process = subprocess.Popen(
            [*command, "--bind", f"tcp://127.0.0.1:{port}"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self.addresses = [self._first_address()]

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def _first_address(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(_READY_SECONDS)
            self._reader.join(5)
            raise AssertionError(f"the server ended: {''.join(self.log)}")
        return line.strip().removeprefix("serving rpc://")

    @property
    def address(self) -> str:
        """Of its first device."""
        return self.addresses[0]

    @property
    def server(self) -> str:
        """Host and port."""
        return self.address.partition("/")[0]

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server.rpartition(":")[2])

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self, seconds: float = 20) -> int:
        """End it as a service manager does, and if need be by force; the exit code."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if hasattr(signal, "SIGCONT"):
                    self.process.send_signal(signal.SIGCONT)
                self.process.terminate()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.stop()


@contextlib.contextmanager
def serve(*options: str, keys: Path | None = None) -> Iterator[ServerProcess]:
    """A server process inside the context."""
    server = ServerProcess("--quiet", "--drain", "0", *options, keys=keys)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def in_thread(
    devices: Sequence[Device], options: Options | None = None, keys: KeyRing | None = None
) -> Iterator[Server]:
    """A server of this process, with any devices, inside the context."""
    options = options or Options(bind=Address("127.0.0.1", 0))
    server = build(options, devices, keys or KeyRing())
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.drain(0)
        thread.join(20)
        assert not thread.is_alive(), "the server's thread does not end"
