"""Several devices: what modes gain, what a scheduler costs, what it takes to survive failures."""

from __future__ import annotations

import json
import subprocess
import sys

import modes
import scaling
import scheduler_overhead
import surviving
from bench import NO_PEER, Bench, Outcome, Section
from figures import Row, at_least, at_most, rounded

__all__ = ["SECTIONS"]

_TOKENS = 512


def measure_modes(bench: Bench) -> Outcome:
    """Devices of one thread each, in a process of its own: PoCL is told so when it is loaded."""
    options = [f"--rounds={bench.rounds}", f"--tokens={_TOKENS}"]
    done = subprocess.run(
        [sys.executable, modes.__file__, *options], stdout=subprocess.PIPE, check=True
    )
    found = json.loads(done.stdout)
    rows = []
    for name, what in (("processors", "the processor twice"), ("opencl", "processor and PoCL")):
        row = f"a prompt of {_TOKENS}, pipeline of two ({what}, one thread each)"
        if "prompt" not in found[name]:
            rows.append(Row(row, None, "x layer by layer", None, found[name]))
            continue
        read = found[name]["prompt"]
        ideal = {"ideal": rounded(read["ideal_over_layer"])}
        gain = rounded(read["pipeline_over_layer"])
        rows.append(Row(row, gain, "x layer by layer", at_least(1), ideal))
    tokens = found["processors"]["tokens"]
    rows.append(
        Row(
            "a token, pieces of products on two (the processor twice, one thread each)",
            rounded(tokens["tensor_over_layer"]),
            "x layer by layer",
            None,
            {f"{name}, ms": rounded(ms) for name, ms in tokens["ms_a_token"].items()},
        )
    )
    return Outcome(rows, {"modes": found})


def measure_scheduler(bench: Bench) -> Outcome:
    """Does not depend on the model."""
    found = scheduler_overhead.report(scheduler_overhead.PEERS, 4 * bench.rounds)
    theirs = found.get("ggml_run_us")
    ours = found["hotplug_run_us"]
    peer = {"ggml, us a node": theirs or NO_PEER, "hotplug": ours}
    gain = rounded(theirs / ours) if theirs else None
    what = f"running {found['nodes']} tiny nodes as planned"
    return Outcome(
        [
            Row(what, gain, "x ggml's scheduler", at_least(1), peer),
            Row(
                "planning them anew, for each node",
                found["hotplug_plan_us"],
                "us",
                None,
                {"ggml": found.get("ggml_plan_us", NO_PEER)},
            ),
            Row("one more part on another device", found["run_split_us"], "us", at_most(50)),
            Row("a handoff between threads", found["handoff_us"], "us"),
        ]
    )


def measure_surviving(bench: Bench) -> Outcome:
    found = surviving.report(_TOKENS, bench.rounds)
    watched = found["by_a_thread_us"] - found["direct_us"]
    return Outcome(
        [
            Row("a run by a thread that can be left behind", rounded(watched), "us more"),
            Row(
                "decoding with copies of the states",
                rounded(found["decode_with_copies_over_without"]),
                "x the time",
                at_most(1.05),
            ),
            Row(
                f"from a lost device to the next token, {_TOKENS} tokens behind it",
                rounded(found["seconds_to_go_on_from_copies"]),
                "s",
                None,
                {"by reading again, s": rounded(found["seconds_to_go_on_by_reading_again"])},
            ),
        ]
    )


def measure_scaling(bench: Bench) -> Outcome:
    """Simulated: the same on every machine."""
    del bench
    found = scaling.report()
    rows = [
        Row(
            f"{name}, {count} x {found['device']}, simulated",
            rounded(rates[count] / rates[1]),
            "x one",
            None,
            {"tokens/s": rates[count]},
        )
        for name, rates in found["scaling"].items()
        for count in rates
        if count in {4, 8, 64}
    ]
    rows += [
        Row(
            f"{mode} over {' + '.join(found['cards'])}, simulated",
            rounded(times["hotplug"] / times["best"]),
            "x the best of all divisions",
            at_most(1.05),
            {f"{way}, ms": times[way] for way in ("equal", "by memory")},
        )
        for mode, times in found["quality"].items()
    ]
    return Outcome(rows)


SECTIONS = (
    Section("modes", "several devices at work at once", measure_modes),
    Section("scheduler", "what a scheduler costs", measure_scheduler),
    Section("surviving", "surviving failures", measure_surviving),
    Section("scaling", "many devices, in simulated time", measure_scaling),
)
