"""Workers of Dask: of a scheduler that runs (SSHCluster, dask-jobqueue, Kubernetes), or local ones.

Source: https://distributed.dask.org/en/stable/plugins.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hotplug.errors import RemoteError, UsageError
from hotplug_rpc.cluster.server import Announcement, HostServer, local_command

__all__ = ["DaskLauncher"]

_NAME = "hotplug-rpc"


class _Plugin:
    """Starts a server in each worker, those that come later included, and ends it with the worker.

    It derives from no class of Dask's, which takes any object with these methods.
    """

    name = _NAME

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def setup(self, worker: Any) -> None:
        """A worker begins."""
        host = str(worker.ip)
        address = f"[{host}]" if ":" in host else host
        worker.hotplug_server = HostServer(local_command(f"tcp://{address}:0", self._words), host)
        worker.hotplug_announcement = worker.hotplug_server.announcement()

    def teardown(self, worker: Any) -> None:
        """A worker ends."""
        worker.hotplug_server.stop()


def _announcement(dask_worker: Any) -> Announcement:
    found: Announcement = dask_worker.hotplug_announcement
    return found


class DaskLauncher:
    """A server in each worker.

    Args:
        where: a scheduler's address, or a number of workers to be started on this machine.
        words: options of `serve-devices`.
    """

    def __init__(self, where: str | int, words: Sequence[str]) -> None:
        self._where = where
        self._words = words
        self._client: Any = None
        self._cluster: Any = None

    def start(self) -> list[Announcement]:
        """Start the servers, and the workers if need be.

        Raises:
            UsageError: Dask is not installed.
            RemoteError: a server does not start, or the scheduler does not answer.
        """
        try:
            import distributed  # noqa: PLC0415 - needed for this alone
        except ImportError as error:
            raise UsageError(
                "Dask's scheduler is not installed", remedy="pip install distributed"
            ) from error
        try:
            if isinstance(self._where, int):
                self._cluster = distributed.LocalCluster(
                    n_workers=self._where, threads_per_worker=1, dashboard_address=None
                )
            self._client = distributed.Client(self._cluster or self._where)
            self._client.register_plugin(_worker_plugin(self._words), name=_NAME)
            found = self._client.run(_announcement)
        except Exception as error:
            self.stop()
            raise RemoteError(f"Dask could not start the servers: {error}") from error
        return list(found.values())

    def stop(self) -> None:
        """End the servers, and the workers that were started here."""
        client, self._client = self._client, None
        cluster, self._cluster = self._cluster, None
        if client is not None:
            client.unregister_worker_plugin(_NAME)
            client.close()
        if cluster is not None:
            cluster.close()


def _worker_plugin(words: Sequence[str]) -> Any:
    from distributed import WorkerPlugin  # noqa: PLC0415 - as above

    return type("HotplugServer", (_Plugin, WorkerPlugin), {})(words)
