"""The tables of cases, a module per family of ops."""

from __future__ import annotations

from collections.abc import Iterator

from hotplug.testing.conformance.case import Case
from hotplug.testing.conformance.cases import (
    composed,
    convolution,
    elementwise,
    movement,
    products,
    programs,
    recurrence,
    reduction,
    resample,
)

__all__ = ["all_cases"]


def all_cases() -> Iterator[Case]:
    """Every case of the suite, slow ones too; names are unique."""
    for family in (
        elementwise,
        reduction,
        products,
        convolution,
        resample,
        recurrence,
        movement,
        composed,
        programs,
    ):
        yield from family.cases()
