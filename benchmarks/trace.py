"""Where the time of a decode step and of a prompt goes, by kernel; prints tables.

    python benchmarks/trace.py [--model FILE] [--tokens 1,512] [--depth 64] [--threads 2]
        [--runs 50] [--json]

Every row of the plan is timed while all threads run it as always, see `hotplug_cpu.trace`; figures
are means of the fastest quarter of the runs. `roof` is the time that the machine's limits alone
would take: reading the row's bytes at the measured bandwidth, or doing its operations at the
measured peak, whichever takes longer; `share` is how much of the time that is. `waiting` is time in
which threads wait for each other between stretches.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from demo import demo_model
from plan_trace import limits, measure_roof, table, trace_model

from hotplug.settings import settings
from hotplug_cpu import host


def main() -> None:
    options = arguments()
    roof = measure_roof(options.threads)
    traces = []
    for tokens in options.tokens:
        start = options.depth if tokens == 1 else 0
        runs = max(3, options.runs // tokens)
        traces.append(trace_model(options.model, tokens, start, options.threads, runs, roof))
    if options.json:
        print(json.dumps({"roof": limits(roof), "traces": traces}, indent=2))
        return
    print("limits: " + ", ".join(f"{name} {value:.4g}" for name, value in limits(roof).items()))
    for traced in traces:
        print(f"\n{traced['tokens']} tokens behind {traced['start']} others: {traced['ms']} ms")
        print(table(traced))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=settings().threads or host.usable_cores())
    parser.add_argument(
        "--tokens", type=lambda text: [*map(int, text.split(","))], default=[1, 512]
    )
    parser.add_argument("--depth", type=int, default=64, help="tokens before a single one")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.model = options.model or demo_model()
    return options


if __name__ == "__main__":
    main()
