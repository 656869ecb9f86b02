"""Where a model's layers go: `hotplug plan`, options of loading, and making a model fit."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import hotplug
import hotplug_llm
from hotplug.backend import DeviceType
from hotplug.cli import main
from hotplug.errors import DeviceNotFoundError, PlacementError, UsageError
from hotplug.placement import Rates
from hotplug.placement.cost import Link
from hotplug.testing.fakes import FakeDevice, fake_backend, fake_registry

MB, KB = 1_000_000, 1000
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def devices(monkeypatch):
    """Three devices, of which two are small; the registry that has them is the process's."""
    found = [
        FakeDevice("fake:0", memory_bytes=9 * MB),
        FakeDevice("fake:1", memory_bytes=900 * KB),
        FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True),
    ]
    registry = fake_registry(fake_backend("fake", *found[:2]), fake_backend("cpu", found[2]))
    monkeypatch.setattr("hotplug.session.fleet.default", lambda: registry)
    return found


def plan_of(*options, model):
    return main(["plan", "-m", str(model), "-c", "512", *options])


def test_a_plan_takes_nothing(devices, deep_model, capsys):
    assert plan_of("--devices", "fake:0,cpu", model=deep_model) == 0
    shown = capsys.readouterr().out
    assert "fake:0" in shown
    assert "its weight lives there" in shown
    for device in devices:
        assert not device.calls["allocate"]
        assert not device.calls["compile"]
    assert devices[0].memory().free == 9 * MB


def test_a_budget_splits_the_model(devices, deep_model, capsys, tmp_path):
    picture, graph = tmp_path / "plan.svg", tmp_path / "plan.dot"
    options = ["--devices", "fake:0,cpu", "--budget", "fake:0=800KB", "--json"]
    files = ["--svg", str(picture), "--dot", str(graph)]
    assert plan_of(*options, *files, model=deep_model) == 0
    told = json.loads(capsys.readouterr().out)
    use = told["memory"]["fake:0"]
    assert 500 * KB < use["total"] <= 800 * KB
    assert use["budget"] == 800 * KB
    assert use["free"] == 9 * MB
    assert told["memory"]["cpu:0"]["weights"] + use["weights"] >= 1250 * KB
    assert told["stats"]["parts"] == len(told["parts"]) >= 2
    assert sum(copy["bytes"] for copy in told["copies"]) == told["stats"]["copied_bytes"] > 0
    assert told["seconds"] > 0
    names = {node["name"]: node for node in told["nodes"]}
    assert names["blk.0.ffn_up.weight"]["device"] == "fake:0"
    assert names["blk.7.ffn_up.weight"]["device"] == "cpu:0"
    assert "full" in names["blk.7.ffn_up.weight"]["reason"]
    root = ET.fromstring(picture.read_text())
    assert root.tag.endswith("svg")
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert any("blk.7.ffn_up.weight" in (title or "") for title in titles)
    assert graph.read_text().startswith("digraph plan {")


def test_shares_and_pins(devices, deep_model, capsys):
    options = ["--devices", "fake:0,fake:1,cpu", "--split", "2,1,0", "--json"]
    assert plan_of(*options, "--place", r"blk\.0\.=cpu:0", model=deep_model) == 0
    told = json.loads(capsys.readouterr().out)
    weights = {name: use["weights"] for name, use in told["memory"].items()}
    assert weights["cpu:0"] < 200 * KB
    assert 1.5 < weights["fake:0"] / weights["fake:1"] < 2.5
    pinned = [node for node in told["nodes"] if node["name"].startswith("blk.0.")]
    assert {node["device"] for node in pinned} == {"cpu:0"}
    assert {node["reason"] for node in pinned} == {r"pinned by 'blk\\.0\\.'"}


