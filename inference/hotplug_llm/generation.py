"""One answer while it is being made: an iterator over its text, and a record of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hotplug import progress
from hotplug.backend import DeviceInfo
from hotplug.errors import ContextLengthError
from hotplug.session import Control, held
from hotplug_llm.evaluation import Evaluator
from hotplug_llm.sampling import Sampler, SamplingOptions
from hotplug_llm.streaming import TextStream
from hotplug_llm.tokenizers import Tokenizer

__all__ = ["Generation", "Stopping"]


class Source(Protocol):
    """What a generation needs to know of its model."""

    tokenizer: Tokenizer
    load_seconds: float

    @property
    def devices(self) -> list[DeviceInfo]:
        """The devices it runs on."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """When an answer is over, besides the end of the context."""

    max_tokens: int | None = None
    texts: tuple[str, ...] = ()
    ignore_eos: bool = False


class Generation:
    """Iterate over it for pieces of text, each whole characters. Closing the iterator stops it.

    Attributes:
        prompt_ids: what was asked.
        ids: tokens made so far, end marks included.
        text: text made so far.
        finish: why it ended: "end" (the model said so), "length", "context" or "stop"; None until
            then.
        reused: tokens at the start of the prompt that the cache still held.
        first_token_seconds: time from the first request for a piece to the first token.
        prefill_seconds: time spent on the prompt, once the graphs for it were compiled.
        decode_seconds: time spent on tokens after the first.
    """

    def __init__(
        self,
        model: Source,
        evaluator: Evaluator,
        prompt_ids: Sequence[int],
        sampling: SamplingOptions,
        stopping: Stopping,
        control: Control | None = None,
    ) -> None:
        if len(prompt_ids) >= evaluator.context:
            raise ContextLengthError(
                f"the prompt has {len(prompt_ids)} tokens, and a context of {evaluator.context} "
                "leaves no room for an answer",
                tokens=len(prompt_ids) + 1,
                limit=evaluator.context,
                remedy="shorten the prompt or raise --context",
            )
        self._model = model
        self._evaluator = evaluator
        self._sampler = Sampler(sampling)
        self._stopping = stopping
        self._control = control
        self._stream = TextStream(stopping.texts)
        self._pieces = self._run()
        self.prompt_ids = list(prompt_ids)
        self.ids: list[int] = []
        self.text = ""
        self.finish: str | None = None
        self.reused = 0
        self.first_token_seconds = 0.0
        self.prefill_seconds = 0.0
        self.decode_seconds = 0.0

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens evaluated, over the time that took."""
        return _rate(len(self.prompt_ids) - self.reused, self.prefill_seconds)

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens after the first, over the time they took."""
        return _rate(len(self.ids) - 1, self.decode_seconds)

    def report(self) -> dict[str, Any]:
        """The answer and its figures, ready for JSON. Times are in seconds."""
        return {
            "text": self.text,
            "ids": self.ids,
            "prompt_ids": self.prompt_ids,
            "finish": self.finish,
            "devices": [info.id for info in self._model.devices],
            "load_seconds": round(self._model.load_seconds, 6),
            "first_token_seconds": round(self.first_token_seconds, 6),
            "prefill_tokens_per_second": round(self.prefill_tokens_per_second, 3),
            "decode_tokens_per_second": round(self.decode_tokens_per_second, 3),
        }

    def _run(self) -> Iterator[str]:
        history = list(self.prompt_ids)
        began = time.perf_counter()
        token = self._first_token(history)
        self.first_token_seconds = time.perf_counter() - began
        while True:
            self.ids.append(token)
            history.append(token)
            piece = self._accept(token)
            if piece:
                self.text += piece
                yield piece
            if self.finish is not None:
                return
            token = self._next_token(history)

    def _first_token(self, history: list[int]) -> int:
        with held(self._evaluator.lock, self._control):
            if self._evaluator.deterministic:
                self._evaluator.rewind(0)
            self.reused = self._evaluator.reuse(self.prompt_ids)
            rest = self.prompt_ids[self.reused :]
            largest = self._largest()
            self._evaluator.prepare(len(rest), largest, self._control)
            self._evaluator.prepare(1, largest, self._control)
            began = time.perf_counter()
            with progress.task("read the prompt", len(rest)) as advance:
                token = self._continued(rest, history, advance)
            self.prefill_seconds = time.perf_counter() - began
        return token

    def _next_token(self, history: list[int]) -> int:
        began = time.perf_counter()
        with held(self._evaluator.lock, self._control):
            # All but the last token, as a rule: unless the model made something else in between.
            kept = self._evaluator.reuse(history)
            if self._evaluator.deterministic and kept < len(history) - 1:
                kept = self._read_again(history)
            token = self._continued(history[kept:], history)
        self.decode_seconds += time.perf_counter() - began
        return token

    def _read_again(self, history: Sequence[int]) -> int:
        """Read all but the last token in the batches in which they were read at first."""
        self._evaluator.rewind(0)
        self._evaluator.last_logits(self.prompt_ids, control=self._control)
        for token in history[len(self.prompt_ids) : -1]:
            self._evaluator.last_logits([token], control=self._control)
        return len(history) - 1

    def _largest(self) -> int:
        """How many logits a GPU gives out, because no more are needed; 0 for all."""
        needed = self._sampler.needed
        within = needed is not None and needed <= self._model.tokenizer.vocabulary_size
        return needed if needed and within and self._evaluator.finds(needed) else 0

    def _continued(
        self,
        ids: Sequence[int],
        history: list[int],
        proceed: Callable[[int], None] | None = None,
    ) -> int:
        """The token after the history, of which ids are what is to be read yet."""
        largest = self._largest()
        if largest:
            found = self._evaluator.last_largest(
                ids, largest, proceed=proceed, control=self._control
            )
            return self._sampler.choose(*found)
        logits = self._evaluator.last_logits(ids, proceed=proceed, control=self._control)
        # Embeddings may be padded with rows that are no tokens.
        return self._sampler.sample(logits[: self._model.tokenizer.vocabulary_size], history)

    def _accept(self, token: int) -> str:
        """Text that the token lets out; sets `finish` if it is the last."""
        tokenizer = self._model.tokenizer
        ends = token in tokenizer.end_of_generation and not self._stopping.ignore_eos
        shown = not ends and (self._stopping.ignore_eos or not tokenizer.is_special(token))
        piece = self._stream.push(tokenizer.token_bytes(token)) if shown else ""
        self.finish = self._finish_reason(ends)
        if self.finish is not None and self.finish != "stop":
            piece += self._stream.finish()
        return piece

    def _finish_reason(self, ends: bool) -> str | None:
        if self._stream.stopped:
            return "stop"
        if ends:
            return "end"
        if self._stopping.max_tokens is not None and len(self.ids) >= self._stopping.max_tokens:
            return "length"
        if len(self.prompt_ids) + len(self.ids) >= self._evaluator.context:
            return "context"
        return None


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 and count > 0 else 0.0
