"""Two hosts, made of network namespaces: keys that are exchanged, and a cable that is pulled."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import urllib.request

import pytest

from hotplug.errors import DeviceLostError, RemoteError
from hotplug_rpc.addresses import parse_address
from hotplug_rpc.backend import RPCBackend
from hotplug_rpc.client.connection import Connection
from hotplug_rpc.errors import KeyFileError, ServerLostError
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.requests import Allocate, Fetch

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("ip"), reason="no iproute2")]

HERE, THERE = "10.217.83.1", "10.217.83.2"


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def host():
    """A namespace that is reached over a virtual cable; its name, and the near end of the cable."""
    name, near, far = f"hotplug{os.getpid()}", f"hpn{os.getpid()}"[:15], f"hpf{os.getpid()}"[:15]
    if ip("netns", "add", name).returncode:
        pytest.skip("network namespaces are not permitted here")
    try:
        made = ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        if made.returncode:
            pytest.skip(f"no virtual cables here: {made.stderr.strip()}")
        for words in (
            ("addr", "add", f"{HERE}/24", "dev", near),
            ("link", "set", near, "up"),
            ("-n", name, "addr", "add", f"{THERE}/24", "dev", far),
            ("-n", name, "link", "set", far, "up"),
            ("-n", name, "link", "set", "lo", "up"),
        ):
            assert ip(*words).returncode == 0, words
        yield name, near
    finally:
        ip("link", "del", near)
        ip("netns", "del", name)


@contextlib.contextmanager
def serving(name, keys, *options):
    """`hotplug serve-devices` on the other host."""
    command = [sys.executable, "-m", "hotplug", "serve-devices", "--quiet", "--devices", "cpu"]
    command += ["--cache-bytes", "0", "--bind", f"tcp://{THERE}:5640", *options]
    environment = {**os.environ, "HOTPLUG_RPC_KEYS": str(keys), "HOTPLUG_RPC_HEARTBEAT": "1"}
    process = subprocess.Popen(
        ["ip", "netns", "exec", name, *command],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


def test_two_hosts(host, tmp_path, monkeypatch):
    name, cable = host
    here, there = tmp_path / "here", tmp_path / "there"
    monkeypatch.setenv("HOTPLUG_RPC_KEYS", str(here))
    monkeypatch.setenv("HOTPLUG_RPC_HEARTBEAT", "1")
    with serving(name, there) as (line, process):
        assert line == ""
        assert "no client's key is allowed" in process.communicate()[1]
    mine, theirs = KeyRing(here).identity().public, KeyRing(there).identity().public
    KeyRing(there).allow(mine, "here")
    with serving(name, there) as (line, _):
        assert line == f"serving rpc://{THERE}:5640/cpu:0"
        backend = RPCBackend()
        with pytest.raises(KeyFileError, match="not known"):
            backend.find(f"{THERE}:5640")
        KeyRing(here).trust(f"{THERE}:5640", theirs)
        device = backend.open(backend.find(f"{THERE}:5640/cpu:0")[0])
        buffer = device.buffers.allocate(1 << 20)
        buffer.write(0, memoryview(b"\x07" * (1 << 20)))
        back = bytearray(1 << 20)
        buffer.read(0, memoryview(back))
        assert back == b"\x07" * (1 << 20)
        assert ip("link", "set", cable, "down").returncode == 0
        with pytest.raises(ServerLostError, match="gone") as caught:
            device.memory()
        assert isinstance(caught.value, DeviceLostError)
        with pytest.raises(ServerLostError):
            RPCBackend().find(f"{THERE}:5640")
        assert ip("link", "set", cable, "up").returncode == 0
        with backend.open(backend.find(f"{THERE}:5640/cpu:0")[0]) as again:
            assert again.memory().total > 0
        device.close()


def wrong_keys(identity, count):
    """Handshakes for another server's key."""
    for _ in range(count):
        with pytest.raises(ServerLostError):
            Connection(parse_address(f"{THERE}:5640"), b"\x07" * 32, identity, 20)


def test_strangers_of_another_host_are_limited(host, tmp_path):
    """Unless a client came in from there before. A few may be over before the server sees them."""
    name, _ = host
    there, me = KeyRing(tmp_path / "there"), KeyRing(tmp_path / "here").identity()
    there.allow(me.public, "here")
    key, server = there.identity().public, parse_address(f"{THERE}:5640")
    with serving(name, there.folder, "--metrics", f"{THERE}:9464"):
        wrong_keys(me, 60)
        assert 'reason="rate"' not in metrics()
        wrong_keys(me, 60)
        assert 'reason="rate"' in metrics()
        with pytest.raises(ServerLostError, match="ended the handshake"):
            Connection(server, key, me, 20)
    with serving(name, there.folder, "--metrics", f"{THERE}:9464"):
        Connection(server, key, me, 20).leave()
        wrong_keys(me, 120)
        Connection(server, key, me, 20).leave()
        assert 'reason="rate"' not in metrics()


def metrics():
    with urllib.request.urlopen(f"http://{THERE}:9464/metrics", timeout=10) as answer:
        return answer.read().decode()


def test_a_client_of_another_host_reaches_nothing_behind_the_server(host, tmp_path):
    """What listens on the server's loopback, or on this side, is not told apart from nothing."""
    name, _ = host
    there, me = KeyRing(tmp_path / "there"), KeyRing(tmp_path / "here").identity()
    there.allow(me.public, "here")
    with serving(name, there.folder):
        connection = Connection(parse_address(f"{THERE}:5640"), there.identity().public, me, 20)
        connection.request(Allocate(0, 1, 8))
        assert connection.door == ""  # nothing that lies there is named
        with socket.create_server((HERE, 0)) as listener:
            listener.settimeout(20)
            port = listener.getsockname()[1]
            for endpoint in ("127.0.0.1:5640", "localhost:5640", f"{HERE}:{port}", f"{HERE}:1"):
                with pytest.raises(RemoteError, match="it cannot fetch from") as caught:
                    connection.request(Fetch(0, 1, endpoint, "a" * 64, "b" * 64))
                assert str(caught.value).endswith(endpoint)
            listener.accept()[0].close()  # of all addresses only this one was connected to
        connection.leave()
