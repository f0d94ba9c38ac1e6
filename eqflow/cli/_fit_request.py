"""What is asked of `eqflow fit`: all that can be wrong with the options is found here, before the first file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from eqflow.cli._shell import Problem, choice, usage
from eqflow.cli._words import count, number

METHODS = ("closed-form", "learned", "both")
SCORES = ("kernel", "net")
MOST_FOR_KERNEL = 100_000  # points
MOST_COORDINATES = {"kernel": 8, "learned": 16}
POOL, DEGREE = 40_000, 5
_UNKNOWNS = 1500  # a closed form within seconds
_MOST_UNKNOWNS = 4096
_LEAST = {"pool": 1000}
SETTINGS = ("objective", "probes", "law", "norm", "hidden", "frequencies", "steps", "rate")


def check(given: dict[str, Any]) -> None:
    """The options by themselves."""
    from eqflow.ops.divergence import LAWS
    from eqflow.ops.flow_loss import OBJECTIVES

    for name, known in (
        ("method", METHODS),
        ("score", SCORES),
        ("objective", OBJECTIVES),
        ("law", LAWS),
        ("norm", ("scalar", "per-coordinate")),
        ("equivariance", ("auto", "none")),
        ("repeats", ("refuse", "keep", "drop")),
    ):
        if given[name] is not None:
            choice(f"--{name}", given[name], known)
    for name in ("samples", "pool", "degree", "models", "probes", "steps", "score_steps"):
        least = _LEAST.get(name, 1)
        if given[name] is not None and given[name] < least:
            raise usage(f"expected --{name.replace('_', '-')} from {count(least)} up, got {given[name]}")
    if given["frequencies"] is not None and not 0 <= given["frequencies"] <= 16:
        raise usage(f"expected --frequencies in [0, 16], got {given['frequencies']}")
    if not 0 < given["alpha"] < 1:
        raise usage(f"expected --alpha between 0 and 1, 1 - variance of the noise, got {given['alpha']:g}: try 0.95")
    if not 0 <= given["seed"] < 2**64:
        raise usage(f"expected --seed in [0, 2^64), got {given['seed']}")
    if given["rate"] is not None:
        number("--rate", given["rate"], above=0)
    settings = _settings(given)
    if any(width % 2 for width in settings["hidden"]) and _equivariance(given) == "auto":
        raise usage(
            f"expected even --hidden widths, whose units come in pairs under a symmetry, got {given['hidden']}: take "
            "even ones, or --equivariance none"
        )
    if settings["objective"] == "product" and settings["probes"] < 2:
        raise usage("expected --probes from 2 up with --objective product, which multiplies two of them, got 1")


def check_show(show: Path, overwrite: bool) -> None:
    """The second place of the picture."""
    from eqflow.cli import _films

    if show.suffix.lower() != ".png":
        raise usage(f"expected --show to end in .png, got {str(show)!r}: a film is made by `eqflow rollout`")
    try:
        _films.check_target(show, overwrite)
    except Problem as error:
        raise Problem(str(error).replace("--out", "--show"), error.exit_code) from None


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """Loss, network and training of the learned flow, as plain values."""
    from eqflow.dynamics import FlowSettings

    defaults = FlowSettings.paper() if given["paper"] else FlowSettings()
    settings = {name: getattr(defaults, name) if given[name] is None else given[name] for name in SETTINGS}
    hidden = settings["hidden"]
    return {**settings, "hidden": hidden_widths(hidden) if isinstance(hidden, str) else list(hidden)}


def _equivariance(given: dict[str, Any]) -> str:
    return "none" if given["paper"] else given["equivariance"]


def hidden_widths(text: str) -> list[int]:
    """Widths from `128,128`."""
    widths = [int(word) if word.strip().isdecimal() else 0 for word in text.split(",")]
    if not 1 <= len(widths) <= 4 or not all(1 <= width <= 256 for width in widths):
        raise usage(f"expected --hidden as 1 to 4 widths from 1 to 256 such as 128,128,128, got {text!r}")
    return widths


def unknowns(dimension: int, degree: int) -> int:
    """Coefficients of a polynomial field."""
    return dimension * math.comb(degree + dimension, dimension)


def resolve(given: dict[str, Any], cloud: Any) -> dict[str, Any]:
    """Everything that decides the flow, as plain values; what these points do not allow is refused."""
    from eqflow.dynamics.fingerprint import describe

    points, dimension = cloud.values.shape
    pool = given["pool"] or POOL
    degree = None if given["method"] == "learned" else _degree(given["degree"], dimension, pool)
    if degree and pool < 2 * unknowns(dimension, degree):
        raise usage(
            f"expected --pool from {count(2 * unknowns(dimension, degree))} up, two for each coefficient of --degree "
            f"{degree}, got {pool}"
        )
    most = MOST_COORDINATES["learned"]
    if given["method"] != "closed-form" and dimension > most:
        raise usage(
            f"expected at most {most} coordinates for a learned flow, got {dimension}: reduce them first, for example "
            "to principal components, or take fewer --columns"
        )
    return {
        "points": describe(cloud.values),
        "names": list(cloud.names),
        "system": cloud.system,
        "score": (score := _score(given["score"], points, dimension)),
        "score_steps": given["score_steps"] if score == "net" else None,
        "pool": pool,
        "degree": degree,
        "equivariance": _equivariance(given),
        **{name: given[name] for name in ("alpha", "method", "models", "seed")},
        **_settings(given),
    }


def _score(asked: str | None, points: int, dimension: int) -> str:
    most = MOST_COORDINATES["kernel"]
    if asked == "kernel" and dimension > most:
        raise usage(
            f"expected at most {most} coordinates with --score kernel, whose error grows with each, got {dimension}: "
            "take --score net, or fewer --columns"
        )
    fits = points <= MOST_FOR_KERNEL and dimension <= most
    return asked or ("kernel" if fits else "net")


def _degree(asked: int | None, dimension: int, pool: int) -> int:
    def largest(limit: int) -> int:
        return max((degree for degree in range(1, DEGREE + 1) if unknowns(dimension, degree) <= limit), default=0)

    if asked is not None and unknowns(dimension, asked) > _MOST_UNKNOWNS:
        best = largest(_MOST_UNKNOWNS)
        raise usage(
            f"expected a --degree with at most {count(_MOST_UNKNOWNS)} coefficients, got {asked} with "
            f"{count(unknowns(dimension, asked))} for {dimension} coordinates: "
            + (f"take --degree {best}, or --method learned" if best else "take --method learned")
        )
    fitting = largest(min(_UNKNOWNS, pool // 2))
    if asked is None and not fitting:
        raise usage(
            f"expected fewer coordinates for a closed form, got {dimension}: take fewer --columns, or --method learned"
        )
    return asked or fitting
