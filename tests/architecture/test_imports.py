"""What importing costs, and that the core stands without any vendor's package.

Each test runs in a fresh interpreter, because this one has imported everything already.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

VENDORS = ("numba", "llvmlite", "cupy", "pyopencl", "zmq", "pynvml", "torch", "jax", "triton")
BACKENDS = ("hotplug_cpu", "hotplug_cuda", "hotplug_opencl", "hotplug_rpc", "hotplug_llm")

# Refuses packages as if they were not installed; importlib asks finders in this order as well.
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
        return None

sys.meta_path.insert(0, Blocker())
"""


def fresh(code: str, *blocked: str) -> str:
    """What a new interpreter prints, packages of these names being out of its reach."""
    program = (BLOCKER.format(blocked=set(blocked)) if blocked else "") + code
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(code: str) -> set[str]:
    """Names of all modules that a piece of code imports."""
    before = set(fresh("import sys; print(*sys.modules)").split())
    return set(fresh(f"{code}\nimport sys; print(*sys.modules)").split()) - before


def test_importing_hotplug_imports_nothing_else():
    ours = {name for name in loaded_by("import hotplug") if name.startswith("hotplug")}
    assert ours == {"hotplug"}


@pytest.mark.parametrize(
    "code", ["import hotplug", "import hotplug; hotplug.errors; hotplug.__version__"]
)
def test_importing_hotplug_is_cheap(code):
    heavy = {"numpy", "rich", "importlib.metadata", "platformdirs", "packaging", "asyncio"}
    roots = {name for name in loaded_by(code) if name in heavy or name in VENDORS + BACKENDS}
    assert roots == set()


@pytest.mark.parametrize("module", ["hotplug.registry", "hotplug.devices", "hotplug.cli"])
def test_registry_and_program_import_neither_numpy_nor_rich(module):
    assert loaded_by(f"import {module}") & {"numpy", "rich", *VENDORS, *BACKENDS} == set()


@pytest.mark.parametrize("package", BACKENDS[:4])
def test_importing_a_backend_imports_no_vendor(package):
    assert loaded_by(f"import {package}; {package}.backend") & {"numpy", *VENDORS} == set()


def test_finding_backends_imports_none():
    code = "from hotplug.registry import default; default().names(); default().statuses()"
    assert loaded_by(code) & {*BACKENDS, *VENDORS, "numpy"} == set()


CORE = """
import importlib, pkgutil
import hotplug
skipped = ("hotplug.__main__", "hotplug.testing.conformance.pytest_suite")
for module in pkgutil.walk_packages(hotplug.__path__, "hotplug."):
    if module.name not in skipped:
        importlib.import_module(module.name)
"""


def test_every_module_of_the_core_stands_without_vendors_and_backends():
    fresh(CORE, *VENDORS, *BACKENDS, "pytest", "hypothesis", "psutil")


USING = """
import numpy as np
from hotplug import ops
from hotplug.graph import Graph
from hotplug.testing.oracle import evaluate
x = ops.input(name="x", dtype="f32", shape=(2, 3))
graph = Graph.build({"y": ops.softmax(x)})
assert evaluate(graph, {"x": np.zeros((2, 3), np.float32)})["y"].sum() > 1.99

import hotplug
states = {status.name: status for status in hotplug.load_all()}
assert hotplug.list_devices() == []
assert all(status.reason for status in states.values()), states
assert {"cpu", "cuda", "opencl", "rpc"} <= set(states)

from hotplug.cli import main
assert main(["devices", "--json"]) == 0
"""


def test_the_core_works_alone():
    fresh(USING, *VENDORS, *BACKENDS)


def test_the_cpu_stands_without_a_compiler():
    code = (
        "import hotplug\n"
        "[info] = [info for info in hotplug.list_devices() if info.id == 'cpu:0']\n"
        "print(info.kernels)"
    )
    assert fresh(code, "numba", "llvmlite") == "numpy\n"


def test_what_is_exported_is_there():
    code = (
        "import hotplug\nfor name in hotplug.__all__: getattr(hotplug, name)\nprint(dir(hotplug))"
    )
    assert "load_all" in fresh(code)


def test_what_is_not_exported_is_an_attribute_error():
    code = "import hotplug\ntry: hotplug.nothing\nexcept AttributeError as error: print(error)"
    assert fresh(code) == "module 'hotplug' has no attribute 'nothing'\n"
