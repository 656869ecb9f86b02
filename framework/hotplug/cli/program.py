"""The program `hotplug`: finds the command, runs it, and turns errors into sentences."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from hotplug import __version__
from hotplug.cli import catalog
from hotplug.cli.command import Parser
from hotplug.cli.progress_bar import ProgressBar
from hotplug.errors import HotplugError, HotplugWarning, UsageError
from hotplug.progress import listen
from hotplug.settings import settings

__all__ = ["main"]

_OBJECTS = 100_000
"""New objects after which garbage is looked for: starting makes that many, none of them garbage,
and looking again and again took a tenth of the time."""

_USAGE_EXIT = 2
_INTERRUPT_EXIT = 130  # 128 + SIGINT, as a shell reports it
_PIPE_EXIT = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: words after the program's name; None takes the process's own.

    Returns:
        The exit code: 0, what the command returns, 2 for what the user can put right, 130 after
        Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    gc.set_threshold(_OBJECTS)
    _replace_closed_streams()
    _print_what_can_be_printed()
    try:
        with _messages():
            code = _run(words)
        sys.stdout.flush()
    except HotplugError as error:
        print(f"hotplug: {_printable(str(error))}", file=sys.stderr)
        return _USAGE_EXIT
    except KeyboardInterrupt:
        return _INTERRUPT_EXIT
    except BrokenPipeError:
        # The reader has gone, as in `| head`.
        _drop_output()
        return _PIPE_EXIT
    except OSError as error:
        if error.filename is not None:  # it is about a file, which we should have opened better
            raise
        _drop_output()
        print(f"hotplug: the output cannot be written: {error.strerror}", file=sys.stderr)
        return _USAGE_EXIT
    except SystemExit as end:  # argparse, after --help
        return _exit_code(end)
    return code


def _replace_closed_streams() -> None:
    """Python has None for a standard stream that was closed before it began."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def _drop_output() -> None:
    """Python flushes once more at exit, into nothing now."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_what_can_be_printed() -> None:
    """A pipe or terminal that does not take a character gets a question mark, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _printable(text: str) -> str:
    """Text with control characters written out: files' contents must not reach the terminal raw."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _run(words: list[str]) -> int:
    if not words or words[0] in {"-h", "--help", "help"}:
        print(_help())
        return 0
    if words[0] in {"-V", "--version"}:
        print(f"hotplug {__version__}")
        return 0
    if words[0].startswith("-"):
        raise UsageError(f"there is no option {words[0]!r}", remedy="see `hotplug --help`")
    command = catalog.find(words[0])
    parser = Parser(prog=f"hotplug {words[0]}", description=command.help)
    command.add_arguments(parser)
    return command.run(parser.parse_args(words[1:]))


def _help() -> str:
    rows = catalog.names()
    width = max(map(len, rows))
    lines = [f"  {name:{width}}  {text}" for name, text in rows.items()]
    return "\n".join(
        [
            "usage: hotplug COMMAND [OPTION ...]",
            "",
            "One compute graph over whatever hardware a machine has.",
            "",
            "commands:",
            *lines,
            "",
            "`hotplug COMMAND --help` shows a command's options; --version the version.",
        ]
    )


@contextlib.contextmanager
def _messages() -> Iterator[None]:
    """Show log, warnings and progress on standard error, a line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("hotplug: %(message)s"))
    logger = logging.getLogger("hotplug")
    before = logger.level, logger.propagate
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("always", HotplugWarning)
        shown = warnings.showwarning
        warnings.showwarning = lambda message, category, *rest: (
            print(f"hotplug: {message}", file=sys.stderr)
            if issubclass(category, HotplugWarning)
            else shown(message, category, *rest)
        )
        if sys.stderr.isatty():
            stack.enter_context(listen(ProgressBar()))
        logger.addHandler(handler)
        logger.propagate = False
        try:
            logger.setLevel((settings().log or "warning").upper())
            yield
        finally:
            logger.removeHandler(handler)
            logger.level, logger.propagate = before
