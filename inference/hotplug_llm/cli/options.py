"""Options that several commands share."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import get_args

from hotplug.backend import DeviceInfo
from hotplug.devices import wanted, watch
from hotplug.errors import UsageError
from hotplug.registry import Event, EventKind
from hotplug.session import Mode
from hotplug.settings import Fallback
from hotplug_llm.cli.placement import add_placement, placement_of
from hotplug_llm.generation import Generation
from hotplug_llm.model import Model, load
from hotplug_llm.sampling import SamplingOptions

__all__ = [
    "add_model",
    "add_sampling",
    "figures",
    "open_model",
    "sampling_of",
    "tell_order",
]


_LOOK_EVERY = 2.0
"""Seconds between two looks at which devices there are."""


def add_model(parser: argparse.ArgumentParser) -> None:
    """Options that say which model runs where."""
    group = parser.add_argument_group("model")
    group.add_argument("-m", "--model", required=True, metavar="FILE", help="a GGUF model")
    group.add_argument(
        "-d",
        "--device",
        "--devices",
        dest="device",
        metavar="SELECTOR",
        help='devices to run on, the preferred ones first, such as "cpu", "gpu" or "cuda:1,cpu" '
        "(HOTPLUG_DEVICE, or the best)",
    )
    group.add_argument(
        "--fallback",
        choices=get_args(Fallback),
        help="when a device does not do something: error, or let another do it, and warn if that "
        "is one which -d does not name, or not (HOTPLUG_FALLBACK, or warn)",
    )
    group.add_argument(
        "--mode",
        choices=get_args(Mode),
        default="layer",
        help="how several devices share the work: one after the other, each at another piece of a "
        "long prompt, or all at pieces of each product (%(default)s)",
    )
    group.add_argument(
        "--host-experts",
        action="store_true",
        help="keep the weights of experts in the host's memory, and send those that are used where "
        "that is faster than to compute there",
    )
    group.add_argument(
        "--hot-plug",
        action="store_true",
        help="take in devices that -d names and that appear meanwhile, such as started servers",
    )
    group.add_argument(
        "-t", "--threads", type=int, metavar="N", help="CPU threads (HOTPLUG_THREADS, or all cores)"
    )
    group.add_argument(
        "-c",
        "--context",
        type=int,
        metavar="N",
        help="most tokens of prompt and answer together (the model's own, at most 8192)",
    )
    group.add_argument(
        "--precision",
        choices=("default", "exact"),
        help="exact: float32 activations throughout (HOTPLUG_PRECISION, or default)",
    )
    group.add_argument(
        "--cache-type",
        choices=("f16", "f32"),
        help="how the KV cache is kept (f16; f32 with --precision exact)",
    )
    add_placement(parser)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Options that say how tokens are chosen and when to stop."""
    defaults = SamplingOptions()
    group = parser.add_argument_group("answer")
    group.add_argument("-n", "--max-tokens", type=int, metavar="N", help="most tokens of answer")
    group.add_argument(
        "--temperature",
        type=float,
        default=defaults.temperature,
        metavar="X",
        help="0 always takes the likeliest token (%(default)s)",
    )
    group.add_argument(
        "--top-k",
        type=int,
        default=defaults.top_k,
        metavar="N",
        help="choose among the N likeliest tokens; 0 is off (%(default)s)",
    )
    group.add_argument(
        "--top-p",
        type=float,
        default=defaults.top_p,
        metavar="X",
        help="choose among the likeliest tokens that sum to X; 1 is off (%(default)s)",
    )
    group.add_argument(
        "--min-p",
        type=float,
        default=defaults.min_p,
        metavar="X",
        help="leave out tokens less than X as likely as the likeliest; 0 is off (%(default)s)",
    )
    group.add_argument(
        "--repetition-penalty",
        type=float,
        default=defaults.repetition_penalty,
        metavar="X",
        help="above 1 makes recent tokens less likely; 1 is off (%(default)s)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="makes random choices repeatable")
    group.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end the answer at this text"
    )


def sampling_of(arguments: argparse.Namespace) -> SamplingOptions:
    """The sampling options of a command line.

    Raises:
        UsageError: one is out of range.
    """
    return SamplingOptions(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        seed=arguments.seed,
    )


@contextlib.contextmanager
def open_model(arguments: argparse.Namespace) -> Iterator[Model]:
    """The model of a command line, loaded inside the context."""
    if not arguments.model:
        raise UsageError("-m needs the name of a file")
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(_loaded(arguments))
        if model.fitted:
            print(f"hotplug: {model.fitted}", file=sys.stderr)
        stack.callback(model.session.subscribe(_tell))
        if arguments.hot_plug:
            stack.callback(watch(_LOOK_EVERY))
        yield model


def tell_order(arguments: argparse.Namespace, model: Model) -> None:
    """Say that the order in which devices were named decides, where it does for want of speeds."""
    named = wanted(arguments.device) != "auto"
    if named and len(model.devices) > 1 and arguments.mode == "layer":
        plan = model.plan()
        if plan.doubt and not plan.stats.shares:
            print(f"hotplug: {plan.doubt}", file=sys.stderr)


def _tell(event: Event) -> None:
    """Say which devices come and go; of those that fail, a warning does."""
    said = {EventKind.DEVICE_ADDED: "is taken in", EventKind.DEVICE_REMOVED: "is left"}
    if event.kind in said:
        print(f"hotplug: {event.device} {said[event.kind]}", file=sys.stderr)


def _loaded(arguments: argparse.Namespace) -> Model:
    return load(
        arguments.model,
        arguments.device,
        arguments.precision,
        context=arguments.context,
        threads=arguments.threads,
        cache_dtype=arguments.cache_type,
        fallback=arguments.fallback,
        **placement_of(arguments),
        mode=arguments.mode,
        host_experts=arguments.host_experts,
        hot_plug=arguments.hot_plug,
    )


def figures(devices: Sequence[DeviceInfo], answer: Generation) -> str:
    """One line about an answer: where it ran and how fast."""
    names = ", ".join(f"{info.id} {info.name}" for info in devices)
    prompt = f"{len(answer.prompt_ids)} prompt tokens at {answer.prefill_tokens_per_second:.1f}"
    made = "1 token"  # which belongs to the prompt's time
    if len(answer.ids) > 1:
        made = f"{len(answer.ids)} tokens at {answer.decode_tokens_per_second:.1f} tokens/s"
    full = "; the context is full" if answer.finish == "context" else ""
    return f"[{names}: {prompt} tokens/s, {made}{full}]"
