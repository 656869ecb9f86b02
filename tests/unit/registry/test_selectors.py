"""The grammar of device selectors, and what they choose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.errors import DeviceNotFoundError, SelectorError
from hotplug.registry.choice import same_device
from hotplug.registry.selectors import TYPES, Kind, Term, parse
from hotplug.testing.fakes import FakeDevice, fake_backend, fake_registry

words = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True).filter(
    lambda word: word not in {"auto", "uuid", "pci"}
)
indices = st.none() | st.integers(0, 999_999)
plain = st.text(st.characters(codec="ascii", exclude_characters=", ", categories=["L", "N", "P"]))
addresses = plain.filter(lambda text: text != "")


@st.composite
def terms(draw):
    """A term and how it is written."""
    kind = draw(st.sampled_from(Kind))
    if kind is Kind.AUTO:
        return Term("auto", kind)
    if kind is Kind.WORD:
        word, index = draw(words), draw(indices)
        return Term(word if index is None else f"{word}:{index}", kind, word, index=index)
    value = draw(addresses)
    if kind is Kind.ADDRESS:
        word = draw(words)
        return Term(f"{word}://{value}", kind, word, value)
    if "://" in f"{kind.value}:{value}":
        value = "0"
    return Term(f"{kind.value}:{value}", kind, value=value.lower())


@given(st.lists(terms(), min_size=1, max_size=4), st.sampled_from([",", ", ", " , "]))
def test_what_is_written_is_read(written, comma):
    assert parse(comma.join(term.text for term in written)) == tuple(written)


@given(st.lists(terms().filter(lambda t: t.kind is not Kind.ADDRESS), min_size=1, max_size=3))
def test_case_does_not_matter(written):
    text = ",".join(term.text for term in written)
    for one, other in zip(parse(text), parse(text.upper()), strict=True):
        assert (one.kind, one.word, one.index) == (other.kind, other.word, other.index)
        assert one.value == other.value


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        found = parse(text)
    except SelectorError as error:
        refusal = error
    else:
        assert found
        return
    assert refusal.device == text
    assert "cuda:1" in str(refusal)


@pytest.mark.parametrize(
    "text",
    ["", " ", ",", "cuda,", ",cuda", "cuda:", "cuda:-1", "cuda:x", "cuda 1", "auto:0", "uuid:", "1",
     "cuda:1:2", "rpc://", "cuda:٣", "cuda:12345678"],
)  # fmt: skip
def test_refused(text):
    with pytest.raises(SelectorError):
        parse(text)


# What is chosen


def device(identity, kind=DeviceType.GPU, **more):
    backend, _, index = identity.partition(":")
    return FakeDevice(DeviceInfo(backend, int(index), f"Fake {identity}", kind, **more))


@pytest.fixture
def machine():
    """A machine with two cards, the first seen twice, an integrated GPU and a processor."""
    return fake_registry(
        fake_backend("cpu", device("cpu:0", DeviceType.CPU)),
        fake_backend(
            "cl",
            device("cl:0", pci="0000:C1:00.0"),
            device("cl:1", DeviceType.IGPU),
            device("cl:2", DeviceType.CPU),
            priority=40,
        ),
        fake_backend(
            "nv",
            device("nv:0", uuid="GPU-aa", pci="0000:c1:00.0"),
            device("nv:1", uuid="GPU-bb", pci="0000:c2:00.0"),
            priority=80,
        ),
        fake_backend(
            "far",
            device("far:0", DeviceType.REMOTE, properties={"address": "host:7000/nv:0"}),
        ),
    )


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        # type, then priority, then name, then number; the twin of nv:0 is left out
        ("auto", "nv:0 nv:1 cl:1 far:0 cpu:0"),
        ("gpu", "nv:0 nv:1 cl:1"),
        ("gpu:1", "nv:1"),
        ("gpu:2", "cl:1"),  # cl:0 has been counted as nv:0
        ("igpu", "cl:1"),
        ("remote", "far:0"),
        ("nv", "nv:0 nv:1"),
        ("NV:1", "nv:1"),
        ("cl", "cl:0 cl:1 cl:2"),
        ("cpu", "cpu:0"),
        ("cl:0", "cl:0"),
        ("cpu,nv", "cpu:0 nv:0 nv:1"),
        ("cl:0,nv", "cl:0 nv:1"),  # the same card is not used twice
        ("cl:0,nv:0", "cl:0 nv:0"),  # but for who names it twice
        ("nv:1,nv", "nv:1 nv:0"),
        ("nothing,cpu", "cpu:0"),
        ("nv:7,cpu", "cpu:0"),
        ("uuid:gpu-BB", "nv:1"),
        ("pci:0000:c2:00.0", "nv:1"),
        ("far://host:7000/nv:0", "far:0"),
        ("far://elsewhere:1/nv:0,cpu", "cpu:0"),
    ],
)
def test_chosen(machine, selector, chosen):
    selection = machine.select(selector)
    assert [info.id for info in selection.devices] == chosen.split()
    assert chosen.split()[0] in selection.explain()


def test_explanation_names_the_twin(machine):
    assert dict(machine.select("auto").skipped) == {
        "cl:0": "the same device as nv:0",
        "cl:2": "the processor, as cpu:0",
    }


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ("nv:2", "nv has only nv:0, nv:1"),
        ("accel", "no device for 'accel'"),
        ("mv:0", "did you mean nv:0?"),
        ("cuda", "pip install hotplug-cuda"),
        ("uuid:none", "available: nv:0"),
        ("far://elsewhere:1/nv:0", "nothing is there"),
        ("gone://elsewhere:1/nv:0", "no backend of that name"),
    ],
)
def test_what_is_not_there(machine, selector, text):
    with pytest.raises(DeviceNotFoundError) as caught:
        machine.select(selector)
    assert text in str(caught.value)
    assert caught.value.device == selector
    assert "cpu:0" in caught.value.available


def test_naming_a_backend_asks_no_other():
    one, other = fake_backend("one", device("one:0")), fake_backend("other", device("other:0"))
    fake_registry(one, other).select("one:0")
    assert (one.calls["probe"], other.calls["probe"]) == (1, 0)


def test_every_type_has_a_word():
    assert {kind for kinds in TYPES.values() for kind in kinds} == set(DeviceType)


ids = st.none() | st.sampled_from(["a", "A", "b"])
infos = st.builds(
    DeviceInfo,
    st.sampled_from(["x", "y"]),
    st.integers(0, 2),
    st.just("same name"),
    st.just(DeviceType.GPU),
    uuid=ids,
    pci=ids,
)


@given(infos, infos)
def test_being_the_same_device_is_mutual_and_never_guessed(one, other):
    assert same_device(one, other) == same_device(other, one)
    if one.backend != other.backend and same_device(one, other):
        assert one.uuid is not None or one.pci is not None
