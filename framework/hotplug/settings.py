"""What the user asks for through `HOTPLUG_*` variables, read when it is needed and never at import.

    HOTPLUG_DEVICE         selector of the device to use, such as "cuda:1" or "gpu,cpu"
    HOTPLUG_BACKENDS       allow list, such as "cpu,cuda"; "-name" denies, such as "-opencl"
    HOTPLUG_AUTOLOAD       on | off: load installed backends without being asked (on)
    HOTPLUG_BACKEND_PATH   further backends: "name=module:object", several with commas
    HOTPLUG_FALLBACK       error | warn | allow: when something runs elsewhere than asked (warn)
    HOTPLUG_CACHE          on | off: keep compiled kernels on disk (on)
    HOTPLUG_CACHE_DIR      directory for them
    HOTPLUG_CACHE_BYTES    what they may take at most; the longest unused go first (1073741824)
    HOTPLUG_AUTOTUNE       off | gpu | all: devices that find kernels' best geometry by trying (gpu)
    HOTPLUG_AUTOTUNE_SECONDS  how long a device may try in a process (2)
    HOTPLUG_DETERMINISTIC  on | off: the same bits on every run, see docs/watching.md (off)
    HOTPLUG_DEVICE_TIMEOUT seconds after which a device that gives no answer is given up; off (120)
    HOTPLUG_STATE_COPY_BYTES  host memory for copies of states that live on other devices; 0 for
                           none (268435456)
    HOTPLUG_EXPERT_CACHE_BYTES  what experts that were sent to a device may take there, so that they
                           need not be sent again; 0 for none (1073741824)
    HOTPLUG_LOG            debug | info | warning | error: what the command line shows of the log
    HOTPLUG_PROBE          thread | process: where a backend looks for its devices (thread)
    HOTPLUG_PROBE_TIMEOUT  seconds that it may take for it (10)
    HOTPLUG_THREADS        CPU threads to use
    HOTPLUG_CPU_ISA        instruction set to use instead of the best one
    HOTPLUG_CUDA_CUBLAS    on | off: products of many rows by cuBLAS, where it is installed (on)
    HOTPLUG_CUDA_SIMULATE  show so many simulated CUDA devices instead of real ones, for tests
    HOTPLUG_OPENCL_SUBDEVICES  "numa", or compute units of each: parts stand for OpenCL devices
    HOTPLUG_FORBID         ops that devices may not run: "softmax@opencl, rope@cuda:1"
    HOTPLUG_PRECISION      default | exact: exact computes with float32 activations throughout

A value that is not understood is an error and never a silent default. The list of backends is
separated by commas and not by the system's path separator, which on most systems is the colon that
stands between module and object.
"""

from __future__ import annotations

import difflib
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

import platformdirs

from hotplug.errors import HotplugWarning, SettingsError, UsageError

__all__ = [
    "Fallback",
    "Precision",
    "Settings",
    "parse_backend_path",
    "settings",
    "wanted_fallback",
    "wanted_threads",
]

PREFIX = "HOTPLUG_"
_CACHE_BYTES = 1 << 30
_STATE_COPY_BYTES = 256 << 20
_EXPERT_CACHE_BYTES = 1 << 30
_MOST_THREADS = 256  # more would stop a small machine, and wait for each other on a large one

Fallback: TypeAlias = Literal["error", "warn", "allow"]
Precision: TypeAlias = Literal["default", "exact"]
Autotune: TypeAlias = Literal["off", "gpu", "all"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
ProbePlace: TypeAlias = Literal["thread", "process"]

_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})
_FALSE = frozenset({"0", "false", "no", "off", "n", "f"})

# Distributions of this project that read variables of their own, HOTPLUG_<NAME>_*, and that may be
# absent where those are set.
_OWNERS = frozenset({"CUDA", "OPENCL", "RPC", "LLM"})


