"""Exchanges of a warp or block (PTX ISA, "shfl.sync", "vote.sync", "redux.sync", "bar")."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hotplug.testing.ptx.batch import WARP, Batch
from hotplug.testing.ptx.errors import DivergenceFault, KernelFault
from hotplug.testing.ptx.memory import Site, Space
from hotplug.testing.ptx.types import Lanes, Value

__all__ = [
    "active",
    "atomic",
    "block_wide",
    "members",
    "reduce",
    "shuffle",
    "trap",
    "vote",
]

_UNDEFINED = np.uint32(0xFFFFFFFF)
_Bits = npt.NDArray[np.uint32]


class _Warps:
    """The threads at an instruction by their warps: a table of warps x 32 places."""

    def __init__(self, batch: Batch, lanes: Lanes) -> None:
        self._batch = batch
        self._lanes = batch.every if lanes is None else lanes
        per_block = -(-batch.geometry.threads // WARP)
        warps = (batch.block - batch.block.min()) * per_block + batch.thread // WARP
        self.warp = warps[self._lanes]
        self.lane = (batch.thread % WARP)[self._lanes]
        self.count = int(warps.max()) + 1
        self._everyone = self._bits(warps[batch.alive], (batch.thread % WARP)[batch.alive])

    def bits(self, condition: Value) -> _Bits:
        """Of each warp, the threads for which something holds, as a mask."""
        condition = np.broadcast_to(condition, self.warp.shape)
        return self._bits(self.warp[condition], self.lane[condition])

    def _bits(self, warp: Value, lane: Value) -> _Bits:
        weights = np.left_shift(np.int64(1), lane).astype(np.float64)
        return np.bincount(warp, weights, self.count).astype(np.uint32)

    def check(self, mask: Value) -> _Bits:
        """Everybody that a thread waits for must be here; gives the masks of those that are.

        Raises:
            DivergenceFault: somebody is not.
        """
        mask = np.broadcast_to(mask, self.warp.shape)
        here = self.bits(np.True_)
        own = (mask >> self.lane.astype(np.uint32)) & np.uint32(1)
        missing = mask & self._everyone[self.warp] & ~here[self.warp]
        wrong = (own == 0) | (missing != 0)
        if wrong.any():
            self._fault(int(np.argmax(wrong)), mask, here)
        return here

    def _fault(self, index: int, mask: Value, here: _Bits) -> None:
        who = self._batch.name(int(self._lanes[index]))
        raise DivergenceFault(
            f"{self._batch.geometry.kernel}: at an exchange of a warp {who} waits for the threads "
            f"{int(mask[index]):#010x}, but at it are {int(here[self.warp[index]]):#010x}"
        )

    def table(self, value: Value, fill: Any) -> Value:
        """Values by warp and place."""
        table = np.full((self.count, WARP), fill, value.dtype)
        table[self.warp, self.lane] = value
        return table


def members(batch: Batch, lanes: Lanes, mask: Value) -> None:
    """All threads of a mask are here (bar.warp.sync)."""
    _Warps(batch, lanes).check(mask)


def active(batch: Batch, lanes: Lanes) -> Value:
    """The threads of the warp that are here."""
    warps = _Warps(batch, lanes)
    return warps.bits(np.True_)[warps.warp]


def shuffle(
    batch: Batch, lanes: Lanes, mode: str, value: Value, b: Value, c: Value, mask: Value
) -> tuple[Value, Value]:
    """Another thread's value, and whether the thread that is asked for is in the segment.

    The value of a thread that takes no part is undefined: here all bits are set, which is NaN.
    """
    warps = _Warps(batch, lanes)
    warps.check(mask)
    lane = warps.lane
    b, c = np.asarray(b).astype(np.int64), np.asarray(c).astype(np.int64)
    step, bound, segment = b & 31, c & 31, c >> 8 & 31
    most = (lane & segment) | (bound & ~segment)
    if mode == "up":
        source = lane - step
        valid = source >= most
    elif mode == "down":
        source = lane + step
        valid = source <= most
    elif mode == "bfly":
        source = lane ^ step
        valid = source <= most
    else:
        source = (lane & segment) | (step & ~segment)
        valid = source <= most
    source = np.where(valid, source, lane)
    return warps.table(value, _UNDEFINED)[warps.warp, source], valid


def vote(batch: Batch, lanes: Lanes, mode: str, predicate: Value, mask: Value) -> Value:
    """What a warp's threads say together."""
    warps = _Warps(batch, lanes)
    here = warps.check(mask)[warps.warp] & mask
    yes = warps.bits(predicate)[warps.warp] & mask
    if mode == "ballot":
        return yes
    if mode == "any":
        return yes != 0
    return yes == here if mode == "all" else (yes == here) | (yes == 0)


