"""Fixtures of the registry's tests."""

from __future__ import annotations

import pytest

from hotplug.registry import Registry
from hotplug.registry.discovery import installed


@pytest.fixture
def registry(site) -> Registry:
    """A registry that sees the installed plug-ins of the test and no others."""
    return Registry(lambda: [s for s in installed() if str(s.provenance).startswith("test-")])
