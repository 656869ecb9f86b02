"""Decoding and reading prompts with threads bound to processors, and left to the system; JSON.

    python benchmarks/cpu_pinning.py [--rounds 5] [--threads 2]

Figures are tokens per second, of the median round; both ways take turns in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
from collections.abc import Callable
from functools import partial

from demo import demo_model
from programs import Hotplug, Work, decode, prefill, take_turns

from hotplug_cpu import host

_ALLOWED = os.sched_getaffinity(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=host.usable_cores())
    options = parser.parse_args()
    program = Hotplug(demo_model(), options.threads, context=2048)
    program.decode(1)  # the threads are there from now on
    result: dict[str, object] = {"benchmark": "cpu_pinning", "threads": options.threads}
    for name, work in {"decode 64": decode(64), "prefill 512": prefill(512)}.items():
        actions: list[Callable[[], float]] = [
            partial(bound, program, work, bind=bind) for bind in (True, False)
        ]
        pairs = take_turns(actions, options.rounds)
        result[name] = {
            "bound": round(statistics.median(pair[0] for pair in pairs), 1),
            "free": round(statistics.median(pair[1] for pair in pairs), 1),
            "ratio": round(statistics.median(pair[0] / pair[1] for pair in pairs), 3),
        }
    program.close()
    print(json.dumps(result))


def bound(program: Hotplug, work: Work, *, bind: bool) -> float:
    """Do some work with each thread of the team on a processor of its own, or anywhere."""
    allowed = sorted(_ALLOWED)
    workers = [t for t in threading.enumerate() if t.name.startswith("hotplug-cpu-")]
    for number, thread in enumerate([threading.current_thread(), *workers]):
        assert thread.native_id is not None
        place = {allowed[number % len(allowed)]}
        os.sched_setaffinity(thread.native_id, place if bind else allowed)
    try:
        return work(program)
    finally:
        os.sched_setaffinity(0, allowed)


if __name__ == "__main__":
    main()
