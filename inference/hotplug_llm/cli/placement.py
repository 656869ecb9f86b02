"""Options that say what runs on which device, and how they are read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from hotplug.amounts import parse_size
from hotplug.errors import UsageError

__all__ = ["add_placement", "placement_of"]


def add_placement(parser: argparse.ArgumentParser) -> None:
    """Options about several devices."""
    group = parser.add_argument_group("placement", "`hotplug plan` shows what they lead to")
    group.add_argument(
        "--split",
        default="auto",
        metavar="SHARES",
        help='share of the weights for each device, such as "3,1"; auto: what is fastest, or in '
        "order where speeds are not known (%(default)s)",
    )
    group.add_argument(
        "--place",
        action="append",
        default=[],
        metavar="REGEX=DEVICE",
        help="put weights and caches of such names, or an op, on a device; may be repeated",
    )
    group.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="DEVICE=SIZE",
        help='memory that may be taken on a device, such as "cuda:0=8GiB"; may be repeated',
    )
    group.add_argument(
        "--fit",
        action="store_true",
        help="read fewer tokens at once and shorten the context where memory is short",
    )


def placement_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options as arguments of `load`.

    Raises:
        UsageError: one is not understood.
    """
    return {
        "split": _shares(arguments.split),
        "pins": _pairs("--place", arguments.place),
        "budgets": {
            device: parse_size(size)
            for device, size in _pairs("--budget", arguments.budget).items()
        },
        "fit": arguments.fit,
    }


def _shares(text: str) -> tuple[float, ...] | None:
    if text == "auto":
        return None
    try:
        return tuple(float(share) for share in text.split(","))
    except ValueError:
        raise UsageError(f'--split takes "auto" or shares such as "3,1", not {text!r}') from None


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        left, right = _pair(option, text)
        if found.setdefault(left, right) != right:
            raise UsageError(f"{option} says both {left}={found[left]} and {left}={right}")
    return found


def _pair(option: str, text: str) -> tuple[str, str]:
    left, equals, right = text.rpartition("=")
    if not (left and equals and right):
        example = "ffn_.*=cpu:0" if option == "--place" else "cuda:0=8GiB"
        raise UsageError(f"{option} takes something like {example!r}, not {text!r}")
    return left, right
