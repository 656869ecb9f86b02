"""SentencePiece: against the reference implementation, and on small vocabularies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotplug.errors import ModelError
from hotplug_llm.tokenizers import TokenType, from_gguf

SPACE = "\u2581"


def metadata(pieces, byte_tokens=True, **fields):
    """A model with the usual first tokens, `pieces` (best first), and perhaps all bytes."""
    spelled = [f"<0x{byte:02X}>" for byte in range(256)] if byte_tokens else []
    texts = ["<unk>", "<s>", "</s>", *spelled, *pieces]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    types += [TokenType.BYTE] * len(spelled) + [TokenType.NORMAL] * len(pieces)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.scores": -np.arange(len(texts), dtype=np.float32),
        **{f"tokenizer.ggml.{key}": value for key, value in fields.items()},
    }


def texts_of(tokenizer, text, **options):
    return [tokenizer.vocabulary.texts[i] for i in tokenizer.encode(text, **options)]


@pytest.fixture(scope="module")
def trained(facts):
    model = facts("sentencepiece")
    return from_gguf(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": model["tokens"],
            "tokenizer.ggml.scores": model["scores"],
            "tokenizer.ggml.token_type": model["token_type"],
            "tokenizer.ggml.add_space_prefix": False,
        }
    )


def test_ids_are_those_of_the_sentencepiece_package(trained, facts):
    for case in facts("sentencepiece")["cases"]:
        ids = trained.encode(case["text"], add_special=False, parse_special=False)
        assert ids == case["ids"], case["text"]


@given(st.text().filter(lambda text: SPACE not in text))
def test_texts_come_back(trained, text):
    ids = trained.encode(text, add_special=False, parse_special=False)
    assert trained.decode(ids) == text


@given(st.text(alphabet="ab ", max_size=20))
def test_texts_come_back_with_a_space_put_before_them(text):
    tokenizer = from_gguf(metadata([SPACE + "a", "ab", "a", "b", SPACE]))
    assert tokenizer.decode(tokenizer.encode(text), skip_special=True) == text


def test_the_best_score_merges_first():
    pieces = ["bc", "ab", "a", "b", "c"]
    tokenizer = from_gguf(metadata(pieces, add_space_prefix=False))
    assert texts_of(tokenizer, "abc", add_special=False) == ["a", "bc"]


def test_a_space_goes_before_text_at_the_start_and_after_marks():
    tokenizer = from_gguf(metadata([SPACE + "a", "a", SPACE]))
    assert texts_of(tokenizer, "a</s>a") == ["<s>", SPACE + "a", "</s>", SPACE + "a"]
    assert tokenizer.decode(tokenizer.encode("a a"), skip_special=True) == "a a"
    plain = from_gguf(metadata([SPACE + "a", "a"], add_space_prefix=False))
    assert texts_of(plain, "a") == ["<s>", "a"]


def test_characters_without_a_token_become_bytes():
    tokenizer = from_gguf(metadata(["a"], add_space_prefix=False))
    assert texts_of(tokenizer, "a\u20ac", add_special=False) == ["a", "<0xE2>", "<0x82>", "<0xAC>"]
    assert tokenizer.decode(tokenizer.encode("a\u20ac"), skip_special=True) == "a\u20ac"


def test_runs_of_unknown_characters_are_one_token():
    tokenizer = from_gguf(metadata(["a"], byte_tokens=False, add_space_prefix=False))
    assert texts_of(tokenizer, "xya\u20ac", add_special=False) == ["<unk>", "a", "<unk>"]


def test_unused_tokens_are_taken_apart_again():
    fields = metadata(["ab", "a", "b"], add_space_prefix=False)
    fields["tokenizer.ggml.token_type"][-3] = TokenType.UNUSED
    assert texts_of(from_gguf(fields), "ab", add_special=False) == ["a", "b"]


def test_defaults_of_files_that_do_not_say():
    tokenizer = from_gguf(metadata(["a"]))
    assert (tokenizer.bos, tokenizer.eos, tokenizer.vocabulary.unknown) == (1, 2, 0)
    assert (tokenizer.add_bos, tokenizer.add_eos) == (True, False)
    assert tokenizer.end_of_generation == {2}


def test_scores_are_needed():
    fields = metadata(["a"])
    del fields["tokenizer.ggml.scores"]
    with pytest.raises(ModelError, match=r"scores is missing"):
        from_gguf(fields)
    fields["tokenizer.ggml.scores"] = [1.0]
    with pytest.raises(ModelError, match="scores has 1 entries for 260 tokens"):
        from_gguf(fields)


def test_long_texts_take_no_quadratic_time(trained):
    text = "ab" * 50_000
    assert trained.decode(trained.encode(text, add_special=False)) == text
