"""Hyperparameters, read from metadata as files of each architecture hold it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hotplug.errors import ModelError
from hotplug.formats.gguf import Fields
from hotplug_llm.architectures import ARCHITECTURES, Rope, read_hyperparameters


def metadata(name="llama", **changes):
    """Keys of a small model; a change to None takes a key out, and `__` stands for a dot."""
    own = {
        "block_count": 2,
        "context_length": 2048,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    own |= {key.replace("__", "."): value for key, value in changes.items()}
    keys = {f"{name}.{key}": value for key, value in own.items() if value is not None}
    return Fields({"general.architecture": name, **keys})


def read(name="llama", **changes):
    return read_hyperparameters(metadata(name, **changes))


def test_the_demo_model(demo_metadata):
    shape = read_hyperparameters(Fields({"general.architecture": "llama", **demo_metadata}))
    assert (shape.layers, shape.width, shape.feed_forward) == (30, 576, 1536)
    assert (shape.heads, shape.kv_heads, shape.key_length, shape.value_length) == (9, 3, 64, 64)
    assert shape.context == 8192
    assert shape.norm_eps == pytest.approx(1e-5)
    assert shape.rope == Rope(64, 100000.0)


@pytest.mark.parametrize(
    ("name", "layout", "query_key_norm"),
    [("llama", "interleaved", False), ("qwen2", "half", False), ("qwen3", "half", True)],
)
def test_every_architecture(name, layout, query_key_norm):
    shape = read(name)
    assert shape.architecture is ARCHITECTURES[name]
    assert shape.architecture.rope_layout == layout
    assert shape.architecture.query_key_norm is query_key_norm
    assert (shape.heads, shape.kv_heads, shape.key_length, shape.rope.dims) == (4, 2, 16, 16)


def test_what_files_may_leave_out():
    shape = read(attention__head_count_kv=None)
    assert shape.kv_heads == shape.heads
    assert shape.rope == Rope(16, 10000.0)
    assert shape.window == 0


def test_heads_of_a_length_of_their_own():
    shape = read("qwen3", attention__key_length=128, attention__value_length=96)
    assert (shape.key_length, shape.value_length, shape.rope.dims) == (128, 96, 128)
    assert read("qwen3", attention__key_length=128).value_length == 16
    assert read(rope__dimension_count=8).rope.dims == 8


def test_values_by_layer_that_are_all_the_same():
    assert read(attention__head_count=[4, 4], feed_forward_length=np.array([128, 128])).heads == 4


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"rope__freq_base": 5e5}, Rope(16, 5e5)),
        ({"rope__scale_linear": 4.0}, Rope(16, 1e4, 0.25)),
        ({"rope__scaling__factor": 8.0}, Rope(16, 1e4, 0.125)),
        ({"rope__scaling__type": "linear", "rope__scaling__factor": 2}, Rope(16, 1e4, 0.5)),
        ({"rope__scaling__factor": 0.0}, Rope(16, 1e4)),
        ({"rope__scaling__type": "none", "rope__scaling__factor": 2.0}, Rope(16, 1e4)),
        (
            {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0},
            Rope(16, 1e4, 0.25, original_context=2048, extrapolation=1.0),
        ),
        (
            {
                "rope__scaling__type": "yarn",
                "rope__scaling__factor": 4.0,
                "rope__scaling__original_context_length": 512,
                "rope__scaling__attn_factor": 1.5,
                "rope__scaling__yarn_ext_factor": 0.5,
                "rope__scaling__yarn_beta_fast": 16.0,
                "rope__scaling__yarn_beta_slow": 2.0,
            },
            Rope(16, 1e4, 0.25, 512, 0.5, 1.5, 16.0, 2.0),
        ),
    ],
)
def test_scalings_of_rope(keys, expected):
    assert read(**keys).rope == expected


@pytest.mark.parametrize(
    "key",
    [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ],
)
@pytest.mark.parametrize("value", [None, "many", -1, True])
def test_keys_that_are_missing_or_wrong_are_named(key, value):
    with pytest.raises(ModelError) as caught:
        read(**{key: value})
    assert caught.value.key == f"llama.{key}"
    assert f"llama.{key}" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 2**63),
        ("block_count", 2**20),
        ("context_length", 0),
        ("embedding_length", 2**40),
        ("attention.head_count", [4, 2]),
        ("attention.head_count", [4, 4, 4]),
        ("attention.head_count", 0),
        ("attention.head_count_kv", 3),
        ("attention.value_length", 0),
        ("attention.value_length", -16),
        ("attention.sliding_window", -1),
        ("attention.layer_norm_rms_epsilon", math.nan),
        ("rope.dimension_count", 0),
        ("rope.dimension_count", 7),
        ("rope.dimension_count", 18),
        ("rope.dimension_count", "x"),
        ("rope.freq_base", 0.0),
        ("rope.freq_base", math.nan),
        ("rope.freq_base", math.inf),
        ("rope.freq_base", "high"),
        ("rope.scaling.factor", -1.0),
        ("rope.scaling.factor", math.nan),
        ("rope.scaling.type", "magic"),
        ("rope.scaling.type", 3),
    ],
)
def test_values_that_no_model_has_are_named(key, value):
    with pytest.raises(ModelError) as caught:
        read(**{key: value})
    assert caught.value.key == f"llama.{key}"


@pytest.mark.parametrize("used", [None, 0, 9])
def test_experts_of_which_too_few_or_too_many_are_used(used):
    with pytest.raises(ModelError) as caught:
        read(expert_count=8, expert_used_count=used)
    assert caught.value.key == "llama.expert_used_count"


def test_experts_may_have_a_length_of_their_own():
    given = {"expert_count": 8, "expert_used_count": 2}
    assert read(**given).feed_forward == 128
    shape = read("qwen3moe", expert_feed_forward_length=32, **given)
    assert (shape.feed_forward, shape.experts, shape.experts_used) == (32, 8, 2)


def test_architectures_that_are_not_in_the_table():
    with pytest.raises(ModelError, match=r"'mamba' is not known; known are llama, qwen2, qwen3"):
        read("mamba")
    with pytest.raises(ModelError, match=r"general.architecture is missing"):
        read_hyperparameters(Fields({}))
    with pytest.raises(ModelError, match=r"general.architecture is 3"):
        read_hyperparameters(Fields({"general.architecture": 3}))
