"""The command line: `hotplug COMMAND`, or `python -m hotplug COMMAND`.

    program       the program itself: errors, exit codes, messages
    command       what a command is
    catalog       which commands there are
    render        tables and amounts for people
    progress_bar  long steps, on a terminal

Each further module is the command of its name.
"""

from __future__ import annotations

from hotplug.cli.program import main

__all__ = ["main"]
