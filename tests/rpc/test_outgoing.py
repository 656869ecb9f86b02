"""Answers to clients that do not read: bounded, kept in order, and given up in the end."""

from __future__ import annotations

import time

import pytest
import zmq

from hotplug_rpc.server import outgoing as module
from hotplug_rpc.server.outgoing import Outgoing

PIECE = 1 << 20


@pytest.fixture
def ends(monkeypatch):
    """A server's socket and a client's, which keeps one message and leaves the rest unread."""
    monkeypatch.setattr(module, "_MOST_UNSENT", 4 * PIECE)
    monkeypatch.setattr(module, "_MOST_KEPT", 64 * PIECE)
    context = zmq.Context()
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    router.router_mandatory = 1
    router.linger = dealer.linger = 0
    dealer.rcvhwm = 1
    dealer.rcvbuf = 1 << 16
    dealer.routing_id = b"client"
    port = router.bind_to_random_port("tcp://127.0.0.1")
    dealer.connect(f"tcp://127.0.0.1:{port}")
    dealer.send(b"here")
    router.recv_multipart()
    yield router, dealer
    context.destroy(linger=0)


def message(number):
    return [b"%d" % number, bytes(PIECE)]


def test_what_is_not_read_waits_here_and_comes_in_order(ends):
    router, dealer = ends
    ended = []
    out = Outgoing(router, 30.0, lambda *why: ended.append(why))
    for number in range(48):
        out.send(b"client", message(number))
    out.nudge(b"client", [b"nudge"])
    assert out.waits
    assert sum(nbytes for _, nbytes in out._unsent[b"client"]) <= 5 * PIECE
    got, deadline = [], time.monotonic() + 30
    while len(got) < 48 and time.monotonic() < deadline:
        out.retry()
        if dealer.poll(5):
            number, data = dealer.recv_multipart()
            assert data == bytes(PIECE)
            got.append(int(number))
    assert got == list(range(48))
    assert not out.waits
    assert not ended


def test_a_client_that_never_reads_is_given_up(ends):
    router, _ = ends
    ended = []
    out = Outgoing(router, 30.0, lambda *why: ended.append(why))
    for number in range(100):
        out.send(b"client", message(number))
    out.retry()
    assert ended == [(b"client", "the client does not read its answers")]
    assert not out.waits


def test_so_is_one_that_reads_nothing_for_too_long(ends):
    router, _ = ends
    ended = []
    out = Outgoing(router, 0.0, lambda *why: ended.append(why))
    for number in range(48):
        out.send(b"client", message(number))
    out.retry()
    assert len(ended) == 1


def test_all_clients_together_are_bounded(ends, monkeypatch):
    router, _ = ends
    monkeypatch.setattr(module, "_MOST_KEPT_IN_ALL", 8 * PIECE)
    ended = []
    out = Outgoing(router, 30.0, lambda *why: ended.append(why))
    for number in range(48):
        out.send(b"client", message(number))
    assert ended[0][0] == b"client"


def test_a_client_that_is_gone_is_told_of(ends):
    router, dealer = ends
    ended = []
    out = Outgoing(router, 30.0, lambda *why: ended.append(why))
    dealer.close()
    deadline = time.monotonic() + 20
    while not ended and time.monotonic() < deadline:
        out.send(b"client", [b"x"])
        time.sleep(0.01)
    assert ended[0] == (b"client", "the connection is gone")
    out.forget_sent()
    assert not out._unsent
