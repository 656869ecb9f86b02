"""Tickets, by which another server reads a buffer."""

from __future__ import annotations

import time

from tests.rpc.services import HELLO, Bench

from hotplug.testing.fakes import FakeDevice
from hotplug_rpc import requests as rq
from hotplug_rpc.server import peers
from hotplug_rpc.server.limits import Limits
from hotplug_rpc.wire import Kind


def test_who_came_for_a_ticket_gets_nothing_else(bench):
    bench.does(rq.Allocate(0, 1, 8))
    bench.does(rq.Ticket(0, 1, "c" * 64))
    body = bench.ask(HELLO, peer=b"t", ticket_only=True)[0].body
    assert body["devices"] == []
    for request in (rq.Memory(0), rq.Allocate(0, 1, 4), rq.Weights(0, [])):
        assert bench.fails(request, peer=b"t", ticket_only=True)[0] == "SessionError"


def test_tickets(bench):
    bench.does(rq.Allocate(0, 1, 8))
    bench.does(rq.Write(0, 1, 0), [b"12345678"])
    ticket = bench.does(rq.Ticket(0, 1, "c" * 64))[0]["ticket"]
    other = bench.does(rq.Ticket(0, 1, "d" * 64))[0]["ticket"]
    bench.ask(HELLO, peer=b"t", ticket_only=True)
    assert bench.does(rq.Redeem(ticket, None), peer=b"t")[1] == [b"12345678"]
    assert bench.fails(rq.Redeem(ticket, None), peer=b"t")[0] == "SessionError"
    assert bench.fails(rq.Redeem(other, None), peer=b"t")[0] == "SessionError"


def test_a_ticket_gives_no_more_than_a_frame_at_once():
    """Else a client could have a buffer of any size copied into the host's memory."""
    bench = Bench(FakeDevice("fake:0"), limits=Limits(frame_bytes=4))
    bench.does(HELLO)
    bench.does(rq.Allocate(0, 1, 10))
    for offset, data in [(0, b"1234"), (4, b"5678"), (8, b"90")]:
        bench.does(rq.Write(0, 1, offset), [data])
    ticket = bench.does(rq.Ticket(0, 1, "c" * 64))[0]["ticket"]
    for nbytes in (None, 5, 1 << 40):
        assert bench.fails(rq.Redeem(ticket, nbytes)) == (
            "UsageError", f"{nbytes or 10} bytes are not given at once, but 4"
        )  # fmt: skip
    pieces = [bench.does(rq.Redeem(ticket, nbytes))[1] for nbytes in (4, 0, 3)]
    assert pieces == [[b"1234"], [b""], [b"567"]]
    assert bench.fails(rq.Redeem(ticket, 4))[0] == "UsageError"
    assert bench.does(rq.Redeem(ticket, None))[1] == [b"890"]
    assert bench.fails(rq.Redeem(ticket, 0))[0] == "SessionError"
    bench.service.close()


def test_a_ticket_is_good_longer_for_more_bytes(bench, monkeypatch):
    bench.does(rq.Allocate(0, 1, 1 << 19))
    ticket = bench.does(rq.Ticket(0, 1, "c" * 64))[0]["ticket"]
    now = time.monotonic()
    for later, fails in [(30.2, False), (31, True)]:
        monkeypatch.setattr(peers.time, "monotonic", lambda later=later: now + later)
        kind = bench.ask(rq.Redeem(ticket, 8))[0].kind
        assert (kind is Kind.FAILED) is fails


def test_tickets_end_and_are_few(bench, monkeypatch):
    bench.does(rq.Allocate(0, 1, 8))
    monkeypatch.setattr(peers, "_MOST", 2)
    old = bench.does(rq.Ticket(0, 1, "c" * 64))[0]["ticket"]
    bench.does(rq.Ticket(0, 1, "c" * 64))
    assert bench.fails(rq.Ticket(0, 1, "c" * 64))[0] == "SessionError"
    now = time.monotonic()
    monkeypatch.setattr(peers.time, "monotonic", lambda: now + 31)
    assert bench.fails(rq.Redeem(old, None))[0] == "SessionError"
    assert not bench.shared.peers.expects("c" * 64)
    bench.does(rq.Ticket(0, 1, "c" * 64))
