"""Options that let a command be looked at while it runs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from hotplug.errors import UsageError
from hotplug_llm.model import Model

__all__ = ["add_watching", "watching"]


def add_watching(parser: argparse.ArgumentParser) -> None:
    """Options of watching."""
    group = parser.add_argument_group("watching")
    group.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write what ran where and when, for https://ui.perfetto.dev",
    )
    group.add_argument(
        "--verify",
        action="store_true",
        help="compute every node again, in float64 on the CPU, and stop at the first that differs",
    )
    group.add_argument(
        "--verify-runs",
        type=int,
        default=2,
        metavar="N",
        help="runs that are verified: the prompt's, and of single tokens (%(default)s)",
    )


@contextlib.contextmanager
def watching(arguments: argparse.Namespace, model: Model) -> Iterator[None]:
    """Look on as the command line wants it.

    Raises:
        UsageError: the trace cannot be written, or no runs are to be verified.
        VerificationError: a device computed something wrong.
    """
    with contextlib.ExitStack() as held:
        if arguments.trace is not None:
            held.enter_context(_traced(arguments.trace, model))
        if arguments.verify:
            held.enter_context(_verified(arguments.verify_runs, model))
        yield


@contextlib.contextmanager
def _traced(path: Path, model: Model) -> Iterator[None]:
    try:
        path.touch()  # better to fail before an answer than after it
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    with model.traced() as trace:
        try:
            yield
        finally:
            trace.save(path)


@contextlib.contextmanager
def _verified(runs: int, model: Model) -> Iterator[None]:
    if runs < 1:
        raise UsageError(f"--verify-runs must be at least 1, not {runs}")
    from hotplug.testing.recompute import Verifier  # noqa: PLC0415 - only for those who ask

    verifier = Verifier(fail=True, runs=runs)
    with model.observed(verifier):
        yield
    print(
        f"[{verifier.checked} nodes were computed again, and none differs by more than rounding]",
        file=sys.stderr,
    )
