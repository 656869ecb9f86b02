"""Nodes of a Ray cluster.

Source: https://docs.ray.io/en/latest/ray-core/scheduling/index.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hotplug.errors import RemoteError, UsageError
from hotplug_rpc.cluster.server import Announcement, HostServer, local_command

__all__ = ["RayLauncher"]


class _Server:
    """The actor of one node: Ray starts it anew there if it dies."""

    def __init__(self, host: str, words: Sequence[str]) -> None:
        address = f"[{host}]" if ":" in host else host
        self._server = HostServer(local_command(f"tcp://{address}:0", words), host)

    def announcement(self) -> Announcement:
        """Where it listens."""
        return self._server.announcement()

    def stop(self) -> None:
        """End it."""
        self._server.stop()


class RayLauncher:
    """A server on each node that is alive.

    Args:
        where: the cluster's address, "auto" for the one that runs here, or "local" for a new one.
        words: options of `serve-devices`.
    """

    def __init__(self, where: str, words: Sequence[str]) -> None:
        self._where = where
        self._words = list(words)
        self._ray: Any = None
        self._actors: list[Any] = []

    def start(self) -> list[Announcement]:
        """Start the servers.

        Raises:
            UsageError: Ray is not installed.
            RemoteError: the cluster does not answer, or a server does not start.
        """
        try:
            import ray  # noqa: PLC0415 - needed for this alone
            from ray.util.scheduling_strategies import (  # noqa: PLC0415 - as above
                NodeAffinitySchedulingStrategy,
            )
        except ImportError as error:
            raise UsageError("Ray is not installed", remedy="pip install ray") from error
        try:
            ray.init(address=self._where, log_to_driver=False, logging_level="error")
            self._ray = ray
            actor = ray.remote(num_cpus=0, max_restarts=-1)(_Server)
            for node in ray.nodes():
                if node["Alive"]:
                    where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                    made = actor.options(scheduling_strategy=where)
                    self._actors.append(made.remote(node["NodeManagerAddress"], self._words))
            return list(ray.get([one.announcement.remote() for one in self._actors]))
        except Exception as error:
            self.stop()
            raise RemoteError(f"Ray could not start the servers: {error}") from error

    def stop(self) -> None:
        """End the servers."""
        actors, self._actors = self._actors, []
        if self._ray is not None:
            self._ray.wait(
                [one.stop.remote() for one in actors], num_returns=len(actors), timeout=15
            )
            self._ray.shutdown()
            self._ray = None
