"""`hotplug chat`: a conversation that remembers what was said."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence

from hotplug.errors import ContextLengthError, ModelError, UsageError
from hotplug_llm.cli.options import (
    add_model,
    add_sampling,
    figures,
    open_model,
    sampling_of,
    tell_order,
)
from hotplug_llm.generation import Generation
from hotplug_llm.model import Model
from hotplug_llm.sampling import SamplingOptions

__all__ = ["ChatCommand", "Conversation", "command"]


_ROOM = 256  # tokens kept free for an answer


class ChatCommand:
    """Reads a line, streams the answer, and again. Ctrl-C stops an answer, Ctrl-D the program."""

    name = "chat"
    help = "talk with a GGUF model"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--system", metavar="TEXT", help="instructions that come first")
        parser.add_argument(
            "--json", action="store_true", help="print each answer as one line of JSON"
        )
        parser.add_argument(
            "--figures", action="store_true", help="show speed after each answer, on standard error"
        )
        add_model(parser)
        add_sampling(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Talk until the input ends; 0."""
        sampling = sampling_of(arguments)
        with open_model(arguments) as model:
            if model.chat_template is None:
                raise ModelError(
                    f"{model.path.name} has no chat template, so it cannot be talked with",
                    key="tokenizer.chat_template",
                    remedy="continue a text with `hotplug generate --raw`",
                )
            talk = Conversation(
                model,
                sampling,
                system=arguments.system,
                max_tokens=arguments.max_tokens,
                stop=arguments.stop,
            )
            if sys.stdin.isatty():
                print(
                    f"{model.name} on {', '.join(info.id for info in model.devices)}. "
                    "Ctrl-C stops an answer; Ctrl-D, or Ctrl-C at the prompt twice, ends.",
                    file=sys.stderr,
                )
            tell_order(arguments, model)
            for line in _lines():
                _answer(talk, line, arguments)
        return 0


class Conversation:
    """Messages so far, and the model that continues them.

    Attributes:
        model: the model talked with.
        messages: all turns still remembered.
    """

    def __init__(
        self,
        model: Model,
        sampling: SamplingOptions,
        *,
        system: str | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.messages: list[dict[str, str]] = []
        self._sampling = sampling
        self._max_tokens = max_tokens
        self._stop = stop
        self._room = min(max_tokens or _ROOM, model.context // 4)
        if system:
            self.messages.append({"role": "system", "content": system})

    def ask(self, text: str) -> tuple[Generation, int]:
        """Begin the answer to a turn; also how many old turns had to be forgotten for room.

        Raises:
            ContextLengthError: even this turn alone leaves no room for an answer.
        """
        before = list(self.messages)
        self.messages.append({"role": "user", "content": text})
        forgotten = 0
        while True:
            try:
                answer = self._begin()
            except ContextLengthError:
                if not self._forget_oldest():
                    self.messages = before
                    raise
            else:
                room = self.model.context - len(answer.prompt_ids)
                if room >= self._room or not self._forget_oldest():
                    return answer, forgotten
            forgotten += 1

    def remember(self, answer: str) -> None:
        """Take an answer, whole or stopped, into the history."""
        self.messages.append({"role": "assistant", "content": answer})

    def _begin(self) -> Generation:
        return self.model.generate(
            self.messages, max_tokens=self._max_tokens, sampling=self._sampling, stop=self._stop
        )

    def _forget_oldest(self) -> bool:
        """Drop the oldest turn, if there is one besides instructions and what was just asked."""
        first = 1 if self.messages[0]["role"] == "system" else 0
        if len(self.messages) - first < 2:
            return False
        del self.messages[first]
        # Templates want turns to alternate from the user on.
        if self.messages[first]["role"] == "assistant":
            del self.messages[first]
        return True


def _answer(talk: Conversation, line: str, arguments: argparse.Namespace) -> None:
    """One turn. An error of this turn alone is told, and the conversation goes on."""
    try:
        answer, forgotten = talk.ask(line)
    except ContextLengthError as error:
        print(f"hotplug: {error}", file=sys.stderr)
        return
    if forgotten:
        print("[the oldest turns no longer fit and were forgotten]", file=sys.stderr)
    stopped = _stream(answer, quiet=arguments.json)
    talk.remember(answer.text)
    if arguments.json:
        print(json.dumps(answer.report() | {"stopped": stopped}, ensure_ascii=False), flush=True)
        return
    print(" [stopped]" if stopped else "", flush=True)
    if answer.finish == "context":
        print(f"[the context of {talk.model.context} tokens is full]", file=sys.stderr)
    if arguments.figures:
        print(figures(talk.model.devices, answer), file=sys.stderr)


def _stream(answer: Generation, *, quiet: bool) -> bool:
    """Show an answer as it comes; whether the user stopped it."""
    try:
        for piece in answer:
            if not quiet:
                sys.stdout.write(piece)
                sys.stdout.flush()
    except KeyboardInterrupt:
        return True
    return False


def _lines() -> Iterator[str]:
    """Lines that are not empty, until the input ends or Ctrl-C is pressed twice at the prompt."""
    prompt = "> " if sys.stdin.isatty() else ""
    warned = False
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is no UTF-8 text: {error}") from error
        except KeyboardInterrupt:
            print(file=sys.stderr)
            if warned:
                return
            warned = True
            print("[press Ctrl-C again, or Ctrl-D, to end]", file=sys.stderr)
            continue
        warned = False
        if line:
            yield line


command = ChatCommand()
