"""A client written from docs/protocol.md, with nothing of ours but the hash of the op table."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest
import zmq
from tests.rpc.servers import in_thread

from hotplug import ops
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.keys import KeyRing

HEAD = struct.Struct("<2sBBIQ")
HELLO, BYE, PING, MEMORY, ALLOCATE, WRITE, READ = 1, 2, 3, 4, 6, 8, 9
COMPILE, BIND, RUN, CANCEL = 11, 12, 13, 16
DONE, FAILED, NUDGE = 128, 129, 130


class Client:
    """One connection."""

    def __init__(self, port):
        keys = KeyRing().identity()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.curve_publickey, self._socket.curve_secretkey = keys.public, keys.secret
        self._socket.curve_serverkey = keys.public  # this user's server
        self._socket.connect(f"tcp://127.0.0.1:{port}")
        self._id = 0

    def send(self, kind, *payload, **fields):
        self._id += 1
        head = HEAD.pack(b"hp", 1, kind, 20_000, self._id) + json.dumps(fields).encode()
        self._socket.send_multipart([head, *payload])
        return self._id

    def answer(self, seconds=20):
        """Kind, id, fields, payload; None if nothing comes."""
        while self._socket.poll(seconds * 1000):
            head, *payload = self._socket.recv_multipart()
            magic, major, kind, _, number = HEAD.unpack_from(head)
            assert (magic, major) == (b"hp", 1)
            if kind != NUDGE:
                return kind, number, json.loads(head[16:] or b"{}"), payload
        return None

    def ask(self, kind, *payload, **fields):
        number = self.send(kind, *payload, **fields)
        kind, answered, body, frames = self.answer()
        assert answered == number
        return kind, body, frames

    def does(self, kind, *payload, **fields):
        kind, body, frames = self.ask(kind, *payload, **fields)
        assert kind == DONE, body
        return body, frames

    def close(self):
        self._context.destroy(linger=0)


def graph():
    """y = x + x, for four float32."""
    body = {
        "ops": ops.fingerprint(),
        "nodes": [["input", [], ["x", "f32", [4]]], ["add", [0, 0], []]],
        "outputs": [["y", 1]],
        "updates": [],
    }
    text = json.dumps(body).encode()
    checksum = hashlib.blake2b(text, digest_size=16).digest()
    return struct.pack("<8sHH", b"hotplug\0", 1, 0) + checksum + text


@pytest.fixture
def client():
    with in_thread([FakeDevice("fake:0", memory_bytes=1 << 20)]) as server:
        made = Client(server.address.port)
        yield made
        made.close()


def test_a_run(client):
    body, _ = client.does(HELLO, protocol=[1, 0], library="mine", ops=ops.fingerprint())
    assert body["protocol"] == [1, 0]
    assert body["devices"][0]["info"]["index"] == 0
    assert {"frame_bytes", "waiting", "waiting_bytes"} == body["limits"].keys()
    assert client.does(MEMORY, device=0)[0]["total"] == 1 << 20
    kind, body, _ = client.ask(COMPILE, graph(), device=0, executable=1, graph="0" * 32,
                               arena_bytes=0)  # fmt: skip
    assert (kind, body["error"]) == (FAILED, "ProtocolError")
    key = body["message"].split(" is ")[1][:32]
    client.does(COMPILE, graph(), device=0, executable=1, graph=key, arena_bytes=0, threads=None)
    for buffer in (1, 2):
        client.does(ALLOCATE, device=0, buffer=buffer, nbytes=16)
    client.does(BIND, device=0, executable=1, buffers={"x": 1, "output:y": 2})
    x = struct.pack("<4f", 1, 2, 3, 4)
    _, frames = client.does(RUN, x, device=0, executable=1, writes=[[1, 0]], reads=[2])
    assert struct.unpack("<4f", frames[0]) == (2, 4, 6, 8)
    client.does(WRITE, struct.pack("<f", 9), device=0, buffer=1, offset=4)
    client.does(RUN, device=0, executable=1)
    assert struct.unpack("<f", client.does(READ, device=0, buffer=2, offset=4, nbytes=4)[1][0]) == (
        18.0,
    )


def test_what_is_not_answered(client):
    client.does(HELLO, protocol=[1, 0], library="mine", ops=ops.fingerprint())
    client.send(CANCEL, request=77)
    assert client.does(PING, b"abc")[1] == [b"abc"]  # and nothing before it
    client.send(BYE)
    assert client.answer(seconds=1) is None


def test_versions_are_told_apart(client):
    kind, body, _ = client.ask(HELLO, protocol=[2, 5], library="9.9", ops="x")
    assert (kind, body["error"]) == (FAILED, "VersionError")
    assert "2.5" in body["message"]
    assert "server 1." in body["message"]
