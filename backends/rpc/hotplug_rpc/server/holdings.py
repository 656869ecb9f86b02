"""What one session holds: buffers, executables, and the memory they take.

Every handle and range is checked here before a device is asked to touch anything.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from hotplug.backend import Buffer, Executable
from hotplug.errors import ExecutionError, OutOfDeviceMemoryError, UsageError
from hotplug.graph import Graph
from hotplug_rpc.errors import LimitError, ProtocolError
from hotplug_rpc.server.ledger import Account
from hotplug_rpc.server.limits import Limits
from hotplug_rpc.server.offers import Offer

__all__ = ["HeldBuffer", "HeldExecutable", "Holdings", "needs_of"]

T = TypeVar("T")

_KEEPING = threading.Lock()
"""Of all buffers, since one of each would cost memory."""

_NODES = 256
"""Of an executable that cost as much of the host's memory as a weight."""


@dataclass(slots=True, eq=False)
class HeldBuffer:
    """A buffer of a session.

    Attributes:
        release: gives it back.
        weight: whether it is one that others may share, which nobody reads or writes.
    """

    offer: Offer
    buffer: Buffer
    release: Callable[[], None]
    weight: bool = False
    _keepers: int = 0
    _over: bool = False

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """What another lane frees meanwhile is released afterwards.

        Raises:
            UsageError: it was freed before.
        """
        with _KEEPING:
            if self._over:
                raise UsageError("the buffer was freed")
            self._keepers += 1
        try:
            yield
        finally:
            with _KEEPING:
                self._keepers -= 1
                due = self._is_due
            if due:
                self.release()

    def let_go(self) -> None:
        """Release it, once nobody keeps it."""
        with _KEEPING:
            self._over = True
            due = self._is_due
        if due:
            self.release()

    @property
    def _is_due(self) -> bool:
        return self._over and not self._keepers

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self.buffer.nbytes

    def check_range(self, offset: int, nbytes: int) -> None:
        """Refuse what does not lie within, and any access to a weight.

        Raises:
            UsageError: as said.
        """
        if self.weight:
            raise UsageError("a weight is neither read nor written")
        if offset + nbytes > self.nbytes:
            raise UsageError(
                f"bytes {offset} to {offset + nbytes} do not lie within a buffer of {self.nbytes}"
            )

    def read(self, offset: int, nbytes: int) -> bytes | bytearray:
        """A copy of a range that was checked."""
        host = self.buffer.host()
        if host is not None:
            return bytes(host[offset : offset + nbytes])
        data = bytearray(nbytes)
        self.buffer.read(offset, memoryview(data))
        return data


@dataclass(slots=True, eq=False)
class HeldExecutable:
    """An executable of a session.

    Attributes:
        needs: name of a leaf or output -> bytes, and whether a run writes it.
        key: what an equal one has in common with it.
        nodes: of its graph.
        bound: buffers by name, once they are known.
        handles: theirs.
    """

    offer: Offer
    executable: Executable
    needs: Mapping[str, tuple[int, bool]]
    nbytes: int
    key: tuple[str, int | None]
    nodes: int
    bound: dict[str, Buffer] | None = None
    handles: frozenset[int] = frozenset()


