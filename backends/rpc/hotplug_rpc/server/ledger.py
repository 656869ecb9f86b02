"""What clients have taken, in all sessions of each, and in processes that know of each other.

With `--isolate` sessions have processes of their own, and budgets hold over all of them together.
They share a file of rows, one for each process: a client's key, how many handles it has, and bytes
for each device. A process writes to its own row alone, and before it looks at the others': of two
that want the last bytes at once neither may get them, but never both.
"""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Account", "Accounts", "Ledger"]

_MOST_DEVICES = 60
_ROW = np.dtype([("client", "u1", 32), ("handles", "<i8"), ("taken", "<i8", _MOST_DEVICES)])


class Ledger:
    """The file as the process of one row sees it.

    Args:
        path: the file, made by `create`.
        row: its own.
        client: whose session it is.
    """

    def __init__(self, path: Path, row: int, client: str) -> None:
        self._rows: Any = np.memmap(path, _ROW, "r+")
        self._row = row
        self._client = np.frombuffer(bytes.fromhex(client), np.uint8)
        self._rows["client"][row] = self._client

    @staticmethod
    def create(path: Path, rows: int) -> None:
        """Make the file, with nothing taken."""
        path.write_bytes(bytes(rows * _ROW.itemsize))

    @staticmethod
    def clear(path: Path, row: int) -> None:
        """A process has ended; what it had taken is free."""
        with path.open("r+b") as file:
            file.seek(row * _ROW.itemsize)
            file.write(bytes(_ROW.itemsize))

    @staticmethod
    def totals(path: Path) -> list[int]:
        """Bytes that all processes together have taken, of each device."""
        taken: list[int] = np.fromfile(path, _ROW)["taken"].sum(axis=0).tolist()
        return taken

    def exchange(self, device: int, nbytes: int) -> int:
        """Tell what is taken of a device here; returns what is taken of it in other processes."""
        if device >= _MOST_DEVICES:
            return 0
        taken = self._rows["taken"][:, device]
        taken[self._row] = nbytes
        return int(taken.sum()) - nbytes

    def set_handles(self, count: int) -> None:
        """Tell how many handles there are here."""
        self._rows["handles"][self._row] = count

    def of_client_elsewhere(self, column: str) -> int:
        """Bytes of all devices, `taken`, or `handles`, that the client has in other processes."""
        same = (self._rows["client"] == self._client).all(axis=1)
        same[self._row] = False
        return int(self._rows[column][same].sum())


class Account:
    """What all sessions of one client have taken. Safe to use from several threads."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self._taken = self._handles = 0
        self._ledger = ledger
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """The bytes."""
        return self._taken + self._elsewhere("taken")

    @property
    def handles(self) -> int:
        """How many buffers and executables there are."""
        return self._handles + self._elsewhere("handles")

    def _elsewhere(self, column: str) -> int:
        return 0 if self._ledger is None else self._ledger.of_client_elsewhere(column)

    def add(self, nbytes: int) -> None:
        """Count more, or with a negative number less."""
        with self._lock:
            self._taken += nbytes

    def add_handles(self, count: int) -> None:
        """The same of buffers and executables."""
        with self._lock:
            self._handles += count
            if self._ledger is not None:
                self._ledger.set_handles(self._handles)


class Accounts:
    """Those of clients that have sessions.

    Args:
        ledger: of what they have taken in other processes.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger
        self._held: weakref.WeakValueDictionary[str, Account] = weakref.WeakValueDictionary()

    def of(self, client: str) -> Account:
        """A client's. Called by one thread."""
        found = self._held.get(client)
        if found is None:
            found = self._held[client] = Account(self.ledger)
        return found
