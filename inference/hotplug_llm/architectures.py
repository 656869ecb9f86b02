"""The table of architectures, and a model's hyperparameters as its file gives them.

One decoder (`hotplug_llm.decoder`) builds every architecture; a row says where it differs. Metadata
keys and tensor names are those of GGUF (docs/gguf.md of ggml, and the names that llama.cpp writes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hotplug.errors import ModelError
from hotplug.formats.gguf import Fields

__all__ = ["ARCHITECTURES", "Architecture", "Hyperparameters", "Rope", "read_hyperparameters"]


_MOST = (1 << 31) - 1
_MOST_LAYERS = 1 << 16


@dataclass(frozen=True, slots=True)
class Architecture:
    """One row.

    Attributes:
        name: `general.architecture` of its files.
        rope_layout: which elements rotary embedding turns together; see `hotplug.ops.rope`.
        query_key_norm: whether each query and key head is RMS-normalised before it is turned.
    """

    name: str
    rope_layout: str
    query_key_norm: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    row.name: row
    for row in (
        Architecture("llama", rope_layout="interleaved"),
        Architecture("qwen2", rope_layout="half"),
        Architecture("qwen3", rope_layout="half", query_key_norm=True),
        Architecture("qwen3moe", rope_layout="half", query_key_norm=True),
    )
}


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding as `hotplug.ops.rope` takes it."""

    dims: int
    base: float
    frequency_scale: float = 1.0
    original_context: int = 0
    extrapolation: float = 0.0
    magnitude: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What the file says of the model's shape. Lengths are in elements, contexts in tokens.

    Attributes:
        feed_forward: inner length of a feed-forward block, or of each expert.
        experts: in each block; 0 where there are none.
        experts_used: for each token.
    """

    architecture: Architecture
    layers: int
    context: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    key_length: int
    value_length: int
    norm_eps: float
    rope: Rope
    window: int = 0
    experts: int = 0
    experts_used: int = 0


def read_hyperparameters(fields: Fields) -> Hyperparameters:
    """Read and check the hyperparameters of a model.

    Args:
        fields: the file's metadata.

    Raises:
        ModelError: the architecture is not in the table, or a key is missing, of another kind or
            out of range.
    """
    name = fields.require("general.architecture", str)
    row = ARCHITECTURES.get(name)
    if row is None:
        raise ModelError(
            f"general.architecture {name!r} is not known; known are {', '.join(ARCHITECTURES)}",
            key="general.architecture",
        )
    own = fields.within(f"{name}.")
    return _checked(_read(row, own))


def _read(row: Architecture, own: Fields) -> Hyperparameters:
    layers = _positive(own, row, "block_count", most=_MOST_LAYERS)
    experts = own.get("expert_count", int, 0)
    inner = "expert_feed_forward_length" if _has_own_length(own, experts) else "feed_forward_length"
    width = _positive(own, row, "embedding_length")
    heads = _uniform(own, row, "attention.head_count", layers)
    kv_heads = _uniform(own, row, "attention.head_count_kv", layers, default=heads)
    key_length = own.get("attention.key_length", int, width // heads)
    if "attention.key_length" not in own and width % heads:
        key = f"{row.name}.attention.head_count"
        raise ModelError(
            f"{key}: {heads} heads do not divide {row.name}.embedding_length {width}", key=key
        )
    return Hyperparameters(
        architecture=row,
        layers=layers,
        context=_positive(own, row, "context_length"),
        width=width,
        feed_forward=_uniform(own, row, inner, layers),
        heads=heads,
        kv_heads=kv_heads,
        key_length=key_length,
        # The format's own default, whatever the keys' length.
        value_length=own.get("attention.value_length", int, width // heads),
        norm_eps=own.require("attention.layer_norm_rms_epsilon", float),
        rope=_read_rope(own, row, own.get("rope.dimension_count", int, key_length)),
        window=own.get("attention.sliding_window", int, 0),
        experts=experts,
        experts_used=own.require("expert_used_count", int) if experts else 0,
    )


def _has_own_length(own: Fields, experts: int) -> bool:
    """Whether experts are of another length than a feed-forward block without them would be."""
    return experts > 0 and "expert_feed_forward_length" in own


def _read_rope(own: Fields, row: Architecture, dims: int) -> Rope:
    base = own.get("rope.freq_base", float, 10000.0)
    kind = own.get("rope.scaling.type", str, "linear")
    # Files from before scaling.type hold the linear factor under another name.
    factor = own.get("rope.scaling.factor", float, own.get("rope.scale_linear", float, 1.0))
    original = own.get("rope.scaling.original_context_length", int, 0)
    magnitude = own.get("rope.scaling.attn_factor", float, 1.0)
    if not 0 <= factor < math.inf:
        key = f"{row.name}.rope.scaling.factor"
        raise ModelError(f"{key} is {factor}, which no model has", key=key)
    scale = 1.0 / factor if factor else 1.0  # 0 is how some files say "none"
    if kind == "none":
        return Rope(dims, base)
    if kind == "linear":
        return Rope(dims, base, scale, magnitude=magnitude)
    if kind == "longrope":
        return Rope(dims, base, original_context=original, magnitude=magnitude)
    if kind == "yarn":
        return Rope(
            dims,
            base,
            scale,
            original_context=original or own.require("context_length", int),
            extrapolation=own.get("rope.scaling.yarn_ext_factor", float, 1.0),
            magnitude=own.get("rope.scaling.yarn_attn_factor", float, magnitude),
            beta_fast=own.get("rope.scaling.yarn_beta_fast", float, 32.0),
            beta_slow=own.get("rope.scaling.yarn_beta_slow", float, 1.0),
        )
    key = f"{row.name}.rope.scaling.type"
    raise ModelError(f"{key}: RoPE scaling {kind!r} is not known", key=key)


def _positive(own: Fields, row: Architecture, key: str, most: int = _MOST) -> int:
    value = own.require(key, int)
    if not 0 < value <= most:
        full = f"{row.name}.{key}"
        raise ModelError(f"{full} is {value}, which no model has", key=full)
    return value


def _uniform(
    own: Fields, row: Architecture, key: str, layers: int, default: int | None = None
) -> int:
    """A value that files may give by layer, but that this decoder needs to be the same in all."""
    values = set(own.per_layer(key, int, layers, default))
    if len(values) != 1 or not 0 < min(values) <= _MOST:
        raise ModelError(
            f"{row.name}.{key} must be one positive number for all layers, and holds "
            f"{sorted(values)[:4]}",
            key=f"{row.name}.{key}",
        )
    return values.pop()


def _checked(shape: Hyperparameters) -> Hyperparameters:
    heads, kv_heads, length = shape.heads, shape.kv_heads, shape.key_length
    if heads % kv_heads:
        what = f"{heads} heads cannot share {kv_heads} key heads evenly"
        raise _wrong(shape, "attention.head_count_kv", what)
    if not 0 < shape.rope.dims <= length or shape.rope.dims % 2:
        what = f"RoPE cannot turn {shape.rope.dims} of a head's {length} elements"
        raise _wrong(shape, "rope.dimension_count", what)
    if shape.experts and not 0 < shape.experts_used <= shape.experts:
        what = f"{shape.experts_used} of {shape.experts} experts cannot be used"
        raise _wrong(shape, "expert_used_count", what)
    if not 0 < shape.norm_eps < 1:
        what = f"{shape.norm_eps} is no epsilon for a norm"
        raise _wrong(shape, "attention.layer_norm_rms_epsilon", what)
    if not 0 < shape.rope.base < math.inf:
        raise _wrong(shape, "rope.freq_base", f"{shape.rope.base} is no base for RoPE")
    if not 0 < shape.value_length <= _MOST:
        what = f"heads cannot have {shape.value_length} elements"
        raise _wrong(shape, "attention.value_length", what)
    if not 0 <= shape.window <= _MOST:
        what = f"a window of {shape.window} tokens is not possible"
        raise _wrong(shape, "attention.sliding_window", what)
    return shape


def _wrong(shape: Hyperparameters, key: str, what: str) -> ModelError:
    full = f"{shape.architecture.name}.{key}"
    return ModelError(f"{full}: {what}", key=full)
