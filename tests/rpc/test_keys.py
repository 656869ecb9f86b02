"""Key files, addresses, and the command that changes them."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from hotplug.cli import main
from hotplug.errors import UsageError
from hotplug_rpc.addresses import Address, is_loopback, parse_address, parse_bind
from hotplug_rpc.errors import KeyFileError
from hotplug_rpc.files import locked
from hotplug_rpc.keys import KeyRing, parse_key

KEY = bytes(range(32))


@pytest.fixture
def ring(tmp_path, monkeypatch):
    monkeypatch.setenv("HOTPLUG_RPC_KEYS", str(tmp_path / "keys"))
    return KeyRing()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host", Address("host", 5640)),
        ("host:80", Address("host", 80)),
        ("10.0.0.1:5/cuda:0", Address("10.0.0.1", 5, "cuda:0")),
        ("[::1]:7/cpu:0", Address("::1", 7, "cpu:0")),
        ("[fe80::1]", Address("fe80::1", 5640)),
        ("a-b.example.org/opencl:1", Address("a-b.example.org", 5640, "opencl:1")),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address
    assert parse_address(address.server) == Address(address.host, address.port)


@pytest.mark.parametrize(
    "text",
    ["", ":80", "host:0", "host:65536", "host:x", "-x:1", "a b:1", "[::1", "[zz]:1", "h:1/",
     "h:1/a b", "tcp://h:1", "[1:2]:3", "host:123456"],
)  # fmt: skip
def test_what_is_no_address(text):
    with pytest.raises(UsageError, match="address"):
        parse_address(text)


def test_binds():
    assert parse_bind("tcp://127.0.0.1:0") == Address("127.0.0.1", 0)
    with pytest.raises(UsageError, match="--devices"):
        parse_bind("127.0.0.1:1/cpu:0")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback


def test_an_identity_is_made_once(ring):
    identity = ring.identity()
    assert (len(identity.public), len(identity.secret)) == (32, 32)
    assert ring.identity() == identity
    assert identity.secret.hex() not in repr(identity)


def test_threads_agree_on_one_identity(ring):
    found = []
    threads = [threading.Thread(target=lambda: found.append(ring.identity())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({identity.public for identity in found}) == 1


@pytest.mark.skipif(os.name != "posix", reason="modes say nothing there")
def test_secrets_are_private(ring):
    ring.identity()
    path = ring.folder / "identity.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(ring.folder.stat().st_mode) == 0o700
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="others can read") as caught:
        ring.identity()
    assert "chmod go-rwx" in caught.value.remedy


@pytest.mark.skipif(os.name != "posix", reason="modes say nothing there")
@pytest.mark.parametrize("name", ["", "clients.allowed", "servers.known"])
def test_what_others_can_write_to_is_not_believed(ring, name):
    ring.allow(KEY, "laptop")
    ring.trust("gpu-box:2", KEY)
    assert ring.allowed()
    (ring.folder / name).chmod(0o777)
    with pytest.raises(KeyFileError, match="others can write") as caught:
        ring.known() if name == "servers.known" else ring.allowed()
    assert "chmod go-w" in caught.value.remedy
    if not name:
        with pytest.raises(KeyFileError, match="others can write"):
            ring.identity()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_nor_what_is_another_user_s(ring):
    ring.identity()
    os.chown(ring.folder / "identity.key", 12345, 12345)
    with pytest.raises(KeyFileError, match="another user"):
        ring.identity()


@pytest.mark.parametrize("text", ["", "x", "00\n11\n", "a" * 64])
def test_broken_identities_are_refused(ring, text):
    ring.identity()
    (ring.folder / "identity.key").write_text(text)
    with pytest.raises(KeyFileError, match="broken"):
        ring.identity()


def test_lists(ring):
    assert ring.allowed() == {}
    ring.allow(KEY, "laptop")
    ring.allow(KEY[::-1], "desk")
    assert ring.allowed() == {KEY: "laptop", KEY[::-1]: "desk"}
    assert ring.forbid("laptop")
    assert ring.forbid(KEY[::-1].hex())
    ring.allow(KEY, "Laptop")
    assert ring.forbid("Laptop")
    assert not ring.forbid("laptop")
    assert ring.allowed() == {}
    for name in ("", "two words", "x" * 65, "#", "\x1b[31mred", "nul\0"):
        with pytest.raises(UsageError, match="name"):
            ring.allow(KEY, name)


def test_what_is_changed_at_once_is_not_lost(ring):
    keys = [bytes([number]) * 32 for number in range(16)]
    threads = [
        threading.Thread(target=change, args=(KeyRing(), key))
        for key in keys
        for change in (lambda ring, key: ring.allow(key, key.hex()[:2]),
                       lambda ring, key: ring.trust(f"box:{1 + key[0]}", key))
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(ring.allowed()) == set(keys)
    assert set(ring.known().values()) == set(keys)


def test_a_list_that_is_being_changed_is_waited_for(ring):
    """By another process too: a lock is its file's, not a thread's."""
    ring.allow(KEY, "laptop")
    done = threading.Event()

    def change():
        KeyRing().allow(KEY[::-1], "desk")
        done.set()

    thread = threading.Thread(target=change)
    with locked(ring.folder / ".lock"):
        thread.start()
        assert not done.wait(0.2)
        assert ring.allowed() == {KEY: "laptop"}  # whoever only reads need not wait
    thread.join()
    assert ring.allowed() == {KEY: "laptop", KEY[::-1]: "desk"}


def test_a_full_disk_leaves_nothing_behind(ring, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(KeyFileError, match="No space left"):
        ring.identity()
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(KeyFileError, match="No space left"):
        ring.allow(KEY, "laptop")
    assert [path.name for path in ring.folder.iterdir()] == [".lock"]


def test_broken_lists_are_refused(ring):
    ring.allow(KEY, "laptop")
    (ring.folder / "clients.allowed").write_text("# a comment\n\nnonsense here\n")
    with pytest.raises(KeyFileError, match="line 3"):
        ring.allowed()


def test_server_keys(ring):
    here, there = Address("127.0.0.1", 1), Address("gpu-box", 2)
    assert ring.server_key(here) == ring.identity().public
    with pytest.raises(KeyFileError, match="not known") as caught:
        ring.server_key(there)
    assert "keys trust gpu-box:2" in caught.value.remedy
    ring.trust("gpu-box:2", KEY)
    ring.trust("127.0.0.1:1", KEY)
    assert ring.server_key(there) == ring.server_key(here) == KEY


@pytest.mark.parametrize("text", ["", "xyz", "0" * 63, "0" * 65, "g" * 64])
def test_what_is_no_key(text):
    with pytest.raises(UsageError, match="no key"):
        parse_key(text)


def test_the_command(ring, capsys):
    assert main(["keys"]) == 0
    public = ring.identity().public.hex()
    assert public in capsys.readouterr().out
    assert main(["keys", "allow", KEY.hex(), "laptop"]) == 0
    assert main(["keys", "trust", "rpc://gpu-box:2", KEY.hex()]) == 0
    capsys.readouterr()
    assert main(["keys", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {
        "key": public,
        "folder": str(ring.folder),
        "allowed": {KEY.hex(): "laptop"},
        "known": {"gpu-box:2": KEY.hex()},
    }
    assert main(["keys", "forbid", "laptop"]) == 0
    assert main(["keys", "forbid", "laptop"]) == 1
    assert main(["keys", "path"]) == 0
    assert str(ring.folder) in capsys.readouterr().out


@pytest.mark.parametrize("words", [["allow"], ["allow", "x", "y"], ["trust", "h:1"], ["show", "x"]])
def test_wrong_words_are_one_sentence(ring, capsys, words):
    assert main(["keys", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("hotplug: ")
    assert "Traceback" not in captured.err
