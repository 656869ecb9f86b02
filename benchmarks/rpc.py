"""Devices behind a server on loopback, beside llama.cpp's own RPC server and client.

    python benchmarks/rpc.py [--rounds 3] [--json FILE]

Both servers offer the same processor with the same threads, and both programs take turns, all
layers of the demo model over there. *Loading* is from nothing to the first token, once with the
server's cache of weights empty and once with it full. Needs `make bench-peers-rpc`; without it,
hotplug is measured alone. Then what a link costs: round trips of 64 bytes, and 16 MiB each way,
encrypted as always.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from demo import demo_model
from figures import Row, at_least, at_most, compare, text
from machine import load_average
from programs import Hotplug, Llama, decode, prefill, take_turns

from hotplug_rpc.backend import RPCBackend
from hotplug_rpc.requests import Ping

CONTEXT = 1024
DECODED, READ = 48, 512
PEER_SCRIPT = Path(__file__).with_name("peer_llama_rpc.py")
PYTHON = Path(__file__).parents[1] / ".venv-peers-rpc" / "bin" / "python"
NO_PEER = "llama.cpp with RPC is not installed: make bench-peers-rpc"
TRANSFER = 16 << 20


class OurServer:
    """`hotplug serve-devices` with a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.cache = folder / "ours"
        self.cache.mkdir()
        command = [sys.executable, "-m", "hotplug", "serve-devices", "--quiet", "--devices", "cpu"]
        command += ["--bind", "127.0.0.1:0", "--cache", str(self.cache)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.selector = self.process.stdout.readline().split()[-1]

    @property
    def address(self) -> str:
        return self.selector.removeprefix("rpc://")


class TheirServer:
    """llama.cpp's RPC server with a cache of its own."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.cache = folder / "theirs"
        self.cache.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        words = ["--serve", str(self.port), str(threads), str(self.cache)]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen([PYTHON, PEER_SCRIPT, *words], stdout=quiet, stderr=quiet)
        wait_for(self.port)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        # It serves one client at a time: this one must be gone before the next.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    sys.exit("llama.cpp's RPC server does not start")


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def own_settings(folder: Path) -> None:
    """Keys that are gone afterwards."""
    os.environ["HOTPLUG_RPC_KEYS"] = str(folder / "keys")


@contextlib.contextmanager
def servers(threads: int) -> Iterator[tuple[OurServer, TheirServer | None]]:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        own_settings(Path(name))
        os.environ["HOTPLUG_THREADS"] = str(threads)
        ours = OurServer(Path(name))
        stack.callback(end, ours.process)
        theirs = TheirServer(Path(name), threads) if PYTHON.exists() else None
        if theirs:
            stack.callback(end, theirs.process)
        yield ours, theirs


def end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()


def load_ours(server: OurServer, *, cold: bool) -> float:
    if cold:
        clear(server.cache)
    began = time.perf_counter()
    program = Hotplug(demo_model(), None, CONTEXT, device=server.selector)
    program.decode(1)
    seconds = time.perf_counter() - began
    program.close()
    return seconds


def load_theirs(server: TheirServer, threads: int, *, cold: bool) -> float:
    if cold:
        clear(server.cache)
    program = peer(server, threads)
    seconds = float(program.about["load_seconds"]) + program.decode(1)
    program.close()
    return seconds


def peer(server: TheirServer, threads: int) -> Llama:
    return Llama(PYTHON, demo_model(), threads, CONTEXT, PEER_SCRIPT, [str(server.port)])


def loading(ours: OurServer, theirs: TheirServer | None, threads: int, rounds: int) -> list[Row]:
    rows = []
    for what, cold, target in (("cold", True, at_most(0.5)), ("warm", False, at_most(0.3))):
        actions = [lambda cold=cold: load_ours(ours, cold=cold)]
        if theirs:
            actions.append(lambda cold=cold: load_theirs(theirs, threads, cold=cold))
        seconds = take_turns(actions, rounds)
        rows.append(ratio(f"load and first token, {what} cache", seconds, target, "s"))
    return rows


def speed(ours: OurServer, theirs: TheirServer | None, threads: int, rounds: int) -> list[Row]:
    with contextlib.ExitStack() as stack:
        programs: list[Any] = [Hotplug(demo_model(), None, CONTEXT, device=ours.selector)]
        if theirs:
            programs.append(peer(theirs, threads))
        for program in programs:
            stack.callback(program.close)
        rows = []
        for what, work, target in (
            (f"decode, {DECODED} tokens", decode(DECODED), at_least(1.2)),
            (f"prompt of {READ} tokens", prefill(READ), at_least(2.0)),
        ):
            actions = [lambda w=work, p=program: w(p) for program in programs]
            rows.append(ratio(what, take_turns(actions, rounds), target, "tokens/s"))
        if theirs and sum(psutil.Process(theirs.process.pid).cpu_times()[:2]) < 1:
            sys.exit("llama.cpp computes by itself, and not on its server")
        return rows


def ratio(what: str, table: list[list[float]], target: Any, unit: str) -> Row:
    if len(table[0]) < 2:
        ours = statistics.median(row[0] for row in table)
        return Row(what, None, "x llama.cpp", target, {"hotplug": ours, "llama.cpp": NO_PEER})
    figures = compare([(ours, theirs) for ours, theirs in table])
    value = figures.pop("ratio")
    return Row(what, value, "x llama.cpp", target, {**figures, "in": unit})


def link(server: OurServer) -> list[Row]:
    backend = RPCBackend()
    device = backend.open(backend.find(server.address)[0])
    connection = device.connection  # type: ignore[attr-defined]
    payload = [bytes(64)]
    trips = sorted(timed(lambda: connection.request(Ping(), payload)) for _ in range(2000))
    source = bytearray(os.urandom(TRANSFER))
    buffer = device.buffers.allocate(TRANSFER)
    writes = [timed(lambda: buffer.write(0, memoryview(source))) for _ in range(8)]
    target = bytearray(TRANSFER)
    reads = [timed(lambda: buffer.read(0, memoryview(target))) for _ in range(8)]
    assert source == target
    device.close()
    middle = {"p95_us": round(1e6 * trips[int(len(trips) * 0.95)], 1)}
    return [
        Row("round trip of 64 bytes", 1e6 * statistics.median(trips), "us", None, middle),
        Row("16 MiB to the server", TRANSFER / statistics.median(writes) / 1e6, "MB/s", None, {}),
        Row("16 MiB from the server", TRANSFER / statistics.median(reads) / 1e6, "MB/s", None, {}),
    ]


def timed(action: Any) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def versions() -> dict[str, Any]:
    """What the peer is, if it is there."""
    if not PYTHON.exists():
        return {}
    script = PEER_SCRIPT.with_name("peer_llama.py")
    said = subprocess.run([PYTHON, script, "--versions"], capture_output=True, check=True)
    return dict(json.loads(said.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with servers(arguments.threads) as (ours, theirs):
        rows = speed(ours, theirs, arguments.threads, arguments.rounds)
        rows += loading(ours, theirs, arguments.threads, arguments.rounds)
        rows += link(ours)
    print(text(rows))
    answer = {
        "threads": arguments.threads,
        "load_average": load_average(),
        "llama.cpp": versions(),
        "rows": [row.as_json() for row in rows],
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
