"""Models and commands, end to end, with a tiny model on the CPU."""

from __future__ import annotations

import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import hotplug_llm
from hotplug.cli import main
from hotplug.errors import ContextLengthError, UsageError
from hotplug_llm import SamplingOptions
from hotplug_llm.evaluation import BATCH, width_for

GREEDY = SamplingOptions(temperature=0)


@pytest.fixture(scope="module")
def model(tiny_model):
    with hotplug_llm.load(tiny_model, "cpu", "exact") as model:
        yield model


def logits_of_softmax(row):
    return row - np.log(np.exp(row - row.max()).sum()) - row.max()


def test_what_a_model_knows_of_itself(model, tiny_model):
    assert (model.name, model.path, model.context) == ("Tiny", tiny_model, 64)
    assert [info.backend for info in model.devices] == ["cpu"]
    assert model.load_seconds > 0
    assert "matmul" in model.explain()
    assert model.tokenize("a <|im_end|>")[-1] == 257
    assert 257 not in model.tokenize("a <|im_end|>", parse_special=False)


def test_greedy_answers_follow_the_logits(model):
    prompt = model.tokenize("Hello")
    answer = model.generate(prompt, sampling=GREEDY, max_tokens=6, ignore_eos=True)
    text = "".join(answer)
    rows = model.logits([*prompt, *answer.ids])
    assert rows.shape == (len(prompt) + 6, model.tokenizer.vocabulary_size)
    assert rows[len(prompt) - 1 : -1].argmax(axis=1).tolist() == answer.ids
    assert text == answer.text


def test_the_same_seed_gives_the_same_answer(model):
    options = {"sampling": SamplingOptions(temperature=2, seed=5), "max_tokens": 8}
    assert list(model.generate("Hi", **options)) == list(model.generate("Hi", **options))


def test_a_prompt_is_text_ids_or_messages(model):
    text = "u:Hi;a:"
    wanted = model.tokenize(text)
    assert model.prompt_ids("Hi") == wanted
    assert model.prompt_ids([{"role": "user", "content": "Hi"}]) == wanted
    assert model.prompt_ids(text, raw=True) == wanted
    assert model.prompt_ids(wanted) == wanted
    assert model.prompt_ids(np.array(wanted)) == wanted


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "no token ids"),
        ([10**6], "no token 1000000"),
        ([-1], "no token -1"),
        (["a"], "no token 'a'"),
        ([{"role": "user", "content": "x"}, 3], "no mixture"),
    ],
)
def test_prompts_that_are_none(model, prompt, message):
    with pytest.raises(UsageError, match=message):
        model.generate(prompt)


def test_an_empty_prompt(model):
    with pytest.raises(UsageError, match="the prompt is empty"):
        model.generate("", raw=True)


def test_likelihoods_are_those_of_the_logits(model):
    ids = model.tokenize("The quick brown fox jumps over the lazy dog, twice.")
    rows = model.logits(ids[:-1])
    losses = [-logits_of_softmax(row)[token] for row, token in zip(rows, ids[1:], strict=True)]
    np.testing.assert_allclose(model.token_nlls(ids), losses, rtol=1e-5, atol=1e-5)
    assert model.nll(ids) == pytest.approx(np.mean(losses), rel=1e-5)


def test_likelihoods_need_two_tokens_and_room(model):
    with pytest.raises(UsageError, match="two tokens"):
        model.nll([1])
    with pytest.raises(ContextLengthError):
        model.nll([1] * 66)
    with pytest.raises(ContextLengthError):
        model.logits([1] * 65)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, "context of 0"),
        ({"context": 65}, "takes 1 to 64"),
        ({"threads": 0}, "number of threads must be from 1 to"),
        ({"precision": "half"}, "precision must be one of"),
        ({"cache_dtype": "q8_0"}, "cache dtype must be one of"),
        ({"fallback": "never"}, "fallback must be one of"),
    ],
)
def test_options_out_of_range(tiny_model, options, message):
    with pytest.raises(UsageError, match=message):
        hotplug_llm.load(tiny_model, "cpu", **options)


def test_one_stop_text_or_several(model):
    options = {"sampling": GREEDY, "max_tokens": 12, "ignore_eos": True, "raw": True}
    text = "".join(model.generate("Hello", **options))
    stop = text[4:6]
    for given in (stop, [stop], ("never", stop)):
        answer = model.generate("Hello", stop=given, **options)
        assert "".join(answer) == text.partition(stop)[0]
        assert answer.finish == "stop"


def test_max_tokens_out_of_range(model):
    with pytest.raises(UsageError, match="max_tokens"):
        model.generate("x", max_tokens=0)


