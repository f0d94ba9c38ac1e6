import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from eqflow.cli import app

COMMANDS = (
    "generate", "train", "compare", "demo", "fit", "infer", "discover", "rollout", "info", "show", "presets",
    "backends", "design", "atlas", "scatter",
)  # fmt: skip


def run(*words):
    return CliRunner().invoke(app, list(words))


HELP = [["--help"], ["--version"], ["generate", "--help"], ["fit", "--help"], ["show", "--help"], ["train", "--help"],
        ["compare", "--help"], ["demo", "--help"]]  # fmt: skip


@pytest.mark.parametrize("words", HELP)
def test_help_does_not_load_torch(words):
    code = (
        "import sys\nfrom eqflow.cli import app\n"
        f"try: app({words!r}, prog_name='eqflow')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'matplotlib', 'h5py'} & set(sys.modules), 'too much was loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command):
    result = run(command, "--help")
    assert result.exit_code == 0 and result.stdout.count(f"eqflow {command}") >= 2


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "eqflow", "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("eqflow ")


def test_no_command_prints_the_help():
    result = run()
    assert result.exit_code == 2 and "generate" in result.stdout


@pytest.mark.parametrize(
    "words", [["fly"], ["backends", "--loud"], ["presets", "a", "b"], ["show"], ["show", "-n", "x", "a"]]
)
def test_a_wrong_command_line_is_one_line_and_two(words):
    result = run(*words)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and "--help`" in result.stderr


def test_an_error_of_the_system_is_one_line(monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "/there")

    monkeypatch.setattr(sys.modules["eqflow.cli.backends"], "survey", refuse)
    result = run("backends")
    assert (result.exit_code, result.stderr) == (1, "error: /there: Permission denied\n")


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys.modules["eqflow.cli.backends"], "survey", lambda: 1 / 0)
    assert isinstance(run("backends").exception, ZeroDivisionError)


@pytest.mark.parametrize(("rank", "size"), [("x", "2"), ("2", "2"), ("-1", "2"), ("0", "0")])
def test_a_broken_torchrun_environment_is_named(monkeypatch, rank, size):
    monkeypatch.setattr(os, "environ", {**os.environ, "RANK": rank, "WORLD_SIZE": size})
    result = run("generate", "wave", "--out", "nowhere")
    assert result.exit_code == 1 and "RANK and WORLD_SIZE" in result.stderr
