"""Byte-level BPE: against other programs on the demo model, and on small vocabularies."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotplug.errors import HotplugWarning, ModelError, UsageError
from hotplug_llm.tokenizers import TokenType, from_gguf

NORMAL, CONTROL, USER, UNUSED, BYTE = (
    TokenType.NORMAL,
    TokenType.CONTROL,
    TokenType.USER_DEFINED,
    TokenType.UNUSED,
    TokenType.BYTE,
)


def byte_spelling(byte):
    """GPT-2's table, from its published rule."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [other for other in range(256) if other not in shown]
    return chr(byte) if byte in shown else chr(256 + hidden.index(byte))


BYTES = [byte_spelling(byte) for byte in range(256)]


def metadata(merges=(), extra=(), pre="gpt-2", **fields):
    """A model of all bytes, what merges make, and `extra`: (text, type) pairs."""
    merged = [merge.replace(" ", "") for merge in merges]
    texts = [*BYTES, *merged, *(text for text, _ in extra)]
    types = [NORMAL] * (256 + len(merged)) + [kind for _, kind in extra]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": list(merges),
        **{f"tokenizer.ggml.{key}": value for key, value in fields.items()},
    }


def texts_of(tokenizer, text, **options):
    return [tokenizer.vocabulary.texts[i] for i in tokenizer.encode(text, **options)]


def test_ids_of_the_golden_prompts(demo_tokenizer, facts):
    for case in facts("smollm2_f32"):
        assert demo_tokenizer.encode(case["prompt"]) == case["prompt_ids"]
        assert demo_tokenizer.decode(case["greedy_ids"]) == case["greedy_text"]


def test_ids_are_those_of_the_tokenizers_package(demo_tokenizer, facts):
    for case in facts("smollm_ids"):
        assert demo_tokenizer.encode(case["text"]) == case["ids"], case["text"]


def test_the_demo_models_marks(demo_tokenizer):
    assert (demo_tokenizer.bos, demo_tokenizer.eos) == (1, 2)
    assert demo_tokenizer.vocabulary_size == 49152
    assert demo_tokenizer.end_of_generation >= {0, 2}
    assert demo_tokenizer.is_special(1)
    assert not demo_tokenizer.is_special(504)


@given(st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc"), max_codepoint=0x3FFFF)))
def test_texts_come_back(demo_tokenizer, text):
    assert demo_tokenizer.decode(demo_tokenizer.encode(text, parse_special=False)) == text


@given(st.text())
def test_every_text_comes_back_if_all_bytes_are_tokens(text):
    tokenizer = from_gguf(metadata(merges=["a b", "\u00c3 \u00a9"]))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.lists(st.integers(0, 49151), max_size=30))
def test_any_ids_decode_as_their_bytes_do(demo_tokenizer, ids):
    joined = b"".join(map(demo_tokenizer.token_bytes, ids))
    assert demo_tokenizer.decode(ids) == joined.decode("utf-8", errors="replace")


def test_merges_apply_in_their_order_and_from_the_left():
    tokenizer = from_gguf(metadata(merges=["b c", "a b", "a a", "aa a"]))
    assert texts_of(tokenizer, "abc") == ["a", "bc"]
    assert texts_of(tokenizer, "ab") == ["ab"]
    assert texts_of(tokenizer, "aaaa") == ["aa", "aa"]
    assert texts_of(tokenizer, "aaaaa") == ["aa", "aaa"]


def test_long_words_take_no_quadratic_time(demo_tokenizer):
    text = "ab" * 20_000
    assert demo_tokenizer.decode(demo_tokenizer.encode(text)) == text


def test_control_tokens_in_text():
    tokenizer = from_gguf(metadata(extra=[("<|a|>", CONTROL), ("<|a|>b", CONTROL)]))
    assert texts_of(tokenizer, "x<|a|>y<|a|>b") == ["x", "<|a|>", "y", "<|a|>b"]
    assert texts_of(tokenizer, "<|a|>", parse_special=False) == list("<|a|>")
    ids = tokenizer.encode("x<|a|>y")
    assert tokenizer.decode(ids) == "x<|a|>y"
    assert tokenizer.decode(ids, skip_special=True) == "xy"


def test_added_tokens_are_text_and_always_found():
    tokenizer = from_gguf(metadata(extra=[("<tag>", USER), ("  ", USER)]))
    assert texts_of(tokenizer, "a<tag>  b", parse_special=False) == ["a", "<tag>", "  ", "b"]
    assert tokenizer.decode(tokenizer.encode("a<tag>"), skip_special=True) == "a<tag>"


def test_unused_tokens_never_come_out_of_text():
    tokenizer = from_gguf(metadata(extra=[("zz", UNUSED)], pre="llama-bpe"))
    assert texts_of(tokenizer, "zz") == ["z", "z"]


def test_whole_words_that_are_tokens_where_the_model_ignores_merges():
    extra = [("hello", NORMAL)]
    assert texts_of(from_gguf(metadata(extra=extra, pre="llama-bpe")), "hello") == ["hello"]
    assert texts_of(from_gguf(metadata(extra=extra, pre="qwen2")), "hello") == list("hello")


