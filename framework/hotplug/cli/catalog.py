"""Which commands there are: our own, and those of installed distributions."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from importlib import metadata
from typing import cast

from hotplug.cli.command import Command
from hotplug.errors import UsageError

__all__ = ["CommandSource", "find", "installed", "names"]

GROUP = "hotplug.commands"

_OWN = {
    "devices": "list devices, and why a backend has none",
    "backends": "list backends and how far each has come",
    "doctor": "compute something on every device and check the result",
    "info": "show versions, settings and paths, for bug reports",
    "cache": "show or clear the cache of compiled kernels",
    "calibrate": "measure how fast devices are, for placing graphs",
    "gguf": "show the metadata and tensors of a model file",
}
"""Each is the object `command` of the module of its name, which help need not import."""

_ELSEWHERE = {
    "generate": "hotplug-llm",
    "chat": "hotplug-llm",
    "tokenize": "hotplug-llm",
    "serve-devices": "hotplug-rpc",
    "keys": "hotplug-rpc",
    "cluster": "hotplug-rpc",
}
"""Commands of our other distributions, for the advice given where they are missing."""


@dataclass(frozen=True, slots=True)
class CommandSource:
    """A command of another distribution, not yet imported."""

    name: str
    entry: metadata.EntryPoint

    @property
    def origin(self) -> str:
        """The distribution that brings it."""
        return self.entry.dist.name if self.entry.dist else self.entry.value

    def load(self) -> Command:
        """Import it.

        Raises:
            UsageError: that failed; the text says why.
        """
        try:
            command = self.entry.load()
        except Exception as error:
            text = f"the command {self.name!r} of {self.origin} cannot be loaded: "
            remedy = f"pip install --upgrade --force-reinstall {self.origin}"
            raise UsageError(f"{text}{type(error).__name__}: {error}", remedy=remedy) from error
        lacking = [part for part in ("help", "add_arguments", "run") if not hasattr(command, part)]
        if lacking:
            raise UsageError(
                f"the command {self.name!r} of {self.origin} lacks {', '.join(lacking)}"
            )
        return cast("Command", command)


def installed() -> dict[str, CommandSource]:
    """Commands of other distributions by name; our own and those found first count."""
    found: dict[str, CommandSource] = {}
    for entry in metadata.entry_points(group=GROUP):
        if entry.name not in _OWN:
            found.setdefault(entry.name, CommandSource(entry.name, entry))
    return dict(sorted(found.items()))


def names() -> dict[str, str]:
    """Every command and its line of help. Imports what other distributions bring."""
    return _OWN | {name: _help(source) for name, source in installed().items()}


def _help(source: CommandSource) -> str:
    try:
        return source.load().help
    except UsageError as error:
        return f"[{error.args[0]}]"


def find(name: str) -> Command:
    """The command of a name. Imports no other.

    Raises:
        UsageError: there is none, or it cannot be loaded.
    """
    if name in _OWN:
        module = importlib.import_module(f"hotplug.cli.{name}")
        return cast("Command", module.command)
    others = installed()
    if name in others:
        return others[name].load()
    raise _unknown(name, [*_OWN, *others])


def _unknown(name: str, known: list[str]) -> UsageError:
    if name in _ELSEWHERE:
        return UsageError(
            f"the command {name!r} comes with {_ELSEWHERE[name]}, which is not installed",
            remedy=f"pip install {_ELSEWHERE[name]}",
        )
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "see `hotplug --help`"
    return UsageError(f"there is no command {name!r}", remedy=hint)
