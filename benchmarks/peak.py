"""How much memory a command takes at most; prints JSON.

    peak.py COMMAND...

It has to be a small process of its own that starts the command: on Linux a child's peak begins
with what its parent has at that moment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def peak_bytes(command: Sequence[str | Path]) -> int:
    """The most memory that a command held.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    watched = [sys.executable, __file__, *command]
    done = subprocess.run(watched, stdout=subprocess.PIPE, check=True, text=True)
    return int(json.loads(done.stdout)["peak_bytes"])


def watch(command: Sequence[str]) -> int:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = waited(process) if hasattr(os, "wait4") else polled(process)
    print(json.dumps({"peak_bytes": peak}))
    return process.returncode


def waited(process: subprocess.Popen[bytes]) -> int:
    """What the system says when a process has ended."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def polled(process: subprocess.Popen[bytes]) -> int:
    """The most that was seen, where nobody tells afterwards."""
    import psutil

    peak, watched = 0, psutil.Process(process.pid)
    while process.poll() is None:
        info = watched.memory_info()
        peak = max(peak, getattr(info, "peak_wset", info.rss))
        time.sleep(0.01)
    return peak


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:]))
