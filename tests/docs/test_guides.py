"""The guides in docs/ hold: what they name exists, and what they have the reader write works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (
    "architecture.md", "add-an-op.md", "add-a-backend.md", "failures.md", "modes.md",
    "performance.md", "placement.md", "watching.md",
)  # fmt: skip
SOURCES = ("framework", "backends", "inference", "tests", "benchmarks", "docs")
# Folders that paths in the pages are relative to, as the text around them says.
PLACES = (
    ".", "docs", "framework/hotplug", "framework/hotplug/testing", "backends/cpu/hotplug_cpu",
    "backends/rpc/hotplug_rpc", "backends/cpu",
)  # fmt: skip


def text_of(page):
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


# --- names


def source_files():
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".toml"} and path != Path(__file__):
                yield path


@pytest.fixture(scope="module")
def words():
    texts = [path.read_text(encoding="utf-8") for path in source_files()]
    texts.append((ROOT / "Makefile").read_text(encoding="utf-8"))
    return set(re.findall(r"\w+", " ".join(texts)))


@pytest.fixture(scope="module")
def file_names():
    return {path.name for path in source_files()}


def prose(page):
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def named(page):
    """What stands between backticks outside of blocks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def own_words(page):
    """What the page's own example brings along."""
    return set(re.findall(r"\w+", " ".join(re.findall(r"^```.*?^```", text_of(page), re.S | re.M))))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", prose(page)) if "://" not in link]
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page, file_names):
    paths = {word for name in named(page) for word in name.split() if re.match(r"[\w./-]+$", word)}
    inner = {path for path in paths if "/" in path or path.endswith((".py", ".md"))}
    own = {path for path in inner if path.removeprefix("tests/") == "test_conformance.py"}
    own |= {path for path in inner if "hotplug_demo" in path}
    missing = [
        path
        for path in inner - own
        if not any((ROOT / place / path).exists() for place in PLACES)
        and ("/" in path or path not in file_names)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_names_exist(page, words):
    known = words | own_words(page)
    names = {part for name in named(page) for part in name.split() if "/" not in part}
    unknown = {
        name
        for name in names
        for word in re.findall(r"\b[A-Za-z_]\w*(?!\w*[*])", name)
        if word not in known
    }
    assert unknown == set()


def test_benchmarks_take_the_options_that_the_page_gives_them():
    commands = [words for words in map(str.split, named("performance.md")) if ".py" in words[0]]
    given = {(Path(script).name, word) for script, *rest in commands for word in rest}
    options = {(script, word) for script, word in given if word.startswith("--")}
    assert len(options) > 5
    for script, option in options:
        source = (ROOT / "benchmarks" / script).read_text(encoding="utf-8")
        assert f'"{option}"' in source, f"{script} has no {option}"


def test_the_floors_are_those_that_lint_holds():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (floors,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    drawing = text_of("architecture.md").partition("## Floors")[2].split("```")[1].strip()
    drawn = [re.split(r"  +", line)[0] for line in drawing.splitlines()]
    assert drawn == floors


# --- add a backend


def run(command, folder, **environment):
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The page's distribution, installed as an installer would have done it."""
    folder = tmp_path_factory.mktemp("guide") / "hotplug-demo"
    code = blocks("add-a-backend.md", "python")
    (settings,) = blocks("add-a-backend.md", "toml")
    files = {
        "pyproject.toml": settings,
        "hotplug_demo/__init__.py": "\n\n".join(code[:-2]),
        "tests/test_conformance.py": code[-2],
        "use.py": code[-1],
    }
    project = tomllib.loads(settings)["project"]
    lines = [
        f"{name} = {value}" for name, value in project["entry-points"]["hotplug.backends"].items()
    ]
    info = f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    files[f"{info}/entry_points.txt"] = "\n".join(["[hotplug.backends]", *lines, ""])
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def run_demo(demo, *command):
    return run(command, demo, PYTHONPATH=str(demo), HOTPLUG_LOG="warning")


def test_the_backend_passes_the_suite(demo):
    output = run_demo(demo, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "tests")
    assert "passed" in output
    assert "deselected" in output


def test_the_backend_is_listed_and_computes(demo):
    assert "demo:0" in run_demo(demo, "-m", "hotplug", "devices")
    assert "PASS demo:0" in run_demo(demo, "-m", "hotplug", "doctor", "--device", "demo")


def test_the_backend_is_used(demo):
    output = run_demo(demo, "use.py")
    assert re.search(r"add#\w+ +f32\[2, 2\] +demo:0", output)
    assert re.search(r"relu#\w+ +f32\[2, 2\] +cpu:0 +demo:0 does not: the demo only knows", output)
    assert "[[2. 2.]\n [2. 2.]]" in output


# --- add an op

REDUCTION = "framework/hotplug/ops/reduction.py"
CASES = "framework/hotplug/testing/conformance/cases/reduction.py"
CPU = "backends/cpu/hotplug_cpu"
END = r"\Z"
# Where the page's blocks go, in order: file, the place, whether the block replaces what is there.
STEPS = (
    (REDUCTION, END, False),
    ("tests/unit/ops/test_rules.py", r'(?m)^    yield "logical_not"', False),
    ("framework/hotplug/testing/oracle/reduction.py", END, False),
    (f"{CPU}/numpy_kernels/reduction.py", END, False),
    (CASES, r"    for op in \(\*_WITH_KEEPDIMS.*\n.*\n", True),
    (CASES, r'    return \{"x": uniform.*\n', True),
    ("framework/hotplug/testing/conformance/bounds.py", r'(?m)^    "prod": _prod', False),
    (f"{CPU}/kernels/rows.py", r"(?m)^KERNELS = \{", False),
    (f"{CPU}/catalog.py", r'(?m)^            "add": ', False),
    (f"{CPU}/patterns.py", r"(?m)^RULES: ", False),
)
# What the text has added in lines that are there: file, after what, the text.
ROWS = (
    (REDUCTION, r'"count_equal", ', '"cumprod", '),
    ("framework/hotplug/ops/__init__.py", r"    count_equal,\n", "    cumprod,\n"),
    ("framework/hotplug/ops/__init__.py", r'    "count_equal",\n', '    "cumprod",\n'),
    (f"{CPU}/kernels/rows.py", r"(?m)^KERNELS = \{\n", '    "cumprod": cumprod,\n'),
    (f"{CPU}/patterns.py", r"(?m)^RULES: .*\{\n", '    "cumprod": _cumprod,\n'),
)
COPIED = (
    "pyproject.toml", "framework/hotplug", CPU, "tests/conftest.py", "tests/unit/ops",
    "tests/unit/cpu/conftest.py", "tests/conformance/test_cpu.py",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the sources in which the page has been followed."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in COPIED:
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / path, folder / path)
    *code, test = blocks("add-an-op.md", "python")
    for (path, place, replaces), block in zip(STEPS, code, strict=True):
        edit(folder / path, place, lambda found, b=block, r=replaces: b + ("" if r else found[0]))
    for path, place, row in ROWS:
        edit(folder / path, place, lambda found, row=row: found[0] + row)
    (folder / "tests/unit/cpu/test_cumprod.py").write_text(f"import numpy as np\n\n\n{test}")
    return folder


def edit(path, place, replacement):
    text = path.read_text(encoding="utf-8")
    changed, count = re.subn(place, replacement, text, count=1)
    assert count == 1, f"{path} has no {place}"
    path.write_text(changed, encoding="utf-8")


def test_the_op_works_everywhere(checkout):
    sources = os.pathsep.join(str(checkout / path) for path in ("framework", "backends/cpu"))
    command = ["-m", "pytest", "-m", "slow or not slow", "-p", "no:cacheprovider", "-k"]
    chosen = "cumprod or test_rules"
    output = run([*command, chosen], checkout, PYTHONPATH=sources)
    # The rule's refusals, the kernel, and twice the suite's cases on three devices.
    assert int(re.search(r"(\d+) passed", output)[1]) > 100, output
    explain = (
        "import hotplug; from hotplug import ops; from hotplug.graph import Graph;"
        "x = ops.input(name='x', dtype='f32', shape=(3, 5));"
        "print(hotplug.Session('cpu').compile(Graph.build({'y': ops.cumprod(x)})).explain())"
    )
    assert re.search(
        r"^  cumprod: cumprod#", run(["-c", explain], checkout, PYTHONPATH=sources), re.M
    )
