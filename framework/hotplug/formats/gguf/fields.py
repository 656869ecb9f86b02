"""Typed access to metadata: the right kind of value, or one sentence that says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from hotplug.errors import ModelError

__all__ = ["Fields"]

Kind = TypeVar("Kind", bound=bool | int | float | str)
Default = TypeVar("Default")

_NOUNS: dict[type, str] = {bool: "a bool", int: "an integer", float: "a number", str: "a string"}
_PLURALS: dict[type, str] = {bool: "bools", int: "integers", float: "numbers", str: "strings"}


class Fields:
    """A view of a metadata mapping that checks what it hands out.

    Kinds are `bool`, `int`, `float` and `str`. An integer will do where a float is asked for; a
    bool is never a number. Any mapping will do, a plain dict included.

    Every method raises ModelError, with the full key in its `key`, if the value is of another kind.
    """

    def __init__(
        self, metadata: Mapping[str, Any], prefix: str = "", *, source: str = "the metadata"
    ) -> None:
        """View `metadata`.

        Args:
            metadata: key -> value.
            prefix: put before every key asked for, such as "llama.".
            source: what the metadata is from, for messages; a file name, usually.
        """
        self._metadata = metadata
        self._prefix = prefix
        self._source = source

    def __contains__(self, key: str) -> bool:
        return self._prefix + key in self._metadata

    def within(self, prefix: str) -> Fields:
        """The same metadata, seen through a further prefix."""
        return Fields(self._metadata, self._prefix + prefix, source=self._source)

    def require(self, key: str, kind: type[Kind]) -> Kind:
        """The scalar under `key`.

        Raises:
            ModelError: there is no such key, or its value is of another kind.
        """
        return self._scalar(key, self._present(key, _NOUNS[kind]), kind)

    def get(self, key: str, kind: type[Kind], default: Default) -> Kind | Default:
        """The scalar under `key`, or `default` if there is no such key."""
        return self.require(key, kind) if key in self else default

    def require_array(self, key: str, kind: type[Kind]) -> Sequence[Kind]:
        """The array under `key`. Arrays of strings stay lazy.

        Raises:
            ModelError: there is no such key, or its value is no array of this kind.
        """
        return self._array(key, self._present(key, f"an array of {_PLURALS[kind]}"), kind)

    def get_array(self, key: str, kind: type[Kind], default: Default) -> Sequence[Kind] | Default:
        """The array under `key`, or `default` if there is no such key."""
        return self.require_array(key, kind) if key in self else default

    def per_layer(
        self, key: str, kind: type[Kind], layers: int, default: Kind | None = None
    ) -> list[Kind]:
        """One value for each layer: files hold an array, or a scalar that is true of all layers.

        Args:
            key: the key.
            kind: kind of one value.
            layers: how many layers there are.
            default: the value of every layer if there is no such key.

        Raises:
            ModelError: the key is missing and there is no default, or the value is of another
                kind, or an array that is not `layers` long.
        """
        if default is not None and key not in self:
            return [default] * layers
        value = self._present(key, _NOUNS[kind])
        if not _is_array(value):
            return [self._scalar(key, value, kind)] * layers
        values = list(self._array(key, value, kind))
        if len(values) != layers:
            raise self._error(key, f"holds {len(values)} values for {layers} layers")
        return values

    def _present(self, key: str, wanted: str) -> Any:
        try:
            return self._metadata[self._prefix + key]
        except KeyError:
            raise self._error(key, f"is missing, and {wanted} is needed") from None

    def _scalar(self, key: str, value: Any, kind: type[Kind]) -> Kind:
        if isinstance(value, np.generic):
            value = value.item()
        if not _is_kind(value, kind):
            raise self._error(key, f"is {_describe(value)}, and {_NOUNS[kind]} is needed")
        return kind(value)

    def _array(self, key: str, value: Any, kind: type[Kind]) -> Sequence[Kind]:
        wanted = f"an array of {_PLURALS[kind]}"
        if not _is_array(value):
            raise self._error(key, f"is {_describe(value)}, and {wanted} is needed")
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if kind is str and not isinstance(value, list | tuple):
            # A lazy array knows its kind; looking at every element would decode it.
            self._check_lazy_strings(key, value)
            lazy: Sequence[Kind] = value
            return lazy
        for item in value:
            if not _is_kind(item, kind):
                raise self._error(key, f"has {_describe(item)} in it, and {wanted} is needed")
        return [kind(item) for item in value]

    def _check_lazy_strings(self, key: str, value: Sequence[Any]) -> None:
        if len(value) and not isinstance(value[0], str):
            raise self._error(
                key, f"has {_describe(value[0])} in it, and an array of strings is needed"
            )

    def _error(self, key: str, trouble: str) -> ModelError:
        full = self._prefix + key
        return ModelError(f"{self._source}: metadata key {full} {trouble}", key=full)


def _is_array(value: object) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def _is_kind(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _describe(value: object) -> str:
    """What a value is, for messages; long texts are cut."""
    if _is_array(value):
        return f"an array of {len(value)}"  # type: ignore[arg-type]  # arrays have lengths
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
