"""One server as the process that starts it sees it: started, announced, ended with its starter."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hotplug.errors import RemoteError, UsageError
from hotplug_rpc.keys import parse_key

__all__ = ["Announcement", "HostServer", "Launcher", "local_command"]

_SECONDS = 120.0
"""That a server may take until it is up."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """A server that is up.

    Attributes:
        host: name or number by which clients reach the machine.
        port: where it listens.
        key: its public key, in hex.
        devices: ids of what it offers.
    """

    host: str
    port: int
    key: str
    devices: tuple[str, ...]

    @property
    def server(self) -> str:
        """Host and port."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Launcher(Protocol):
    """Starts a server on each of some machines."""

    def start(self) -> list[Announcement]:
        """Start them.

        Raises:
            HotplugError: one does not start, or the launcher itself is not to be had.
        """

    def stop(self) -> None:
        """End them; a second call does nothing."""


def local_command(bind: str, words: Sequence[str]) -> list[str]:
    """What starts a server by this Python."""
    return [sys.executable, "-m", "hotplug", *serve_words(bind, words)]


def serve_words(bind: str, words: Sequence[str]) -> list[str]:
    """`serve-devices` as a launcher calls it: it says what it offers, and ends with its starter."""
    return ["serve-devices", "--announce", "--until-eof", "--quiet", "--bind", bind, *words]


class HostServer:
    """A server process whose standard input is ours: it ends when that is closed.

    Args:
        command: starts it, here or by way of another machine.
        host: by which clients reach it.
    """

    def __init__(self, command: Sequence[str], host: str) -> None:
        self._host = host
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise RemoteError(f"{command[0]} cannot be started: {error.strerror}") from error

    def announcement(self) -> Announcement:
        """What it says once it is up.

        Raises:
            RemoteError: it ended instead, or takes too long.
        """
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(_SECONDS, give_up)
        timer.start()
        found = self._first_announcement()
        timer.cancel()
        if found is not None:
            return found
        code = self._process.wait()
        raise RemoteError(
            f"the server on {self._host} was not up after {_SECONDS:g} s"
            if late.is_set()
            else f"the server on {self._host} ended with code {code} before it was up",
            endpoint=self._host,
            remedy="what it said about that stands above",
        )

    def _first_announcement(self) -> Announcement | None:
        """None where its output ends before there is one."""
        assert self._process.stdout is not None
        # A login script may say things first.
        answers = (_announced(line, self._host) for line in self._process.stdout)
        return next(filter(None, answers), None)

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _announced(line: str, host: str) -> Announcement | None:
    try:
        found = json.loads(line)
        devices = tuple(map(str, found["devices"]))
        return Announcement(host, int(found["port"]), parse_key(found["key"]).hex(), devices)
    except (ValueError, TypeError, KeyError, AttributeError, UsageError):
        return None
