"""`hotplug chat` and its memory, with a model that says what a test scripts."""

from __future__ import annotations

import argparse
import json

import pytest

from hotplug.errors import ContextLengthError, ModelError, UsageError
from hotplug_llm.cli import chat
from hotplug_llm.cli.chat import Conversation
from hotplug_llm.sampling import SamplingOptions

END = 257
TEMPLATE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}a:"


@pytest.fixture
def model(scripted):
    return scripted(template=TEMPLATE)


@pytest.fixture
def run(model, monkeypatch):
    """Runs the command over lines of input; an exception among them is raised at the prompt."""

    def run(*lines, options=()):
        waiting = iter(lines)

        def typed(_prompt):
            line = next(waiting, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr("builtins.input", typed)
        monkeypatch.setattr(chat, "open_model", lambda _arguments: model)
        parser = argparse.ArgumentParser()
        chat.command.add_arguments(parser)
        return chat.command.run(parser.parse_args(["-m", "x", "--temperature", "0", *options]))

    return run


def talk_with(model, **options):
    return Conversation(model, SamplingOptions(temperature=0), **options)


def test_a_conversation(model, run, capsys):
    model.say("hello", END, "fine", END)
    assert run("Hi", "", "How?") == 0
    assert capsys.readouterr().out == "hello\nfine\n"
    assert model.tokenizer.decode(model.past) == "u:Hi;a:hello;u:How?;a:fine"
    assert model.closed


def test_the_second_turn_reads_only_what_is_new(model, run):
    model.say("hello", END, "fine", END)
    run("Hi", "How?")
    assert model.evaluated == [len("u:Hi;a:"), *[1] * 5, len(";u:How?;a:"), *[1] * 4]


def test_instructions_come_first(model, run):
    model.say("ok", END)
    run("Hi", options=["--system", "Be kind."])
    assert model.tokenizer.decode(model.past).startswith("s:Be kind.;u:Hi;a:")


def test_ctrl_c_stops_the_answer_and_not_the_program(model, run, capsys):
    model.say("hel")
    model.script.append(KeyboardInterrupt())
    model.script += [*model.tokenizer.encode("fine"), END]
    assert run("Hi", "Go on") == 0
    assert capsys.readouterr().out == "hel [stopped]\nfine\n"
    assert model.tokenizer.decode(model.past) == "u:Hi;a:hel;u:Go on;a:fine"


def test_ctrl_c_while_the_prompt_is_read(model, run, capsys):
    model.script = [KeyboardInterrupt(), *model.tokenizer.encode("ok"), END]
    assert run("Hi", "Again") == 0
    assert capsys.readouterr().out == " [stopped]\nok\n"


def test_ctrl_c_at_the_prompt_ends_when_pressed_twice(model, run, capsys):
    model.say("ok", END)
    assert run(KeyboardInterrupt(), "Hi", KeyboardInterrupt(), KeyboardInterrupt(), "never") == 0
    shown = capsys.readouterr()
    assert shown.out == "ok\n"
    assert shown.err.count("press Ctrl-C again") == 2


def test_json_is_a_line_for_each_answer(model, run, capsys):
    model.say("h\u00e9", END, "x")
    model.script.append(KeyboardInterrupt())
    run("Hi", "How?", options=["--json"])
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["text"], first["finish"], first["stopped"]) == ("h\u00e9", "end", False)
    assert (second["text"], second["finish"], second["stopped"]) == ("x", None, True)
    assert first.keys() >= {"ids", "prompt_ids", "devices", "load_seconds"}


def test_figures_go_to_standard_error(model, run, capsys):
    model.say("ok", END)
    run("Hi", options=["--figures"])
    shown = capsys.readouterr()
    assert shown.out == "ok\n"
    assert "[fake:0 Fake: 7 prompt tokens at " in shown.err


def test_old_turns_are_forgotten_when_they_no_longer_fit(model, run, capsys):
    for _ in range(4):
        model.script += [*model.tokenizer.encode("x" * 10), END]
    run("first " * 3, "second " * 2, "third", "fourth")
    shown = capsys.readouterr()
    assert shown.out == "xxxxxxxxxx\n" * 4
    assert "[the oldest turns no longer fit and were forgotten]" in shown.err
    assert "first" not in model.tokenizer.decode(model.past)


def test_instructions_are_not_forgotten(model):
    talk = talk_with(model, system="S" * 10)
    for turn in ("a" * 15, "b" * 15, "c" * 15):
        _, forgotten = talk.ask(turn)
        talk.remember("x" * 5)
    assert forgotten == 1
    assert talk.messages[0]["role"] == "system"
    assert [m["role"] for m in talk.messages[1:3]] == ["user", "assistant"]


def test_room_is_kept_for_an_answer(model):
    talk = talk_with(model)
    talk.ask("a" * 20)
    talk.remember("x" * 20)
    answer, forgotten = talk.ask("b" * 5)
    assert forgotten == 1
    assert len(answer.prompt_ids) + 16 <= model.context


def test_a_turn_that_never_fits_is_told_and_changes_nothing(model, run, capsys):
    model.say("one", END, "two", END)
    assert run("Hi", "y" * 64, "Ho") == 0
    shown = capsys.readouterr()
    assert "leaves no room for an answer" in shown.err
    assert shown.out == "one\ntwo\n"
    assert model.tokenizer.decode(model.past) == "u:Hi;a:one;u:Ho;a:two"
    with pytest.raises(ContextLengthError):
        talk_with(model).ask("y" * 64)


def test_an_answer_that_fills_the_context_is_told(model, run, capsys):
    model.say("x" * 64)
    run("Hi")
    assert "[the context of 64 tokens is full]" in capsys.readouterr().err


def test_a_model_without_template(scripted, model, run):
    model.chat_template = None
    with pytest.raises(ModelError, match=r"scripted.gguf has no chat template.*generate --raw"):
        run("Hi")


def test_options_out_of_range(run):
    with pytest.raises(UsageError, match="top_p"):
        run("Hi", options=["--top-p", "2"])


def test_input_that_is_no_text(run):
    with pytest.raises(UsageError, match="no UTF-8"):
        run(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"))