def test_it_is_shown_which_way_copies_go(devices, deep_model, capsys, monkeypatch, tmp_path):
    near = lambda source: 0 if source.id == "fake:0" else None  # noqa: E731
    monkeypatch.setattr(devices[1], "direct_from", near, raising=False)
    options = ["--devices", "fake:0,fake:1,cpu", "--split", "1,1,1"]
    assert plan_of(*options, "--json", model=deep_model) == 0
    told = json.loads(capsys.readouterr().out)
    ways = {(copy["from"], copy["to"]): copy["direct"] for copy in told["copies"]}
    assert ways["fake:0", "fake:1"] is True
    assert ways["fake:1", "cpu:0"] is False
    picture = tmp_path / "plan.svg"
    assert plan_of(*options, "--svg", str(picture), model=deep_model) == 0
    assert {"direct", "by the host"} <= set(re.split(r" *│ *", capsys.readouterr().out))
    assert "from fake:0 to fake:1 directly" in picture.read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--place", "nonsense=cpu:0"], "'nonsense' is pinned to cpu:0, and fits no weight"),
        (
            ["--place", "blk=cpu", "--place", "blk=fake:0"],
            "--place says both blk=cpu and blk=fake:0",
        ),
        (["--place", "blk=cpu", "--place", r"blk\.1=fake:0"], "all that it fits to cpu:0 before"),
        (["--budget", "cpu=1GB", "--budget", "cpu=2GB"], "--budget says both cpu=1GB and cpu=2GB"),
        (["--place", "blk=fake:7"], "names fake:7, which is not among the devices in use"),
        (["--place", "cpu:0"], "--place takes something like 'ffn_.*=cpu:0'"),
        (["--place", "(=cpu:0"], "'(' is no regular expression"),
        (["--budget", "fake:0=much"], 'a size is given as "8GiB", "800MB" or in bytes'),
        (["--budget", "fake:7=1GB"], "a budget names fake:7"),
        (["--split", "1"], "a share of 0 or more for each of the 2 devices"),
        (["--split", "inf,1"], "a share of 0 or more for each of the 2 devices"),
        (["--split", "a,b"], '--split takes "auto" or shares such as "3,1"'),
        (["--tokens", "0"], "--tokens must be from 1 to 512"),
        (["--svg", "/nowhere/x.svg"], "/nowhere/x.svg cannot be written"),
    ],
)
def test_what_is_not_understood_or_not_possible(devices, deep_model, capsys, options, says):
    assert plan_of("--devices", "fake:0,cpu", *options, model=deep_model) == 2
    assert says in capsys.readouterr().err


def test_pins_and_budgets_name_devices_by_selectors(devices, deep_model, capsys):
    options = ["--devices", "fake:0,cpu", "--place", r"blk\.0\.=cpu", "--budget", "fake=800KB"]
    assert plan_of(*options, "--json", model=deep_model) == 0
    told = json.loads(capsys.readouterr().out)
    names = {node["name"]: node["device"] for node in told["nodes"]}
    assert names["blk.0.ffn_up.weight"] == "cpu:0"
    assert told["memory"]["fake:0"]["budget"] == 800 * KB
    options = ["--devices", "fake,cpu", "--budget", "fake=1MB"]
    assert plan_of(*options, model=deep_model) == 2
    assert "a budget names fake, which is fake:0 and fake:1: name one" in capsys.readouterr().err


def test_in_tensor_mode_devices_are_expected_to_work_at_once(devices, deep_model, capsys, tmp_path):
    for mode in ("layer", "tensor"):
        options = ["--devices", "fake:0,cpu", "--split", "1,1", "--mode", mode, "--json"]
        picture = tmp_path / f"{mode}.svg"
        assert plan_of(*options, "--svg", str(picture), model=deep_model) == 0
        told = json.loads(capsys.readouterr().out)
        busy = {"fake:0": 0.0, "cpu:0": 0.0}
        for part in told["parts"]:
            busy[part["device"]] += part["compute_seconds"] + part["copy_seconds"]
        if mode == "layer":
            assert told["seconds"] == pytest.approx(sum(busy.values()))
        else:
            hidden = sum(busy.values()) - told["seconds"]
            assert 0.5 * min(busy.values()) < hidden <= min(busy.values())
        labels = {text.text for text in ET.fromstring(picture.read_text()).iter(f"{SVG}text")}
        assert {label for label in labels if label.isdigit()} == set("01234567")
        assert "out" in labels


