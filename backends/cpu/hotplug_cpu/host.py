"""What the processor is, and what part of it and of the memory this process may use.

Containers limit a process through control groups, which neither `os.cpu_count` nor the system's
memory counters know of; they are read here, versions 1 and 2, from the process's own group up.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from hotplug.backend import MemoryInfo

__all__ = ["memory", "processor_name", "usable_cores", "usable_threads"]

_CPUINFO_KEYS = ("model name", "Model", "Hardware", "cpu model", "cpu")
_GROUPS = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")
_SLOWER = 0.7  # of the fastest cores' capacity, up to which others are taken for a slower kind


def processor_name() -> str:
    """The vendor's name of the processor, or the instruction set's where none is known."""
    if sys.platform == "linux":
        name = _linux_name(_text(Path("/proc/cpuinfo")))
    elif sys.platform == "darwin":
        name = _sysctl("machdep.cpu.brand_string")
    elif sys.platform == "win32":
        name = _windows_name()
    else:
        name = ""
    return name or platform.processor() or platform.machine() or "CPU"


def _linux_name(cpuinfo: str) -> str:
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return next((" ".join(fields[key].split()) for key in _CPUINFO_KEYS if fields.get(key)), "")


def _sysctl(name: str) -> str:
    library = ctypes.util.find_library("c")
    if library is None:
        return ""
    text = ctypes.create_string_buffer(256)
    size = ctypes.c_size_t(len(text))
    call = ctypes.CDLL(library).sysctlbyname
    failed = call(name.encode(), text, ctypes.byref(size), None, ctypes.c_size_t(0))
    return "" if failed else text.value.decode(errors="replace")


def _sysctl_int(name: str) -> int:
    value, size = ctypes.c_int(0), ctypes.c_size_t(4)
    call = ctypes.CDLL(None).sysctlbyname
    failed = call(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return 0 if failed else value.value


def _windows_name() -> str:
    if sys.platform == "win32":
        import winreg  # noqa: PLC0415 - there is no such module elsewhere

        path = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
                return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
        except OSError:  # the key is a convenience of the system's, not a promise
            pass
    return ""


def usable_threads() -> int:
    """Hardware threads that this process may use: by its affinity, and by its container's quota."""
    return _within_quota(len(_allowed()))


def usable_cores() -> int:
    """Cores that this process may use, and that run kernels at full speed.

    A core's second hardware thread adds nothing to kernels, and threads that meet after every row
    of a plan would all wait for a core of a slower kind.
    """
    if sys.platform == "darwin" and (fast := _sysctl_int("hw.perflevel0.physicalcpu")):
        return _within_quota(fast)
    allowed = _allowed()
    cores = {_text(_CPUS / f"cpu{n}/topology/thread_siblings_list") for n in _fast(allowed)}
    if "" not in cores:
        return _within_quota(len(cores))
    logical, physical = psutil.cpu_count(), psutil.cpu_count(logical=False)
    if not logical or not physical:
        return usable_threads()
    return _within_quota(len(allowed) * int(physical) // int(logical))


def _allowed() -> set[int]:
    """Numbers of the hardware threads that the process's affinity names."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # no such call on macOS and Windows
        return set(range(os.cpu_count() or 1))


def _within_quota(count: int) -> int:
    quotas = [quota for group in _groups("cpu") if (quota := _cpu_quota(group)) is not None]
    return max(1, min([count, *quotas]))


def _fast(threads: set[int]) -> set[int]:
    """Those of the fastest kind, or not much slower, as far as Linux tells."""
    capacities = {n: _text(_CPUS / f"cpu{n}/cpu_capacity") for n in threads}
    if all(capacity.isdecimal() for capacity in capacities.values()):
        most = max(map(int, capacities.values()))
        return {n for n, capacity in capacities.items() if int(capacity) > most * _SLOWER}
    return threads - _numbers(_text(_CPUS.parents[1] / "cpu_atom/cpus")) or threads


def _numbers(listed: str) -> set[int]:
    """What Linux lists as "0-3,8"."""
    found: set[int] = set()
    for part in filter(None, listed.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def memory() -> MemoryInfo:
    """Bytes of memory, and of it what may still be taken without swapping, at this moment."""
    system = psutil.virtual_memory()
    total, free = int(system.total), int(system.available)
    for group in _groups("memory"):
        limit, used = _memory_limit(group)
        if limit is not None:
            total = min(total, limit)
            free = min(free, max(0, limit - used))
    return MemoryInfo(total, free)


def _groups(controller: str) -> Iterator[Path]:
    """Directories of the control groups that this process is in, from its own up to the root."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root = _GROUPS
        elif controller in controllers.split(","):
            root = _GROUPS / controller
        else:
            continue
        group = root / path.lstrip("/")
        yield group
        # Inside a container the path may be the one outside, which does not exist here; what
        # counts is then at the root.
        yield from (parent for parent in group.parents if parent.is_relative_to(root))


def _cpu_quota(group: Path) -> int | None:
    """Whole processors' worth of time that a group may use, at least one."""
    quota, _, period = _text(group / "cpu.max").partition(" ")
    if not quota:
        quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return None  # "max", "-1", or no such file
    return max(1, round(int(quota) / int(period)))


def _memory_limit(group: Path) -> tuple[int | None, int]:
    """(limit, bytes in use that cannot be dropped) of a group."""
    limit = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
    used = _text(group / "memory.current") or _text(group / "memory.usage_in_bytes")
    if not (limit.isdecimal() and used.isdecimal()):
        return None, 0
    return int(limit), max(0, int(used) - _file_pages(group))


def _file_pages(group: Path) -> int:
    """Bytes of files that the system holds in memory for the group and can read again."""
    for line in _text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in {"inactive_file", "total_inactive_file"}:
            return int(value)
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # not there, or not for us to read: then it limits nothing that we know of
        return ""
