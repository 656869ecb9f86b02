from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotplug.errors import UsageError
from hotplug_llm.streaming import TextStream


def run(pieces, stops=()):
    stream = TextStream(stops)
    shown = [stream.push(piece) for piece in pieces]
    return "".join([*shown, stream.finish()]), stream.stopped


def cut(data, places):
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


# Few letters, so that stop texts occur, begin without ending, and overlap.
LETTERS = st.text(alphabet="ab\u00e9\u20ac\U0001f600", max_size=12)
PLACES = st.lists(st.integers(0, 60), max_size=12)


@given(LETTERS, st.lists(LETTERS.filter(bool), max_size=3), PLACES)
def test_any_chopping_gives_the_same_text(text, stops, places):
    data = text.encode()
    assert run(cut(data, places), stops) == run([data], stops)


@given(LETTERS, LETTERS.filter(bool), PLACES)
def test_one_stop_text_ends_the_text_where_it_first_occurs(text, stop, places):
    shown, stopped = run(cut(text.encode(), places), [stop])
    assert shown == text.partition(stop)[0]
    assert stopped == (stop in text)


@given(st.binary(max_size=40), PLACES)
def test_bytes_that_are_no_utf8_are_replaced(data, places):
    assert run(cut(data, places))[0] == data.decode("utf-8", errors="replace")


@given(LETTERS, st.lists(LETTERS.filter(bool), max_size=3))
def test_pieces_are_whole_characters_and_never_taken_back(text, stops):
    stream = TextStream(stops)
    shown = ""
    for byte in text.encode():
        shown += stream.push(bytes([byte]))
        assert text.startswith(shown)


def test_a_character_comes_with_its_last_byte():
    stream = TextStream()
    assert [stream.push(bytes([byte])) for byte in "\u20ac!".encode()] == ["", "", "\u20ac", "!"]


def test_text_is_held_back_only_while_a_stop_text_may_begin_in_it():
    stream = TextStream(["###"])
    assert stream.push(b"a #") == "a "
    assert stream.push(b"#") == ""
    assert stream.push(b"b") == "##b"
    assert not stream.stopped


def test_nothing_comes_out_after_a_stop_text():
    stream = TextStream(["END"])
    assert stream.push(b"one END two") == "one "
    assert stream.stopped
    assert stream.push(b"three") == ""
    assert stream.finish() == ""


def test_the_beginning_of_a_stop_text_is_shown_if_it_never_ends():
    assert run([b"a EN"], ["END"]) == ("a EN", False)


def test_of_overlapping_stop_texts_the_first_complete_one_counts():
    assert run([b"abcd"], ["abcd", "bc"]) == ("a", True)
    assert run([b"xabc"], ["bc", "abc"]) == ("x", True)


def test_half_a_character_at_the_end_is_replaced():
    assert run(["\u20ac".encode()[:2]]) == ("\ufffd", False)


def test_an_empty_stop_text_is_refused():
    with pytest.raises(UsageError, match="empty"):
        TextStream(["a", ""])
