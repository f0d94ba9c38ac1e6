"""What is asked of `eqflow design`: all that can be wrong with the options and the pictures is found here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eqflow.cli import _sources, _words
from eqflow.cli._shell import Problem, choice, in_options, usage

LARGEST = 4096
PIXELS, COVERAGE, OVERLAP = 18.0, 0.16, 0.05
_FRAMES = 250
_COLOURS = {"white": "#ffffff", "black": "#000000"}


def check(given: dict[str, Any], show: Path | None) -> None:
    """The options by themselves."""
    check_scatter(given)
    for name in ("steps", "every", "null", "width"):
        if given[name] is not None and given[name] < 1:
            raise usage(f"expected --{'null-steps' if name == 'null' else name} from 1 up, got {given[name]}")
    for name in ("minutes", "dt"):
        if given[name] is not None:
            _words.number(f"--{name}", given[name], above=0)
    _words.number("--eta", given["eta"], least=0)
    if not 0 < given["alpha"] < 1:
        raise usage(f"expected --alpha in (0, 1), the squared coefficient of the signal, got {given['alpha']}")
    if max(_words.size(given["size"])) > LARGEST:
        raise usage(f"expected --size up to {LARGEST}, got {given['size']}")
    if given["every"] is not None and given["steps"] % given["every"]:
        raise usage(f"expected --every to divide --steps {given['steps']}, got {given['every']}")
    choice("--start", given["start"], ("scatter", "noise"))
    _words.numbers("--dilations", given["dilations"], int)
    _sources.kernel(given["kernel"] or "random:0", 3)
    if show:
        from eqflow.cli import _colour

        _colour.check_target(show, "--show")


def check_scatter(given: dict[str, Any]) -> None:
    """The options of the scatter."""
    if not given["pictures"]:
        from eqflow.data import icons

        raise usage(f"expected a picture: a file with alpha, or an icon, one of {', '.join(icons())}; got none")
    for name in ("pixels", "coverage"):
        _words.number(f"--{name}", given[name], above=0)
    if not 0 <= given["overlap"] <= 1 or given["coverage"] > 1:
        raise usage(f"expected --overlap and --coverage in [0, 1], got {given['overlap']} and {given['coverage']}")
    if not 0 <= given["seed"] < 2**64:
        raise usage(f"expected --seed in [0, 2^64), got {given['seed']}")
    if given.get("samples", 1) < 1 or given.get("first", 0) < 0:
        raise usage(f"expected --samples from 1 up and --first from 0 up, got {given['samples']} and {given['first']}")
    background(given["background"])
    scales(given["scale"])


def background(text: str) -> list[float]:
    """Red, green and blue in [0, 1]."""
    found = re.fullmatch(r"#([0-9a-f]{6})", _COLOURS.get(text, text).lower())
    if not found:
        raise usage(f"expected --background white, black or #rrggbb, got {text!r}")
    return [int(found[1][start : start + 2], 16) / 255 for start in (0, 2, 4)]


def scales(text: str) -> list[float]:
    """The smallest and the largest size of a creature."""
    try:
        low, high = (float(word) for word in text.split(":"))
    except ValueError:
        low, high = 0.0, 0.0
    if not 0 < low <= high <= 8:
        raise usage(f"expected --scale LOW:HIGH above 0 and up to 8, got {text!r}: write 0.8:1.25")
    return [low, high]


def creatures(given: dict[str, Any]) -> list[Any]:
    """The pictures, read."""
    from eqflow.data import PicturesError, read_creature

    try:
        return [read_creature(word, pixels=given["pixels"], mask=given["mask"]) for word in given["pictures"]]
    except PicturesError as error:
        raise Problem(in_options(error)) from None


def check_fit(found: list[Any], given: dict[str, Any], name: str, size: Sequence[int]) -> None:
    """Whether the creatures have room."""
    longest = max(creature.side for creature in found) * scales(given["scale"])[1]
    if longest > min(size):
        raise usage(
            f"expected pictures smaller than the world, but one, turned, takes {longest:.0f} pixels of --{name} "
            f"{given[name]}: take fewer --pixels, or a larger --{name}"
        )


def scatter_options(given: dict[str, Any], found: list[Any]) -> dict[str, Any]:
    """What `ops.scatter` takes, in colours from -1 to 1."""
    return {
        "scale": scales(given["scale"]),
        "coverage": given["coverage"],
        "overlap": given["overlap"],
        "background": [2 * value - 1 for value in background(given["background"])],
        "oversample": found[0].oversample,
    }


def resolve(given: dict[str, Any], found: list[Any]) -> dict[str, Any]:
    """Everything that decides the world, as plain values; what does not fit is refused."""
    from eqflow.dynamics.fingerprint import describe

    sizes = {name: list(_words.size(given[name])) for name in ("size", "canvas")}
    for name, size in sizes.items():
        check_fit(found, given, name, size)
    steps = given["steps"]
    every = given["every"] or max(1, steps // _FRAMES)
    null = given["null"] or max(1, steps // 5)
    return {
        "pictures": {creature.name: describe(creature.picture) for creature in found},
        **sizes,
        "scatter": scatter_options(given, found),
        "kernel": given["kernel"] or "random:0",
        "every": every,
        "null": null // every * every or every,
        "dt": given["dt"] or (1 - given["alpha"]) / 4,
        **{name: given[name] for name in ("steps", "start", "eta", "alpha", "minutes", "width", "dilations", "seed")},
    }
