"""`hotplug cache`: the kernels that were compiled and kept on disk."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotplug import kernel_cache
from hotplug.cli.render import amount, console, table
from hotplug.errors import UsageError
from hotplug.kernel_cache import Entry
from hotplug.settings import Settings, settings

__all__ = ["CacheCommand", "command"]


@dataclass(frozen=True, slots=True)
class Part:
    """What one backend keeps: the files of a folder named after it."""

    name: str
    files: int
    nbytes: int


class CacheCommand:
    """Shows what there is, or removes it. A backend makes anew what it misses."""

    name = "cache"
    help = "show or clear the cache of compiled kernels"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "action",
            nargs="?",
            choices=("list", "size", "path", "clear"),
            default="list",
            help="list: files and bytes of each backend; size: bytes alone; path: the directory; "
            "clear: remove all",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, arguments: argparse.Namespace) -> int:
        """Show or clear; 0.

        Raises:
            UsageError: a file cannot be removed, or the directory cannot be read.
        """
        now = settings()
        if arguments.action == "path" and not arguments.json:
            print(now.cache_directory)
            return 0
        found = _entries(now.cache_directory)
        if arguments.action == "clear":
            _clear(found)
        if arguments.json:
            print(json.dumps(_answer(now, found, cleared=arguments.action == "clear")))
        else:
            _show(arguments.action, now, found)
        return 0


def _entries(directory: Path) -> list[Entry]:
    try:
        return list(kernel_cache.entries(directory))
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error


def _clear(found: Iterable[Entry]) -> None:
    for entry in found:
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{entry.path} cannot be removed: {error.strerror}") from error


def _parts(found: Iterable[Entry]) -> list[Part]:
    sizes: dict[str, list[int]] = {}
    for entry in found:
        sizes.setdefault(entry.path.parent.name, []).append(entry.nbytes)
    return [Part(name, len(sizes[name]), sum(sizes[name])) for name in sorted(sizes)]


def _nbytes(found: Iterable[Entry]) -> int:
    return sum(entry.nbytes for entry in found)


def _answer(now: Settings, found: list[Entry], *, cleared: bool) -> dict[str, Any]:
    return {
        "directory": str(now.cache_directory),
        "enabled": now.cache,
        "nbytes": _nbytes(found),
        "most_nbytes": now.cache_bytes,
        "cleared": cleared,
        "backends": [
            {"name": part.name, "files": part.files, "nbytes": part.nbytes}
            for part in _parts(found)
        ],
    }


def _show(action: str, now: Settings, found: list[Entry]) -> None:
    if action == "size":
        print(_nbytes(found))
    elif action == "clear":
        print(f"removed {amount(_nbytes(found))} from {now.cache_directory}")
    else:
        _print_list(now, _parts(found))


def _print_list(now: Settings, parts: list[Part]) -> None:
    state = "" if now.cache else " (not used, as HOTPLUG_CACHE says)"
    print(f"{now.cache_directory}, {amount(now.cache_bytes)} at most{state}")
    if not parts:
        print("nothing is kept there")
        return
    rows = [(part.name, str(part.files), amount(part.nbytes)) for part in parts]
    console().print(table("", ("backend", "files", "size"), rows, ("files", "size")))


command = CacheCommand()
