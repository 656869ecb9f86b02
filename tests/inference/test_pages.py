"""What the pages about several devices have the reader type works, as it is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import hotplug
import hotplug_llm
from hotplug import ops
from hotplug.backend import DeviceType
from hotplug.cli import main
from hotplug.graph import Graph
from hotplug.testing.fakes import FakeDevice, fake_backend, fake_registry

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("placement.md", "failures.md", "watching.md", "modes.md")


@pytest.fixture
def registry(monkeypatch, tmp_path, tiny_model):
    """A machine with all devices that the pages name, and the model that they load."""
    cards = [FakeDevice(name) for name in ("cuda:0", "cuda:1", "opencl:0")]
    processor = FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)
    backends = [fake_backend("cuda", *cards[:2]), fake_backend("opencl", cards[2])]
    made = fake_registry(*backends, fake_backend("cpu", processor))
    for place in ("hotplug.session.fleet.default", "hotplug.cli.calibrate.default"):
        monkeypatch.setattr(place, lambda: made)
    monkeypatch.setattr("hotplug.cli.calibrate.list_devices", lambda: [card.info for card in cards])
    monkeypatch.setattr("hotplug.watch", lambda every: None)
    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").symlink_to(tiny_model)
    return made


def blocks(page, language=""):
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [body for kind, body in found if kind == language]


def commands(page):
    """Command lines, those with `a|b` once for each."""
    for line in "".join(blocks(page)).splitlines():
        found = re.match(r"(?:\$ )?(hotplug .*)", line)
        if found:
            words = shlex.split(found[1], comments=True)[1:]
            choices = next((word.split("|") for word in words if "|" in word), [""])
            yield from ([one if "|" in word else word for word in words] for one in choices)


SHORT = {
    "generate": ["-n", "2", "--context", "60"],
    "calibrate": ["--seconds", "0.01", "--dtypes", "f32"],
    "plan": [],
}


@pytest.mark.parametrize("page", PAGES)
def test_commands(registry, capsys, page):
    for words in commands(page):
        assert main([*words, *SHORT[words[0]]]) == 0, words
        assert capsys.readouterr().out, words
    files = {path.name for path in Path().iterdir()} - {"model.gguf", "cache"}
    written = re.findall(r"(?:--svg|--trace) (\S+)", "".join(blocks(page)))
    assert files == set(written)


@pytest.mark.parametrize("page", PAGES)
def test_programs(registry, page):
    x = ops.input(name="x", dtype="f32", shape=(4, 8))
    weight = ops.weight(name="w", dtype="f32", shape=(8, 8))
    graph = Graph.build({"y": ops.matmul(x, weight, transpose_b=True)})
    eye = np.eye(8, dtype=np.float32).reshape(-1).view(np.uint8)
    weights = {"w": hotplug.HostTensor(weight.type, eye)}
    with (
        hotplug_llm.load("model.gguf", "cuda:0,cpu", context=60) as model,
        hotplug.Session("cuda,cpu", weights) as session,
    ):
        names = {"hotplug": hotplug, "hotplug_llm": hotplug_llm, "model": model, "graph": graph}
        names |= {"session": session, "program": session.compile(graph), "path": "model.gguf"}
        names |= {"inputs": {"x": np.ones((4, 8), np.float32)}}
        for body in blocks(page, "python"):
            exec(body, names)
