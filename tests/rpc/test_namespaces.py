"""Two hosts, made of network namespaces: keys that are exchanged, and a cable that is pulled."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys

import pytest

from hotplug.errors import DeviceLostError
from hotplug_rpc.backend import RPCBackend
from hotplug_rpc.errors import KeyFileError, ServerLostError
from hotplug_rpc.keys import KeyRing

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
