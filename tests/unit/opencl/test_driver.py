"""What drivers' errors become, and what a small or failing device leaves to others."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from hotplug import ops
from hotplug.dtypes import get
from hotplug.errors import (
    DeviceLostError,
    DeviceUnavailableError,
    ExecutionError,
    FallbackWarning,
    KernelCompileError,
    OutOfDeviceMemoryError,
    PlacementError,
    UsageError,
)
from hotplug.gpu.device import GPUDevice
from hotplug.gpu.sources import Variant, source_of
from hotplug.graph import Graph
from hotplug.session import Session
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.conformance.check import Outcome, check
from hotplug.testing.conformance.suite import case_groups
from hotplug_cpu import backend as cpu
from hotplug_opencl import backend
from hotplug_opencl.quirks import QUIRKS

COPY = Variant.of("copy", {"WIDTH": 4, "ITEMS": 256})
NVIDIA = next(quirk for quirk in QUIRKS if quirk.lost)


@pytest.fixture
def driver(found):
    from hotplug_opencl.driver import OpenCLDriver

    return OpenCLDriver(found[0])


def small(driver, **limits):
    """A device of less than is here, with the geometry of a GPU."""
    driver.capabilities = dataclasses.replace(driver.capabilities, is_cpu=False, **limits)
    return driver


# Kernels that are refused


def test_a_refusal_quotes_the_line_of_the_kernel_s_file(driver):
    source = source_of(COPY, "opencl", f64=False).rstrip().removesuffix("}") + "    nothing = 1;\n}"
    with pytest.raises(KernelCompileError, match="'nothing'") as caught:
        driver.compile("copy", source)
    number = source_of(COPY, "opencl", f64=False).partition("//# kernels/copy.cl\n")[2].count("\n")
    assert f"line {number} of kernels/copy.cl, 'nothing = 1;'" in str(caught.value)
    assert caught.value.kernel == "copy"
    assert caught.value.source == source
    assert "nothing" in (caught.value.log or "")


def test_a_line_of_what_kernels_share_is_told_as_such(driver):
    source = source_of(COPY, "opencl", f64=False).replace("int rank;", "int rank", 1)
    with pytest.raises(KernelCompileError, match=r"of kernels/common\.h, '"):
        driver.compile("copy", source)


def test_a_refusal_of_one_of_several_texts_quotes_its_line(driver):
    if not driver.capabilities.threads:
        pytest.skip("the device's compiler does not link programs")
    good, bad = "void step0(int x) {}", "void step1(int x) {}\nvoid step2(int x) { x = nothing; }"
    with pytest.raises(KernelCompileError, match=r"line 2.*nothing") as caught:
        driver.link("series", [good, bad])
    assert caught.value.kernel == "series"
    assert caught.value.source == bad


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("<kernel>:2:5: error: no such name\n  b;\n  ^", "error in line 2, 'b;': no such name"),
        ('"/tmp/x.cl", line 2: error: no such name', "error in line 2, 'b;': no such name"),
        (
            "error: /k/t.cl:2:1 <Spelling=<scratch space>:11:1>: no such name",
            "error in line 2, 'b;': no such name",
        ),
        ("error: undefined reference to 'f'", "error: undefined reference to 'f'"),
        ("the compiler crashed\nbadly", "the compiler crashed"),
        ("x.cl:9:1: error: beyond the end", "error in line 9, '': beyond the end"),
    ],
    ids=["clang", "AMD's older", "PoCL in a macro", "no line", "no error", "no such line"],
)
def test_compilers_name_lines_in_several_ways(cl, log, message):
    from hotplug_opencl.driver import _first_error

    assert _first_error("a;\nb;\n", log) == message


GREEDY = """
__attribute__((reqd_work_group_size(ITEMS, 1, 1))) __kernel void greedy(__global int *x)
{
    __local int y[WORDS];
    y[get_local_id(0)] = x[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    x[0] = y[(int)(get_local_id(0) + 1) % WORDS];
}
"""


@pytest.mark.parametrize(
    ("items", "words", "reason"),
    [(1 << 20, 64, "1048576 work-items in a group"), (64, 1 << 10, "4096 bytes of local memory")],
)
def test_a_kernel_that_is_too_large_is_refused_before_it_runs(driver, items, words, reason):
    small(driver, local_bytes=1024)
    source = f"#define ITEMS {items}\n#define WORDS {words}\n{GREEDY}"
    with pytest.raises(KernelCompileError, match=reason):
        driver.compile("greedy", source)


def test_running_out_of_memory_while_compiling_is_no_refusal(cl, driver, monkeypatch, failing):
    def build(self, *args, **kwargs):
        raise failing(-6, "OUT_OF_HOST_MEMORY")

    monkeypatch.setattr(cl.Program, "build", build)
    with pytest.raises(OutOfDeviceMemoryError):
        driver.compile("copy", "")


# Errors while it runs


@pytest.fixture
def breaks(cl, monkeypatch, failing):
    """Has a function of PyOpenCL raise an error."""

    def set_up(function, code):
        def broken(*args, **kwargs):
            raise failing(code, f"code {code}")

        monkeypatch.setattr(cl, function, broken)

    return set_up


@pytest.mark.parametrize("code", [-4, -5, -6, -61])
def test_no_room_for_a_buffer(driver, breaks, code):
    breaks("Buffer", code)
    with pytest.raises(OutOfDeviceMemoryError, match="no room for 4096 bytes") as caught:
        driver.allocate(4096)
    assert caught.value.requested == 4096
    assert caught.value.device == "opencl:0"


def test_python_s_own_memory_error_is_one_too(cl, driver, monkeypatch):
    def broken(*args):
        raise MemoryError

    monkeypatch.setattr(cl, "Buffer", broken)
    with pytest.raises(OutOfDeviceMemoryError):
        driver.allocate(4096)


def test_drivers_take_memory_when_it_is_first_used(driver, breaks):
    memory = driver.allocate(4096)
    breaks("enqueue_fill_buffer", -4)
    with pytest.raises(OutOfDeviceMemoryError) as caught:
        driver.zero(memory, 4096)
    assert caught.value.requested == 4096


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (-4, OutOfDeviceMemoryError),
        (-5, OutOfDeviceMemoryError),
        (-6, OutOfDeviceMemoryError),
        (-2, DeviceLostError),
        (-34, DeviceLostError),
        (-36, DeviceLostError),
        (-54, ExecutionError),
    ],
)
def test_errors_of_a_launch(driver, breaks, code, kind):
    breaks("enqueue_nd_range_kernel", code)
    with pytest.raises(kind, match=f"code {code}") as caught:
        driver.launch([(None, (1, 1), (1, 1))])
    assert type(caught.value) is kind


def test_resources_lack_because_the_device_is_gone(driver, breaks):
    breaks("enqueue_nd_range_kernel", -5)
    breaks("enqueue_fill_buffer", -5)
    with pytest.raises(DeviceLostError):
        driver.launch([(None, (1, 1), (1, 1))])


@pytest.mark.parametrize("code", [-5, -9999])
def test_what_nvidia_s_driver_means_by_it(driver, found, breaks, code):
    from hotplug_opencl.driver import OpenCLDriver

    driver = OpenCLDriver(dataclasses.replace(found[0], quirks=(NVIDIA,)))
    breaks("enqueue_nd_range_kernel", code)
    with pytest.raises(DeviceLostError):
        driver.launch([(None, (1, 1), (1, 1))])


def test_a_device_that_is_gone_stays_gone(driver, breaks):
    memory = driver.allocate(64)
    breaks("enqueue_nd_range_kernel", -2)
    with pytest.raises(DeviceLostError):
        driver.launch([(None, (1, 1), (1, 1))])
    with pytest.raises(DeviceLostError):
        driver.zero(memory, 64)
    driver.free(memory)
    driver.close()


FORKED = """
import os, warnings
warnings.simplefilter("ignore")
from hotplug.errors import BackendLoadError, ExecutionError
from hotplug_opencl import backend, discovery
from hotplug_opencl.driver import OpenCLDriver

driver = OpenCLDriver(discovery.find()[0])
memory = driver.allocate(4)
if os.fork() == 0:
    try:
        driver.zero(memory, 4)
    except ExecutionError as error:
        print(error, flush=True)
    try:
        backend.probe()
    except BackendLoadError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
driver.zero(memory, 4)
driver.synchronise()
print("the parent goes on")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_is_noticed(found):
    """A child that uses a driver without its threads would wait for ever."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=60
    )
    child, probe, parent = done.stdout.splitlines()
    assert "opencl:0 was opened before this process was forked off" in child
    assert "forked off one that had asked for OpenCL devices" in probe
    assert "'spawn'" in child
    assert "HOTPLUG_PROBE=process" in probe
    assert parent == "the parent goes on"


def test_a_driver_that_gives_no_context_is_unavailable(cl, found, monkeypatch, failing):
    def context(devices):
        raise failing(-2, "DEVICE_NOT_AVAILABLE")

    monkeypatch.setattr(cl, "Context", context)
    with pytest.raises(DeviceUnavailableError, match="DEVICE_NOT_AVAILABLE"):
        backend.open(found[0].info)


# Small devices


@pytest.mark.parametrize("group", ["add", "rms_norm", "max", "take", "where"])
def test_smaller_groups_compute_the_same(driver, found, group):
    """A device of 48 items in a group has 32 of them."""
    with GPUDevice(
        found[0].info, small(driver, max_items=48), backend.memory(found[0].info)
    ) as gpu:
        results = [check(gpu, case) for case in case_groups(slow=False)[group][:6]]
    assert [result for result in results if result.outcome is Outcome.FAILED] == []
    assert Outcome.PASSED in {result.outcome for result in results}


def product():
    x = ops.input(name="x", dtype="f32", shape=(4, 64))
    w = ops.weight(name="w", dtype="f32", shape=(64, 64))
    return ops.matmul(ops.scale(x, factor=2.0), w, transpose_b=True)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_items": 32}, "work-groups of 64 items; the device takes 32"),
        ({"local_bytes": 1024}, "32768 bytes of local memory; the device has 1024"),
        ({"f64": False}, "does not compute in f64"),
    ],
)
def test_what_a_small_device_does_not_do_is_told(driver, found, limits, reason):
    with GPUDevice(found[0].info, small(driver, **limits), backend.memory(found[0].info)) as gpu:
        node = product()
        if "f64" in limits:
            node = ops.exp(ops.input(name="y", dtype="f64", shape=(8,)))
        answer = gpu.supports(node)
        assert not answer
        assert reason in answer.reason
        assert gpu.supports(node.operands[0])


W = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
X = np.linspace(-1, 1, 4 * 64, dtype=np.float32).reshape(4, 64)


@pytest.fixture
def run(driver, found):
    """Computes a product on the device and, where that leaves it, on the processor."""

    def compute(**options):
        weight = HostTensor(TensorType(get("f32"), W.shape), W.reshape(-1).view(np.uint8))
        gpu = GPUDevice(found[0].info, driver, backend.memory(found[0].info))
        with (
            cpu.open(cpu.probe()[0]) as processor,
            Session([gpu, processor], {"w": weight}, **options) as session,
        ):
            program = session.compile(Graph.build({"y": product()}))
            got = program.run({"x": X})["y"]
            np.testing.assert_allclose(got, 2 * X @ W.T, rtol=1e-4, atol=1e-4)
            return program.plan

    return compute


def test_a_weight_larger_than_a_buffer_lives_elsewhere(driver, run):
    small(driver, max_buffer=4096)
    plan = run()
    choice = plan.choices[plan.graph.weights["w"]]
    assert choice.device == "cpu:0"
    assert "4096 bytes in one piece" in choice.reason
    with pytest.raises(PlacementError, match=r"no other device may.* 4096 bytes in one piece"):
        run(fallback="error")


def test_a_weight_that_no_device_holds_is_one_clear_error(driver, found):
    small(driver, max_buffer=4096)
    gpu = GPUDevice(found[0].info, driver, backend.memory(found[0].info))
    with Session([gpu], fallback="error") as session, pytest.raises(PlacementError) as caught:
        session.plan(Graph.build({"y": product()}))
    assert "weights and states of matmul" in str(caught.value)
    assert "at most 4096 bytes in one piece, 16384 needed" in str(caught.value)


def test_a_kernel_that_is_refused_sets_the_device_aside(driver, run, monkeypatch):
    def refuse(kernel, source):
        raise KernelCompileError("the compiler refused it", kernel=kernel, source=source)

    monkeypatch.setattr(driver, "compile", refuse)
    monkeypatch.setattr(driver, "load", lambda *given: None)
    with pytest.warns(FallbackWarning, match="opencl:0 is set aside: the compiler refused it"):
        run()
    with pytest.raises(KernelCompileError):
        run(fallback="error")


@pytest.mark.parametrize(("code", "what"), [(-2, "is gone"), (-4, "ran out of memory")])
def test_a_device_that_fails_while_it_runs_is_replaced(run, breaks, code, what):
    breaks("enqueue_nd_range_kernel", code)
    with pytest.warns(FallbackWarning, match=what):
        run()


def test_weights_on_a_processor_are_the_host_s_memory(driver, found):
    gpu = GPUDevice(found[0].info, driver, backend.memory(found[0].info))
    room = np.arange(80, dtype=np.float32)
    start = -room.ctypes.data % 64 // 4
    data = room[start : start + 16]
    fixed = data.data.toreadonly().cast("B")
    assert gpu.buffers.wrap(data.data) is None  # others may write it
    assert gpu.buffers.wrap(fixed[4:]) is None  # kernels load 16 bytes at once
    buffer = gpu.buffers.wrap(fixed)
    data[3] = 70
    seen = np.empty(16, np.float32)
    buffer.read(0, seen.data)
    assert np.array_equal(seen, data)
    with pytest.raises(UsageError, match="only be read"):
        buffer.copy_from(gpu.buffers.allocate(64))
    small(driver)
    assert gpu.buffers.wrap(fixed) is None