def reduce(batch: Batch, lanes: Lanes, operation: str, value: Value, mask: Value) -> Value:
    """A sum or the like over the threads of a mask (redux.sync)."""
    warps = _Warps(batch, lanes)
    warps.check(mask)
    limits = np.iinfo(value.dtype)
    neutral = {"min": limits.max, "max": limits.min, "and": -1 if limits.min else limits.max}
    function = {
        "add": np.add, "min": np.minimum, "max": np.maximum,
        "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    }[operation]  # fmt: skip
    fill = value.dtype.type(neutral.get(operation, 0))
    mask = np.broadcast_to(mask, warps.warp.shape)
    result = np.empty(warps.warp.shape, value.dtype)
    for each in np.unique(mask):
        chosen = mask == each
        members_ = (each >> np.arange(WARP, dtype=np.uint32)) & np.uint32(1)
        table = np.where(members_ == 1, warps.table(value, fill), fill)
        result[chosen] = function.reduce(table, axis=1, dtype=value.dtype)[warps.warp[chosen]]
    return result


def block_wide(batch: Batch, lanes: Lanes, operation: str, predicate: Value) -> Value:
    """How many threads of the block say yes, or whether all or any do (bar.red)."""
    block = (batch.block if lanes is None else batch.block[lanes]) - batch.block.min()
    yes = np.bincount(block, np.broadcast_to(predicate, block.shape))[block]
    if operation == "popc":
        return yes.astype(np.uint32)
    return yes > 0 if operation == "or" else yes == batch.geometry.threads


def atomic(
    batch: Batch, lanes: Lanes, space: Space, site: Site, operation: str, address: Value,
    *operands: Value,
) -> Value:  # fmt: skip
    """An atomic operation; of threads at the same address the lowest goes first."""
    lanes = batch.every if lanes is None else lanes
    address = np.broadcast_to(address, lanes.shape)
    operands = tuple(np.broadcast_to(operand, lanes.shape) for operand in operands)
    before = np.zeros(lanes.shape, site.dtype)
    left = np.arange(len(lanes))
    while left.size:
        # Of each address, or of each block's, the first thread that is left.
        keys = np.stack(
            [address[left], batch.block[lanes[left]], _thread(site, batch, lanes[left])]
        )
        _, first = np.unique(keys if _is_private(site) else keys[:1], axis=1, return_index=True)
        now = left[first]
        before[now] = space.load(site, address[now], lanes[now])
        after = _changed(operation, before[now], *(operand[now] for operand in operands))
        space.store(site, address[now], after.astype(site.dtype), lanes[now])
        left = np.delete(left, first)
    return before


def _is_private(site: Site) -> bool:
    """Whether the same address may be another byte for another block."""
    return "global" not in site.instruction.modifiers


def _thread(site: Site, batch: Batch, lanes: npt.NDArray[np.intp]) -> Value:
    return np.zeros_like(lanes) if _is_private(site) else batch.thread[lanes]


def _changed(operation: str, old: Value, value: Value, *more: Value) -> Value:
    if operation == "cas":
        return np.where(old == value, more[0], old)
    if operation == "inc":
        return np.where(old >= value, old.dtype.type(0), old + old.dtype.type(1))
    if operation == "dec":
        return np.where((old == 0) | (old > value), value, old - old.dtype.type(1))
    if operation == "exch":
        return value
    function = {
        "add": np.add, "min": np.minimum, "max": np.maximum,
        "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    }[operation]  # fmt: skip
    return function(old, value)


def trap(batch: Batch, lanes: Lanes, line: int) -> None:
    """The program gives up.

    Raises:
        KernelFault: always.
    """
    who = batch.name(0 if lanes is None else int(lanes[0]))
    raise KernelFault(f"{batch.geometry.kernel}: {who} executes the trap in line {line}")
