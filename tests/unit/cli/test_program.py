"""The program: which command runs, how errors are told, what comes back."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import hotplug
from hotplug import progress
from hotplug.cli import main
from hotplug.errors import FallbackWarning

GROUP = "hotplug.commands"
FULL = Path("/dev/full")

COMMAND = """
class Command:
    name = "{name}"
    help = "made for a test"
    def add_arguments(self, parser):
        parser.add_argument("--times", type=int, default=1)
    def run(self, arguments):
        BODY

command = Command()
"""


@pytest.fixture
def add_command(site):
    """Installs a command whose `run` has the given body."""

    def add(name, body, code=COMMAND):
        return site.install(
            name, code.replace("BODY", body), group=GROUP, target="{module}:command"
        )

    return add


def program(*words, **environment):
    """The program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hotplug", *words],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hotplug {hotplug.__version__}\n"


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(words, capsys):
    assert main(words) == 0
    shown = capsys.readouterr().out
    for name in ("devices", "backends", "doctor", "info", "cache", "calibrate", "gguf"):
        assert f"\n  {name} " in shown


def test_help_of_a_command(capsys):
    assert main(["devices", "--help"]) == 0
    assert "usage: hotplug devices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["devixes"], "hotplug: there is no command 'devixes' (did you mean 'devices'?)"),
        (["zzz"], "hotplug: there is no command 'zzz' (see `hotplug --help`)"),
        (["--loud"], "hotplug: there is no option '--loud' (see `hotplug --help`)"),
        (["gguf"], "the following arguments are required: FILE (see `hotplug gguf --help`)"),
        (["devices", "--yaml"], "unrecognized arguments: --yaml (see `hotplug devices --help`)"),
        (["cache", "burn"], "invalid choice: 'burn'"),
        (["gguf", "/nowhere/x.gguf"], "/nowhere/x.gguf"),
        (["doctor", "--device", "cuda:"], "'cuda:' in device selector 'cuda:'"),
        (["doctor", "--device", "nonsense:3"], "no backend of that name is installed"),
    ],
)
def test_what_the_user_can_put_right(words, sentence, capsys):
    assert main(words) == 2
    answer = capsys.readouterr()
    assert answer.out == ""
    assert sentence in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOTPLUG_AUTOLOAD", "perhaps"),
        ("HOTPLUG_PROBE_TIMEOUT", "soon"),
        ("HOTPLUG_THREADS", "0"),
        ("HOTPLUG_FALLBACK", "maybe"),
        ("HOTPLUG_BACKEND_PATH", "nothing"),
        ("HOTPLUG_LOG", "loud"),
    ],
)
@pytest.mark.parametrize("command", ["devices", "backends", "doctor", "info", "cache"])
def test_settings_that_are_not_understood(command, variable, value, monkeypatch, capsys):
    monkeypatch.setenv(variable, value)
    assert main([command]) == 2
    answer = capsys.readouterr()
    assert answer.out == ""
    assert f"{variable}='{value}' is not understood" in answer.err
    assert answer.err.count("\n") == 1


def test_a_setting_that_nothing_reads_is_told_of(monkeypatch, capsys):
    monkeypatch.setenv("HOTPLUG_TREADS", "2")
    assert main(["info", "--json"]) == 0
    text = "HOTPLUG_TREADS is set, but hotplug reads no such variable"
    assert capsys.readouterr().err == f"hotplug: {text}; did you mean HOTPLUG_THREADS?\n"


# Commands of other distributions


def test_a_command_of_another_distribution(add_command, capsys):
    add_command("greet", "print('hello ' * arguments.times); return 7")
    assert main(["greet", "--times", "2"]) == 7
    assert capsys.readouterr().out == "hello hello \n"
    main(["--help"])
    assert re.search(r"^  greet +made for a test$", capsys.readouterr().out, re.MULTILINE)


def test_a_broken_command_breaks_no_other(add_command, capsys):
    broken = add_command("broken", "", "raise RuntimeError('no such luck')")
    empty = add_command("empty", "", "command = object()")
    add_command("greet", "print('hello'); return 0")
    assert main(["greet"]) == 0
    assert main(["cache", "--json"]) == 0
    assert broken not in sys.modules
    assert empty not in sys.modules
    capsys.readouterr()
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "made for a test" in shown
    assert "[the command 'broken' of test-broken cannot be loaded: RuntimeError" in shown
    assert main(["broken"]) == 2
    assert "no such luck (pip install --upgrade" in capsys.readouterr().err
    assert main(["empty"]) == 2
    assert "lacks help, add_arguments, run" in capsys.readouterr().err


