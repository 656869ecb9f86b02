"""One answer: why it ends, what it shows, what it records. The model says what a test scripts."""

from __future__ import annotations

import pytest

from hotplug.errors import ContextLengthError, ExecutionError, UsageError

START, END, TEXT_END = 256, 257, 258


def finished(answer):
    pieces = list(answer)
    assert "".join(pieces) == answer.text
    assert all(pieces)
    return answer.text, answer.finish


def test_the_models_end_mark_ends_the_answer_and_is_not_shown(scripted):
    model = scripted()
    model.say("fine", END, "never")
    answer = model.generate("How are you?")
    assert finished(answer) == ("fine", "end")
    assert answer.ids == [*model.tokenizer.encode("fine"), END]
    assert answer.prompt_ids == model.tokenizer.encode("How are you?")


@pytest.mark.parametrize("mark", [END, TEXT_END])
def test_every_end_mark_counts(scripted, mark):
    model = scripted()
    model.say("x", mark)
    assert finished(model.generate("?")) == ("x", "end")


def test_end_marks_are_shown_where_they_are_to_be_ignored(scripted):
    model = scripted()
    model.say("a", END, "b", TEXT_END, "c")
    answer = model.generate("?", ignore_eos=True, max_tokens=5)
    assert finished(answer) == ("a<|im_end|>b<|endoftext|>c", "length")


def test_other_marks_are_not_shown(scripted):
    model = scripted()
    model.say("a", START, "b", END)
    assert finished(model.generate("?")) == ("ab", "end")


def test_max_tokens(scripted):
    answer = scripted("abcdef").generate("?", max_tokens=3)
    assert finished(answer) == ("abc", "length")
    assert len(answer.ids) == 3


def test_an_end_mark_as_the_last_token_allowed_is_an_end(scripted):
    model = scripted()
    model.say("ab", END)
    assert finished(model.generate("?", max_tokens=3)) == ("ab", "end")


def test_stop_texts_end_the_answer_and_are_not_shown(scripted):
    answer = scripted("one\n\ntwo###three").generate("?", stop=["###", "\n\n\n"])
    assert finished(answer) == ("one\n\ntwo", "stop")


def test_the_beginning_of_a_stop_text_is_shown_when_the_answer_ends_otherwise(scripted):
    assert finished(scripted("ab##").generate("?", stop=["###"], max_tokens=4)) == (
        "ab##",
        "length",
    )


def test_an_empty_stop_text_is_refused(scripted):
    with pytest.raises(UsageError, match="empty"):
        scripted("a").generate("?", stop=[""])


def test_the_context_fills_up_while_answering(scripted):
    model = scripted("x" * 100)
    answer = model.generate("y" * 60)
    assert finished(answer) == ("xxxx", "context")
    assert len(answer.prompt_ids) + len(answer.ids) == model.context


def test_a_prompt_that_fills_the_context_is_refused(scripted):
    assert finished(scripted("xx").generate("y" * 63)) == ("x", "context")
    with pytest.raises(ContextLengthError, match=r"64 tokens.*context of 64") as caught:
        scripted("x").generate("y" * 64)
    assert (caught.value.tokens, caught.value.limit) == (65, 64)


def test_pieces_are_whole_characters(scripted):
    pieces = list(scripted("a\u20ac\U0001f600").generate("?", max_tokens=8))
    assert pieces == ["a", "\u20ac", "\U0001f600"]


def test_half_a_character_at_the_end_is_replaced(scripted):
    assert finished(scripted("a\u20ac").generate("?", max_tokens=3)) == ("a\ufffd", "length")


def test_rows_of_a_padded_embedding_are_no_tokens(scripted):
    answer = scripted("ok").generate("?", max_tokens=2)
    list(answer)
    assert max(answer.ids) < answer._model.tokenizer.vocabulary_size


def test_a_prompt_that_begins_as_the_last_one_is_not_read_again(scripted):
    model = scripted("abc")
    list(model.generate("Hello", max_tokens=3))
    model.say("def")
    answer = model.generate("Helloab, you", max_tokens=3)
    list(answer)
    assert answer.reused == len("Helloab")
    assert model.evaluated == [5, 1, 1, 5, 1, 1]


def test_the_same_prompt_again_evaluates_its_last_token(scripted):
    model = scripted("abab")
    assert list(model.generate("Hi", max_tokens=2)) == list(model.generate("Hi", max_tokens=2))
    assert model.evaluated == [2, 1, 1, 1]


def test_answers_in_turns_do_not_disturb_each_other(scripted):
    model = scripted("aAbBcC")
    first, second = model.generate("one", max_tokens=3), model.generate("two", max_tokens=3)
    for _ in range(2):
        next(first), next(second)
    assert next(first) == "c"
    assert model.past == model.tokenizer.encode("oneab")
    assert next(second) == "C"
    assert model.past == model.tokenizer.encode("twoAB")


def test_an_interrupted_answer_keeps_what_came(scripted):
    model = scripted("ab")
    model.script.append(KeyboardInterrupt())
    answer = model.generate("?")
    with pytest.raises(KeyboardInterrupt):
        list(answer)
    assert (answer.text, answer.finish, len(answer.ids)) == ("ab", None, 2)
    model.say("c", END)
    assert finished(model.generate("?ab")) == ("c", "end")


def test_a_device_that_fails_ends_the_answer_with_its_error(scripted):
    model = scripted("a")
    model.script.append(ExecutionError("out of luck"))
    with pytest.raises(ExecutionError, match="out of luck"):
        list(model.generate("?"))


def test_the_report(scripted):
    answer = scripted("abc").generate("Hi", max_tokens=3)
    list(answer)
    report = answer.report()
    assert list(report) == [
        "text",
        "ids",
        "prompt_ids",
        "finish",
        "devices",
        "load_seconds",
        "first_token_seconds",
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
    ]
    assert report["text"] == "abc"
    assert report["devices"] == ["fake:0"]
    assert report["load_seconds"] == 0.25
    assert report["first_token_seconds"] > 0
    assert report["prefill_tokens_per_second"] > 0
    assert report["decode_tokens_per_second"] > 0


def test_figures_of_an_answer_that_has_not_begun(scripted):
    report = scripted("abc").generate("Hi").report()
    assert (report["text"], report["ids"], report["finish"]) == ("", [], None)
    assert report["decode_tokens_per_second"] == report["prefill_tokens_per_second"] == 0
