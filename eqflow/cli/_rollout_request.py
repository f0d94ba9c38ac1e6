"""What is asked of `eqflow rollout`: all that can be wrong with the options is found here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eqflow.cli import _sources
from eqflow.cli._shell import Problem, choice, usage
from eqflow.cli._words import number

_SKEW = ("eta", "kernel", "integrator")
_FIELDS = ("alpha", "size", "clip", "precision", "anchor")
_OF = {
    "gaussian": ("covariance", "dimension", *_SKEW),
    "mixture": ("means", "weights", "covariance", *_SKEW),
    "points": ("alpha", "dataset", "columns", *_SKEW),
    "gray-scott": ("size",),
    "run": ("flow", "eta", "integrator"),
    "score": (*_FIELDS, *_SKEW),
    "pretrained": (*_FIELDS, *_SKEW),
}


def kind(source: str | None, file: Path | None, given: dict[str, Any]) -> tuple[str, str]:
    """Which source, the name of a preset or folder, and no option that belongs to another source."""
    word, _, name = (source or "").partition(":")
    if word not in _OF and source and Path(source).is_dir():
        made = {"fit.json": "run", "train.json": "score", "design.json": "score"}
        word, name = next((kind for file, kind in made.items() if (Path(source) / file).is_file()), ""), source
        if not word:
            raise Problem(
                f"expected {source} to be the folder of a fit or a score, but it has no {' or '.join(made)}: see "
                "`eqflow fit` and `eqflow train`"
            )
    elif word == "pretrained" and name:
        name = str(source)
    elif word not in _OF or word in ("run", "score") or bool(name) != (word == "gray-scott"):
        raise usage(f"expected a source: {_sources.KINDS}, got {source!r}")
    if (file is not None) != (word == "points"):
        got = "no file" if file is None else f"a file with {source}"
        raise usage(f"expected a file with the source points, and only there, got {got}")
    for option in {option for options in _OF.values() for option in options}:
        if given[option] is not None and option not in _OF[word]:
            raise usage(f"expected no --{option} with {source}, where it means nothing: leave it out")
    return word, name


def check(given: dict[str, Any], ranks: int) -> None:
    """The numbers of a rollout."""
    if given["steps"] < 1:
        raise usage(f"expected --steps from 1 up, got {given['steps']}")
    if not ranks <= given["batch"] < 2**32:
        raise usage(f"expected --batch from {ranks}, one sample a rank, up to 2^32 - 1, got {given['batch']}")
    if not 0 <= given["seed"] < 2**64:
        raise usage(f"expected --seed in [0, 2^64), got {given['seed']}")
    every = given["every"]
    if every is not None and (every < 1 or given["steps"] % every):
        raise usage(f"expected --every to divide --steps {given['steps']}, got {every}")
    if given["dt"] is not None:
        number("--dt", given["dt"], above=0)
    if given["eta"] is not None:
        number("--eta", given["eta"], least=0)
    if given["anchor"] is not None:
        number("--anchor", given["anchor"], above=0)
    if given["precision"] is not None:
        choice("--precision", given["precision"], ("bfloat16", "float32"))


def check_show(show: Path, steps: int, every: int | None, overwrite: bool) -> None:
    """The picture at the end."""
    from eqflow.cli import _films

    try:
        _films.check_target(show, True)
    except Problem as error:
        raise Problem(str(error).replace("--out", "--show"), error.exit_code) from None
    if show.suffix.lower() in _films.FILMS and every is None:
        raise usage(f"expected --every with a film, got none: add for example --every {max(1, steps // 100)}")
