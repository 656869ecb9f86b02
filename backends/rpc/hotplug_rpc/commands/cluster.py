"""`hotplug cluster`: servers on many machines, and a command that uses them."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

from hotplug.errors import UsageError
from hotplug_rpc.cluster.dask import DaskLauncher
from hotplug_rpc.cluster.ray import RayLauncher
from hotplug_rpc.cluster.server import Announcement, Launcher
from hotplug_rpc.cluster.ssh import SSHLauncher
from hotplug_rpc.keys import TRUSTED, KeyRing

__all__ = ["ClusterCommand", "command"]


class ClusterCommand:
    """Starts servers, runs a command with them as its devices, and ends them."""

    name = "cluster"
    help = "start servers on other machines, by ssh, Dask or Ray, and use their devices"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--hosts", metavar="HOST,...", help="hosts that ssh reaches")
        where.add_argument("--dask", metavar="ADDRESS", help="workers of Dask's scheduler there")
        where.add_argument(
            "--dask-local", type=int, metavar="N", help="so many workers of Dask on this machine"
        )
        where.add_argument(
            "--ray",
            metavar="ADDRESS",
            help='nodes of a Ray cluster: its address, "auto" or "local"',
        )
        parser.add_argument("--ssh", default="ssh", help="ssh and its options (%(default)s)")
        parser.add_argument(
            "--program", default="hotplug", help="what hotplug is called there (%(default)s)"
        )
        parser.add_argument("--devices", default="auto", help="what each server offers (all)")
        parser.add_argument("--budget", help="bytes of each device, such as 8G (all)")
        parser.add_argument(
            "--serve", default="", metavar="OPTIONS",
            help='more options of serve-devices there, as in --serve="--run-limit 60 --isolate"',
        )  # fmt: skip
        parser.add_argument(
            "command", nargs=argparse.REMAINDER,
            help="runs with HOTPLUG_DEVICE naming all servers; without one, they wait for Ctrl-C",
        )  # fmt: skip

    def run(self, arguments: argparse.Namespace) -> int:
        """Start, run, end; the command's exit code.

        Raises:
            UsageError: what shall start them is not installed, or the command cannot be started.
            RemoteError: a server does not start.
        """
        with _ended_by_sigterm(), _running(_launcher(arguments)) as servers:
            for server in servers:
                print(f"rpc://{server.server}  {', '.join(server.devices)}", flush=True)
            words = [word for word in arguments.command if word != "--"]
            if words:
                return _run(words, servers)
            for name, value in variables(servers).items():
                print(f"export {name}={shlex.quote(value)}", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
        return 0


def variables(servers: Sequence[Announcement]) -> dict[str, str]:
    """What a program's environment must hold to use servers."""
    return {
        "HOTPLUG_DEVICE": ",".join(f"rpc://{server.server}" for server in servers),
        TRUSTED: ",".join(f"{server.server}={server.key}" for server in servers),
    }


def _launcher(arguments: argparse.Namespace) -> Launcher:
    words = ["--allow", KeyRing().identity().public.hex(), "--devices", arguments.devices]
    if arguments.budget:
        words += ["--budget", arguments.budget]
    words += _split("serve", arguments.serve)
    if arguments.hosts is not None:
        hosts = [host.strip() for host in arguments.hosts.split(",") if host.strip()]
        return SSHLauncher(hosts, words, _split("ssh", arguments.ssh), arguments.program)
    if arguments.ray is not None:
        return RayLauncher(arguments.ray, words)
    if arguments.dask_local is not None and arguments.dask_local < 1:
        raise UsageError(f"--dask-local takes at least 1 worker, not {arguments.dask_local}")
    return DaskLauncher(arguments.dask_local or arguments.dask, words)


def _split(name: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--{name} {text!r} is not understood: {error}") from error


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the command and the servers, too, and not this process alone."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _running(launcher: Launcher) -> Iterator[list[Announcement]]:
    try:
        yield launcher.start()
    finally:
        launcher.stop()


def _run(words: Sequence[str], servers: Sequence[Announcement]) -> int:
    try:
        done = subprocess.run(words, env={**os.environ, **variables(servers)}, check=False)
    except OSError as error:
        raise UsageError(f"{words[0]} cannot be started: {error.strerror}") from error
    return done.returncode


command = ClusterCommand()
