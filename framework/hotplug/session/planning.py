"""How a session places its graphs: by wishes, measured speeds, and what is stored where."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hotplug.backend import Device, DeviceInfo, MemoryInfo
from hotplug.errors import (
    DeviceNotFoundError,
    PinError,
    PlacementError,
    UnsupportedOpError,
    UsageError,
)
from hotplug.graph import Graph
from hotplug.placement import (
    Plan,
    Rates,
    Wishes,
    checked_shares,
    known_rates,
    pins_for,
    place,
)
from hotplug.placement.cost import Peers
from hotplug.placement.cost import rates as stated
from hotplug.placement.outline import alike
from hotplug.placement.schedule import balanced_shares
from hotplug.registry.choice import among
from hotplug.session.fleet import Fleet
from hotplug.session.links import Links
from hotplug.session.recovery import Recovery
from hotplug.session.sharing import Shared, Sharing
from hotplug.session.storage import Storage
from hotplug.session.watch import Watch

__all__ = ["Planner"]

_log = logging.getLogger("hotplug.session")


class Planner:
    """Makes the plans of one session, so that all its graphs find weights where they are."""

    def __init__(
        self,
        fleet: Fleet,
        storage: Storage,
        recovery: Recovery,
        wishes: Wishes,
        sharing: Sharing,
        watch: Watch,
        threads: int | None,
    ) -> None:
        self._fleet = fleet
        self._storage = storage
        self._recovery = recovery
        self._wishes = wishes
        self._sharing = sharing
        self._watch = watch
        self._threads = threads
        self._links = Links(fleet)
        self._rates: dict[str, Rates | None] = {}
        self._like: Plan | None = None  # by which later graphs are placed
        self._workload: Mapping[Graph, float] = {}
        self._settled_for: tuple[str, ...] = ()
        self._settled: Plan | None = None
        self._balanced: dict[str, float] = {}
        self._balances = sharing.mode == "pipeline"
        self._met_a_graph = False
        self._noted: set[tuple[str, str]] = set()  # (device, op) of fallbacks that were logged
        self._shares: dict[str, float] = {}

    def check(self) -> None:
        """Check that the wishes are about the devices in use, which they name by any selector.

        Of two budgets of one device the smaller one counts.

        Raises:
            DeviceNotFoundError: a device that they name is not, or is several.
            SelectorError: what shall name a device cannot.
            UsageError: there are more or fewer shares than devices, or a budget is no number.
        """
        wishes = self._wishes
        if wishes.shares is not None:
            shares = checked_shares(wishes.shares, len(self._fleet.members))
            self._shares = dict(zip(self._fleet.members, shares, strict=True))
        pins = {pin: self._in_use(f"the pin {pin!r}", at) for pin, at in wishes.pins.items()}
        limits: dict[str, int] = {}
        for at, most in wishes.limits.items():
            if not isinstance(most, int) or most < 0:
                raise UsageError(f"a budget is a number of bytes, not {most!r} of {at}")
            device = self._in_use("a budget", at)
            limits[device] = min(most, limits.get(device, most))
        self._wishes = replace(wishes, pins=pins, limits=limits)

    def _in_use(self, what: str, selector: str) -> str:
        """Id of the one device in use that a selector names."""
        found = self._among(what, selector)
        if len(found) == 1:
            return found[0].id
        raise self._unclear(what, selector, f"{' and '.join(i.id for i in found)}: name one")

    def _among(self, what: str, selector: str) -> Sequence[DeviceInfo]:
        """Those of the devices in use that a selector names."""
        found = among([device.info for device in self._fleet.devices], selector)
        if found:
            return found
        used = ", ".join(self._fleet.members)
        raise self._unclear(what, selector, f"not among the devices in use: {used}")

    def _unclear(self, what: str, selector: str, why: str) -> DeviceNotFoundError:
        return DeviceNotFoundError(
            f"{what} names {selector}, which is {why}",
            device=selector,
            available=tuple(self._fleet.members),
        )

    def options(self, selector: str) -> dict[str, Any]:
        """Options of a session that has some of the devices alone, and the same wishes about these.

        Raises:
            SelectorError, DeviceNotFoundError: the selector names none of the devices in use.
        """
        infos = self._among("the plan", selector)
        ids, wishes = {info.id for info in infos}, self._wishes
        shares = [self._shares.get(info.id, 0.0) for info in infos]
        return {
            "device": [self._fleet.members[info.id].device for info in infos],
            "pins": {pin: at for pin, at in wishes.pins.items() if at in ids},
            "budgets": {at: most for at, most in wishes.limits.items() if at in ids},
            "split": shares if any(shares) else None,
            "threads": self._threads,
            "host_experts": self._sharing.host_experts,
            "device_timeout": self._fleet.timeout,
        }

    def place(self, graph: Graph) -> Plan:
        """Where a graph runs.

        Raises:
            PlacementError: it cannot be placed.
            StatesLostError: states are in other pieces than it would have them in.
            DeviceFault: a device that was asked failed.
        """
        if self._workload and self._settled_for != tuple(self._fleet.members):
            self.settle(self._workload)  # devices have come or gone since
        settled = self._settled
        if settled is not None and settled.graph == graph and not self._storage.homes():
            return settled  # which has the reasons, too
        return self._placed(graph)

    def _placed(self, graph: Graph, workload: Mapping[Graph, float] | None = None) -> Plan:
        devices = self._fleet.devices
        if not devices:
            reasons = {name: str(q.error) for name, q in self._fleet.quarantined.items()}
            raise PlacementError("no device is left", reasons=reasons)
        rates = {device.id: self._known(device) or stated(device.info) for device in devices}
        peers = self._links.among(rates)
        wishes = self._wishes_for(graph, rates)
        shared = self._shared(graph, rates, peers, wishes)
        others = {
            self._shared(one, rates, peers, wishes).graph: n for one, n in (workload or {}).items()
        }
        self._storage.cut(shared.cuts)
        if self._storage.is_divided_otherwise(shared.graph):
            self._recovery.lose_states("they are divided anew among devices")
        if self._sharing.mode == "tensor":
            wishes = replace(wishes, shares=None)
        memory = {device.id: self._fleet.ask(device.id, device.memory) for device in devices}
        budgets = {device.id: self._budget(device, memory[device.id]) for device in devices}

        def placed(like: Plan | None, wishes: Wishes) -> Plan:
            return place(
                shared.graph,
                devices,
                wishes=wishes,
                budgets=budgets,
                settled=self._storage.homes(),
                like=like,
                speeds=rates,
                workload={one: n for one, n in others.items() if alike(one, shared.graph)} or None,
                peers=peers,
                fixed=shared.devices,
                eager=self._sharing.mode == "tensor",
            )

        try:
            plan = placed(self._like, wishes)
        except PinError:
            raise
        except PlacementError:
            own = wishes.shares is not None and not any(self._shares.values())
            if self._like is None and not own:
                raise
            # There is less room than there was, or than devices that are equally busy take.
            self._like, self._balances = None, False
            plan = placed(None, replace(wishes, shares=None) if own else wishes)
        self._note(plan)
        return replace(plan, free={name: info.free for name, info in memory.items()})

    def _note(self, plan: Plan) -> None:
        """Log once what devices do not run, so that it runs on one of those named after them.

        Raises:
            UnsupportedOpError: the session does not allow that.
        """
        for (device, op), count in plan.stats.fallbacks.items():
            if self._recovery.fallback == "error":
                why = plan.stats.reasons[device, op]
                raise UnsupportedOpError(
                    f"{device} does not run {op}, and no other device may: {why}",
                    op=op,
                    reasons={device: why},
                    remedy="set the fallback policy to warn or allow",
                )
            if (device, op) not in self._noted:
                self._noted.add((device, op))
                _log.info("%s does not run %s: %d node(s) run elsewhere", device, op, count)

    def settle(self, workload: Mapping[Graph, float]) -> Plan:
        """Choose homes of weights and states that are the best for several graphs together.

        Returns:
            The plan of the first of them.
        """
        if not workload:
            raise UsageError("a workload names at least one graph")
        self._like = self._settled = None
        self._workload, self._settled_for = dict(workload), tuple(self._fleet.members)
        plan = self._placed(next(iter(workload)), workload)
        self._like = self._settled = plan
        return plan

    def _wishes_for(self, graph: Graph, rates: Mapping[str, Rates]) -> Wishes:
        """The wishes but for devices that failed; the first graph has to know all pins.

        Devices of a pipeline that nobody has given shares get such as keep all equally busy.
        """
        pins = self._wishes.pins
        if self._met_a_graph:
            pins = pins_for(pins, graph)
        self._met_a_graph = True
        used = self._fleet.members
        shares = [self._shares.get(device, 0.0) for device in used]
        if self._balances and not any(shares) and not self._wishes.pins:
            shares = self._equally_busy(graph, rates)
        return Wishes(
            {pin: device for pin, device in pins.items() if device in used},
            {device: most for device, most in self._wishes.limits.items() if device in used},
            shares if any(shares) else None,
        )

    def _equally_busy(self, graph: Graph, rates: Mapping[str, Rates]) -> list[float]:
        """Shares of a pipeline's devices, the same for all graphs: for the widest that is known."""
        if self._balanced.keys() != rates.keys():
            widest = max((graph, *self._workload), key=_width)
            shares = balanced_shares(widest, list(rates.values()))
            self._balanced = dict(zip(rates, shares, strict=True))
        return list(self._balanced.values())

    def _shared(
        self, graph: Graph, rates: Mapping[str, Rates], peers: Peers, wishes: Wishes
    ) -> Shared:
        """The form in which a graph runs; of one that is looked at, pieces are looked at."""
        base = self._watch.base(graph)
        shared = self._sharing.of(
            base, self._fleet.devices, rates, peers, wishes.shares, wishes.pins
        )
        return shared if base is graph else replace(shared, graph=self._watch.form(shared.graph))

    def _budget(self, device: Device, memory: MemoryInfo) -> int | None:
        """Bytes that weights and states may take; None where they lie in the host's own memory."""
        if device.buffers.is_host:
            return None
        free = memory.free
        if free is None and memory.total is not None:  # OpenCL has no word for what is free
            free = max(0, memory.total - self._storage.bytes_on(device.id))
        if free is None:
            return None
        return int(free * self._recovery.share(device.id)) + self._storage.shared_bytes(device)

    def _known(self, device: Device) -> Rates | None:
        if device.id not in self._rates:
            self._rates[device.id] = known_rates(device.info, self._threads)
        return self._rates[device.id]


def _width(graph: Graph) -> int:
    return sum(node.type.size for node in graph.inputs.values())