@dataclass(frozen=True, slots=True)
class Settings:
    """The variables' values; see the module for their meaning. None means not set.

    Attributes:
        allowed: backends that alone may be used, in lower case; empty for all.
        denied: backends that may not be used, in lower case.
        backend_path: (name, "module:object") pairs.
        cache_bytes: size of the files with compiled kernels.
        autotune_seconds: of each device and process.
        deterministic: whether nothing that is computed may depend on times or on what ran before.
        device_timeout: seconds; None if a device may take as long as it likes.
        state_copy_bytes: of each session.
        expert_cache_bytes: of each device and session.
        probe_timeout: seconds.
        opencl_subdevices: "numa", or compute units of each part.
        forbid: (op, backend or id of a device) pairs, in lower case.
    """

    device: str | None = None
    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    autoload: bool = True
    backend_path: tuple[tuple[str, str], ...] = ()
    fallback: Fallback = "warn"
    cache: bool = True
    cache_dir: Path | None = None
    cache_bytes: int = _CACHE_BYTES
    autotune: Autotune = "gpu"
    autotune_seconds: float = 2.0
    deterministic: bool = False
    device_timeout: float | None = 120.0
    state_copy_bytes: int = _STATE_COPY_BYTES
    expert_cache_bytes: int = _EXPERT_CACHE_BYTES
    log: LogLevel | None = None
    probe: ProbePlace = "thread"
    probe_timeout: float = 10.0
    threads: int | None = None
    cpu_isa: str | None = None
    cuda_cublas: bool = True
    cuda_simulate: int | None = None
    opencl_subdevices: Literal["numa"] | int | None = None
    forbid: tuple[tuple[str, str], ...] = ()
    precision: Precision = "default"

    def allows(self, backend: str) -> bool:
        """Whether HOTPLUG_BACKENDS lets a backend be used."""
        name = backend.lower()
        return name not in self.denied and (not self.allowed or name in self.allowed)

    @property
    def cache_directory(self) -> Path:
        """Where compiled kernels are kept: HOTPLUG_CACHE_DIR or the system's place for caches."""
        return self.cache_dir or Path(platformdirs.user_cache_dir("hotplug", appauthor=False))

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from a mapping of variables; an empty value counts as not set.

        Raises:
            SettingsError: a value that is not understood.
        """
        reader = _Reader(environment)
        allowed, denied = _allow_list(reader)
        cache_dir = reader.text("CACHE_DIR")
        return cls(
            device=reader.text("DEVICE"),
            allowed=allowed,
            denied=denied,
            autoload=reader.switch("AUTOLOAD", default=True),
            backend_path=_backend_path(reader),
            fallback=cast("Fallback", reader.choice("FALLBACK", get_args(Fallback)) or "warn"),
            cache=reader.switch("CACHE", default=True),
            cache_dir=Path(cache_dir).expanduser() if cache_dir else None,
            cache_bytes=reader.count("CACHE_BYTES", most=10**18) or _CACHE_BYTES,
            autotune=cast("Autotune", reader.choice("AUTOTUNE", get_args(Autotune)) or "gpu"),
            autotune_seconds=reader.seconds("AUTOTUNE_SECONDS", default=2.0),
            deterministic=reader.switch("DETERMINISTIC", default=False),
            device_timeout=_device_timeout(reader),
            state_copy_bytes=_bytes(reader, "STATE_COPY_BYTES", _STATE_COPY_BYTES),
            expert_cache_bytes=_bytes(reader, "EXPERT_CACHE_BYTES", _EXPERT_CACHE_BYTES),
            log=cast("LogLevel | None", reader.choice("LOG", get_args(LogLevel))),
            probe=cast("ProbePlace", reader.choice("PROBE", get_args(ProbePlace)) or "thread"),
            probe_timeout=reader.seconds("PROBE_TIMEOUT", default=10.0),
            threads=reader.count("THREADS"),
            cpu_isa=(reader.text("CPU_ISA") or "").lower() or None,
            cuda_cublas=reader.switch("CUDA_CUBLAS", default=True),
            cuda_simulate=reader.count("CUDA_SIMULATE"),
            opencl_subdevices=_subdevices(reader),
            forbid=_forbidden(reader),
            precision=cast(
                "Precision", reader.choice("PRECISION", get_args(Precision)) or "default"
            ),
        )


def settings() -> Settings:
    """The settings as the environment has them now.

    Warns once of each HOTPLUG_* variable that nothing reads.

    Raises:
        SettingsError: a value that is not understood.
    """
    current = Settings.read(os.environ)
    _warn_of_unknown(os.environ)
    return current


def wanted_fallback(given: Fallback | None) -> Fallback:
    """The policy that is given, or that HOTPLUG_FALLBACK names.

    Raises:
        UsageError: it is none.
    """
    if given is None:
        return settings().fallback
    if given not in get_args(Fallback):
        raise UsageError(f"fallback {given!r} is none of {', '.join(get_args(Fallback))}")
    return given


def wanted_threads(threads: int | None = None) -> int | None:
    """The number of threads that counts: the one asked for, HOTPLUG_THREADS, None for all cores.

    Raises:
        UsageError: fewer than one, or far too many.
    """
    wanted = settings().threads if threads is None else threads
    if wanted is not None and not 1 <= wanted <= _MOST_THREADS:
        raise UsageError(f"the number of threads must be from 1 to {_MOST_THREADS}, not {wanted}")
    return wanted


def parse_backend_path(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs (name, "module:object") from "name=module:object", several separated by commas.

    Raises:
        ValueError: an item of another form.
    """
    return tuple(_backend_item(item.strip()) for item in text.split(",") if item.strip())


def _backend_item(item: str) -> tuple[str, str]:
    name, equals, target = (part.strip() for part in item.partition("="))
    module, colon, attribute = target.partition(":")
    words = (name, *module.split("."), *attribute.split("."))
    if not (equals and colon and all(word.replace("-", "_").isidentifier() for word in words)):
        raise ValueError(f"{item!r} is not of the form name=module:object")
    return name.lower(), target


