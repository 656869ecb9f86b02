"""Which CUDA devices there are, found without creating a context, or why none can be used."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.errors import BackendLoadError
from hotplug.settings import settings
from hotplug_cuda import libcuda, nvrtc
from hotplug_cuda.libcuda import GPU
from hotplug_cuda.runtime import Runtime

__all__ = ["OLDEST", "Found", "find"]

OLDEST = 75
"""Ten times the compute capability from which on devices are served: Turing, of 2018."""

_log = logging.getLogger(__name__)

_NOT_INITIALISED = 3
_NO_DEVICE = 100
_MISMATCHES = frozenset({803, 804})  # of the driver's library and its kernel module

SIMULATED_CAPABILITY = 75


@dataclass(frozen=True, slots=True)
class Found:
    """A device.

    Attributes:
        info: what the contract says of it.
        runtime: brings up its calls.
        majors: releases of CUDA whose NVRTC fits the rest.
        target: what that compiles for, given itself.
    """

    info: DeviceInfo
    runtime: Callable[[], Runtime]
    majors: tuple[int, ...]
    target: Callable[[nvrtc.Compiler], str]


def find() -> list[Found]:
    """All devices that can be used.

    Raises:
        BackendLoadError: something is missing or does not fit; or all GPUs are too old.
    """
    simulated = settings().cuda_simulate
    if simulated:
        return _simulated(simulated)
    gpus = _gpus()
    if not gpus:
        return []
    major = _cupy_major(gpus[0].driver)
    nvrtc.open_compiler((major,))
    return [_found(gpu, major) for gpu in gpus]


def _gpus() -> list[GPU]:
    """Those that are new enough; what is said of the others goes to the log if there are any."""
    gpus = _ask_driver()
    _compare_with_wish(len(gpus))
    refusals = [_refusal(gpu) for gpu in gpus if gpu.capability < OLDEST]
    if refusals and len(refusals) == len(gpus):
        raise BackendLoadError("; ".join(refusals), backend="cuda")
    for text in refusals:
        _log.warning("%s", text)
    return [gpu for gpu in gpus if gpu.capability >= OLDEST]


def _refusal(gpu: GPU) -> str:
    return (
        f"cuda:{gpu.index} ({gpu.name}) has compute capability {_dotted(gpu.capability)}; "
        f"{_dotted(OLDEST)} is needed"
    )


def _dotted(capability: int) -> str:
    return f"{capability // 10}.{capability % 10}"


def _ask_driver() -> list[GPU]:
    try:
        return libcuda.gpus(libcuda.load())
    except libcuda.NotInstalledError as error:
        raise BackendLoadError(
            f"there is no NVIDIA driver: {error}",
            backend="cuda",
            remedy="install NVIDIA's driver, if there is an NVIDIA GPU",
        ) from error
    except libcuda.LibcudaError as error:
        if error.status == _NO_DEVICE and not _hidden():
            return []
        raise _driver_error(error) from error


def _hidden() -> str:
    """What the variable says that hides GPUs; hotplug reads it for messages alone."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU"


def _compare_with_wish(shown: int) -> None:
    """Tell when the variable names more than is there: CUDA says nothing of what it leaves out."""
    wish = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    named = len(wish.split(",")) if wish else 0
    if named > shown:
        _log.warning(
            "CUDA_VISIBLE_DEVICES=%r names %d devices and CUDA shows %d: it stops at the first "
            "that it does not know, and shows one part of a GPU at most",
            wish,
            named,
            shown,
        )


def _driver_error(error: libcuda.LibcudaError) -> BackendLoadError:
    if error.status == _NO_DEVICE:
        return BackendLoadError(
            _hidden(), backend="cuda", remedy="name GPUs in CUDA_VISIBLE_DEVICES, or unset it"
        )
    if error.status == _NOT_INITIALISED:
        return BackendLoadError(
            "this process was forked off one that had asked for GPUs; CUDA does not reach it",
            backend="cuda",
            remedy="start processes by 'spawn', or set HOTPLUG_PROBE=process before the fork",
        )
    if error.status in _MISMATCHES:
        remedy = "restart the computer, so that the driver's new kernel module is loaded"
    else:
        remedy = "see whether nvidia-smi works; after an update of the driver, restart"
    return BackendLoadError(f"NVIDIA's driver fails: {error}", backend="cuda", remedy=remedy)


def _cupy_major(driver: int) -> int:
    """The release of CUDA that CuPy was made for.

    Raises:
        BackendLoadError: CuPy is missing or broken, or needs a newer driver.
    """
    served = driver // 1000
    best = max((major for major in nvrtc.MAJORS if major <= served), default=nvrtc.MAJORS[-1])
    remedy = f"pip install 'hotplug-cuda[cuda{best}]'"
    if importlib.util.find_spec("cupy") is None:
        raise BackendLoadError("CuPy is not installed", backend="cuda", remedy=remedy)
    try:
        runtime: Any = importlib.import_module("cupy.cuda.runtime")
    except ImportError as error:
        first = str(error).strip().partition("\n")[0]
        raise BackendLoadError(
            f"CuPy cannot be imported: {first}",
            backend="cuda",
            remedy=f"pip uninstall cupy-cuda12x cupy-cuda13x, then {remedy}",
        ) from error
    if runtime.is_hip:
        raise BackendLoadError(
            "this CuPy is made for AMD's GPUs",
            backend="cuda",
            remedy=f"uninstall it, then {remedy}",
        )
    needed = int(runtime.runtimeGetVersion()) // 1000
    if needed > served:
        raise BackendLoadError(
            f"CuPy is made for CUDA {needed}, but the driver serves CUDA "
            f"{served}.{driver % 1000 // 10} at most",
            backend="cuda",
            remedy=f"update NVIDIA's driver, or pip uninstall cupy-cuda{needed}x and {remedy}",
        )
    return needed


def _found(gpu: GPU, major: int) -> Found:
    def runtime() -> Runtime:
        from hotplug_cuda.cupy_runtime import CupyRuntime  # noqa: PLC0415 - CuPy comes with it

        return CupyRuntime(gpu.index)

    info = DeviceInfo(
        "cuda",
        gpu.index,
        gpu.name,
        DeviceType.IGPU if gpu.integrated else DeviceType.GPU,
        uuid=gpu.uuid,
        pci=gpu.pci,
        architecture=f"sm_{gpu.capability}",
        units=gpu.units,
        driver=f"CUDA {gpu.driver // 1000}.{gpu.driver % 1000 // 10}",
        kernels="compiled",
        properties={"memory": gpu.memory, "compute_capability": _dotted(gpu.capability)},
    )
    return Found(info, runtime, (major,), lambda compiler: compiler.target(gpu.capability))


def _simulated(count: int) -> list[Found]:
    """Devices that interpret PTX on the processor, for tests on machines without a GPU."""
    nvrtc.open_compiler()
    from hotplug_cuda.simulation import MEMORY, SimulatedRuntime  # noqa: PLC0415 - tests' part

    target = f"compute_{SIMULATED_CAPABILITY}"

    def found(index: int) -> Found:
        info = DeviceInfo(
            "cuda",
            index,
            "simulated GPU",
            DeviceType.GPU,
            architecture=target,
            driver="PTX interpreter",
            kernels="compiled",
            properties={"memory": MEMORY, "simulated": True},
        )
        return Found(info, lambda: SimulatedRuntime(index), nvrtc.MAJORS, lambda _: target)

    return [found(index) for index in range(count)]
