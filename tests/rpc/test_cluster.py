"""Servers that ssh or Dask start, and commands that use them."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from hotplug.cli import main
from hotplug.errors import RemoteError, SettingsError
from hotplug_rpc.addresses import Address
from hotplug_rpc.cluster.server import Announcement, HostServer
from hotplug_rpc.keys import KeyRing

FAKE_SSH = """
import subprocess, sys
host, command = sys.argv[-2:]
print("Welcome to " + host, flush=True)
sys.exit(subprocess.call(command.replace("0.0.0.0", "127.0.0.1"), shell=True))
"""
ASK = """
import hotplug, json
from hotplug.registry import default
from hotplug.devices import wanted
infos = default().select(wanted()).devices
print(json.dumps([info.properties["address"] for info in infos]))"""


@pytest.fixture
def ssh(tmp_path):
    """Stands for ssh: says something, as login scripts do, and runs the command here."""
    path = tmp_path / "ssh.py"
    path.write_text(FAKE_SSH)
    return f"{sys.executable} {path}"


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "hotplug", "cluster", *words],
        capture_output=True, text=True, timeout=100, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def test_a_list_of_hosts(ssh, tmp_path):
    program = f"{sys.executable} -m hotplug"
    options = ["--hosts", "me@localhost,127.0.0.1", "--ssh", ssh, "--program", program]
    ask = f"{ASK}; raise SystemExit(7)"
    options += ["--devices", "cpu", "--serve", "--run-limit 60 --isolate"]
    done = run(*options, "--", sys.executable, "-c", ask)
    assert done.returncode == 7, done.stderr  # the command's own
    *servers, answer = done.stdout.splitlines()
    assert [line.split()[1] for line in servers] == ["cpu:0", "cpu:0"]
    addresses = [line.split()[0].removeprefix("rpc://") + "/cpu:0" for line in servers]
    assert json.loads(answer) == addresses


def test_options_of_servers_are_checked_there(ssh):
    program = f"{sys.executable} -m hotplug"
    options = ["--hosts", "127.0.0.1", "--ssh", ssh, "--program", program, "--devices", "cpu"]
    done = run(*options, "--serve", "--run-limit 0", "true")
    assert done.returncode == 2
    assert "--run-limit takes a number of seconds above 0" in done.stderr


@pytest.fixture
def sshd(tmp_path):
    """A real one on loopback, for this user by a key made for it; the ssh that reaches it."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    program = shutil.which("sshd", path=path)
    if program is None or not shutil.which("ssh"):
        pytest.skip("no sshd")
    for name in ("host", "user"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(make, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "ListenAddress": f"127.0.0.1:{port}", "HostKey": tmp_path / "host", "PidFile": "none",
        "AuthorizedKeysFile": tmp_path / "user.pub", "StrictModes": "no",
        "PasswordAuthentication": "no",
    }  # fmt: skip
    (tmp_path / "config").write_text("".join(f"{k} {v}\n" for k, v in settings.items()))
    known = f"[127.0.0.1]:{port} {(tmp_path / 'host.pub').read_text()}"
    (tmp_path / "known").write_text(known)
    command = [program, "-D", "-e", "-f", str(tmp_path / "config")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        first = process.stderr.readline()
        if "listening" not in first:
            process.wait(10)
            pytest.skip(f"sshd does not start here: {first.strip()}")
        yield (
            f"ssh -F none -p {port} -i {tmp_path / 'user'} -o IdentitiesOnly=yes -o BatchMode=yes "
            f"-o UserKnownHostsFile={tmp_path / 'known'}"
        )
        process.terminate()


def test_a_real_ssh(sshd, tmp_path):
    keys = tmp_path / "keys of the other machine"
    program = f"env HOTPLUG_RPC_KEYS={shlex.quote(str(keys))} {sys.executable} -m hotplug"
    options = ["--hosts", "127.0.0.1", "--ssh", sshd, "--program", program, "--devices", "cpu"]
    done = run(*options, "--", sys.executable, "-c", ASK)
    assert done.returncode == 0, done.stderr
    line, answer = done.stdout.splitlines()
    server = line.split()[0].removeprefix("rpc://")
    assert json.loads(answer) == [f"{server}/cpu:0"]
    assert KeyRing(keys).identity() != KeyRing().identity()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2])), 5).close()
    (tmp_path / "known").write_text("")
    done = run(*options, "true")
    assert done.returncode == 2
    assert "Host key verification failed" in done.stderr
    assert "ended with code 255" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a signal that can be handled")
