"""Heads, fields and requests from bytes: what is right comes through, all else is refused."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotplug_rpc import requests as rq
from hotplug_rpc.errors import ProtocolError
from hotplug_rpc.wire import MAX_HEAD, VERSION, Fields, Kind, id_of, make_head, parse_head

HASH, KEY = "a" * 64, "0" * 32

EXAMPLES = [
    (rq.Hello((1, 0), "0.1.0", "x"), 0),
    (rq.Bye(), 0),
    (rq.Ping(), 1),
    (rq.Memory(0), 0),
    (rq.Supports(0, KEY), 1),
    (rq.Allocate(0, 1, 64), 0),
    (rq.AllocateAll(0, [(1, 64), (2, 0)]), 0),
    (rq.Free(0, [1, 2], [3]), 0),
    (rq.Write(0, 1, 0), 1),
    (rq.Read(0, 1, 0, 64), 0),
    (rq.Copy(0, 1, 2), 0),
    (rq.Compile(0, 1, KEY, 100, None), 0),
    (rq.Compile(0, 1, KEY, 100, 4), 1),
    (rq.Bind(0, 1, {"x": 1, "output:y": 2}), 0),
    (rq.Run(0, 1, [(1, 0), (2, 8)], [3]), 2),
    (rq.Explain(0, 1), 0),
    (rq.Profile(0, 1), 0),
    (rq.Cancel(7), 0),
    (rq.Weights(0, [(1, HASH, 100)]), 0),
    (rq.Content(HASH, 100, 0), 1),
    (rq.Ticket(0, 1, HASH), 0),
    (rq.Fetch(0, 1, "host:1", HASH, HASH), 0),
    (rq.Redeem(HASH, None), 0),
    (rq.Redeem(HASH, 100), 0),
    (rq.Want(0, [(HASH, 100)]), 0),
    (rq.Lend(HASH, [(HASH, 100, 32)]), 0),
]


@pytest.mark.parametrize(("request_", "frames"), EXAMPLES)
def test_requests_come_through(request_, frames):
    head = parse_head(make_head(request_.kind, 5, request_.body(), 1500))
    assert (head.kind, head.id, head.timeout_ms) == (request_.kind, 5, 1500)
    assert rq.parse(head, frames) == request_


def test_every_request_has_an_example():
    assert {type(request) for request, _ in EXAMPLES} == set(rq.CLASSES)
    assert {kind for kind in Kind if kind < 128} == {r.kind for r, _ in EXAMPLES}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("buffer", -1), ("buffer", 1.0), ("buffer", True), ("buffer", "1"), ("buffer", None),
        ("buffer", 1 << 63), ("buffer", [1]), ("device", 65_536), ("nbytes", -5), ("surplus", 1),
    ],
)  # fmt: skip
def test_wrong_fields_are_refused(name, value):
    body = {**rq.Allocate(0, 1, 64).body(), name: value}
    with pytest.raises(ProtocolError, match=name):
        rq.parse(parse_head(make_head(Kind.ALLOCATE, 1, body)), 0)


@pytest.mark.parametrize("name", ["device", "buffer", "nbytes"])
def test_missing_fields_are_refused(name):
    body = rq.Allocate(0, 1, 64).body()
    del body[name]
    with pytest.raises(ProtocolError, match=name):
        rq.parse(parse_head(make_head(Kind.ALLOCATE, 1, body)), 0)


@pytest.mark.parametrize(
    ("request_", "frames"),
    [(rq.Ping(), 2), (rq.Write(0, 1, 0), 0), (rq.Write(0, 1, 0), 2),
     (rq.Run(0, 1, [(1, 0)], []), 0), (rq.Memory(0), 1)],
)  # fmt: skip
def test_wrong_numbers_of_frames_are_refused(request_, frames):
    with pytest.raises(ProtocolError):
        rq.parse(parse_head(make_head(request_.kind, 1, request_.body())), frames)


def raw(kind=Kind.PING, text=b"", magic=b"hp", major=VERSION[0], number=1):
    return struct.pack("<2sBBIQ", magic, major, kind, 0, number) + text


@pytest.mark.parametrize(
    "data",
    [
        b"", b"hp", raw()[:15], raw(magic=b"HP"), raw(major=2), raw(kind=99), raw(text=b"{"),
        raw(text=b"[]"), raw(text=b"1"), raw(text=b'{"a":NaN}'), raw(text=b'{"a":1,"a":2}'),
        raw(text=b"\xff\xfe"), raw(text=b"[" * 100_000), raw(text=b"1" * 5000),
        raw(text=b" " * MAX_HEAD), raw(text=b'{"a":1e999}' + b"x"),
    ],
    ids=range(16),
)  # fmt: skip
def test_what_is_no_head_is_refused(data):
    with pytest.raises(ProtocolError):
        parse_head(data)


def test_hello_and_failures_are_read_in_every_version():
    assert parse_head(raw(Kind.HELLO, major=9)).kind is Kind.HELLO
    assert parse_head(raw(Kind.FAILED, major=9)).kind is Kind.FAILED


def test_replies_are_no_requests():
    for kind in (Kind.DONE, Kind.FAILED, Kind.NUDGE):
        with pytest.raises(ProtocolError, match="no request"):
            rq.parse(parse_head(raw(kind)), 0)
    with pytest.raises(ProtocolError, match="no request"):
        rq.parse(parse_head(raw(Kind.PING, number=0)), 0)


def test_infinite_numbers_are_not_written():
    with pytest.raises(ValueError, match="JSON"):
        make_head(Kind.DONE, 1, {"a": math.inf})


def test_long_heads_are_not_written():
    with pytest.raises(ProtocolError, match="not sent"):
        make_head(Kind.DONE, 1, {"a": "x" * MAX_HEAD})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
NAMES = sorted({name for request, _ in EXAMPLES for name in request.body()})


@given(
    st.sampled_from(list(Kind)), st.dictionaries(st.sampled_from(NAMES), JSON), st.integers(0, 3)
)
def test_any_fields_are_a_request_or_refused(kind, body, frames):
    head = parse_head(raw(kind, json.dumps(body).replace("Infinity", "0").encode()))
    try:
        request = rq.parse(head, frames)
    except ProtocolError:
        return
    again = rq.parse(parse_head(make_head(request.kind, 1, request.body())), frames)
    assert again == request


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_refused(data):
    try:
        head = parse_head(b"hp\x01" + data)
    except ProtocolError:
        return
    assert head.kind in Kind


def test_other_encodings_are_no_json():
    head = make_head(Kind.MEMORY, 7)
    for text in ('{"device":0}'.encode("utf-16"), b'\xef\xbb\xbf{"device":0}'):
        with pytest.raises(ProtocolError, match="JSON"):
            parse_head(head + text)


def test_the_number_of_a_broken_request_is_known():
    assert id_of(make_head(Kind.MEMORY, 7) + b"{") == 7
    assert id_of(b"hp\x01\xff" + bytes(4) + b"\x09" + bytes(7)) == 9
    assert id_of(b"hp") == id_of(b"") == id_of(b"xx" + bytes(14)) == 0


def test_fields_that_nobody_read_are_refused():
    fields = Fields({"a": 1, "b": 2})
    assert fields.count("a") == 1
    with pytest.raises(ProtocolError, match="'b'"):
        fields.done()
