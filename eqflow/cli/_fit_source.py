"""The points of a fit, from a file or drawn from a known system; and a finished fit as the source of a rollout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from eqflow.cli import _sources
from eqflow.cli._shell import Problem, in_options, usage

SAMPLES = 20_000


class Cloud(NamedTuple):
    """Points that can be fitted."""

    values: Any  # Tensor, float64 [points, dimension], as they came
    names: tuple[str, ...]
    notes: tuple[str, ...]
    system: str | None  # the known one that they were drawn from
    name: str  # for titles


def default_folder(points: str | None, kind: str = "flow") -> Path:
    """Where a flow or a density goes that nobody gave a place."""
    return Path(f"{Path(points).stem}-{kind}") if points else Path(kind)


def load(given: dict[str, Any], *, command: str = "fit", coordinates: int = 2) -> Cloud:
    """The points asked for, checked.

    Args:
        given: the options.
        command: that asks, for examples.
        coordinates: how many there must be.

    Raises:
        Problem: there are none, or nothing can be learned from them.
    """
    from eqflow.data.points import Cloud as Read
    from eqflow.data.points import PointsError, check_points

    word, system = given["points"], None
    if word is None:
        raise usage(
            f"expected POINTS, a .csv, .npy or .hdf5 file or a known system, got none: try `eqflow {command} lorenz`"
        )
    if Path(word).suffix or Path(word).exists() or "/" in word:
        if given["samples"] is not None:
            raise usage("expected no --samples with a file, whose points are all taken: leave it out")
        found = _sources.read_points(Path(word), given["dataset"], given["columns"])
    else:
        found, system = Read(*_drawn(word, given)), word
    try:
        found = check_points(found, repeats=given["repeats"], coordinates=coordinates)
    except PointsError as error:
        raise Problem(in_options(error)) from None
    return Cloud(*found, system, word if system else Path(word).stem)


def _drawn(word: str, given: dict[str, Any]) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    import difflib

    from eqflow.systems import SYSTEMS

    if word not in SYSTEMS:
        near = difflib.get_close_matches(word.lower(), SYSTEMS, 2, 0.4)
        guess = f"did you mean {' or '.join(near)}? " if near else ""
        raise usage(
            f"expected POINTS to be a .csv, .npy or .hdf5 file, or one of {', '.join(SYSTEMS)}, got {word!r}"
            + (f": {guess.strip()}" if guess else "")
        )
    for option in ("columns", "dataset"):
        if given[option] is not None:
            raise usage(f"expected no --{option} with {word}, which is no file: leave it out")
    system = SYSTEMS[word]
    values = system.sample(given["samples"] or SAMPLES, seed=given["seed"]).double()
    return values, getattr(system, "variables", tuple("xyz"[: system.dimension])), ()


def truth(word: str | None) -> Any:
    """The velocity field of a known system, a function of points in their own units, where it has one."""
    from eqflow.systems import SYSTEMS

    system = SYSTEMS[word] if word else None
    # The field of a system with noise depends on the clean score, which is known in closed form for one of them.
    unknown = word == "stochastic-lorenz"
    return None if unknown else getattr(system, "velocity", None)


def source(folder: Path, samples: range, given: dict[str, Any], where: str) -> _sources.Source:
    """A finished fit as the source of a rollout: it starts at noised points, and its file has the units of the data."""
    from eqflow.cli import _fit_kept
    from eqflow.cli._run_folder import FitFolder
    from eqflow.data import DatasetError
    from eqflow.dynamics import NoisyFlow
    from eqflow.dynamics.fingerprint import describe

    files = FitFolder(folder)
    if not files.report.exists():
        raise Problem(f"expected a finished fit in {folder}, but it is not finished: give its `eqflow fit` again")
    try:
        kept = _fit_kept.load(files.tensors)
    except DatasetError as error:
        raise Problem(in_options(error)) from None
    kind, number = _flow(given["flow"], kept)
    flow = (kept.flow if kind == "network" else kept.modes)[number - 1]
    about = {"fit": kept.about["name"], "names": kept.about["names"], "flow": f"{kind}:{number}"}
    about |= {"velocity": describe(flow.state_dict()), "score": describe(kept.score)}
    if kind == "network":
        flow = flow.to(where)
    score = kept.score.to(where)
    dynamics = NoisyFlow(flow, score, given["eta"], backend=given["backend"]) if given["eta"] else flow
    start = kept.starts.sample(len(samples), seed=given["seed"], first_sample=samples.start)
    given["source"], given["flow"] = "run", None  # the same flow, whatever path and word led to it
    signal = kept.about["alpha"] ** 0.5
    advice = "" if given["eta"] else "; where no points were the flow is a guess: --eta 0.1 pulls back to them"

    def recorded(state: Any) -> Any:
        return kept.mean.to(state) + (kept.sd / signal).to(state) * state

    names = tuple(kept.about["names"])
    name = kept.about["name"]
    return _sources.Source(name, dynamics, start, about, 0.02, names=names, advice=advice, recorded=recorded)


def _flow(text: str | None, kept: Any) -> tuple[str, int]:
    """Kind and number of the field to follow: network[:N] or mode[:N]; the best where nobody says."""
    if text is None:
        return tuple(kept.about["chosen"])
    there = {"network": kept.flow, "mode": kept.modes}
    kind, _, number = text.partition(":")
    known = [f"{name}:1 to {name}:{len(fields)}" for name, fields in there.items() if fields is not None]
    if there.get(kind) is None or not (number or "1").isdecimal() or not 1 <= int(number or 1) <= len(there[kind]):
        raise usage(f"expected --flow {' or '.join(known)}, got {text!r}")
    return kind, int(number or 1)
