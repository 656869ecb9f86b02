"""What a command is; other distributions add theirs by the entry point group "hotplug.commands"."""

from __future__ import annotations

import argparse
from typing import NoReturn, Protocol

from hotplug.errors import UsageError

__all__ = ["Command", "Parser"]


class Command(Protocol):
    """The value of an entry point, or of `command` in a module of this package.

    Attributes:
        name: the word it is called by, the same as its entry point's name.
        help: one line that says what it does.
    """

    name: str
    help: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; returns the exit code. A HotplugError is shown as one sentence, exit code 2."""


class Parser(argparse.ArgumentParser):
    """Reports wrong usage as an error of ours, in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: always.
        """
        raise UsageError(message, remedy=f"see `{self.prog} --help`")
