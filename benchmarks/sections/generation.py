"""Reading prompts and making tokens, beside llama.cpp: the model itself, other types, far contexts.

The bandwidth bound of decoding is how many tokens a second the weights could be read for, at the
speed of reading that was measured in the same round.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from bench import NO_PEER, Bench, Outcome, Section, bytes_per_token, ratio_row
from figures import Row, at_least, rounded
from programs import Pair, decode, prefill, requantised, take_turns

__all__ = ["SECTIONS", "TYPES", "bound_row"]

TYPES = {
    **dict.fromkeys(("q4_0", "q4_k_m", "q5_1", "q5_k_m"), 1.8),
    **dict.fromkeys(("q8_0", "q5_0", "q6_k", "q2_k", "q3_k_m", "f16", "bf16", "f32"), 1.4),
}
"""Type -> how many times faster prompts are to be read."""

DEPTH = 4096


def measure_decode(bench: Bench) -> Outcome:
    with bench.pair() as pair:
        return Outcome(decode_rows(bench, pair, bench.model, "decode, 64 tokens", 1.25, 0.85))


def measure_prefill(bench: Bench) -> Outcome:
    with bench.pair() as pair:
        rates = take_turns(pair.actions(prefill(512)), bench.rounds)
    return Outcome([ratio_row("prefill, 512 tokens", rates, at_least(4))])


def measure_depth(bench: Bench) -> Outcome:
    with bench.pair(context=DEPTH + 128) as pair:
        far = take_turns(pair.actions(decode(32, DEPTH)), bench.rounds)
        whole = take_turns(pair.actions(prefill(DEPTH)), bench.rounds)
    return Outcome(
        [
            ratio_row(f"decode at depth {DEPTH}, 32 tokens", far, at_least(2.5)),
            ratio_row(f"prefill, {DEPTH} tokens", whole, at_least(2.5)),
        ]
    )


def measure_types(bench: Bench) -> Outcome:
    rows: list[Row] = []
    for kind in bench.types or TYPES:
        target, path = TYPES[kind], requantised(kind)
        name = kind.upper()
        if path is None:
            rows.append(Row(name, None, "x llama.cpp", at_least(1), {"why": NO_PEER}))
            continue
        with bench.pair(path) as pair:
            rows += decode_rows(bench, pair, path, f"{name}: decode, 64 tokens", 1, 0.9)
            rates = take_turns(pair.actions(prefill(512)), bench.rounds)
        rows.append(ratio_row(f"{name}: prefill, 512 tokens", rates, at_least(target)))
    return Outcome(rows)


def decode_rows(
    bench: Bench, pair: Pair, path: Path, what: str, ratio: float, share: float
) -> list[Row]:
    """Decoding against llama.cpp, and as a share of the bandwidth bound."""
    turns = take_turns([bench.reader.speed, *pair.actions(decode(64))], bench.rounds)
    speeds, rates = [turn[0] for turn in turns], [turn[1:] for turn in turns]
    bound = bound_row(what, speeds, [rate[0] for rate in rates], bytes_per_token(path), share)
    return [ratio_row(what, rates, at_least(ratio)), bound]


def bound_row(
    what: str, speeds: Sequence[float], rates: Sequence[float], nbytes: int, share: float
) -> Row:
    """Tokens per second as a share of what reading alone would take, round by round.

    Args:
        what: what was measured.
        speeds: bytes per second that were read.
        rates: tokens per second.
        nbytes: bytes of weights per token.
        share: the target.
    """
    shares = [rate * nbytes / speed for rate, speed in zip(rates, speeds, strict=True)]
    detail = {
        "MB per token": rounded(nbytes / 1e6),
        "GB/s": rounded(statistics.median(speeds) / 1e9),
    }
    measured = rounded(statistics.median(shares))
    return Row(f"{what}, share of the bound", measured, "of bandwidth", at_least(share), detail)


SECTIONS = (
    Section("decode", "making tokens", measure_decode),
    Section("prefill", "reading a prompt", measure_prefill),
    Section("depth", "contexts of 4096 tokens", measure_depth),
    Section("types", "other types of weights", measure_types),
)