def test_a_device_that_appears_while_a_command_runs_is_taken_in(tiny_model, monkeypatch, capsys):
    card = FakeDevice("fake:0")
    cards = fake_backend("fake")
    processor = FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)
    registry = fake_registry(cards, fake_backend("cpu", processor))
    monkeypatch.setattr("hotplug.session.fleet.default", lambda: registry)
    ended = []

    def look(every):
        cards.devices.append(card)
        registry.refresh()
        return lambda: ended.append(every)

    monkeypatch.setattr("hotplug_llm.cli.options.watch", look)
    command = ["generate", "-m", str(tiny_model), "-d", "fake,cpu", "--temperature", "0", "-n", "4"]
    assert main([*command, "Hi"]) == 0
    alone = capsys.readouterr().out
    assert main([*command, "--hot-plug", "Hi"]) == 0
    said = capsys.readouterr()
    assert said.out == alone
    assert said.err.startswith("hotplug: fake:0 is taken in\n[fake:0 Fake fake:0, cpu:0")
    assert card.calls["run"]
    assert len(ended) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-d", "fake:0,cpu"], True),
        (["-d", "cpu"], False),
        (["-d", "fake:0,cpu", "--split", "1,0"], False),
    ],
)
def test_it_is_told_where_order_decides_for_want_of_speeds(
    devices, tiny_model, capsys, options, told
):
    command = ["generate", "-m", str(tiny_model), "-n", "2", "--raw", "Hi"]
    assert main([*command, *options]) == 0
    said = capsys.readouterr().err
    assert ("hotplug: the order of the devices decided, since" in said) == told


def test_an_order_that_the_environment_names_is_told_of_as_well(
    devices, tiny_model, capsys, monkeypatch
):
    monkeypatch.setenv("HOTPLUG_DEVICE", "fake:0,cpu")
    assert main(["generate", "-m", str(tiny_model), "-n", "2", "--raw", "Hi"]) == 0
    assert "hotplug: the order of the devices decided, since" in capsys.readouterr().err


def test_fitting_shortens_the_context_and_says_so(devices, deep_model):
    # Weights take 1.25 MB, each token of context 1 kB.
    limit = 2500 * KB
    with pytest.raises(PlacementError, match="no room"):
        hotplug_llm.load(deep_model, "fake:0", budgets={"fake:0": limit}, fallback="error")
    with hotplug_llm.load(deep_model, "fake:0", budgets={"fake:0": limit}, fit=True) as model:
        assert 512 <= model.context <= 1024
        assert model.context % 256 == 0
        assert model.fitted.endswith(f"the context is {model.context} tokens instead of 4096")
        assert model.plan().memory["fake:0"].total <= limit
        assert model.plan(32).memory["fake:0"].total <= limit


def test_fitting_reads_fewer_tokens_at_once_first(devices, deep_model):
    with hotplug_llm.load(deep_model, "fake:0", context=512) as model:
        narrow, wide = (model.plan(n).memory["fake:0"].total for n in (32, 512))
    assert narrow < wide
    limit = (narrow + wide) // 2
    with hotplug_llm.load(
        deep_model, "fake:0", context=512, budgets={"fake:0": limit}, fit=True
    ) as model:
        assert model.context == 512
        assert "tokens instead of 512 are read at once" in model.fitted


def test_fitting_does_nothing_where_all_fits(devices, deep_model):
    with hotplug_llm.load(deep_model, "fake:0", context=512, fit=True) as model:
        assert model.fitted == ""
        assert model.context == 512


def test_fitting_counts_what_is_free_where_no_budget_is_given(devices, deep_model):
    devices[0].buffers.allocate(6 * MB)
    with hotplug_llm.load(deep_model, "fake:0", fit=True) as model:
        assert 1024 <= model.context < 2048


def test_what_cannot_be_made_to_fit_is_told_with_the_numbers(devices, deep_model):
    says = r"even with a context of 256 tokens: .* of 1\d{6} bytes .* fake:1: 810000"
    with pytest.raises(PlacementError, match=says):
        hotplug_llm.load(deep_model, "fake:1", budgets={"fake:1": 900 * KB}, fit=True)


