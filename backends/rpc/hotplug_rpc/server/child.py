"""One session's process, as `hotplug serve-devices --isolate` starts it. Not for users.

    python -m hotplug_rpc.server.child OPTIONS ADDRESS CLIENT LEDGER ROW

OPTIONS is a JSON object of what `hotplug_rpc.server.build.Options` holds, CLIENT its public
key; LEDGER and ROW are for `hotplug_rpc.server.ledger`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections import deque
from pathlib import Path

import zmq

from hotplug_rpc.server.build import opened, options_from_json, shared_of
from hotplug_rpc.server.ledger import Ledger
from hotplug_rpc.server.log import logging_to_stderr
from hotplug_rpc.server.service import Service

__all__ = ["main"]

_PEER = b"client"
_LOOK_MS = 1000


def main(options: str, address: str, client: str, path: str, row: str) -> int:
    """Serve one session until its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    chosen = options_from_json(options)
    ledger = Ledger(Path(path), int(row), client)
    with (
        logging_to_stderr(as_json=chosen.json_log, quiet=True),
        opened(chosen.devices) as devices,
        contextlib.closing(_Wire(address)) as wire,
    ):
        service = Service(shared_of(chosen, devices, None, ledger), wire.post)
        wire.run(service, client)
    return 0


def _end_with_parent() -> None:
    """The other end of standard input is held by the parent, and by nobody else."""
    sys.stdin.buffer.read()
    os._exit(1)


class _Wire:
    """The socket to the parent, and what other threads want sent through it."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.bind(address)
        self._outbox: deque[list[bytes | bytearray]] = deque()
        self._near, self._far = socket.socketpair()
        for end in (self._near, self._far):
            end.setblocking(False)

    def post(self, peer: bytes, frames: list[bytes | bytearray]) -> None:
        """Send an answer."""
        del peer
        self._outbox.append(frames)
        with contextlib.suppress(BlockingIOError):
            self._far.send(b"x")

    def run(self, service: Service, client: str) -> None:
        """Until the parent ends this process."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._near, zmq.POLLIN)
        while True:
            ready = dict(poller.poll(_LOOK_MS))
            if self._socket in ready:
                frames = self._socket.recv_multipart(copy=False)
                service.handle(_PEER, client, [frame.buffer for frame in frames])
            with contextlib.suppress(BlockingIOError):
                self._near.recv(4096)
            while self._outbox:
                self._socket.send_multipart(self._outbox.popleft())

    def close(self) -> None:
        self._socket.close(linger=0)
        self._near.close()
        self._far.close()
        self._context.term()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
