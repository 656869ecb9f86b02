"""The way to OpenCL's drivers: PyOpenCL, the loader in it, and which drivers (ICDs) that is shown.

A loader reads files `*.icd`, each with the name of a driver's library, in one folder of the system.
Intel's runtime for processors, as pip installs it, has such a file; but it lies in the environment,
where no loader looks, and names a folder of the machine on which it was made. So the loader is
shown a folder of ours while it begins, with the system's files and one for the installed library.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from hotplug.errors import BackendLoadError

__all__ = ["REMEDY", "drivers_named", "intel_library", "platforms"]

VENDORS = Path("/etc/OpenCL/vendors")
"""Where loaders look under Linux, those of PyOpenCL's wheels too."""

FOLDER_VARIABLES = ("OCL_ICD_VENDORS", "OPENCL_VENDOR_PATH")
"""By these users name another folder, or a driver alone; then nothing is added."""

REMEDY = "install your GPU's OpenCL driver"
"""What helps where there is no device."""

if sys.platform == "linux" and platform.machine() == "x86_64":
    REMEDY += ", or for the processor: pip install 'hotplug-opencl[pocl]'"

_NO_PLATFORM = -1001  # CL_PLATFORM_NOT_FOUND_KHR: the loader has no driver
_beginning = threading.Lock()
_asked: list[int] = []  # the process that has asked for platforms


def platforms() -> list[Any]:
    """PyOpenCL's platforms, one or more.

    Raises:
        BackendLoadError: PyOpenCL, its loader or every driver is missing or broken; or the process
            was forked off one that has asked, whose drivers' threads are not here.
    """
    if _asked and _asked[0] != os.getpid():
        raise BackendLoadError(
            "this process was forked off one that had asked for OpenCL devices; drivers do not "
            "survive that",
            backend="opencl",
            remedy="start processes by 'spawn', or set HOTPLUG_PROBE=process before the fork",
        )
    cl = _pyopencl()
    _asked[:] = [os.getpid()]
    try:
        with _beginning, _intel_shown():
            found: list[Any] = cl.get_platforms()
    except cl.Error as error:
        if getattr(error, "code", None) != _NO_PLATFORM:
            raise BackendLoadError(
                f"the OpenCL loader fails: {error}", backend="opencl", remedy=REMEDY
            ) from error
        found = []
    if not found:
        raise _no_driver()
    return found


def _pyopencl() -> Any:
    try:
        return importlib.import_module("pyopencl")
    except ModuleNotFoundError as error:
        missing = error.name or "pyopencl"
        raise BackendLoadError(
            f"PyOpenCL cannot be imported: {error}",
            backend="opencl",
            remedy=f"pip install {missing.partition('.')[0]}",
        ) from error
    except (ImportError, OSError) as error:
        raise BackendLoadError(
            f"PyOpenCL does not get on with this system's libraries, such as the OpenCL loader: "
            f"{error}",
            backend="opencl",
            remedy="pip install --force-reinstall --only-binary :all: pyopencl, "
            "which brings a loader of its own",
        ) from error


def _no_driver() -> BackendLoadError:
    """Whether drivers are named that do not load or find nothing, or none is named at all."""
    refusals = [f"{file}: {_refusal(library)}" for file, library in drivers_named()]
    if refusals:
        text = f"no OpenCL driver serves: {'; '.join(refusals)}"
        return BackendLoadError(text, backend="opencl", remedy=f"repair the driver, or {REMEDY}")
    where = next((f"{name}={os.environ[name]}" for name in FOLDER_VARIABLES if _set(name)), "")
    where = where or (str(VENDORS) if sys.platform == "linux" else "")
    text = "no OpenCL driver (ICD) is installed" + (f"; {where} names none" if where else "")
    return BackendLoadError(text, backend="opencl", remedy=REMEDY)


def _refusal(library: str) -> str:
    """Why a driver's library shows no platform."""
    if not library or not library.isprintable():
        return "it names no library"
    try:
        driver = ctypes.CDLL(library)
    except OSError as error:
        return str(error)
    if not hasattr(driver, "clGetExtensionFunctionAddress"):  # by which loaders get at all others
        return f"{library} is no OpenCL driver"
    return f"{library} finds no device of its own"


def _set(variable: str) -> bool:
    return bool(os.environ.get(variable))


def drivers_named() -> Iterator[tuple[Path, str]]:
    """Files that name drivers, and the libraries that they name, where a loader looks."""
    folder = next((Path(os.environ[name]) for name in FOLDER_VARIABLES if _set(name)), VENDORS)
    if not folder.is_dir():
        return
    for file in sorted(folder.glob("*.icd")):
        try:
            yield file, file.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue


def intel_library() -> Path | None:
    """The library of Intel's runtime in this environment, if pip has put one there."""
    try:
        files = metadata.files("intel-opencl-rt") or []
    except metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.name == "libintelocl.so")
    return next((path.resolve() for path in paths if path.exists()), None)


@contextmanager
def _intel_shown() -> Iterator[None]:
    """Let the loader see Intel's runtime too, unless the user or the system says which drivers.

    The loader reads its variable once, when it begins; then it is as it was before.
    """
    library = intel_library()
    known = list(drivers_named())
    if (
        library is None
        or any(map(_set, FOLDER_VARIABLES))
        or any(Path(name).name == library.name for _, name in known)
    ):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="hotplug-icd-") as folder:
        for file, name in [*known, (Path("hotplug-intel.icd"), str(library))]:
            Path(folder, file.name).write_text(name + "\n", encoding="utf-8")
        os.environ[FOLDER_VARIABLES[0]] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER_VARIABLES[0]]