def test_sigterm_ends_command_and_servers(ssh):
    program = f"{sys.executable} -m hotplug"
    options = ["--hosts", "127.0.0.1", "--ssh", ssh, "--program", program, "--devices", "cpu"]
    wait = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    command = [sys.executable, "-m", "hotplug", "cluster", *options, sys.executable, "-c", wait]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as cluster:
        server = cluster.stdout.readline().split()[0].removeprefix("rpc://")
        process = psutil.Process(int(cluster.stdout.readline()))
        cluster.terminate()
        assert cluster.wait(30) == 128 + signal.SIGTERM
    process.wait(10)
    host, _, port = server.rpartition(":")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), 5).close()


def test_a_server_that_does_not_start(ssh):
    program = f"{sys.executable} -m hotplug"
    options = ["--hosts", "127.0.0.1", "--ssh", ssh, "--program", program]
    done = run(*options, "--devices", "nosuch:0", "true")
    assert done.returncode == 2
    assert "no device for" in done.stderr
    assert "ended with code 2 before it was up" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required"),
        (["--hosts", "a", "--dask", "b"], "not allowed"),
        (["--dask-local", "0"], "at least 1"),
        (["--hosts", ""], "no host"),
        (["--hosts=-oProxyCommand=touch x"], "is no host"),
        (["--hosts", "me@a'b"], "is no address"),
        (["--hosts", "a", "--ssh", "/nonexistent/ssh"], "cannot be started"),
        (["--hosts", "a", "--ssh", "ssh '"], "--ssh"),
        (["--hosts", "a", "--serve", "--models '"], "--serve"),
    ],
)
def test_wrong_usage_is_one_sentence(capsys, words, message):
    assert main(["cluster", *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def server(program):
    return HostServer([sys.executable, "-c", program], "box")


def test_a_server_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr("hotplug_rpc.cluster.server._SECONDS", 0.2)
    silent = server("import time; time.sleep(60)")
    with pytest.raises(RemoteError, match="on box was not up after"):
        silent.announcement()
    silent.stop()


def test_what_is_no_announcement_is_passed_over():
    key = "a" * 64
    lines = [
        "hello", "[]", "7", '{"port": 1}', json.dumps({"port": "x", "key": key, "devices": []}),
        json.dumps({"port": 1, "key": "';touch x", "devices": []}),
        json.dumps({"port": 7, "key": key, "devices": ["cpu:0"]}),
    ]  # fmt: skip
    started = server(f"print({chr(10).join(lines)!r}, flush=True); input()")
    assert started.announcement() == Announcement("box", 7, key, ("cpu:0",))
    started.stop()


def test_keys_for_one_program(monkeypatch):
    monkeypatch.setenv("HOTPLUG_RPC_TRUSTED", f"box:1={'a' * 64}, [::1]:2={'b' * 64}")
    assert KeyRing().server_key(Address("box", 1)).hex() == "a" * 64
    assert KeyRing().server_key(Address("::1", 2)).hex() == "b" * 64
    for value in ("box:1", "box:1=xyz"):
        monkeypatch.setenv("HOTPLUG_RPC_TRUSTED", value)
        with pytest.raises(SettingsError, match="HOTPLUG_RPC_TRUSTED"):
            KeyRing().server_key(Address("box", 1))


@pytest.mark.parametrize(
    ("words", "package"), [(["--dask-local", "2"], "distributed"), (["--ray", "auto"], "ray")]
)
def test_what_is_missing_is_named(capsys, monkeypatch, words, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    assert main(["cluster", *words]) == 2
    assert f"pip install {package}" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="no Dask")
def test_workers_of_dask():
    options = ["--dask-local", "2", "--devices", "cpu"]
    done = run(*options, "--", sys.executable, "-c", ASK)
    assert done.returncode == 0, done.stderr
    *servers, answer = done.stdout.splitlines()
    assert len(servers) == len(set(servers)) == 2
    assert len(json.loads(answer)) == 2


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray")
def test_nodes_of_ray():
    done = run("--ray", "local", "--devices", "cpu", "--", sys.executable, "-c", ASK)
    assert done.returncode == 0, done.stderr
    server, answer = done.stdout.splitlines()
    assert json.loads(answer) == [server.split()[0].removeprefix("rpc://") + "/cpu:0"]
