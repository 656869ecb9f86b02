"""`hotplug cache`: the kernels that were compiled and kept on disk."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from hotplug.cli.render import amount, console, table
from hotplug.errors import UsageError
from hotplug.settings import settings

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
            choices=("list", "size", "clear"),
            default="list",
            help="list: files and bytes of each backend; size: bytes alone; clear: remove all",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, arguments: argparse.Namespace) -> int:
        """Show or clear; 0.

        Raises:
            UsageError: a file cannot be removed.
        """
        now = settings()
        parts = _parts(now.cache_directory)
        nbytes = sum(part.nbytes for part in parts)
        if arguments.action == "clear":
            _clear(now.cache_directory)
        if arguments.json:
            answer = {
                "directory": str(now.cache_directory),
                "enabled": now.cache,
                "nbytes": nbytes,
                "cleared": arguments.action == "clear",
                "backends": [
                    {"name": part.name, "files": part.files, "nbytes": part.nbytes}
                    for part in parts
                ],
            }
            print(json.dumps(answer))
        elif arguments.action == "size":
            print(nbytes)
        elif arguments.action == "clear":
            print(f"removed {amount(nbytes)} from {now.cache_directory}")
        else:
            _print(now.cache_directory, parts, enabled=now.cache)
        return 0


def _files(folder: Path) -> list[Path]:
    # Links are neither followed nor counted: what they lead to is not the cache's.
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def _parts(directory: Path) -> list[Part]:
    if not directory.is_dir():
        return []
    folders = sorted(path for path in directory.iterdir() if path.is_dir())
    return [_part(folder) for folder in folders]


def _part(folder: Path) -> Part:
    files = _files(folder)
    return Part(folder.name, len(files), sum(path.stat().st_size for path in files))


def _clear(directory: Path) -> None:
    """Remove the backends' files. Other files in the directory, which the user chose, stay."""
    for part in _parts(directory):
        for path in _files(directory / part.name):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise UsageError(f"{path} cannot be removed: {error.strerror}") from error


def _print(directory: Path, parts: list[Part], *, enabled: bool) -> None:
    state = "" if enabled else " (not used, as HOTPLUG_CACHE says)"
    print(f"{directory}{state}")
    if not parts:
        print("nothing is kept there")
        return
    rows = [(part.name, str(part.files), amount(part.nbytes)) for part in parts]
    console().print(table("", ("backend", "files", "size"), rows, ("files", "size")))


command = CacheCommand()