def test_begin_and_end_marks():
    extra = [("<s>", CONTROL), ("</s>", CONTROL)]
    marks = {"bos_token_id": 256, "eos_token_id": 257}
    plain = from_gguf(metadata(extra=extra, **marks))
    assert texts_of(plain, "x") == ["x"]
    assert texts_of(plain, "x", add_special=True) == ["<s>", "x"]
    eager = from_gguf(metadata(extra=extra, add_bos_token=True, add_eos_token=True, **marks))
    assert texts_of(eager, "x") == ["<s>", "x", "</s>"]
    assert texts_of(eager, "<s>x") == ["<s>", "x", "</s>"]
    assert texts_of(eager, "x", add_special=False) == ["x"]
    none = from_gguf(metadata(add_bos_token=True, add_eos_token=True))
    assert (none.bos, none.eos) == (None, None)
    assert texts_of(none, "x", add_special=True) == ["x"]


def test_tokens_that_end_an_answer():
    extra = [(text, CONTROL) for text in ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|x|>")]
    tokenizer = from_gguf(metadata(extra=extra, eos_token_id=257, eot_token_id=259))
    assert tokenizer.end_of_generation == {256, 257, 258, 259}
    assert all(map(tokenizer.is_special, range(256, 260)))


def test_in_harmony_a_messages_end_is_no_answers_end():
    texts = ("<|return|>", "<|call|>", "<|end|>")
    tokenizer = from_gguf(metadata(extra=[(text, CONTROL) for text in texts]))
    assert tokenizer.end_of_generation == {256, 257}


def test_bytes_without_a_token_are_left_out_and_told(caplog):
    whole = metadata()
    whole["tokenizer.ggml.tokens"][0] = "nothing"
    tokenizer = from_gguf(whole)
    with caplog.at_level(logging.WARNING):
        assert tokenizer.decode(tokenizer.encode("a\x00b" + 9 * "\x00")) == "ab"
    assert [record.message for record in caplog.records] == [
        "the vocabulary has no token for 00, which is left out"
    ]


def test_byte_tokens_of_character_level_models():
    texts = [
        "\u2581",
        "h",
        "i",
        "hi",
        "\u2581hi",
        "\n\n",
        *(f"<0x{byte:02X}>" for byte in range(256)),
    ]
    tokenizer = from_gguf(
        {
            "tokenizer.ggml.model": "gemma4",
            "tokenizer.ggml.tokens": texts,
            "tokenizer.ggml.token_type": [1] * 6 + [BYTE] * 256,
            "tokenizer.ggml.merges": ["h i", "\u2581 hi"],
        }
    )
    assert texts_of(tokenizer, "hi hi\n\n") == ["hi", "\u2581hi", "\n\n"]
    assert texts_of(tokenizer, "\u00e9") == ["<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode("hi \u00e9\n\n")) == "hi \u00e9\n\n"


def test_a_file_without_rules_for_words_is_warned_of():
    fields = metadata()
    del fields["tokenizer.ggml.pre"]
    with pytest.warns(HotplugWarning, match="tokenizer.ggml.pre"):
        tokenizer = from_gguf(fields)
    assert texts_of(tokenizer, "a1") == ["a", "1"]


def test_surrogates_are_no_text(demo_tokenizer):
    with pytest.raises(UsageError, match=r"U\+D800\) at character 1"):
        demo_tokenizer.encode("a\ud800")


@pytest.mark.parametrize("token", [-1, 49152, 2**40])
def test_ids_outside_the_vocabulary(demo_tokenizer, token):
    with pytest.raises(UsageError, match=f"no token {token}"):
        demo_tokenizer.decode([token])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "wordpiece"}, "of kind 'wordpiece'.*gemma4, gpt2, llama"),
        ({"model": 7}, "tokenizer.ggml.model is 7, and a string"),
        ({"model": None}, "tokenizer.ggml.model is missing"),
        ({"pre": "klingon"}, "rules named 'klingon'.*known are"),
        ({"pre": 3}, "tokenizer.ggml.pre is 3"),
        ({"tokens": None}, "tokenizer.ggml.tokens is missing"),
        ({"tokens": []}, "tokenizer.ggml.tokens is empty"),
        ({"tokens": "abc"}, "an array of strings is needed"),
        ({"tokens": [1, 2]}, "an array of strings is needed"),
        ({"tokens": ["a", "b", "a"], "token_type": [1, 1, 1]}, "'a' twice, at 0 and 2"),
        ({"token_type": [1, 1]}, "token_type has 2 entries for 256 tokens"),
        ({"token_type": "x"}, "must be an array of numbers"),
        ({"token_type": [1.5] * 256}, "must be an array of integers"),
        ({"merges": None}, "tokenizer.ggml.merges is missing"),
        ({"merges": [1, 2]}, "an array of strings is needed"),
        ({"bos_token_id": 256}, "bos_token_id is 256, but the model has 256 tokens"),
        ({"eos_token_id": "x"}, "eos_token_id is 'x', and an integer"),
        ({"add_bos_token": 1}, "add_bos_token is 1, and a bool"),
    ],
)
def test_vocabularies_that_are_wrong(change, message):
    fields = metadata()
    for key, value in change.items():
        fields[f"tokenizer.ggml.{key}"] = value
        if value is None:
            del fields[f"tokenizer.ggml.{key}"]
    with pytest.raises(ModelError, match=message):
        from_gguf(fields)


def test_4294967295_means_no_token():
    tokenizer = from_gguf(metadata(bos_token_id=2**32 - 1, eos_token_id=-1))
    assert (tokenizer.bos, tokenizer.eos) == (None, None)
