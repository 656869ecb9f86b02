"""A list of hosts, by ssh."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from hotplug.errors import UsageError
from hotplug_rpc.addresses import parse_address
from hotplug_rpc.cluster.server import Announcement, HostServer, serve_words

__all__ = ["SSHLauncher"]


class SSHLauncher:
    """One ssh for each host; a server ends when its ssh does, or the link between.

    Args:
        hosts: as ssh takes them, such as "user@host".
        words: options of `serve-devices`.
        ssh: the program and its options.
        program: what `hotplug` is called over there.

    Raises:
        UsageError: there is no host, or one would be an option of ssh.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        words: Sequence[str],
        ssh: Sequence[str] = ("ssh",),
        program: str = "hotplug",
    ) -> None:
        if not hosts:
            raise UsageError("no host is named")
        self._hosts = [(host, _name(host)) for host in hosts]
        self._words = words
        self._ssh = ssh
        self._program = program
        self._servers: list[HostServer] = []

    def start(self) -> list[Announcement]:
        """Start all of them, at the same time.

        Raises:
            RemoteError: one does not start.
        """
        there = f"{self._program} {shlex.join(serve_words('tcp://0.0.0.0:0', self._words))}"
        for host, name in self._hosts:
            self._servers.append(HostServer([*self._ssh, host, there], name))
        return [server.announcement() for server in self._servers]

    def stop(self) -> None:
        """End all of them."""
        while self._servers:
            self._servers.pop().stop()


def _name(host: str) -> str:
    """What clients call a host of ssh; such as "-oProxyCommand=..." would be none."""
    name = host.rpartition("@")[2]
    if host.startswith("-"):
        raise UsageError(f"{host!r} is no host")
    return parse_address(f"[{name}]" if ":" in name else name).host