def test_loading_checks_what_it_is_asked(devices, deep_model):
    with pytest.raises(DeviceNotFoundError):
        hotplug_llm.load(deep_model, "cpu", pins={"blk": "fake:0"})
    with pytest.raises(PlacementError, match="fits no weight"):
        hotplug_llm.load(deep_model, "cpu", pins={"experts": "cpu:0"})
    with pytest.raises(UsageError):
        hotplug_llm.load(deep_model, "fake:0,cpu", split=(1, 2, 3))


def test_prompt_and_answer_together_decide_where_weights_live(devices, deep_model, monkeypatch):
    """One device is quick with one token, the other with many; an answer is 128 tokens."""
    link = Link(1e-5, 1e10)
    speeds = {
        "fake:0": Rates(1e13, 1e11, link, link, gemv={"f32": 1e8}),
        "fake:1": Rates(1e10, 1e11, link, link),
        "cpu:0": Rates(1e9, 1e9),
    }
    monkeypatch.setattr(
        "hotplug.session.planning.known_rates", lambda info, threads: speeds[info.id]
    )
    devices[1].buffers.memory.total = 9 * MB

    def home(answer):
        monkeypatch.setattr("hotplug_llm.fitting.ANSWER", answer)
        with hotplug_llm.load(deep_model, "fake:0,fake:1", context=512) as model:
            return {
                model.plan(width).choices[node].device
                for width in (1, 512)
                for node in model.plan(width).graph.weights.values()
                if node.name.startswith("blk.")
            }

    assert home(10_000) == {"fake:1"}
    assert home(0.001) == {"fake:0"}


SPLITS = {
    "three quarters elsewhere": {"split": (1, 3)},
    "half and half": {"split": (1, 1)},
    "every other layer": {"pins": {r"blk\.\d*[13579]\.|^[kv]\.\d*[13579]$": "cpu:0"}},
    "caches alone": {"pins": {"^[kv]": "cpu:0"}},
    "attention elsewhere": {"pins": {r"attn|^[kv]\.": "cpu:0"}},
    "one op": {"pins": {"rms_norm": "cpu:0"}},
    "in order": {"budgets": {"fake:0": 800 * KB}},
}


@pytest.mark.parametrize("name", SPLITS)
def test_however_a_model_is_split_it_says_the_same(devices, tiny_model, deep_model, name):
    path = deep_model if "split" in SPLITS[name] or name == "in order" else tiny_model
    ids = [5, 17, 3, 200, 9]
    with hotplug_llm.load(path, "cpu", "exact", context=64) as model:
        alone = model.logits(ids)
    with hotplug_llm.load(path, "fake:0,cpu", "exact", context=64, **SPLITS[name]) as model:
        assert model.plan().devices == ("fake:0", "cpu:0")
        np.testing.assert_allclose(model.logits(ids), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("layers", range(31))
def test_every_split_of_the_demo_model_over_processor_and_opencl(demo_model, layers):
    """The same logits as the processor alone, but for rounding, with layers up to one elsewhere."""
    pytest.importorskip("pyopencl")
    selected = [info.id for info in hotplug.list_devices()]
    if "opencl:0" not in selected:
        pytest.skip("there is no OpenCL device")
    pins = {}
    names = "|".join(map(str, range(layers)))
    if layers:
        pins[rf"^blk\.({names})\.|^[kv]\.({names})$"] = "opencl:0"
    if layers < 30:
        pins[r"^blk\.|^[kv]\."] = "cpu:0"
    with hotplug_llm.load(demo_model, "cpu:0", "exact", context=64) as model:
        ids = model.tokenize("The sky is blue because")
        alone = model.logits(ids)
    with hotplug_llm.load(
        demo_model, "cpu:0,opencl:0", "exact", context=64, pins=pins, fallback="error"
    ) as model:
        found = model.logits(ids)
        assert (found.argmax(axis=1) == alone.argmax(axis=1)).all()
        np.testing.assert_allclose(found, alone, rtol=1e-3, atol=2e-2)
