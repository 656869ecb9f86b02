"""Who comes in: keys on the list, tickets, and how often strangers may try."""

from __future__ import annotations

import pytest

from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.server import door as module
from hotplug_rpc.server import tally
from hotplug_rpc.server.door import Door
from hotplug_rpc.server.holdings import HeldBuffer
from hotplug_rpc.server.metrics import Metrics
from hotplug_rpc.server.offers import Offer
from hotplug_rpc.server.peers import Peers

FRIEND, STRANGER, EXTRA, SERVER = (bytes([number]) * 32 for number in range(4))


@pytest.fixture
def ring(tmp_path):
    made = KeyRing(tmp_path / "keys")
    made.allow(FRIEND, "friend")
    return made


@pytest.fixture
def peers():
    return Peers(lambda *where: [])


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def door(ring, peers, metrics):
    return Door(ring, [EXTRA], peers, metrics)


def asks(door, key, address="10.0.0.1", mechanism=b"CURVE"):
    """The status, and whom ZeroMQ is told it was."""
    question = [b"1.0", b"7", b"hotplug", address.encode(), b"", mechanism, key]
    answer = door.answer(question)
    assert answer[:2] == [b"1.0", b"7"]
    return answer[2], answer[4].decode()


def test_keys_on_the_list_come_in(door, ring):
    for key in (FRIEND, EXTRA, ring.identity().public):
        assert asks(door, key) == (b"200", key.hex())
    for key in (STRANGER, b"", FRIEND[:31], FRIEND + b"x"):
        assert asks(door, key) == (b"400", "")
    for mechanism in (b"NULL", b"PLAIN"):
        assert asks(door, FRIEND, mechanism=mechanism) == (b"400", "")


def test_the_list_is_read_again_when_it_changes(door, ring):
    ring.allow(STRANGER, "guest")
    assert asks(door, STRANGER)[0] == b"200"
    ring.forbid("friend")
    assert asks(door, FRIEND)[0] == b"400"
    (ring.folder / "clients.allowed").write_text("nonsense\n")
    assert asks(door, STRANGER)[0] == b"400"
    assert asks(door, EXTRA)[0] == b"200"


def test_who_is_refused_too_often_is_not_answered_any_more(door, metrics, monkeypatch):
    statuses = [asks(door, STRANGER)[0] for _ in range(25)]
    assert statuses == [b"400"] * 20 + [b"300"] * 5
    assert metrics.get("refused_total", 'reason="rate"') == 5
    assert asks(door, STRANGER, "10.0.0.2")[0] == b"400"
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 61)
    assert asks(door, STRANGER)[0] == b"400"


def test_a_stranger_does_not_keep_out_who_is_known(door):
    """Both may sit behind one address."""
    for _ in range(30):
        asks(door, STRANGER)
    assert asks(door, FRIEND)[0] == b"200"


def test_a_site_of_ipv6_is_one_place(door):
    statuses = {asks(door, STRANGER, f"2001:db8::{number:x}")[0] for number in range(1, 30)}
    assert statuses == {b"400", b"300"}
    assert asks(door, STRANGER, "2001:db8:0:1::1")[0] == b"400"
    assert asks(door, STRANGER, "::ffff:10.9.9.9")[0] == b"400"


def test_many_addresses_do_not_fill_memory(door, monkeypatch):
    monkeypatch.setattr(tally, "_MOST_PLACES", 10)
    for number in range(100):
        asks(door, STRANGER, f"10.0.1.{number}")
    assert len(door._refusals) == 10


def test_a_ticket_lets_its_server_in(door, peers):
    offer = Offer(FakeDevice("fake:0"))
    buffer = offer.device.buffers.allocate(8)
    ticket = peers.issue(HeldBuffer(offer, buffer, buffer.free), SERVER.hex())
    assert asks(door, SERVER)[0] == b"200"
    assert not door.knows(SERVER)
    peers.redeem(ticket, SERVER.hex(), None, 8)
    assert asks(door, SERVER)[0] == b"400"
    offer.desk.close()
