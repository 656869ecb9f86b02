"""Fixtures that make installed distributions out of nothing, and children of this process."""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HEALTHY = """
from hotplug.testing.fakes import FakeDevice, fake_backend
backend = fake_backend({name!r}, FakeDevice("{name}:0"))
"""


class Site:
    """A folder of sys.path with distributions in it.

    Attributes:
        path: the folder.
        modules: names of the modules that were made.
    """

    _numbers = itertools.count()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modules: list[str] = []

    def install(
        self,
        name: str,
        code: str = HEALTHY,
        *,
        requires: str = "hotplug-core>=0.1",
        distribution: str | None = None,
        group: str = "hotplug.backends",
        target: str = "{module}:backend",
    ) -> str:
        """A module and the metadata that makes it a plug-in; returns the module's name."""
        # No module's name is used twice, because Python would not import the second one.
        module = f"made_for_test_{next(self._numbers)}"
        distribution = distribution or f"test-{name.lower()}"
        code = code.replace("{name!r}", repr(name)).replace("{name}", name)
        (self.path / f"{module}.py").write_text(code)
        info = self.path / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n"
        metadata += f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(metadata)
        target = target.format(module=module)
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
        self.modules.append(module)
        importlib.invalidate_caches()
        return module

    def remove(self, distribution: str) -> None:
        """Take the metadata away, as uninstalling does."""
        info = self.path / f"{distribution.replace('-', '_')}-1.5.dist-info"
        for file in info.iterdir():
            file.unlink()
        info.rmdir()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A folder on sys.path, as if it were one of site-packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    made = Site(folder)
    yield made
    for module in made.modules:
        sys.modules.pop(module, None)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOTPLUG_* variable of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("HOTPLUG_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def in_a_child() -> Callable[[Callable[[], object]], bool]:
    """Runs a function in a forked child and tells whether it returned something true in time."""
    if not hasattr(os, "fork"):
        pytest.skip("the system has no fork")

    def run(function: Callable[[], object]) -> bool:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends the child if it waits for its parent's threads
            try:
                os._exit(0 if function() else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) == 0

    return run
