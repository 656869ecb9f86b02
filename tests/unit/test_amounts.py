"""Amounts as people write and read them."""

from __future__ import annotations

import pytest

from hotplug.amounts import parse_size, size_text
from hotplug.errors import UsageError


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("0", 0),
        ("12345", 12345),
        ("8G", 8 * 10**9),
        ("8GB", 8 * 10**9),
        ("8GiB", 8 << 30),
        ("8 gi", 8 << 30),
        ("1.5k", 1500),
        (" 800MB ", 800 * 10**6),
        ("2tib", 2 << 40),
        ("900719925474099301", 900719925474099301),
    ],
)
def test_sizes_are_read(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize(
    "text", ["", "G", "-1", "8X", "8Bi", "8i", "1e9", "8G8", "1.", "٣", "9" * 19, "nan", "8GG"]
)
def test_what_is_no_size_is_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match='"8GiB", "800MB" or in bytes'):
        parse_size(text)


def test_what_is_written_is_read_again() -> None:
    assert [parse_size(size_text(n)) for n in (999, 83_300_000, 4 * 10**12)] == [
        999,
        83_300_000,
        4 * 10**12,
    ]