class _Reader:
    """Variables of an environment by the part of their name after the prefix."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str) -> str | None:
        return self._environment.get(PREFIX + name, "").strip() or None

    def choice(self, name: str, allowed: tuple[str, ...]) -> str | None:
        text = self.text(name)
        if text is None or text.lower() in allowed:
            return text and text.lower()
        raise self.error(name, " or ".join(allowed))

    def switch(self, name: str, *, default: bool) -> bool:
        text = self.text(name)
        if text is None:
            return default
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise self.error(name, "on, true, yes or 1; or off, false, no or 0")

    def count(self, name: str, *, least: int = 1, most: int = 999_999) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        # isdecimal alone would let other scripts' digits through
        if text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most:
            return int(text)
        raise self.error(name, f"a whole number from {least} to {most}")

    def seconds(self, name: str, *, default: float) -> float:
        text = self.text(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if 0 < value <= 86400:  # NaN compares false
            return value
        raise self.error(name, "a number of seconds above 0, at most 86400")

    def error(self, name: str, allowed: str) -> SettingsError:
        value = self._environment[PREFIX + name]
        return SettingsError(
            f"{PREFIX}{name}={value!r} is not understood; allowed is {allowed}",
            variable=PREFIX + name,
            value=value,
        )


def _allow_list(reader: _Reader) -> tuple[tuple[str, ...], tuple[str, ...]]:
    items = [item.strip().lower() for item in (reader.text("BACKENDS") or "").split(",")]
    items = [item for item in items if item]
    if not all(item.removeprefix("-").replace("-", "_").isidentifier() for item in items):
        raise reader.error("BACKENDS", 'names of backends separated by commas, "-name" to deny one')
    denied = tuple(item[1:] for item in items if item.startswith("-"))
    return tuple(item for item in items if not item.startswith("-")), denied


def _device_timeout(reader: _Reader) -> float | None:
    if (reader.text("DEVICE_TIMEOUT") or "").lower() in _FALSE:
        return None
    return reader.seconds("DEVICE_TIMEOUT", default=120.0)


def _bytes(reader: _Reader, name: str, default: int) -> int:
    count = reader.count(name, least=0, most=10**18)
    return default if count is None else count


def _subdevices(reader: _Reader) -> Literal["numa"] | int | None:
    text = (reader.text("OPENCL_SUBDEVICES") or "").lower()
    return "numa" if text == "numa" else reader.count("OPENCL_SUBDEVICES")


def _forbidden(reader: _Reader) -> tuple[tuple[str, str], ...]:
    items = [item.strip().lower() for item in (reader.text("FORBID") or "").split(",")]
    pairs = [tuple(part.strip() for part in item.partition("@")[::2]) for item in items if item]
    if not all(op.isidentifier() and where for op, where in pairs):
        raise reader.error("FORBID", "op@backend or op@device, several with commas")
    return tuple((op, where) for op, where in pairs)


def _backend_path(reader: _Reader) -> tuple[tuple[str, str], ...]:
    try:
        return parse_backend_path(reader.text("BACKEND_PATH") or "")
    except ValueError as error:
        raise reader.error("BACKEND_PATH", "name=module:object, several with commas") from error


KNOWN_VARIABLES = tuple(
    PREFIX + name
    for name in (
        "DEVICE",
        "BACKENDS",
        "AUTOLOAD",
        "BACKEND_PATH",
        "FALLBACK",
        "CACHE",
        "CACHE_DIR",
        "CACHE_BYTES",
        "AUTOTUNE",
        "AUTOTUNE_SECONDS",
        "DETERMINISTIC",
        "DEVICE_TIMEOUT",
        "STATE_COPY_BYTES",
        "EXPERT_CACHE_BYTES",
        "LOG",
        "PROBE",
        "PROBE_TIMEOUT",
        "THREADS",
        "CPU_ISA",
        "CUDA_CUBLAS",
        "CUDA_SIMULATE",
        "OPENCL_SUBDEVICES",
        "FORBID",
        "PRECISION",
    )
)
"""Every variable that the core reads."""

_warned: set[str] = set()


def _warn_of_unknown(environment: Mapping[str, str]) -> None:
    unknown = {
        name
        for name in environment
        if name.startswith(PREFIX) and name not in KNOWN_VARIABLES and name not in _warned
    }
    if not unknown:
        return
    _warned.update(unknown)
    owners = _OWNERS | _installed_owners()
    for name in sorted(unknown):
        owner, _, rest = name.removeprefix(PREFIX).partition("_")
        if not (owner in owners and rest):
            warnings.warn(_unknown_text(name), HotplugWarning, stacklevel=3)


def _installed_owners() -> set[str]:
    """Names of installed backends, each of which may read variables of its own."""
    entries = metadata.entry_points(group="hotplug.backends")
    return {entry.name.upper().replace("-", "_").partition("_")[0] for entry in entries}


def _unknown_text(name: str) -> str:
    close = difflib.get_close_matches(name, KNOWN_VARIABLES, n=1, cutoff=0.8)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{name} is set, but hotplug reads no such variable{hint}"
