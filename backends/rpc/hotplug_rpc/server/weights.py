"""Weights by hash: shared between sessions, kept on disk, found in model files.

A weight that several sessions use lies on a device once. The cache is a folder of files whose names
are their hashes; each is hashed again when this process first reads it. Devices that compute in
host memory use the file as it lies.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import re
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hotplug.backend import Buffer
from hotplug.errors import RemoteError
from hotplug_rpc.contents import digest_of
from hotplug_rpc.errors import ContentError
from hotplug_rpc.server import unfinished
from hotplug_rpc.server.behind import WriteBehind
from hotplug_rpc.server.model_files import Place, index_models
from hotplug_rpc.server.offers import Offer
from hotplug_rpc.server.transfers import Transfer, Transfers

__all__ = ["SharedWeight", "WeightStore"]

_log = logging.getLogger("hotplug.rpc")

_FILE = re.compile(r"[0-9a-f]{64}")
_PIECE = 16 << 20
_LENT_PIECE = 1 << 20
_DAY = 86400.0

_LOOKS = 32
"""How often a server looks what others put into the cache, while it fills all of it itself."""


@dataclass(slots=True, eq=False)
class SharedWeight:
    """A weight on a device, and how many buffers of sessions it is."""

    offer: Offer
    digest: str
    buffer: Buffer
    users: int = 0


class WeightStore:
    """All weights of a server.

    Args:
        folder: of the cache; None keeps nothing.
        most_bytes: that the cache may take.
        models: GGUF files, whose tensors need not be sent.
    """

    def __init__(
        self, folder: Path | None = None, most_bytes: int = 1 << 36, models: Iterable[Path] = ()
    ) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._transfers = Transfers(folder, most_bytes)
        self._shared: dict[tuple[Offer, str], SharedWeight] = {}
        # Received and on no device yet: who sent them, and those that are not on disk.
        self._senders: dict[str, str] = {}
        self._loose: dict[str, memoryview] = {}
        # Path and hash -> which file that was when it was hashed.
        self._verified: dict[tuple[str, str], tuple[int, ...]] = {}
        self._places: dict[str, Place] = index_models(models, folder)
        self._lock = threading.RLock()
        # Looking through the folder takes long, and other processes' files count when that is done.
        self._written = 0  # since then
        self._kept_bytes = 0 if folder is None else self._evict(folder)
        self._behind = WriteBehind(self._write_behind)

    def acquire(self, offer: Offer, digest: str, nbytes: int) -> SharedWeight | None:
        """A weight on a device; None if its bytes are not here.

        Raises:
            OutOfDeviceMemoryError: the device has no room for it.
        """
        with self._lock:
            shared = self._shared.get((offer, digest))
            if shared is None:
                shared = self._bring(offer, digest, nbytes)
            if shared is None or shared.buffer.nbytes != nbytes:
                return None
            shared.users += 1
            return shared

    def has(self, offer: Offer, digest: str, nbytes: int) -> bool:
        """Whether a weight's bytes are here, so that a device can have it at once."""
        with self._lock:
            here = (offer, digest) in self._shared or (digest, nbytes) in offer.idle
            return here or self._find(digest, nbytes) is not None

    def release(self, shared: SharedWeight) -> None:
        """One buffer less; after the last the device's memory is free again."""
        offer, nbytes = shared.offer, shared.buffer.nbytes
        with self._lock:
            shared.users -= 1
            if shared.users:
                return
            self._shared.pop((offer, shared.digest), None)
        offer.give_back(nbytes)
        offer.idle.put((shared.digest, nbytes), shared, nbytes, shared.buffer.free)

    def _bring(self, offer: Offer, digest: str, nbytes: int) -> SharedWeight | None:
        idle: SharedWeight | None = offer.idle.take((digest, nbytes))
        if idle is not None:
            return self._taken_up(idle)
        data = self._find(digest, nbytes)
        if data is None:
            return None
        offer.take(nbytes)
        try:
            buffer = offer.device.buffers.wrap(data) or _upload(offer, data)
        except BaseException:
            offer.give_back(nbytes)
            raise
        self._loose.pop(digest, None)
        self._senders.pop(digest, None)
        shared = self._shared[offer, digest] = SharedWeight(offer, digest, buffer)
        return shared

    def _taken_up(self, idle: SharedWeight) -> SharedWeight:
        try:
            idle.offer.take(idle.buffer.nbytes)
        except BaseException:
            idle.buffer.free()
            raise
        self._shared[idle.offer, idle.digest] = idle
        return idle

    def _find(self, digest: str, nbytes: int) -> memoryview | None:
        """The bytes, verified; of another device's, the cache's, a model file's."""
        if nbytes == 0:
            return memoryview(b"") if digest == digest_of(memoryview(b"")) else None
        loose = self._loose.get(digest, self._behind.get(digest))
        if loose is not None:
            return loose if loose.nbytes == nbytes else None
        if self._folder is not None:
            found = self._mapped(self._folder / digest, 0, nbytes, digest, whole=True)
            if found is not None:
                return found
        place = self._places.get(digest)
        if place is None or place.nbytes != nbytes:
            return None
        return self._mapped(place.path, place.offset, nbytes, digest, whole=False)

    def _mapped(
        self, path: Path, offset: int, nbytes: int, digest: str, *, whole: bool
    ) -> memoryview | None:
        try:
            with path.open("rb") as file:
                state = os.fstat(file.fileno())
                if state.st_size < offset + nbytes or (whole and state.st_size != nbytes):
                    return None
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return None
        data = memoryview(mapped)[offset : offset + nbytes]
        stamp = _stamp(state, whole=whole)
        if self._verified.get((str(path), digest)) != stamp:
            if digest_of(data) != digest:
                _log.warning("%s does not hold what its name or index says; passed over", path)
                if whole:
                    _remove(path)
                return None
            self._verified[str(path), digest] = stamp
        if whole:
            with contextlib.suppress(OSError):
                os.utime(path)
        return data

    def expect(self, client: str, digest: str, nbytes: int) -> int:
        """A weight is missing and will be sent; returns the bytes that an earlier attempt left."""
        return self._transfers.expect(client, digest, nbytes)

    def receive(self, client: str, digest: str, nbytes: int, offset: int, data: memoryview) -> None:
        """Take a piece of a weight.

        Raises:
            ContentError: it was not expected, leaves a gap, or the whole has another hash.
        """
        transfer = self._transfers.get(client, digest, nbytes)
        whole = transfer.add(offset, data)
        self._count(data.nbytes)
        if whole:
            self._transfers.take_out(client, transfer)
            transfer.check()
            self._keep(client, transfer)

    def receive_from(self, file: int, client: str, digest: str, nbytes: int, offset: int) -> None:
        """Take a weight from an open file, given by its descriptor.

        Raises:
            ContentError: it was not expected, the file is too short, or the hash is another.
        """
        transfer = self._transfers.get(client, digest, nbytes)
        at = transfer.held
        try:
            if os.fstat(file).st_size < offset + nbytes:
                raise ContentError(f"the file that was lent ends before byte {offset + nbytes}")
            if self._folder is not None and at == 0 and self._behind.has_room(nbytes):
                self._read_whole(file, client, transfer, offset)
                return
            while at < nbytes:
                piece = os.pread(file, min(_LENT_PIECE, nbytes - at), offset + at)
                self.receive(client, digest, nbytes, at, memoryview(piece))
                at += len(piece) or nbytes  # it was cut just now
        except RemoteError:  # which is an OSError too
            raise
        except OSError as error:
            raise ContentError(f"the file that was lent cannot be read: {error}") from error

    def _read_whole(self, file: int, client: str, transfer: Transfer, offset: int) -> None:
        """Read into memory, where a device can have it at once; written when there is time."""
        data, at = np.empty(transfer.nbytes, np.uint8).data, 0
        while at < data.nbytes:
            count = os.preadv(file, [data[at : at + _LENT_PIECE]], offset + at)
            at += count or data.nbytes  # it was cut just now
        digest, found = transfer.digest, digest_of(data)
        self._transfers.take_out(client, transfer)
        transfer.drop()
        if found != digest:
            raise ContentError(f"{data.nbytes} bytes have the hash {found}, not {digest}")
        with self._lock:
            self._senders[digest] = client
        self._behind.add(digest, data.toreadonly())

    def _write_behind(self, digest: str, data: memoryview) -> None:
        assert self._folder is not None
        transfer = Transfer(digest, data.nbytes, self._folder / unfinished.own_name(digest))
        transfer.add(0, data)
        self._count(data.nbytes)
        with self._lock:
            if self._named(transfer):
                return
            transfer.drop()
            if digest in self._senders:
                self._loose[digest] = data

    def write_behind(self) -> None:
        """Begin to write what came into memory a while ago."""
        self._behind.flush()

    def close(self) -> None:
        """Write what was not written yet."""
        self._behind.close()

    def _count(self, nbytes: int) -> None:
        """More bytes are in the cache."""
        if self._folder is not None:
            with self._lock:
                self._kept_bytes += nbytes
                self._written += nbytes
                unseen = self._written > self._most_bytes // _LOOKS
                if unseen or self._kept_bytes > self._most_bytes:
                    self._kept_bytes, self._written = self._evict(self._folder), 0

    def _keep(self, client: str, transfer: Transfer) -> None:
        """On disk, or in memory where it has no room there or cannot be written."""
        with self._lock:
            self._senders[transfer.digest] = client
            if not self._named(transfer):
                self._loose[transfer.digest] = memoryview(transfer.content()).toreadonly()

    def _named(self, transfer: Transfer) -> bool:
        """Whether a whole transfer's file is in the cache now."""
        path = None if self._folder is None else self._folder / transfer.digest
        if path is None or self._kept_bytes > self._most_bytes or not transfer.keep_as(path):
            return False
        with contextlib.suppress(OSError):  # removed already by another server
            self._verified[str(path), transfer.digest] = _stamp(path.stat(), whole=True)
        return True

    def outstanding(self, client: str, besides: Collection[str] = ()) -> int:
        """Bytes that a client is sending, or has sent and uses nowhere, besides some of them."""
        with self._lock:
            loose = sum(
                data.nbytes
                for digest, data in self._loose.items()
                if self._senders[digest] == client and digest not in besides
            )
        return loose + self._transfers.outstanding(client, besides)

    def _evict(self, folder: Path) -> int:
        """Remove what the cache has too much, longest unused first, and old unfinished files.

        What was sent and is still to be used stays, or it would have to be sent again.

        Returns:
            The bytes that are there afterwards.
        """
        # Somewhat more than need be, as this must not be done for every piece that comes.
        total, most, now = 0, self._most_bytes - self._most_bytes // 16, time.time()
        files = sorted(_files(folder), reverse=True)
        files.sort(key=lambda file: file[2].name not in self._senders)
        for used, nbytes, path in files:
            awaited = path.name in self._senders
            old = now - used > _DAY and unfinished.NAME.fullmatch(path.name)
            if old or (total + nbytes > most and not awaited):
                _remove(path)
                self._verified.pop((str(path), path.name), None)
            else:
                total += nbytes
        return total

    def forget_client(self, client: str) -> None:
        """A client's last session ended: what it sent and did not use is kept on disk alone."""
        self._transfers.forget(client)
        with self._lock:
            for digest in [d for d, sender in self._senders.items() if sender == client]:
                del self._senders[digest]
                self._loose.pop(digest, None)

    @property
    def shared_bytes(self) -> int:
        """Bytes on devices."""
        with self._lock:
            return sum(shared.buffer.nbytes for shared in self._shared.values())


def _stamp(state: os.stat_result, *, whole: bool) -> tuple[int, ...]:
    """What differs once a file is another one; the cache sets its files' times at every use."""
    return (state.st_ino, state.st_size, 0 if whole else state.st_mtime_ns)


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """When each was last used, its size, and the file."""
    found = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _FILE.fullmatch(path.name) or unfinished.NAME.fullmatch(path.name):
                with contextlib.suppress(OSError):  # another process removes files too
                    state = path.stat()
                    found.append((state.st_mtime, state.st_size, path))
    return found


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # in use, on systems that mind
        path.unlink(missing_ok=True)


def _upload(offer: Offer, data: memoryview) -> Buffer:
    buffer = offer.device.buffers.allocate(data.nbytes)
    try:
        for at in range(0, data.nbytes, _PIECE):
            buffer.write(at, data[at : at + _PIECE])
    except BaseException:
        buffer.free()
        raise
    return buffer
