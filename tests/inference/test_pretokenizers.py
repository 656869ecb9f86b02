"""How text is cut into words, against the expressions of well-known models."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotplug.errors import ModelError
from hotplug_llm.tokenizers.pretokenizers import known_names, pretokenizer

COMPARED = [
    "gpt-2",
    "smollm",
    "llama-bpe",
    "qwen2",
    "qwen35",
    "tekken",
    "gpt-4o",
    "deepseek-v3",
    "deepseek-coder",
    "falcon",
    "minicpm5",
    "bailingmoe",
    "bloom",
]


@pytest.mark.parametrize("name", COMPARED)
def test_words_are_those_of_the_tokenizers_package(facts, name):
    splits = facts("word_splits")
    rules = pretokenizer(name)
    for text, lengths in zip(splits["texts"], splits["lengths"][name], strict=True):
        ends = list(itertools.accumulate(lengths, initial=0))
        assert rules.split(text) == [text[a:b] for a, b in itertools.pairwise(ends)]


def test_all_that_there_is_to_compare_with_is_compared(facts):
    assert set(COMPARED) == set(facts("word_splits")["lengths"])


@pytest.mark.parametrize("name", known_names())
@given(
    text=st.text(
        alphabet=st.sampled_from("aBc\u00e91\u0663 \n\r\t.,!'s\u4f60\u3042\u0301\U0001f600")
    )
)
def test_words_joined_are_the_text(name, text):
    words = pretokenizer(name).split(text)
    assert "".join(words) == text
    assert all(words)


@pytest.mark.parametrize("name", known_names())
def test_long_runs_take_no_quadratic_time(name):
    for run in (" ", "a", "1", "!", "\n", " \n", "'", "\u0301"):
        assert "".join(pretokenizer(name).split(run * 5_000)) == run * 5_000


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("smollm", "a12 b", ["a", "1", "2", " b"]),
        ("llama-bpe", "it's 12345", ["it", "'s", " ", "123", "45"]),
        ("qwen2", "IT'S 12", ["IT", "'S", " ", "1", "2"]),
        ("tekken", "camelCase", ["camel", "Case"]),
        ("default", "a1234", ["a", "123", "4"]),
        ("gemma4", "two words\n\nmore", ["two words", "\n\n", "more"]),
        ("tiny_aya", "1234567", ["1", "234", "567"]),
        ("viking", "ab 12", ["ab", " ", "1", "2"]),
        ("seed-coder", "a.\nb", ["a", ".", "\n", "b"]),
        ("deepseek-llm", "ab\n12", ["ab", "\n", "12"]),
        ("deepseek-llm", "\u00e9\u038f1 \u4f60", ["\u00e9\u038f", "1", " ", "\u4f60"]),
        ("ufakzeka", "it's", ["it", "'s"]),
    ],
)
def test_words(name, text, words):
    assert pretokenizer(name).split(text) == words


def test_unknown_rules_are_an_error_that_lists_the_known_ones():
    with pytest.raises(ModelError, match=r"'klingon'.*known are .*llama-bpe") as caught:
        pretokenizer("klingon")
    assert caught.value.key == "tokenizer.ggml.pre"
