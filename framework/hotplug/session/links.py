"""Which devices of a session copy to each other directly, and how fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hotplug.backend import Device
from hotplug.placement import Link, Rates, known_link
from hotplug.placement.cost import direct_link, worthwhile
from hotplug.session.faults import DeviceFault
from hotplug.session.fleet import Fleet

__all__ = ["Links"]


class Links:
    """Direct ways between devices, each asked for once.

    Args:
        fleet: calls the devices.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._devices: tuple[Device, ...] = ()
        self._found: dict[tuple[str, str], Link] = {}

    def among(self, rates: Mapping[str, Rates]) -> Mapping[tuple[str, str], Link]:
        """(from, to) -> the link of two devices in use, for those that have one.

        Args:
            rates: how fast each device is; of links that were not measured it is a guess from that.

        Raises:
            DeviceFault: a device that was asked failed.
        """
        devices = tuple(self._fleet.devices)
        if devices != self._devices:
            self._devices, self._found = (), {}
            for target in devices:
                for source, least in self._sources(target, devices).items():
                    link = _link(source, target, least, rates)
                    if link is not None:
                        self._found[source.id, target.id] = link
            self._devices = devices
        return self._found

    def _sources(self, target: Device, devices: Sequence[Device]) -> dict[Device, int]:
        """Devices from which another one gets copies directly -> from how many bytes on."""
        kin = [d for d in devices if d is not target and d.info.backend == target.info.backend]
        ask = getattr(target, "direct_from", None)  # a backend need not derive from the contract
        if not kin or ask is None:
            return {}
        try:
            answers = self._fleet.ask(target.id, lambda: [ask(source) for source in kin])
        except DeviceFault as fault:
            named = getattr(fault.error, "device", None)
            if named in self._fleet.members and named != fault.device:
                raise DeviceFault(named, fault.error, clean=True) from fault
            raise
        pairs = zip(kin, answers, strict=True)
        return {source: least for source, least in pairs if isinstance(least, int) and least >= 0}


def _link(source: Device, target: Device, least: int, rates: Mapping[str, Rates]) -> Link | None:
    """A direct way, for copies that are not known to be faster by the host."""
    here, there = rates[source.id], rates[target.id]
    measured = known_link(source.info, target.info)
    if measured is None:
        return direct_link(here, there, least)
    return worthwhile(replace(measured, least=least), here, there)
