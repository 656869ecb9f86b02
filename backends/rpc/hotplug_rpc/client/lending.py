"""Weights of files to a server on the same machine: it is lent the open file instead of the bytes.

Only a server of the same user is, through a socket in a folder that nobody else can enter. What it
reads it hashes, as it does with what is sent.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hotplug.errors import RemoteError
from hotplug.formats.mapping import Origin, Stamp, origin_of
from hotplug_rpc.addresses import is_loopback
from hotplug_rpc.errors import ServerLostError
from hotplug_rpc.requests import Lend

if TYPE_CHECKING:
    from hotplug_rpc.client.connection import Connection

__all__ = ["can_lend", "lend"]

_log = logging.getLogger("hotplug.rpc")

_SECONDS = 5.0
_AT_ONCE = 256 << 20
"""Bytes of weights in one request, which has to be answered in time."""


def can_lend(connection: Connection) -> bool:
    """Whether a server takes open files from this process."""
    if not (connection.door and is_loopback(connection.address.host)):
        return False
    if not (hasattr(socket, "send_fds") and hasattr(os, "getuid")):
        return False
    try:
        door = Path(connection.door)
        folder, end = door.parent.stat(), door.stat()
    except (OSError, ValueError):  # another machine's, at the end of a tunnel
        return False
    private = folder.st_uid == end.st_uid == os.getuid() and not folder.st_mode & 0o077
    return private and stat.S_ISSOCK(end.st_mode)


def lend(connection: Connection, weights: Sequence[tuple[str, memoryview]]) -> Iterator[int]:
    """Have the server read weights, given by hash and bytes, from the files that they are of.

    What cannot be lent is left out.

    Yields:
        Bytes that the server has read.

    Raises:
        ServerLostError: the connection is lost.
    """
    files: dict[Path, list[tuple[str, int, Origin]]] = {}
    for digest, data in weights:
        origin = origin_of(data)
        if origin is not None:
            files.setdefault(origin.path, []).append((digest, data.nbytes, origin))
    for path, rows in files.items():
        try:
            for batch in _batches(rows):
                token = _hand_over(Path(connection.door), path, batch[0][2].stamp)
                parts = [(digest, nbytes, origin.offset) for digest, nbytes, origin in batch]
                connection.request(Lend(token, parts))
                yield sum(nbytes for _, nbytes, _ in batch)
        except ServerLostError:
            raise
        except (OSError, RemoteError) as error:
            _log.info("%s is sent and not lent: %s", path.name, error)


def _batches(rows: list[tuple[str, int, Origin]]) -> Iterator[list[tuple[str, int, Origin]]]:
    start = nbytes = 0
    for at, row in enumerate(rows, start=1):
        nbytes += row[1]
        if nbytes >= _AT_ONCE or at == len(rows):
            yield rows[start:at]
            start, nbytes = at, 0


def _hand_over(door: Path, path: Path, stamp: Stamp) -> str:
    """Give the server a descriptor; returns the name that it now has there.

    Raises:
        OSError: the file is gone or another, or the server does not take it.
    """
    token = secrets.token_bytes(32)
    with path.open("rb") as file, socket.socket(socket.AF_UNIX) as end:
        if Stamp.of(os.fstat(file.fileno())) != stamp:
            raise OSError("the file has changed")
        end.settimeout(_SECONDS)
        end.connect(str(door))
        socket.send_fds(end, [token], [file.fileno()])
        if end.recv(1) != b"+":
            raise OSError("the server does not take it")
    return token.hex()
