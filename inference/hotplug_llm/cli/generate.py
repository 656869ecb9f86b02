"""`hotplug generate`: one answer to one prompt."""

from __future__ import annotations

import argparse
import json
import sys

from hotplug_llm.cli.options import (
    add_model,
    add_sampling,
    figures,
    open_model,
    sampling_of,
    tell_order,
)
from hotplug_llm.cli.texts import read_text
from hotplug_llm.cli.watching import add_watching, watching
from hotplug_llm.generation import Generation

__all__ = ["GenerateCommand", "command"]


class GenerateCommand:
    """Streams the answer to standard output and its figures to standard error."""

    name = "generate"
    help = "continue a prompt with a GGUF model"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("prompt", help='the prompt; "-" reads it from standard input')
        parser.add_argument(
            "--raw", action="store_true", help="take the prompt as it is, without a chat template"
        )
        parser.add_argument(
            "--ignore-eos", action="store_true", help="go on after the model's end marks"
        )
        parser.add_argument(
            "--json", action="store_true", help="print one JSON object with the answer and figures"
        )
        parser.add_argument(
            "--timeout", type=float, metavar="S", help="end with an error after so many seconds"
        )
        parser.add_argument(
            "--explain", action="store_true", help="show where each step runs, and why, and stop"
        )
        add_model(parser)
        add_sampling(parser)
        add_watching(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Answer; 0 on success."""
        sampling = sampling_of(arguments)
        with open_model(arguments) as model:
            if arguments.explain:
                print(model.explain())
                return 0
            tell_order(arguments, model)
            answer = model.generate(
                read_text(arguments.prompt),
                raw=arguments.raw,
                max_tokens=arguments.max_tokens,
                sampling=sampling,
                stop=arguments.stop,
                ignore_eos=arguments.ignore_eos,
                timeout=arguments.timeout,
            )
            with watching(arguments, model):
                _write(answer, quiet=arguments.json)
            if arguments.json:
                print(json.dumps(answer.report(), ensure_ascii=False))
            else:
                print(figures(model.devices, answer), file=sys.stderr)
        return 0


def _write(answer: Generation, *, quiet: bool) -> None:
    """Write the text as it comes, unless it is for a report alone."""
    begun = False
    try:
        for piece in answer:
            if not quiet:
                sys.stdout.write(piece)
                sys.stdout.flush()
                begun = True
    except BaseException:
        if begun:  # what is said of it shall begin a line
            print()
        raise
    if not quiet:
        print()


command = GenerateCommand()
