"""Chat templates: how a model wants a conversation written out.

A template is a program in Jinja, stored with the model under `tokenizer.chat_template`. It is
rendered here and nowhere else, in the sandbox of `template_sandbox`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError

from hotplug.errors import ModelError, UsageError
from hotplug.formats.gguf import Fields
from hotplug_llm.template_sandbox import Budget, ChatEnvironment, spending
from hotplug_llm.tokenizers import Tokenizer

__all__ = ["ChatTemplate"]

_KEY = "tokenizer.chat_template"
_MAX_TEMPLATE = 1 << 16  # characters; the longest of known models have about 30 thousand
_MAX_OUTPUT = 1 << 26  # characters

# What a rendering may cost. Known templates take up to a unit for each message and character of
# the template, and some dozen for each character of a message.
_BASE_UNITS = 1 << 21
_UNITS_PER_TURN = 8
_UNITS_PER_INPUT = 64  # templates look at a message some dozen times

_RAW = "give the prompt as it is with --raw, or use a model that was tuned for chat"


class ChatTemplate:
    """A chat template, compiled and ready to render.

    Attributes:
        source: the text of the template.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        """Compile a template.

        Args:
            source: Jinja text.
            bos_token: text of the token that begins a text, which templates may print.
            eos_token: text of the token that ends one.
            clock: the present time, for templates that print the date; by default the local time.

        Raises:
            ModelError: the template is too long or not valid Jinja, or needs what templates may
                not use.
        """
        if len(source) > _MAX_TEMPLATE:
            raise ModelError(
                f"the chat template has {len(source)} characters; up to {_MAX_TEMPLATE} are read",
                key=_KEY,
                remedy=_RAW,
            )
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._clock = clock or (lambda: datetime.now(UTC).astimezone())
        self._template = _compile(source)

    @classmethod
    def from_gguf(
        cls, metadata: Mapping[str, Any], tokenizer: Tokenizer, *, name: str | None = None
    ) -> ChatTemplate:
        """The chat template of a model file.

        Args:
            metadata: GGUF key -> value.
            tokenizer: the model's tokenizer, for its begin and end tokens.
            name: one of several templates, such as "tool_use"; None is the usual one.

        Raises:
            ModelError: the file has no such template, or it cannot be compiled.
        """
        key = _KEY if name is None else f"{_KEY}.{name}"
        source = Fields(metadata).get(key, str, None)
        if source is None:
            which = "chat template" if name is None else f"chat template named {name!r}"
            raise ModelError(f"the model has no {which} ({key})", key=key, remedy=_RAW)
        return cls(
            source,
            bos_token=_text_of(tokenizer, tokenizer.bos),
            eos_token=_text_of(tokenizer, tokenizer.eos),
        )

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> str:
        """Write a conversation as the model expects it.

        Args:
            messages: each with "role" and "content", oldest first.
            add_generation_prompt: end with what makes the model answer.
            **extra: further variables of the template, such as `tools`. Like messages, they are
                made of dicts, lists, texts, numbers, bools and None.

        Returns:
            Text for `Tokenizer.encode` with `parse_special`.

        Raises:
            UsageError: a message without role, or a value of another kind.
            ModelError: the template fails, refuses the messages, reaches for what it may not have,
                or asks for too much work.
        """
        for index, message in enumerate(messages):
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                raise UsageError(f"message {index} has no role")
        variables = _plain({**extra, "messages": list(messages)}, "the conversation")
        variables |= self._tokens | {
            "add_generation_prompt": add_generation_prompt,
            "raise_exception": _refuse,
            "strftime_now": self._strftime_now,
        }
        units = _BASE_UNITS + _UNITS_PER_TURN * len(self.source) * len(messages)
        return _render(self._template, variables, units)

    def _strftime_now(self, pattern: str) -> str:
        return self._clock().strftime(pattern[:100])


class _RefusalError(TemplateError):
    """A template called `raise_exception`."""


def _refuse(message: object) -> None:
    raise _RefusalError(str(message)[:500])


def _compile(source: str) -> Template:
    try:
        with spending(Budget(_BASE_UNITS)):
            return ChatEnvironment().from_string(source)
    # A template is foreign code, and so is, by way of it, what Jinja gives Python to compile:
    # deep nesting alone raises four kinds of errors.
    except Exception as exc:
        raise ModelError(
            f"the model's chat template is not valid: {_reason(exc)}", key=_KEY, remedy=_RAW
        ) from exc


def _render(template: Template, variables: Mapping[str, Any], units: int) -> str:
    size = Budget(_MAX_OUTPUT)
    try:
        size.charge_depths(variables)
        units += _UNITS_PER_INPUT * (_MAX_OUTPUT - size.units)
        with spending(Budget(units)):
            return "".join(_limited(template, variables))
    except _RefusalError as exc:
        raise ModelError(
            f"the model's chat template refuses the conversation: {exc.message}", key=_KEY
        ) from exc
    except SecurityError as exc:
        raise ModelError(
            f"the model's chat template was stopped: {_reason(exc)}", key=_KEY, remedy=_RAW
        ) from exc
    except Exception as exc:  # foreign code may raise anything; all of it means a broken template
        raise ModelError(
            f"the model's chat template failed: {_reason(exc)}", key=_KEY, remedy=_RAW
        ) from exc


def _limited(template: Template, variables: Mapping[str, Any]) -> list[str]:
    parts: list[str] = []
    length = 0
    for part in template.generate(variables):
        parts.append(part)
        length += len(part)
        if length > _MAX_OUTPUT:
            raise SecurityError("it writes more than any context holds")
    return parts


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it nests too deeply"
    text = str(error).strip().partition("\n")[0][:300]
    return text or type(error).__name__


def _text_of(tokenizer: Tokenizer, token: int | None) -> str:
    return "" if token is None else tokenizer.vocabulary.texts[token]


def _plain(value: Any, where: str) -> Any:
    """A copy made of plain types, so that templates meet no objects with methods of their own.

    Raises:
        UsageError: something in it is of another type.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}, {key!r}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}, {index}") for index, item in enumerate(value)]
    raise UsageError(f"{where}: chat templates take no {type(value).__name__}")
