"""`hotplug calibrate`: measure devices, so that graphs are placed by what they really do."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import permutations
from typing import Any, TypeVar

from hotplug.amounts import size_text
from hotplug.backend import DeviceInfo
from hotplug.cli.render import console, table
from hotplug.devices import list_devices, wanted
from hotplug.dtypes import Kind, get
from hotplug.errors import HotplugError, PlacementError, UsageError
from hotplug.placement import (
    Link,
    Rates,
    calibrate,
    calibrate_link,
    known_link,
    known_rates,
    store_link,
    store_rates,
)
from hotplug.placement.calibrate import DTYPES
from hotplug.placement.measured import forget_link, forget_rates
from hotplug.registry import default
from hotplug.settings import wanted_threads

__all__ = ["CalibrateCommand", "command"]


class CalibrateCommand:
    """Runs small graphs on every device, or those that are named, and keeps how fast they were."""

    name = "calibrate"
    help = "measure how fast devices are, and links between them, for placing graphs"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "-d",
            "--devices",
            "--device",
            dest="device",
            metavar="SELECTOR",
            help="devices to measure (HOTPLUG_DEVICE, or all)",
        )
        parser.add_argument(
            "--seconds",
            type=float,
            default=5.0,
            metavar="S",
            help="how long to run on each device, compiling not counted (%(default)g)",
        )
        parser.add_argument(
            "--dtypes",
            metavar="NAMES",
            help=f"dtypes of weights to try, separated by commas ({','.join(DTYPES)})",
        )
        parser.add_argument(
            "-t", "--threads", type=int, metavar="N", help="CPU threads (HOTPLUG_THREADS, or all)"
        )
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--show", action="store_true", help="show what is known, measure nothing")
        what.add_argument("--forget", action="store_true", help="remove what was measured")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, arguments: argparse.Namespace) -> int:
        """Measure; 0 if all devices could be, else 1."""
        if not 0 < arguments.seconds < math.inf:
            raise UsageError(f"--seconds must be above 0, not {arguments.seconds:g}")
        threads, names = wanted_threads(arguments.threads), _names(arguments.dtypes)
        infos = _infos(arguments.device)
        found, failed = _each(
            {info.id: partial(_rates, info, arguments, threads, names) for info in infos}
        )
        usable = [info for info in infos if info.id not in failed]
        links, broken = _each(
            {
                f"{source.id} -> {target.id}": partial(_link, source, target, arguments)
                for source, target in permutations(usable, 2)
                if source.backend == target.backend
            }
        )
        failed |= broken
        if arguments.json:
            told = {
                "devices": {name: to_json(rates) for name, rates in found.items()},
                "links": {way: asdict(link) for way, link in links.items()},
                "failed": failed,
            }
            print(json.dumps(told))
        else:
            _print(found, links, failed, forgotten=arguments.forget)
        return 1 if failed else 0


T = TypeVar("T")


def _each(work: Mapping[str, Callable[[], T | None]]) -> tuple[dict[str, T], dict[str, str]]:
    """What came of each piece of work, where anything did; and what went wrong with others."""
    found: dict[str, T] = {}
    failed: dict[str, str] = {}
    for name, do in work.items():
        try:
            result = do()
        except HotplugError as error:
            failed[name] = str(error)
        else:
            if result is not None:
                found[name] = result
    return found, failed


def _infos(selector: str | None) -> list[DeviceInfo]:
    wish = wanted(selector)
    default().load_all()
    return list_devices() if wish == "auto" else list(default().select(wish).devices)


def _names(text: str | None) -> Sequence[str]:
    """Names of dtypes in an option.

    Raises:
        DTypeError: there is no such dtype.
        UsageError: no device multiplies by such weights.
    """
    if text is None:
        return DTYPES
    found = [get(name.strip()) for name in text.split(",")]
    for dtype in found:
        if dtype.kind not in {Kind.QUANTISED, Kind.FLOAT}:
            raise UsageError(f"--dtypes takes dtypes of weights, which {dtype.name} is not")
    return [dtype.name for dtype in found]


def _rates(
    info: DeviceInfo, arguments: argparse.Namespace, threads: int | None, names: Sequence[str]
) -> Rates | None:
    if arguments.forget:
        forget_rates(info, threads)
        return None
    if arguments.show:
        return known_rates(info, threads)
    with default().open(info, _HOLDER) as handle, _failing(info.id):
        rates = calibrate(handle.device, seconds=arguments.seconds, weights=names, threads=threads)
    store_rates(info, rates, threads)
    return rates


def _link(source: DeviceInfo, target: DeviceInfo, arguments: argparse.Namespace) -> Link | None:
    if arguments.forget:
        forget_link(source, target)
        return None
    if arguments.show:
        return known_link(source, target)
    with (
        default().open(source, _HOLDER) as one,
        default().open(target, _HOLDER) as other,
        _failing(f"the way from {source.id} to {target.id}"),
    ):
        link = calibrate_link(one.device, other.device, seconds=arguments.seconds / 5)
    if link is not None:
        store_link(source, target, link)
    return link


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    """Whatever a plug-in raises becomes an error of ours."""
    try:
        yield
    except HotplugError:
        raise
    except Exception as error:
        raise PlacementError(f"{what} cannot be measured: {error!r}") from error


def to_json(rates: Rates) -> dict[str, Any]:
    """Plain values: seconds, bytes a second, operations a second."""
    return {
        "source": rates.source,
        "flops": rates.flops,
        "bandwidth": rates.bandwidth,
        "upload": {"latency": rates.upload.latency, "bandwidth": rates.upload.bandwidth},
        "download": {"latency": rates.download.latency, "bandwidth": rates.download.bandwidth},
        "launch": rates.launch,
        "step": rates.step,
        "gemv": dict(rates.gemv),
        "gemm": dict(rates.gemm),
    }


def _print(
    found: Mapping[str, Rates],
    links: Mapping[str, Link],
    failed: Mapping[str, str],
    *,
    forgotten: bool,
) -> None:
    screen = console()
    for name, rates in found.items():
        screen.print(
            f"{name}: memory {_rate(rates.bandwidth, 'B/s')}; "
            f"to it {_told(rates.upload)}, from it {_told(rates.download)}; "
            f"{rates.launch * 1e6:.3g} us to launch a part, {rates.step * 1e6:.3g} us a node",
            markup=False,
        )
        rows = [
            (dtype, _rate(rates.gemv.get(dtype), "B/s"), _rate(rates.gemm.get(dtype), "FLOP/s"))
            for dtype in dict.fromkeys([*rates.gemv, *rates.gemm])
        ]
        headings = ("weights", "times one row", "times many rows")
        screen.print(table("", headings, rows, headings[1:]))
    for way, link in links.items():
        least = f", for {size_text(link.least)} and more" if link.least else ""
        screen.print(f"{way} directly: {_told(link)}{least}", markup=False)
    for name, why in failed.items():
        screen.print(f"{name}: {why}", markup=False)
    if not (found or links or failed):
        screen.print("Forgotten." if forgotten else "Nothing was measured yet.")


def _told(link: Link) -> str:
    return f"{link.latency * 1e6:.3g} us and {_rate(link.bandwidth, 'B/s')}"


def _rate(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value / 1e9:.3g} G{unit}"


_HOLDER = "hotplug calibrate"

command = CalibrateCommand()