class Holdings:
    """All that a session holds. Safe to use from several threads.

    Args:
        limits: of the session.
        account: what its client has taken in all of its sessions.
    """

    def __init__(self, limits: Limits, account: Account) -> None:
        self._limits = limits
        self._account = account
        self._buffers: dict[int, HeldBuffer] = {}
        self._executables: dict[int, HeldExecutable] = {}
        self._nodes = 0
        self._lock = threading.RLock()

    # Memory

    def take(self, offer: Offer, nbytes: int, *, shared: bool = False) -> None:
        """Count bytes as this client's, and the device's if they are not counted there already.

        Raises:
            OutOfDeviceMemoryError: they are more than the client or the device may have.
        """
        self._account.add(nbytes)  # first, as other sessions of the client may do so now
        try:
            self._check_account(offer, nbytes)
            if not shared:
                offer.take(nbytes)
        except BaseException:
            self._account.add(-nbytes)
            raise

    def _check_account(self, offer: Offer, nbytes: int) -> None:
        most = self._limits.client_bytes
        if most is None or self._account.taken <= most:
            return
        left = max(0, most - self._account.taken + nbytes)
        raise OutOfDeviceMemoryError(
            f"this client may take {left} bytes more, {nbytes} needed",
            device=offer.id,
            requested=nbytes,
            free=left,
        )

    def give_back(self, offer: Offer, nbytes: int, *, shared: bool = False) -> None:
        """Undo `take`."""
        self._account.add(-nbytes)
        if not shared:
            offer.give_back(nbytes)

    @property
    def left(self) -> int | None:
        """Bytes that the client may still take; None for no limit of its own."""
        most = self._limits.client_bytes
        return None if most is None else max(0, most - self._account.taken)

    # Handles

    def add_buffer(self, handle: int, held: HeldBuffer) -> None:
        """Keep a buffer under a handle; see `check_new_buffer`.

        Raises:
            ProtocolError: another lane was faster; the buffer is released.
        """
        with self._lock:
            if self._buffers.setdefault(handle, held) is held:
                self._account.add_handles(1)
                return
        held.release()
        raise _in_use("buffer", handle)

    def check_new_buffer(self, handle: int) -> None:
        """Refuse a handle in use, and one too many.

        Raises:
            ProtocolError, LimitError: as said.
        """
        self._check_new(self._buffers, handle, "buffer")

    def add_executable(self, handle: int, held: HeldExecutable) -> None:
        """Keep an executable under a handle; raises as for buffers."""
        with self._lock:
            if self._executables.setdefault(handle, held) is held:
                self._nodes += held.nodes
                self._account.add_handles(1)
                return
        self._end(held)
        raise _in_use("executable", handle)

    def check_new_executable(self, handle: int) -> None:
        """As for buffers."""
        self._check_new(self._executables, handle, "executable")

    def check_new_nodes(self, count: int) -> None:
        """Refuse executables that are too many because they are large.

        Raises:
            LimitError: as said.
        """
        most, given = self._limits.compiled_nodes, self._nodes + count
        if given > most:
            raise LimitError(
                f"the executables of a session have at most {most} nodes", limit=most, given=given
            )

    def _check_new(self, table: Mapping[int, object], handle: int, what: str) -> None:
        if handle in table:
            raise _in_use(what, handle)
        most, given = self._limits.handles, self._account.handles + 1
        if given > most:
            raise LimitError(
                f"all sessions of a client have at most {most} buffers and executables together",
                limit=most,
                given=given,
            )

    def buffer(self, handle: int, offer: Offer | None = None) -> HeldBuffer:
        """The buffer of a handle, on a device if one is given.

        Raises:
            UsageError: there is none, or it lies on another device.
        """
        return _on(self._buffers.get(handle), f"buffer {handle}", offer)

    def executable(self, handle: int, offer: Offer) -> HeldExecutable:
        """The executable of a handle; as for `buffer`."""
        return _on(self._executables.get(handle), f"executable {handle}", offer)

    def bind(self, offer: Offer, executable: int, names: Mapping[str, int]) -> None:
        """Set the buffers that an executable runs with.

        Raises:
            ExecutionError: a buffer is missing or too small, or one that is written is a weight.
            UsageError: a handle is not there, or on another device.
        """
        held = self.executable(executable, offer)
        missing = held.needs.keys() - names.keys()
        if missing:
            raise ExecutionError(f"there is no buffer for {min(missing)!r}", device=offer.id)
        used = {name: self.buffer(names[name], offer) for name in held.needs}
        for name, (nbytes, written) in held.needs.items():
            _check_bound(name, used[name], nbytes, written=written)
        held.bound = {name: item.buffer for name, item in used.items()}
        held.handles = frozenset(names[name] for name in held.needs)

    def bound(self, executable: int, offer: Offer) -> tuple[Executable, dict[str, Buffer]]:
        """An executable and its buffers.

        Raises:
            UsageError: it is not there, was never bound, or a buffer of it was freed since.
        """
        held = self.executable(executable, offer)
        if held.bound is None:
            raise UsageError(f"executable {executable} has no buffers, or one of them was freed")
        return held.executable, held.bound

    # Ends

    def free(self, offer: Offer, buffers: list[int], executables: list[int]) -> None:
        """Give handles of a device back; those that are not there are passed over."""
        with self._lock:
            gone = {h for h in buffers if (b := self._buffers.get(h)) and b.offer is offer}
            ended = {h for h in executables if (e := self._executables.get(h)) and e.offer is offer}
            for executable in self._executables.values():
                if executable.handles & gone:
                    executable.bound, executable.handles = None, frozenset()
            released = [self._buffers.pop(h) for h in gone]
            finished = [self._executables.pop(h) for h in ended]
            self._nodes -= sum(held.nodes for held in finished)
            self._account.add_handles(-len(released) - len(finished))
        for held in finished:
            self._end(held)
        for item in released:
            item.let_go()

    def _end(self, held: HeldExecutable) -> None:
        self.give_back(held.offer, held.nbytes)
        executable = held.executable
        if executable.unbind():
            cost = 1 + held.nodes // _NODES
            held.offer.idle.put(held.key, executable, held.nbytes, executable.free, cost)
        else:
            executable.free()

    def free_all(self, offer: Offer) -> None:
        """Give back all that lies on a device."""
        buffers = [h for h, b in tuple(self._buffers.items()) if b.offer is offer]
        executables = [h for h, e in tuple(self._executables.items()) if e.offer is offer]
        self.free(offer, buffers, executables)

    @property
    def counts(self) -> tuple[int, int]:
        """Buffers and executables."""
        return len(self._buffers), len(self._executables)


def needs_of(graph: Graph) -> dict[str, tuple[int, bool]]:
    """What a graph's executable is bound to: name -> bytes, and whether they are written."""
    written = {name for name, _ in graph.updates}
    needs = {n.name: (n.type.nbytes, n.name in written) for n in graph.nodes if n.is_leaf}
    needs.update({f"output:{name}": (node.type.nbytes, True) for name, node in graph.outputs})
    return needs


def _in_use(what: str, handle: int) -> ProtocolError:
    return ProtocolError(f"there is a {what} {handle} already")


def _on(held: T | None, what: str, offer: Offer | None) -> T:
    if held is None:
        raise UsageError(f"there is no {what}; it was never made, or freed")
    if offer is not None and getattr(held, "offer", offer) is not offer:
        raise UsageError(f"{what} is not on {offer.id}")
    return held


def _check_bound(name: str, held: HeldBuffer, nbytes: int, *, written: bool) -> None:
    if held.nbytes < nbytes:
        raise ExecutionError(
            f"the buffer of {name!r} has {held.nbytes} bytes instead of {nbytes}",
            device=held.offer.id,
        )
    if written and held.weight:
        raise ExecutionError(
            f"{name!r} is written and cannot be bound to a weight", device=held.offer.id
        )
