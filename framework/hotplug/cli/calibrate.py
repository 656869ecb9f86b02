"""`hotplug calibrate`: measure devices, so that graphs are placed by what they really do."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

from hotplug.backend import DeviceInfo
from hotplug.cli.render import console, table
from hotplug.devices import list_devices, wanted
from hotplug.dtypes import Kind, get
from hotplug.errors import HotplugError, PlacementError, UsageError
from hotplug.placement import Link, Rates, calibrate, known_rates, store_rates
from hotplug.placement.calibrate import DTYPES, forget
from hotplug.registry import default
from hotplug.settings import wanted_threads

__all__ = ["CalibrateCommand", "command"]


class CalibrateCommand:
    """Runs small graphs on every device, or those that are named, and keeps how fast they were."""

    name = "calibrate"
    help = "measure how fast devices are, for placing graphs"

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
        found, failed = {}, {}
        for info in _infos(arguments.device):
            try:
                rates = _rates(info, arguments, threads, names)
            except HotplugError as error:
                failed[info.id] = str(error)
            else:
                if rates is not None:
                    found[info.id] = rates
        if arguments.json:
            measured = {name: to_json(rates) for name, rates in found.items()}
            print(json.dumps({"devices": measured, "failed": failed}))
        else:
            _print(found, failed, forgotten=arguments.forget)
        return 1 if failed else 0


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
        forget(info, threads)
        return None
    if arguments.show:
        return known_rates(info, threads)
    with default().open(info, "hotplug calibrate") as handle:
        try:
            rates = calibrate(
                handle.device, seconds=arguments.seconds, weights=names, threads=threads
            )
        except HotplugError:
            raise
        except Exception as error:
            raise PlacementError(f"{info.id} cannot be measured: {error!r}") from error
    store_rates(info, rates, threads)
    return rates


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


def _print(found: dict[str, Rates], failed: dict[str, str], *, forgotten: bool) -> None:
    screen = console()
    for name, rates in found.items():
        screen.print(
            f"{name}: memory {_rate(rates.bandwidth, 'B/s')}; "
            f"to it {_link(rates.upload)}, from it {_link(rates.download)}; "
            f"{rates.launch * 1e6:.3g} us to launch a part, {rates.step * 1e6:.3g} us a node",
            markup=False,
        )
        rows = [
            (dtype, _rate(rates.gemv.get(dtype), "B/s"), _rate(rates.gemm.get(dtype), "FLOP/s"))
            for dtype in dict.fromkeys([*rates.gemv, *rates.gemm])
        ]
        headings = ("weights", "times one row", "times many rows")
        screen.print(table("", headings, rows, headings[1:]))
    for name, why in failed.items():
        screen.print(f"{name}: {why}", markup=False)
    if not found and not failed:
        screen.print("Forgotten." if forgotten else "Nothing was measured yet.")


def _link(link: Link) -> str:
    return f"{link.latency * 1e6:.3g} us and {_rate(link.bandwidth, 'B/s')}"


def _rate(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value / 1e9:.3g} G{unit}"


command = CalibrateCommand()
