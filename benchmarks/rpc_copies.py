"""Megabytes a second that one server fetches from another, over the latency of the link between.

    python benchmarks/rpc_copies.py                 half a minute

A link of so many milliseconds one way (`hotplug_rpc.testing.Link`) lies before a server; this
process fetches from it as another server would, with few pieces on their way and with many. Each
round trip brings at most what is on its way; besides, every copy waits for connecting, whose round
trips count here too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from rpc import OurServer, end, own_settings

from hotplug.backend import Buffer
from hotplug_rpc.addresses import parse_address
from hotplug_rpc.backend import RPCBackend
from hotplug_rpc.client.buffers import RemoteBuffer
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.requests import Ticket
from hotplug_rpc.server import fetching
from hotplug_rpc.testing import Link

LATENCIES_MS = (0.0, 1.0, 5.0, 10.0, 25.0, 50.0)
NBYTES = 64 << 20
PIECES = (4, fetching.IN_FLIGHT)


def fetched(buffer: RemoteBuffer, link: Link, pieces: int) -> float:
    """Seconds that all of a buffer takes with so many pieces on their way."""
    identity = KeyRing().identity()
    device = buffer.device
    body = device.ask(Ticket(device.position, buffer.handle, identity.public.hex())).body
    where = f"127.0.0.1:{link.port}", identity.public.hex(), str(body["ticket"])
    fetching.IN_FLIGHT = pieces
    began = time.perf_counter()
    came = sum(piece.nbytes for piece in fetching.fetch_from(identity, *where, NBYTES, nearby=True))
    assert came == NBYTES
    return time.perf_counter() - began


def filled(buffer: Buffer) -> RemoteBuffer:
    assert isinstance(buffer, RemoteBuffer)
    buffer.write(0, memoryview(np.random.default_rng(0).bytes(NBYTES)))
    return buffer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    answer: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        own_settings(Path(name))
        server = OurServer(Path(name))
        stack.callback(end, server.process)
        address = parse_address(server.address)
        link = stack.enter_context(Link(address.port))
        backend = RPCBackend()
        stack.callback(backend.close)
        device = stack.enter_context(backend.open(backend.find(server.address)[0]))
        buffer = filled(device.buffers.allocate(NBYTES))
        for ms in LATENCIES_MS:
            link.seconds = ms / 1000
            times = {pieces: [0.0] * rounds for pieces in PIECES}
            for at in range(rounds):
                for pieces in PIECES:  # in turns
                    times[pieces][at] = fetched(buffer, link, pieces)
            answer[f"{ms:g} ms"] = {
                f"{pieces} pieces": round(NBYTES / 1e6 / min(seconds))
                for pieces, seconds in times.items()
            }
    print(json.dumps({"megabytes_per_second": answer}, indent=1))


if __name__ == "__main__":
    main()
