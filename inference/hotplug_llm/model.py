"""A model, loaded: tokenizer, chat template, and the decoder on its devices."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np
import numpy.typing as npt

from hotplug.backend import DeviceInfo
from hotplug.errors import ModelError, UsageError
from hotplug.formats.gguf import GGUFFile
from hotplug.node import Node
from hotplug.ops.linear import PRECISIONS
from hotplug.placement import Plan
from hotplug.session import CancelToken, Mode, Observation, Observer, Session, Trace, control_of
from hotplug.settings import Fallback, settings
from hotplug_llm import fitting
from hotplug_llm.architectures import Hyperparameters, read_hyperparameters
from hotplug_llm.decoder import Decoder
from hotplug_llm.evaluation import BATCH, LOGIT_ROWS, Evaluator
from hotplug_llm.generation import Generation, Stopping
from hotplug_llm.sampling import SamplingOptions
from hotplug_llm.tokenizers import Tokenizer, from_gguf

if TYPE_CHECKING:
    from hotplug_llm.chat import ChatTemplate

__all__ = ["DEFAULT_CONTEXT", "Message", "Model", "load"]

Message = Mapping[str, Any]
"""One turn of a conversation: {"role": "user", "content": "..."}."""

DEFAULT_CONTEXT = 8192
"""Most tokens of context taken unless asked for more: a cache for 128k tokens is gigabytes."""

_CACHE_DTYPES = ("f16", "f32")


def load(
    path: str | Path,
    device: str | None = None,
    precision: str | None = None,
    *,
    context: int | None = None,
    threads: int | None = None,
    cache_dtype: str | None = None,
    fallback: Fallback | None = None,
    hot_plug: bool = False,
    pins: Mapping[str, str] | None = None,
    split: Sequence[float] | None = None,
    budgets: Mapping[str, int] | None = None,
    fit: bool = False,
    mode: Mode = "layer",
    host_experts: bool = False,
) -> Model:
    """Open a GGUF model on a device.

    Args:
        path: the file. It is memory-mapped and must stay as it is while the model is open.
        device: a device selector, such as "cpu" or "cuda:1,cpu"; None chooses.
        precision: "default" rounds activations to 8 bits before products with quantised weights,
            and to 14 bits before those of many tokens with f16 and bf16; "exact" keeps them in
            float32; None takes HOTPLUG_PRECISION.
        context: most tokens of prompt and answer together; None takes the model's own limit, but
            no more than DEFAULT_CONTEXT.
        threads: threads of CPU-like devices; None takes HOTPLUG_THREADS or all cores.
        cache_dtype: "f16" or "f32", how keys and values are kept; None takes f32 for exact
            precision, else f16.
        fallback: "error", "warn" or "allow", when a device does not do something; None takes
            HOTPLUG_FALLBACK.
        hot_plug: whether devices that the selector names and that appear later are taken in between
            two tokens.
        pins: regular expression found in names of tensors and caches, such as "ffn_.*_exps", or an
            op's name -> id of the device that they shall be on. Never broken: see `Session`.
        split: share of the weights for each device, such as (3, 1); None for what is fastest.
        budgets: id of a device -> bytes that may be taken there.
        fit: where that is not enough memory, read fewer tokens at once and shorten the context.
        mode: "layer", "pipeline" or "tensor", how several devices share the work; see
            `hotplug.Session`.
        host_experts: whether weights of experts stay in the host's memory.

    Raises:
        PlacementError: pins, split or budgets cannot be kept, or nothing fits.
        UsageError: there is no such file, or an option is out of range.
        FormatError: the file is broken.
        ModelError: the model cannot be run.
        DeviceNotFoundError: the selector names nothing here.
    """
    return Model(
        path,
        device=device,
        precision=precision or settings().precision,
        context=context,
        threads=threads,
        cache_dtype=cache_dtype,
        fallback=fallback,
        hot_plug=hot_plug,
        pins=pins,
        split=split,
        budgets=budgets,
        fit=fit,
        mode=mode,
        host_experts=host_experts,
    )


class Model:
    """A model with one KV cache. Threads may share it, but take turns at the cache.

    Attributes:
        path: its file.
        shape: hyperparameters.
        tokenizer: text to ids and back.
        context: most tokens of prompt and answer together.
        load_seconds: time that opening took.
        weights: the file's tensors by name, as they lie there.
        fitted: what was made smaller to fit, if that was asked for and needed; else empty.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: str | None = None,
        precision: str = "default",
        context: int | None = None,
        threads: int | None = None,
        cache_dtype: str | None = None,
        fallback: Fallback | None = None,
        hot_plug: bool = False,
        pins: Mapping[str, str] | None = None,
        split: Sequence[float] | None = None,
        budgets: Mapping[str, int] | None = None,
        fit: bool = False,
        mode: Mode = "layer",
        host_experts: bool = False,
    ) -> None:
        began = time.perf_counter()
        self.context: int
        _check_choice("precision", precision, PRECISIONS)
        _check_choice("fallback", fallback or "warn", get_args(Fallback))
        _check_choice("mode", mode, get_args(Mode))
        cache_dtype = cache_dtype or ("f32" if precision == "exact" else "f16")
        _check_choice("cache dtype", cache_dtype, _CACHE_DTYPES)
        self.path = Path(path)
        with contextlib.ExitStack() as held:
            self._file = held.enter_context(GGUFFile.open(self.path))
            self.shape = read_hyperparameters(self._file.fields())
            self.context = _context(context, self.shape)
            self.weights = {name: self._file.tensor(name) for name in self._file.tensors}
            # Early, since what is far away begins to fetch weights.
            self._session = Session(
                device,
                self.weights,
                threads=threads,
                fallback=fallback,
                hot_plug=hot_plug,
                pins=pins,
                split=split,
                budgets=budgets,
                mode=mode,
                host_experts=host_experts,
            )
            held.enter_context(self._session)
            make = self._read(cache_dtype, precision)
            asked = pins or split or budgets
            self._evaluator = self._prepared(make, fit=fit, early=bool(asked))
            self._held = held.pop_all()
        self.load_seconds = time.perf_counter() - began

    def _prepared(self, make: Callable[[int], Decoder], *, fit: bool, early: bool) -> Evaluator:
        """The evaluator, and where there is something to choose, homes for weights and caches."""
        self.fitted, batch = "", BATCH
        if fit:
            found = fitting.fit(self._session, make, self.context)
            decoder, batch, self.fitted = found.decoder, found.batch, found.told
            self.context = decoder.context
        else:
            decoder = make(self.context)
        if early or len(self._session.devices) > 1:
            self._session.settle(fitting.workload(decoder, batch))
        return Evaluator(self._session, decoder, batch)

    def _read(self, cache_dtype: str, precision: str) -> Callable[[int], Decoder]:
        """What makes the decoder of a context."""
        self.tokenizer: Tokenizer = from_gguf(self._file.metadata)
        types = {name: info.type for name, info in self._file.tensors.items()}

        def make(length: int) -> Decoder:
            decoder = Decoder(
                self.shape,
                types,
                context=length,
                cache_dtype=cache_dtype,
                precision=precision,
                vocabulary=self.tokenizer.vocabulary_size,
            )
            if decoder.vocabulary_size < self.tokenizer.vocabulary_size:
                raise ModelError(
                    f"{self.path.name}: the tokenizer has {self.tokenizer.vocabulary_size} tokens, "
                    f"and the embedding only {decoder.vocabulary_size}",
                    key="tokenizer.ggml.tokens",
                )
            return decoder

        return make

    @property
    def name(self) -> str:
        """The model's own name, or its file's."""
        return self._file.fields().get("general.name", str, self.path.stem)

    @property
    def session(self) -> Session:
        """What it runs in, for devices that are added, removed, and brought back."""
        return self._session

    @property
    def devices(self) -> list[DeviceInfo]:
        """The devices it runs on, in order of preference."""
        return [device.info for device in self._session.devices]

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """How the model wants conversations to be laid out, or None if its file does not say."""
        if "tokenizer.chat_template" not in self._file.metadata:
            return None
        from hotplug_llm.chat import ChatTemplate  # noqa: PLC0415 - Jinja, 25 ms

        return ChatTemplate.from_gguf(self._file.metadata, self.tokenizer)

    def tokenize(
        self, text: str, *, add_special: bool | None = None, parse_special: bool = True
    ) -> list[int]:
        """Token ids of a text; see `Tokenizer.encode`."""
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def prompt_ids(
        self, prompt: str | Sequence[int] | Sequence[Message], *, raw: bool = False
    ) -> list[int]:
        """Token ids that a prompt becomes.

        Args:
            prompt: a text, token ids, or the messages of a conversation.
            raw: take a text as it is. Otherwise it is laid out as one user message, if the model
                has a chat template.

        Raises:
            ModelError: the prompt is a conversation and the model has no chat template, or the
                template fails.
            UsageError: the prompt is empty, or holds ids that the model does not have.
        """
        if isinstance(prompt, bytes | bytearray):
            raise UsageError(
                "a prompt is a text, token ids or messages, not bytes: decode it first"
            )
        ids = self._prompt_ids(prompt, raw=raw)
        if not ids:
            raise UsageError("the prompt is empty")
        return ids

    def generate(
        self,
        prompt: str | Sequence[int] | Sequence[Message],
        *,
        raw: bool = False,
        max_tokens: int | None = None,
        sampling: SamplingOptions | None = None,
        stop: str | Sequence[str] = (),
        ignore_eos: bool = False,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> Generation:
        """Continue a prompt. The result is an iterator over pieces of text.

        Args:
            prompt: a text, token ids, or the messages of a conversation.
            raw: take a text as it is, without the model's chat template.
            max_tokens: most tokens of answer; None stops at the end of the context.
            sampling: how tokens are chosen; None takes the defaults.
            stop: a text that ends the answer, or several; it is not part of it.
            ignore_eos: go on after the model's end marks, and show them.
            timeout: seconds from now after which the next piece raises DeadlineExceededError.
            cancel: lets another thread end the answer, by RunCancelledError.

        In default precision a token's logits depend a little on how many tokens were computed with
        it, and thereby on what the cache still holds and on the number of threads; where two
        choices are near each other, the same seed may then go another way. `exact` narrows that to
        rounding in float32.

        Raises:
            ContextLengthError: the prompt leaves no room for an answer.
            UsageError: the prompt is empty, or an option is out of range.
        """
        if max_tokens is not None and max_tokens < 1:
            raise UsageError(f"max_tokens must be at least 1, not {max_tokens}")
        ids = self.prompt_ids(prompt, raw=raw)
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        stopping = Stopping(max_tokens, stops, ignore_eos)
        control = control_of(timeout, cancel)
        chosen = sampling or SamplingOptions()
        return Generation(self, self._evaluator, ids, chosen, stopping, control)

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits (tokens, vocabulary) after each of the ids, from an empty context.

        Raises:
            ContextLengthError: more ids than the context holds.
            UsageError: no ids, or ids that the model does not have.
        """
        self._check_ids(ids)
        with self._evaluator.lock:
            self._evaluator.rewind(0)
            return self._evaluator.all_logits(ids)

    def nll(self, ids: Sequence[int]) -> float:
        """Mean negative log-likelihood, in nats, of ids[1:] each given those before it.

        Raises:
            ContextLengthError: more ids than the context holds.
            UsageError: fewer than two ids, or ids that the model does not have.
        """
        return float(self.token_nlls(ids).mean())

    def token_nlls(self, ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """The negative log-likelihoods of which `nll` is the mean, one for each of ids[1:]."""
        self._check_ids(ids)
        if len(ids) < 2:
            raise UsageError("a likelihood needs two tokens at least")
        with self._evaluator.lock:
            self._evaluator.rewind(0)
            self._evaluator.check_room(len(ids) - 1)
            losses = []
            for start in range(0, len(ids) - 1, LOGIT_ROWS):
                piece = ids[start : min(start + LOGIT_ROWS, len(ids) - 1)]
                targets = np.asarray(ids[start + 1 : start + 1 + len(piece)])
                losses.append(_negative_log_likelihoods(self._evaluator.all_logits(piece), targets))
        return np.concatenate(losses)

    def plan(self, tokens: int = 1) -> Plan:
        """Where reading so many tokens at once runs, and why. Nothing is compiled or allocated."""
        return self._session.plan(self._evaluator.graph(tokens))

    def explain(self) -> str:
        """Where each step of generating a token runs, and why."""
        return self._evaluator.program(1).explain()

    def traced(self, *, steps: bool = True) -> contextlib.AbstractContextManager[Trace]:
        """Note what runs inside the context, where and when; see `hotplug.Session.traced`."""
        return self._session.traced(steps=steps)

    def observed(
        self,
        by: Observer | Callable[[Observation], object],
        nodes: str | Callable[[Node], bool] | None = None,
    ) -> contextlib.AbstractContextManager[None]:
        """Let somebody look at nodes' values in the context; see `hotplug.Session.observed`."""
        return self._session.observed(by, nodes)

    def close(self) -> None:
        """Give devices and file back."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Model {self.path.name} on {', '.join(info.id for info in self.devices)}>"

    def _prompt_ids(
        self, prompt: str | Sequence[int] | Sequence[Message], *, raw: bool
    ) -> list[int]:
        if isinstance(prompt, str):
            template = None if raw else self.chat_template
            if template is None:
                return self.tokenize(prompt)
            prompt = [{"role": "user", "content": prompt}]
        messages = [item for item in prompt if isinstance(item, Mapping)]
        if messages and len(messages) == len(prompt):
            return self._conversation_ids(messages)
        ids = [item for item in prompt if not isinstance(item, Mapping)]
        if messages:
            raise UsageError("a prompt is a text, token ids or messages, and no mixture of them")
        self._check_ids(ids)
        return ids

    def _conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        template = self.chat_template
        if template is None:
            raise ModelError(
                f"{self.path.name} has no chat template",
                key="tokenizer.chat_template",
                remedy="give it a plain text with --raw",
            )
        # The template writes the marks that the model wants, the first one included.
        return self.tokenize(template.render(messages), add_special=False)

    def _check_ids(self, ids: Sequence[int]) -> None:
        if len(ids) == 0:
            raise UsageError("there are no token ids")
        for token in ids:
            number = isinstance(token, int | np.integer)
            if not number or not 0 <= token < self.tokenizer.vocabulary_size:
                raise UsageError(
                    f"there is no token {token!r}: the model has {self.tokenizer.vocabulary_size}"
                )


def _context(wanted: int | None, shape: Hyperparameters) -> int:
    if wanted is None:
        return min(shape.context, DEFAULT_CONTEXT)
    if not 1 <= wanted <= shape.context:
        raise UsageError(
            f"a context of {wanted} tokens is not possible: the model takes 1 to {shape.context}"
        )
    return wanted


def _check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{what} must be one of {', '.join(choices)}, not {value!r}")


def _negative_log_likelihoods(
    logits: npt.NDArray[np.float32], targets: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float64]:
    top = logits.max(axis=1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)) + top
    losses: npt.NDArray[np.float64] = total - logits[np.arange(len(targets)), targets]
    return losses