def test_our_own_commands_cannot_be_replaced(add_command, capsys):
    add_command("cache", "raise AssertionError")
    assert main(["cache", "--json"]) == 0


def test_a_command_that_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    assert main(["generate", "x"]) == 2
    assert "pip install hotplug-llm" in capsys.readouterr().err


# What commands may do


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("raise KeyboardInterrupt", 130),
        ("raise SystemExit", 0),
        ("raise SystemExit(5)", 5),
        ("raise SystemExit('enough')", 1),
        ("from hotplug.errors import ModelError; raise ModelError('odd', remedy='fix it')", 2),
    ],
)
def test_how_a_command_may_end(body, code, add_command, capsys):
    add_command("ends", body)
    assert main(["ends"]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if code == 2:
        assert err == "hotplug: odd (fix it)\n"


def test_a_mistake_of_ours_keeps_its_traceback(add_command):
    add_command("wrong", "return 1 // 0")
    with pytest.raises(ZeroDivisionError):
        main(["wrong"])


def test_a_reader_that_leaves_is_no_error(add_command, site):
    add_command("talk", "print('x' * 10_000_000); return 0")
    talking = subprocess.Popen(
        [sys.executable, "-m", "hotplug", "talk"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(site.path)},
    )  # fmt: skip
    assert talking.stdout.read(1) == b"x"
    talking.stdout.close()
    with talking.stderr:
        assert talking.stderr.read() == b""
    assert talking.wait() == 141


@pytest.mark.skipif(os.name == "nt", reason="a shell closes the streams")
@pytest.mark.parametrize("stream", [0, 1, 2])
def test_streams_closed_from_the_start_are_no_error(stream):
    closing = ["sh", "-c", f'exec "$@" {stream}>&-', "sh", sys.executable]
    ended = subprocess.run(
        [*closing, "-m", "hotplug", "cache", "size"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(not FULL.exists(), reason="Linux has such a device")
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_full_disk_is_told_of(add_command, site, lines):
    add_command("talk", f"print('x\\n' * {lines}); return 0")
    with FULL.open("w", encoding="utf-8") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "hotplug", "talk"], stdout=full, stderr=subprocess.PIPE,
            text=True, check=False, env=os.environ | {"PYTHONPATH": str(site.path)},
        )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr == "hotplug: the output cannot be written: No space left on device\n"


def test_warnings_and_log_are_lines(add_command, capsys, monkeypatch):
    add_command(
        "grumble",
        "import logging, warnings\n"
        "        from hotplug.errors import FallbackWarning\n"
        "        warnings.warn('slower than asked for', FallbackWarning)\n"
        "        logging.getLogger('hotplug.x').warning('hm')\n"
        "        logging.getLogger('hotplug.x').info('well')\n"
        "        return 0",
    )
    assert main(["grumble"]) == 0
    assert capsys.readouterr().err == "hotplug: slower than asked for\nhotplug: hm\n"
    monkeypatch.setenv("HOTPLUG_LOG", "info")
    assert main(["grumble"]) == 0
    assert capsys.readouterr().err.endswith("hotplug: hm\nhotplug: well\n")


def test_the_process_is_left_as_it_was():
    logger = logging.getLogger("hotplug")
    before = (logger.level, logger.propagate, list(logger.handlers), warnings.showwarning)
    main(["--version"])
    after = (logger.level, logger.propagate, list(logger.handlers), warnings.showwarning)
    assert after == before
    with pytest.warns(FallbackWarning):
        warnings.warn("still warned", FallbackWarning, stacklevel=1)


def test_progress_is_shown_on_a_terminal_only(add_command, capsys, monkeypatch):
    add_command(
        "work",
        "from hotplug.progress import task\n"
        "        with task('compile kernels', 2) as step, task('load', 1) as other:\n"
        "            step(1); other(1); step(2)\n"
        "        return 0",
    )
    assert main(["work"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["work"]) == 0
    answer = capsys.readouterr()
    assert answer.out == ""
    assert "compile kernels" in answer.err
    with progress.task("afterwards", 1) as step:
        step(1)
    assert capsys.readouterr().err == ""


def test_python_dash_m():
    done = program("cache", "--json")
    assert json.loads(done.stdout)["nbytes"] >= 0
    assert (done.stderr, done.returncode) == ("", 0)
