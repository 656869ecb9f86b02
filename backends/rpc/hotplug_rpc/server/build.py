"""A server from options: devices opened, memory bounded, caches placed."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hotplug.backend import Device, DeviceInfo
from hotplug.errors import UsageError
from hotplug.registry import Registry, default
from hotplug.settings import settings
from hotplug_rpc.addresses import DEFAULT_PORT, Address, is_loopback
from hotplug_rpc.files import WRITE, check_private
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.server.fetching import fetch_from
from hotplug_rpc.server.graphs import GraphStore
from hotplug_rpc.server.isolation import IsolatingService
from hotplug_rpc.server.ledger import Accounts, Ledger
from hotplug_rpc.server.lent import Lent
from hotplug_rpc.server.limits import Limits
from hotplug_rpc.server.loop import Server
from hotplug_rpc.server.offers import Offer
from hotplug_rpc.server.peers import Fetcher, Peers
from hotplug_rpc.server.service import Service
from hotplug_rpc.server.session import Shared
from hotplug_rpc.server.weights import WeightStore

__all__ = [
    "Options", "build", "cache_folder", "offered", "opened", "options_from_json", "options_to_json",
    "shared_of",
]  # fmt: skip

_CHILD = "hotplug_rpc.server.child"


@dataclass(frozen=True, slots=True)
class Options:
    """How to serve.

    Attributes:
        bind: where to listen; port 0 for any that is free.
        devices: selector of what to offer.
        budget: bytes of each device that all clients together may take; None for all.
        cache: folder of weights; None keeps none on disk.
        cache_bytes: that it may take.
        models: GGUF files, or folders of them, whose tensors clients need not send.
        allow: public keys that may come in, beside those on the list.
        isolate: whether each session has a process of its own.
        keep_seconds: how long what no session uses any more stays on devices.
        json_log: whether processes of single sessions log JSON objects, as this one does.
    """

    bind: Address = field(default_factory=lambda: Address("127.0.0.1", DEFAULT_PORT))
    devices: str = "auto"
    budget: int | None = None
    limits: Limits = field(default_factory=Limits)
    cache: Path | None = None
    cache_bytes: int = 64 << 30
    models: Sequence[Path] = ()
    allow: Collection[bytes] = ()
    isolate: bool = False
    keep_seconds: float = 0.0
    json_log: bool = False


def cache_folder() -> Path:
    """Where weights are kept unless another place is named."""
    return settings().cache_directory / "rpc-weights"


def offered(selector: str, registry: Registry | None = None) -> list[DeviceInfo]:
    """Devices of this machine that a selector names.

    Raises:
        DeviceNotFoundError: the selector names nothing here.
        UsageError: it names devices of other machines alone.
    """
    found = (registry or default()).select(selector).devices
    infos = [info for info in found if info.backend != "rpc"]
    if not infos:
        raise UsageError(f"{selector!r} names no device of this machine")
    return infos


@contextlib.contextmanager
def opened(selector: str, registry: Registry | None = None) -> Iterator[list[Device]]:
    """What `offered` finds, open inside the context; raises as that does."""
    registry = registry or default()
    infos = offered(selector, registry)
    with contextlib.ExitStack() as stack:
        handles = [stack.enter_context(registry.open(info, "serve-devices")) for info in infos]
        yield [handle.device for handle in handles]


def build(options: Options, devices: Sequence[Device], keys: KeyRing) -> Server:
    """A bound server, which is to be run.

    Raises:
        UsageError: it would listen beyond this machine with nobody allowed to come in, or the
            address cannot be bound.
        KeyFileError: the keys cannot be used, or others can write to the cache.
    """
    _check_bind(options, keys)
    if options.cache is not None:
        _check_cache(options.cache)
    identity = keys.identity()
    if options.isolate:
        command = [sys.executable, "-m", _CHILD, options_to_json(options)]
        shared, ids = shared_of(options, (), None), [info.id for info in offered(options.devices)]
        return Server(
            options.bind,
            keys,
            lambda post: IsolatingService(shared, post, command, ids),
            options.allow,
        )
    shared = shared_of(options, devices, lambda *where: fetch_from(identity, *where))
    return Server(options.bind, keys, lambda post: Service(shared, post), options.allow)


def shared_of(
    options: Options,
    devices: Sequence[Device],
    fetch: Fetcher | None,
    ledger: Ledger | None = None,
) -> Shared:
    """What the sessions of one process share.

    Args:
        options: how to serve.
        devices: what is offered.
        fetch: gets bytes from other servers; None where sessions are kept apart from them, and
            from files of clients.
        ledger: what processes of other sessions have taken.
    """
    offers = tuple(Offer(device, options.budget, options.keep_seconds) for device in devices)
    if ledger is not None:
        for position, offer in enumerate(offers):
            offer.others = partial(ledger.exchange, position)
    return Shared(
        offers,
        options.limits,
        GraphStore(options.limits.nodes),
        WeightStore(options.cache, options.cache_bytes, options.models if devices else ()),
        Peers(fetch),
        Lent() if fetch else None,
        Accounts(ledger),
    )


def options_to_json(options: Options) -> str:
    """What the process of one session needs to know."""
    return json.dumps(
        {
            "devices": options.devices,
            "budget": options.budget,
            "client_bytes": options.limits.client_bytes,
            "run_seconds": options.limits.run_seconds,
            "cache": options.cache and str(options.cache),
            "cache_bytes": options.cache_bytes,
            "models": [str(path) for path in options.models],
            "json_log": options.json_log,
        }
    )


def options_from_json(text: str) -> Options:
    """Inverse of `options_to_json`."""
    values: Mapping[str, Any] = json.loads(text)
    return Options(
        devices=values["devices"],
        budget=values["budget"],
        limits=Limits(client_bytes=values["client_bytes"], run_seconds=values["run_seconds"]),
        cache=values["cache"] and Path(values["cache"]),
        cache_bytes=values["cache_bytes"],
        models=[Path(path) for path in values["models"]],
        json_log=values["json_log"],
    )


def _check_cache(folder: Path) -> None:
    """Whoever can write there could change a weight after its hash was compared."""
    with contextlib.suppress(OSError):  # then what is sent stays in memory
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        check_private(folder, WRITE)


def _check_bind(options: Options, keys: KeyRing) -> None:
    if is_loopback(options.bind.host) or options.allow or keys.allowed():
        return
    raise UsageError(
        f"{options.bind.server} can be reached from other machines, and no client's key is allowed",
        remedy="`hotplug keys allow KEY NAME`, with what `hotplug keys` shows on the client",
    )
