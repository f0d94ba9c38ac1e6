"""What every command shares: errors in one line, exit codes, `--version`."""

from __future__ import annotations

import difflib
import os
import re
import signal
import sys
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperGroup

USAGE = 2
INTERRUPTED = 128 + signal.SIGINT


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM came, and the user has been told how to go on."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Problem(Exception):
    """What the user must know, in one line: what was expected, what came, what to do."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def usage(message: str) -> Problem:
    """The command line itself is wrong."""
    return Problem(message, USAGE)


def choice(option: str, value: str, known: Iterable[str]) -> str:
    """`value` if it is one of the known words.

    Raises:
        Problem: it is not.
    """
    known = list(known)
    if value in known:
        return value
    near = difflib.get_close_matches(value.lower(), [word.lower() for word in known], 1)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise usage(f"expected {option} to be {', '.join(known[:-1])} or {known[-1]}, got {value!r}{guess}")


def rank() -> tuple[int, int]:
    """Which process this is, and of how many: torchrun says so in the environment."""
    try:
        this, all_ = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    except ValueError:
        this, all_ = -1, 0
    if not 0 <= this < all_:
        values = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")}
        raise Problem(f"expected RANK and WORLD_SIZE as torchrun sets them, got {values}: unset them, or use torchrun")
    return this, all_


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks; the file's name where the system gives one."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


_ARGUMENTS = {
    "redraw_dead=False": "--keep-dead",
    "with overwrite": "with --overwrite",
    "a smaller shard_samples": "a smaller --shard-size",
    "use device='cpu'": "use --device cpu",
}


def in_options(error: BaseException) -> str:
    """The message of an error of the library, with its arguments named as the options are."""
    message = one_line(error)
    for argument, option in _ARGUMENTS.items():
        message = message.replace(argument, option)
    return re.sub(r"\b(columns|dataset|repeats)=", r"--\1 ", message)


def complain(message: str) -> None:
    """One line on stderr."""
    mark = typer.style("error:", fg="red", bold=True)
    typer.echo(f"{mark} {message}", err=True)


class Commands(TyperGroup):
    """Turns every expected error into one line on stderr and an exit code; only a bug shows a traceback."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except Problem as error:
            # Every rank finds what is wrong with the request; one says it. What befell one rank says so.
            if os.environ.get("RANK", "0") == "0" or str(error).startswith(("rank ", "expected RANK")):
                complain(str(error))
            code = error.exit_code
        except (KeyboardInterrupt, typer.Abort):
            complain("interrupted, nothing was written")
            code = INTERRUPTED
        except OSError as error:
            complain(one_line(error))
            code = 1
        except Exception as error:
            # Typer has carried its own copy of click since 0.25; what both give a usage error is this method.
            if not hasattr(error, "format_message"):
                raise
            complain(one_line_of_usage(error))
            code = getattr(error, "exit_code", USAGE)
        sys.exit(code if isinstance(code, int) else 0)


def one_line_of_usage(error: Any) -> str:
    """What the parser of the command line found, and where to read more."""
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().replace(" (env var: 'None')", "").split()).rstrip(".")
    message = message[:1].lower() + message[1:]
    return f"{message}; see `{context.command_path} --help`" if context else message


def version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from importlib.metadata import version as installed

        typer.echo(f"eqflow {installed('eqflow')}")
        raise typer.Exit
