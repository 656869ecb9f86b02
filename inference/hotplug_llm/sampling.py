"""Choosing the next token from a model's logits.

The steps and their order are those of llama.cpp (common/sampling.cpp): repetition penalty, top-k,
top-p, min-p, temperature. Top-p and min-p thus look at the model's own probabilities, and a high
temperature does not let more tokens through. (transformers puts temperature first.)
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hotplug.errors import ExecutionError, UsageError
from hotplug.settings import settings

__all__ = ["Sampler", "SamplingOptions"]

_FIRST_HEAD = 1024
_MOST = 1e6  # beyond any use, and far from where float32 overflows
_LEAST_PENALTY = 1e-3


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How tokens are chosen. The defaults are those of llama.cpp.

    Attributes:
        temperature: logits are divided by it; 0 always takes the likeliest token.
        top_k: only the so many likeliest tokens are left; 0 is off.
        top_p: only the likeliest tokens that together reach this probability; 1 is off. (Holtzman
            et al., "The Curious Case of Neural Text Degeneration", 2020.)
        min_p: only tokens at least so likely as this share of the likeliest; 0 is off. (Nguyen et
            al., "Turning Up the Heat: Min-p Sampling", 2024.)
        repetition_penalty: positive logits of recent tokens are divided by it, and negative ones
            multiplied; 1 is off. (Keskar et al., "CTRL", 2019.)
        repetition_window: how many tokens are recent, the prompt's included; 0 is none.
        seed: the same seed and logits give the same tokens on every machine; None draws one, or
            takes 0 under HOTPLUG_DETERMINISTIC.

    Raises:
        UsageError: an option is out of range.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repetition_penalty: float = 1.0
    repetition_window: int = 64
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_number("temperature", self.temperature, 0, _MOST)
        _check_count("top_k", self.top_k)
        _check_number("top_p", self.top_p, 0, 1)
        _check_number("min_p", self.min_p, 0, 1)
        _check_number("repetition_penalty", self.repetition_penalty, _LEAST_PENALTY, _MOST)
        _check_count("repetition_window", self.repetition_window)
        if self.seed is not None:
            _check_count("seed", self.seed)


class Sampler:
    """Chooses the tokens of one answer."""

    def __init__(self, options: SamplingOptions) -> None:
        self._options = options
        # Its sequence for a seed is promised to stay the same; that of NumPy's generators is not.
        seed = 0 if options.seed is None and settings().deterministic else options.seed
        self._random = random.Random(seed)  # noqa: S311  # nothing secret

    def sample(self, logits: npt.NDArray[np.float32], history: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: of shape (vocabulary,); -inf rules a token out. Not changed.
            history: the tokens so far, prompt and answer.

        Raises:
            ExecutionError: a logit is NaN or +inf, or all are -inf.
        """
        logits = self._penalised(logits, history)
        best = _best(logits)
        if self._options.temperature == 0:
            return best
        ids = self._candidates(logits)
        return self._draw(ids, logits[ids])

    @property
    def needed(self) -> int | None:
        """How many of the largest logits are enough to choose from; None if all are needed."""
        options = self._options
        if options.repetition_penalty != 1 and options.repetition_window:
            return None
        return 1 if options.temperature == 0 else options.top_k or None

    def choose(self, ids: npt.NDArray[np.intp], logits: npt.NDArray[np.float32]) -> int:
        """The next token, from the `needed` largest logits alone; what `sample` says of them all.

        Args:
            ids: tokens in ascending order.
            logits: theirs.

        Raises:
            ExecutionError: as for `sample`.
        """
        best = _best(logits, ids)
        if self._options.temperature == 0:
            return best
        left = self._filtered(logits)
        return self._draw(ids[left], logits[left])

    def _penalised(
        self, logits: npt.NDArray[np.float32], history: Sequence[int]
    ) -> npt.NDArray[np.float32]:
        penalty, window = self._options.repetition_penalty, self._options.repetition_window
        if penalty == 1 or window == 0 or not history:
            return logits
        recent = np.unique(np.asarray(history[-window:]))
        found = logits[recent]
        logits = logits.copy()
        logits[recent] = np.where(found > 0, found / penalty, found * penalty)
        return logits

    def _candidates(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        """Ids that may be drawn, in ascending order."""
        ids = _largest(logits, self._options.top_k or len(logits))
        return ids[self._filtered(logits[ids])]

    def _filtered(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        """Places of what top-p and min-p leave of what top-k left."""
        places = np.arange(len(logits))
        if self._options.top_p < 1:
            places = _nucleus(logits, self._options.top_p)
        if self._options.min_p > 0:
            left = logits[places]
            places = places[left >= left.max() + math.log(self._options.min_p)]
        return places

    def _draw(self, ids: npt.NDArray[np.intp], logits: npt.NDArray[np.float32]) -> int:
        left = logits.astype(np.float64)
        with np.errstate(over="ignore"):  # a tiny temperature makes -inf, which is right
            scaled = (left - left.max()) / self._options.temperature
        cumulative = np.exp(scaled).cumsum()
        place = np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right")
        return int(ids[place])


def _best(logits: npt.NDArray[np.float32], ids: npt.NDArray[np.intp] | None = None) -> int:
    """The likeliest token; of equals the first, and a NaN counts as more than any number.

    Raises:
        ExecutionError: there is none.
    """
    place = int(logits.argmax())
    token = place if ids is None else int(ids[place])
    if not math.isfinite(logits[place]):
        raise ExecutionError(
            f"the model computed no usable logits: that of token {token} is {logits[place]}"
        )
    return token


def _largest(values: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Places of the largest values, in ascending order; of equal ones the first are taken.

    `argpartition` would take any of equal ones, and others on other processors.
    """
    if count >= len(values):
        return np.arange(len(values))
    places = np.flatnonzero(values >= _lower_bound(values, count))
    left = values[places]
    least = np.partition(left, -count)[-count]
    above = np.flatnonzero(left > least)
    equal = np.flatnonzero(left == least)[: count - len(above)]
    return places[np.sort(np.concatenate((above, equal)))]


def _lower_bound(values: npt.NDArray[np.float32], count: int) -> np.float32:
    """A number that at least `count` values reach, and not many more: ten times less to sort.

    It is the `count`-th largest of the maxima of columns of values, each of which reaches it.
    """
    rows = max(1, len(values) // (8 * count))
    columns = len(values) // rows
    maxima = values[: rows * columns].reshape(rows, columns).max(axis=0)
    bound: np.float32 = np.partition(maxima, -count)[-count]
    return bound


def _nucleus(logits: npt.NDArray[np.float32], share: float) -> npt.NDArray[np.intp]:
    """Places of the fewest largest logits whose probabilities reach `share`, at least one."""
    weights = np.exp(logits - logits.max())
    goal = share * float(weights.sum(dtype=np.float64))
    # Few tokens hold nearly all of the probability: sorting all of a vocabulary takes far longer.
    for size in (_FIRST_HEAD, len(weights)):
        head = np.sort(weights[_largest(weights, size)])[::-1]
        reached = head.cumsum(dtype=np.float64)
        if reached[-1] >= goal:
            break
    return _largest(logits, int(np.searchsorted(reached, goal)) + 1)


def _check_number(name: str, value: float, least: float, most: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        high = f" to {most:g}" if most < _MOST else " up"
        raise UsageError(f"{name} must be a number from {least:g}{high}, not {value!r}")


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{name} must be a whole number from 0 up, not {value!r}")
