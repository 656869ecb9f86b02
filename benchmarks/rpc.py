"""Devices behind a server on loopback, beside llama.cpp's own RPC server and client.

    python benchmarks/rpc.py [--rounds 3] [--json FILE]

Both servers offer the same processor with the same threads, and both programs take turns, all
layers of the demo model over there. *Loading* is from the file's name to the first token of a
process that runs, on a server that is up: once with weights that it has never seen, and once with
those that it has. A server of the same user on the same machine is lent the file; so it is also
measured with everything sent over the link. Needs `make bench-peers-rpc`; without it, hotplug is
measured alone. Then what a link costs: round trips of 64 bytes, and 16 MiB each way, encrypted as
always.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import psutil
from demo import demo_model
from figures import Row, at_least, at_most, compare, text
from machine import load_average
from programs import Hotplug, Llama, decode, prefill, take_turns

import hotplug_llm
from hotplug.formats.gguf import GGUFFile
from hotplug_rpc.backend import RPCBackend
from hotplug_rpc.client import weights
from hotplug_rpc.requests import Ping

CONTEXT = 1024
DECODED, READ = 48, 512
PEER_SCRIPT = Path(__file__).with_name("peer_llama_rpc.py")
PYTHON = Path(__file__).parents[1] / ".venv-peers-rpc" / "bin" / "python"
NO_PEER = "llama.cpp with RPC is not installed: make bench-peers-rpc"
TRANSFER = 16 << 20
Load: TypeAlias = Callable[[Path], float]


class OurServer:
    """`hotplug serve-devices` with a cache of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.cache = folder / "ours"
        self.cache.mkdir()
        command = [sys.executable, "-m", "hotplug", "serve-devices", "--quiet", "--devices", "cpu"]
        command += ["--bind", "127.0.0.1:0", "--cache", str(self.cache), *options]
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


@contextlib.contextmanager
def unseen(folder: Path) -> Iterator[Path]:
    """The demo model with one bit of each tensor changed, as no server has seen it before."""
    number = next(_numbers)
    path = folder / f"unseen-{number}.gguf"
    with GGUFFile.open(demo_model()) as file:
        data = bytearray(demo_model().read_bytes())
        for info in file.tensors.values():
            data[info.offset] ^= number  # the low bits of a scale or of a float
    with path.open("wb") as written:
        written.write(data)
        os.fsync(written.fileno())
    yield path
    path.unlink()


_numbers = itertools.count(1)


def load_ours(server: OurServer, path: Path) -> float:
    """From the file's name to the first token, in a process that has loaded models before."""
    began = time.perf_counter()
    program = Hotplug(path, None, CONTEXT, device=server.selector)
    greedy = hotplug_llm.SamplingOptions(temperature=0)
    for _ in program.model.generate([2], max_tokens=1, sampling=greedy, ignore_eos=True):
        pass
    seconds = time.perf_counter() - began
    program.close()
    return seconds


def load_theirs(server: TheirServer, threads: int, path: Path) -> float:
    """The same, without the start of its process and its library."""
    program = peer(server, threads, path)
    seconds = float(program.about["load_seconds"]) + program.prefill([2])
    program.close()
    return seconds


def peer(server: TheirServer, threads: int, path: Path) -> Llama:
    return Llama(PYTHON, path, threads, CONTEXT, PEER_SCRIPT, [str(server.port)])


@contextlib.contextmanager
def encrypted() -> Iterator[None]:
    """Weights are sent, as to another machine, and no file is lent."""
    kept, weights.WAYS = weights.WAYS, weights.WAYS[1:]
    try:
        yield
    finally:
        weights.WAYS = kept


def loading(ours: OurServer, theirs: TheirServer | None, threads: int, rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def cold(load: Load) -> Callable[[], float]:
            def measured() -> float:
                with unseen(folder) as path:
                    return load(path)

            return measured

        def sent(path: Path) -> float:
            with encrypted():
                return load_ours(ours, path)

        programs: list[Load] = [partial(load_ours, ours)]
        if theirs:
            programs.append(partial(load_theirs, theirs, threads))
        table = take_turns([cold(load) for load in (*programs, sent)], rounds)
        seconds = [row[:-1] for row in table]
        rows = [ratio("load and first token, weights unseen", seconds, at_most(0.5), "s")]
        seconds = [[row[-1], *row[1:-1]] for row in table]
        rows.append(ratio("the same, weights sent over the link", seconds, None, "s"))
        seconds = take_turns([partial(load, demo_model()) for load in programs], rounds)
        rows.append(ratio("load and first token, weights cached", seconds, at_most(0.3), "s"))
        return rows


def speed(ours: OurServer, theirs: TheirServer | None, threads: int, rounds: int) -> list[Row]:
    with contextlib.ExitStack() as stack:
        programs: list[Any] = [Hotplug(demo_model(), None, CONTEXT, device=ours.selector)]
        if theirs:
            programs.append(peer(theirs, threads, demo_model()))
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