def run(capsys, *words):
    code = main([str(word) for word in words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_generate_as_json(tiny_model, capsys):
    code, out, _ = run(
        capsys, "generate", "-m", tiny_model, "-d", "cpu", "-n", 4, "--ignore-eos", "--json", "Hi"
    )
    report = json.loads(out)
    assert code == 0
    assert report.keys() >= {
        "text",
        "ids",
        "prompt_ids",
        "devices",
        "load_seconds",
        "first_token_seconds",
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
    }
    assert (len(report["ids"]), len(report["prompt_ids"])) == (4, 7)
    assert report["devices"] == ["cpu:0"]


def test_generate_streams_text_and_tells_figures(tiny_model, capsys):
    words = ["-m", tiny_model, "-d", "cpu", "--temperature", "0", "--raw", "--ignore-eos"]
    code, out, err = run(capsys, "generate", *words, "-n", 4, "Hi")
    assert code == 0
    assert out.endswith("\n")
    assert "[cpu:0 " in err
    assert "2 prompt tokens" in err
    code, out, err = run(capsys, "generate", *words, "x" * 62)
    assert code == 0
    assert "the context is full" in err


def test_generate_explains(tiny_model, capsys):
    code, out, _ = run(capsys, "generate", "-m", tiny_model, "-d", "cpu", "--explain", "Hi")
    assert code == 0
    assert "cpu:0" in out


def test_a_prompt_longer_than_the_context(tiny_model, capsys):
    code, _, err = run(capsys, "generate", "-m", tiny_model, "-d", "cpu", "--raw", "x" * 64)
    assert code == 2
    assert err.count("\n") == 1
    assert "leaves no room for an answer" in err


def test_tokenize(tiny_model, capsys):
    code, out, _ = run(capsys, "tokenize", "-m", tiny_model, "--json", "a\u00e9<|im_end|>")
    found = json.loads(out)
    assert code == 0
    assert found["ids"] == [row["id"] for row in found["tokens"]]
    assert [row["text"] for row in found["tokens"]] == ["a", "\\xc3", "\\xa9", "<|im_end|>"]
    _, out, _ = run(capsys, "tokenize", "-m", tiny_model, "--no-special", "<|im_end|>")
    assert len(out.splitlines()) == len("<|im_end|>")


def test_texts_from_standard_input(tiny_model, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab")))
    _, out, _ = run(capsys, "tokenize", "-m", tiny_model, "-")
    assert len(out.splitlines()) == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    code, _, err = run(capsys, "tokenize", "-m", tiny_model, "-")
    assert code == 2
    assert "no UTF-8" in err


def test_answers_in_turns_are_those_of_answers_alone(model):
    options = {"sampling": GREEDY, "max_tokens": 5, "ignore_eos": True}
    alone = [list(model.generate(prompt, **options)) for prompt in ("one", "another")]
    answers = [model.generate(prompt, **options) for prompt in ("one", "another")]
    pieces = [[], []]
    for _ in range(5):
        for answer, shown in zip(answers, pieces, strict=True):
            shown += [next(answer, "")]
    assert ["".join(shown) for shown in pieces] == ["".join(shown) for shown in alone]


def test_threads_that_share_a_model_do_not_mix_their_texts(model):
    prompts = [model.tokenize(word) for word in ("Hello", "Good", "What", "Four")]
    options = {"sampling": GREEDY, "max_tokens": 12, "ignore_eos": True}
    alone = [list(model.generate(prompt, **options)) for prompt in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = pool.map(lambda prompt: list(model.generate(prompt, **options)), prompts)
        assert list(together) == alone


def test_a_closed_model_says_so(tiny_model):
    model = hotplug_llm.load(tiny_model, "cpu")
    answer = model.generate("Hello", max_tokens=8, ignore_eos=True)
    next(answer)
    model.close()
    model.close()
    for use in (lambda: next(answer), lambda: model.logits([1]), lambda: model.nll([1, 2])):
        with pytest.raises(UsageError, match="closed"):
            use()
    assert "tiny.gguf" in repr(model)


def test_logits_do_not_depend_on_how_a_text_is_cut_into_batches(model):
    ids = model.tokenize("a text of more than thirty-two tokens, that takes batches")
    rows = model.logits(ids)
    for count in (1, 7, 33, len(ids)):
        assert model.logits(ids[:count])[-1] == pytest.approx(rows[count - 1], abs=1e-4)


def test_little_of_a_batch_is_padding():
    for tokens in range(1, BATCH + 1):
        width = width_for(tokens)
        assert tokens <= width <= BATCH
        assert width - tokens <= tokens / 4
