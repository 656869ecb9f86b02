"""`hotplug serve-devices`: offer this machine's devices to others."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from hotplug.amounts import parse_size
from hotplug.errors import UsageError
from hotplug_rpc.addresses import DEFAULT_PORT, parse_bind

if TYPE_CHECKING:
    from hotplug_rpc.server.build import Options
    from hotplug_rpc.server.loop import Server

__all__ = ["ServeCommand", "command"]

_SWITCH_SECONDS = 0.0005


class ServeCommand:
    """Serves until it is told to end."""

    name = "serve-devices"
    help = "offer this machine's devices to other machines"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "-b", "--bind", metavar="ADDRESS", default=f"tcp://127.0.0.1:{DEFAULT_PORT}",
            help="where to listen; port 0 takes any that is free (%(default)s)",
        )  # fmt: skip
        parser.add_argument(
            "-d", "--devices", metavar="SELECTOR", default="auto", help="what to offer (all)"
        )
        parser.add_argument(
            "--budget", type=_size, metavar="BYTES",
            help="of each device, what all clients together may take, such as 8G (all)",
        )  # fmt: skip
        parser.add_argument(
            "--client-budget", type=_size, metavar="BYTES", help="what one client may take (all)"
        )
        parser.add_argument(
            "--allow", action="append", default=[], metavar="KEY",
            help="let a client in whose key is not on the list; may be repeated",
        )  # fmt: skip
        parser.add_argument(
            "--models", action="append", default=[], type=Path, metavar="PATH",
            help="a GGUF file, or a folder of them, that clients need not send; may be repeated",
        )  # fmt: skip
        parser.add_argument("--cache", type=Path, metavar="FOLDER", help="where weights are kept")
        parser.add_argument(
            "--cache-bytes", type=_size, default=64 * 10**9, metavar="BYTES",
            help="what they may take there; 0 keeps none (64G)",
        )  # fmt: skip
        parser.add_argument(
            "--keep", type=float, default=300.0, metavar="SECONDS",
            help="how long weights and compiled graphs that no client uses any more stay on a "
            "device, if nobody needs the room (%(default)g)",
        )  # fmt: skip
        parser.add_argument(
            "--run-limit", type=float, metavar="SECONDS",
            help="how long one run may keep a device from other clients (no limit)",
        )  # fmt: skip
        parser.add_argument(
            "--metrics", metavar="ADDRESS", help="serve /metrics and /healthz by HTTP, as host:port"
        )
        parser.add_argument(
            "--drain", type=float, default=30.0, metavar="SECONDS",
            help="how long sessions may go on after SIGTERM (%(default)g)",
        )  # fmt: skip
        parser.add_argument(
            "--isolate", action="store_true",
            help="a process for each client, so that one that crashes touches no other",
        )  # fmt: skip
        parser.add_argument(
            "--announce", action="store_true", help="print one JSON object instead of addresses"
        )
        parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
        parser.add_argument("--json-log", action="store_true", help="log one JSON object a line")
        parser.add_argument("--quiet", action="store_true", help="log warnings alone")

    def run(self, arguments: argparse.Namespace) -> int:
        """Serve; 0 when told to end.

        Raises:
            UsageError: an option cannot be followed, or the address not be bound.
            HotplugError: there are no devices, or the keys cannot be used.
        """
        from hotplug_rpc.keys import KeyRing  # noqa: PLC0415 - help needs no ZeroMQ
        from hotplug_rpc.server.build import build, offered, opened  # noqa: PLC0415
        from hotplug_rpc.server.http import serve_metrics  # noqa: PLC0415
        from hotplug_rpc.server.log import logging_to_stderr  # noqa: PLC0415

        with logging_to_stderr(as_json=arguments.json_log, quiet=arguments.quiet):
            # Else a thread that computes in Python would keep the one with the sockets waiting.
            sys.setswitchinterval(_SWITCH_SECONDS)
            _allow_many_files()
            ids = [info.id for info in offered(arguments.devices)]
            with contextlib.ExitStack() as stack:
                # Clients that are kept apart have processes that open devices themselves.
                apart = arguments.isolate
                devices = [] if apart else stack.enter_context(opened(arguments.devices))
                server = build(_options(arguments), devices, KeyRing())
                if arguments.metrics:
                    stack.enter_context(serve_metrics(arguments.metrics, server.service))
                stack.enter_context(_signals(server, arguments.drain))
                _tell(server, ids, as_json=arguments.announce)
                if arguments.until_eof:
                    threading.Thread(target=_end_at_eof, args=(server,), daemon=True).start()
                server.run()
        return 0


def _tell(server: Server, devices: list[str], *, as_json: bool) -> None:
    if as_json:
        facts = {"port": server.address.port, "key": server.key.hex(), "devices": devices}
        print(json.dumps(facts), flush=True)
        return
    for device in devices:
        print(f"serving rpc://{server.address.server}/{device}", flush=True)


def _end_at_eof(server: Server) -> None:
    while sys.stdin.readline():
        pass
    server.drain(0)


def _options(arguments: argparse.Namespace) -> Options:
    from hotplug_rpc.keys import parse_key  # noqa: PLC0415
    from hotplug_rpc.server.build import Options, cache_folder  # noqa: PLC0415
    from hotplug_rpc.server.limits import Limits  # noqa: PLC0415

    for name in ("drain", "keep"):
        seconds = getattr(arguments, name)
        if not 0 <= seconds <= threading.TIMEOUT_MAX:  # NaN compares false
            raise UsageError(f"--{name} takes a number of seconds, not {seconds:g}")
    limit = arguments.run_limit
    if limit is not None and not 0 < limit <= threading.TIMEOUT_MAX:
        raise UsageError(f"--run-limit takes a number of seconds above 0, not {limit:g}")
    return Options(
        bind=parse_bind(arguments.bind),
        devices=arguments.devices,
        budget=arguments.budget,
        limits=Limits(client_bytes=arguments.client_budget, run_seconds=limit),
        cache=(arguments.cache or cache_folder()) if arguments.cache_bytes else None,
        cache_bytes=arguments.cache_bytes,
        models=arguments.models,
        allow=[parse_key(text) for text in arguments.allow],
        isolate=arguments.isolate,
        keep_seconds=arguments.keep,
        json_log=arguments.json_log,
    )


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error.args[0])) from None


def _allow_many_files() -> None:
    """Every weight in use is a mapped file, and the usual 1024 are soon too few."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 - there is none on Windows, nor such a limit

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def _signals(server: Server, seconds: float) -> Iterator[None]:
    """The first SIGTERM or Ctrl-C drains, the second ends at once."""
    told = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal told
        del number, frame
        server.drain(0.0 if told else seconds)
        told = True

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


command = ServeCommand()
