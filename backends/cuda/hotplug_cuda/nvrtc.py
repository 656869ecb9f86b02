"""NVIDIA's compiler as a library, called directly: it needs neither a GPU nor a driver.

Programs are self-contained, so that the bare library is enough and no CUDA headers are needed. CuPy
has it too; but with CuPy left out, a machine without a GPU compiles by the very code that a machine
with one runs, and the library's release need not be CuPy's.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import threading
from collections.abc import Iterator, Sequence
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p, create_string_buffer
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotplug.errors import BackendLoadError, KernelCompileError
from hotplug.gpu.sources import quote

__all__ = ["MAJORS", "Compiled", "Compiler", "library_paths", "open_compiler"]

MAJORS = (13, 12)
"""Releases of CUDA whose NVRTC this is written for, the newest first."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What became of a program.

    Attributes:
        image: a cubin, or PTX text where a virtual architecture was asked for.
        log: what the compiler said.
    """

    image: bytes
    log: str


class Compiler:
    """A loaded NVRTC. Safe to use from several threads.

    Attributes:
        version: major and minor release.
        architectures: compute capabilities that it compiles for, ascending, such as 75 for 7.5.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        major, minor = c_int(), c_int()
        self._check(library.nvrtcVersion(byref(major), byref(minor)))
        self.version = (major.value, minor.value)
        count = c_int()
        self._check(library.nvrtcGetNumSupportedArchs(byref(count)))
        known = (c_int * count.value)()
        self._check(library.nvrtcGetSupportedArchs(known))
        self.architectures = tuple(sorted(known))

    def target(self, capability: int) -> str:
        """What to compile for on a device: a cubin where it is known, else PTX for the driver.

        Args:
            capability: ten times the device's compute capability, such as 90.
        """
        if capability in self.architectures:
            return f"sm_{capability}"
        older = [known for known in self.architectures if known < capability]
        return f"compute_{older[-1] if older else capability}"

    def compile(
        self, kernel: str, source: str, target: str, options: Sequence[str] = ()
    ) -> Compiled:
        """Compile a program.

        Args:
            kernel: its name in messages.
            source: CUDA C++ text.
            target: "sm_90" for a cubin, "compute_90" for PTX.
            options: further options of NVRTC.

        Raises:
            KernelCompileError: the text was refused; the message quotes the line.
        """
        program = c_void_p()
        create = self._library.nvrtcCreateProgram
        name = f"{kernel}.cu".encode()
        self._check(create(byref(program), source.encode(), name, 0, None, None))
        try:
            given = [f"--gpu-architecture={target}".encode(), *(text.encode() for text in options)]
            array = (c_char_p * len(given))(*given)
            status = self._library.nvrtcCompileProgram(program, len(given), array)
            log = self._text(program, "ProgramLog").decode(errors="replace").strip()
            if status:
                raise _refusal(kernel, source, log or self._message(status))
            kind = "CUBIN" if target.startswith("sm_") else "PTX"
            return Compiled(self._text(program, kind), log)
        finally:
            self._library.nvrtcDestroyProgram(byref(program))

    def _text(self, program: c_void_p, what: str) -> bytes:
        size = c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, byref(size)))
        if not size.value:
            return b""
        buffer = create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, buffer))
        return buffer.raw if what == "CUBIN" else buffer.raw.rstrip(b"\0")

    def _message(self, status: int) -> str:
        return str(self._library.nvrtcGetErrorString(status).decode())

    def _check(self, status: int) -> None:
        if status:
            raise KernelCompileError(f"NVRTC fails: {self._message(status)}")


_opened: dict[Path | str, Compiler] = {}
_opening = threading.Lock()


def open_compiler(majors: Sequence[int] = MAJORS) -> Compiler:
    """The NVRTC of one of some releases of CUDA, the first that is found.

    Raises:
        BackendLoadError: there is none, or what is there does not load.
    """
    refusals = []
    for path in library_paths(majors):
        with _opening:
            if path not in _opened:
                try:
                    _opened[path] = Compiler(_load(path))
                except OSError as error:
                    refusals.append(str(error))
                    continue
            return _opened[path]
    raise BackendLoadError(
        f"NVIDIA's compiler NVRTC of CUDA {' or '.join(map(str, majors))} cannot be loaded: "
        f"{refusals[0] if refusals else 'it is not installed'}",
        backend="cuda",
        remedy=f"pip install 'hotplug-cuda[cuda{majors[0]}]'",
    )


def library_paths(majors: Sequence[int] = MAJORS) -> Iterator[Path | str]:
    """Where NVRTC may be: NVIDIA's wheels, an installed toolkit, what the system's loader knows."""
    windows = os.name == "nt"
    for major in majors:
        name = f"nvrtc64_{major}0_0.dll" if windows else f"libnvrtc.so.{major}"
        for root in _roots(major):
            yield from sorted(root.glob(f"**/{name}"))
        yield name


def _roots(major: int) -> Iterator[Path]:
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from (Path(folder, part) for part in (f"cu{major}", "cuda_nvrtc"))
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        if os.environ.get(variable):
            yield from (Path(os.environ[variable], part) for part in ("bin", "lib64"))


def _load(path: Path | str) -> Any:
    if isinstance(path, Path) and os.name == "nt":
        os.add_dll_directory(str(path.parent))  # type: ignore[attr-defined,unused-ignore]
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = c_char_p
    return library


_ERROR = re.compile(r"\.cu\((\d+)\): (?:catastrophic )?error:? *(.*)")


def _refusal(kernel: str, source: str, log: str) -> KernelCompileError:
    found = _ERROR.search(log)
    if found is None:
        what = log.partition("\n")[0]
    else:
        what = f"error in {quote(source, int(found[1]))}: {found[2]}"
    return KernelCompileError(
        f"NVRTC refused kernel {kernel}: {what}", kernel=kernel, source=source, log=log
    )
