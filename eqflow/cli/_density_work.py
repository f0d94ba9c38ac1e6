"""A density from its options to its last word: what is asked, how it is trained, what is said of it."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import typer

from eqflow.cli import _fit_request, _fit_work
from eqflow.cli._run_folder import DensityFolder
from eqflow.cli._shell import Problem, choice, in_options, usage
from eqflow.cli._words import count, duration, number

OBJECTIVES = {"likelihood": (1.0, 0.0), "matching": (0.0, 1.0), "both": (1.0, 0.1)}  # weights of the two
_POINTS_EACH, _MOST_COMPONENTS = 10, 200
_SECONDS = 5.0  # at most so much is lost


class Fitted(NamedTuple):
    """What a training gives."""

    tensors: dict[str, Any]
    about: dict[str, Any]  # how to read the tensors
    report: dict[str, Any]
    density: Any


def check(given: dict[str, Any]) -> None:
    """The options by themselves."""
    choice("--objective", given["objective"], OBJECTIVES)
    choice("--repeats", given["repeats"], ("refuse", "keep", "drop"))
    for name, least in (("samples", 1), ("components", 1), ("couplings", 0), ("steps", 1), ("batch", 1)):
        if given[name] is not None and given[name] < least:
            raise usage(f"expected --{name} from {least} up, got {given[name]}")
    if not 0 <= given["seed"] < 2**64:
        raise usage(f"expected --seed in [0, 2^64), got {given['seed']}")
    number("--rate", given["rate"], above=0)
    if given["hidden"] is not None and not given["couplings"]:
        raise usage("expected --hidden with --couplings, whose layers it describes: add --couplings 2")
    if given["hidden"] is not None:
        _fit_request.hidden_widths(given["hidden"])


def resolve(given: dict[str, Any], cloud: Any) -> dict[str, Any]:
    """Everything that decides the density, as plain values; what these points do not allow is refused."""
    from eqflow.dynamics.fingerprint import describe

    points, dimension = cloud.values.shape
    if given["couplings"] and dimension < 2:
        raise usage(f"expected 2 coordinates or more with --couplings, got {cloud.names[0]} alone: leave them out")
    components = given["components"] or min(points // _POINTS_EACH, _MOST_COMPONENTS)
    if 2 * components > points:
        raise usage(
            f"expected two points or more for each of --components, got {count(points)} points for {components}: take "
            f"--components {max(1, points // _POINTS_EACH)}"
        )
    return {
        "points": describe(cloud.values),
        "names": list(cloud.names),
        "components": components,
        "couplings": given["couplings"],
        "hidden": _fit_request.hidden_widths(given["hidden"] or "64,64") if given["couplings"] else [],
        **{name: given[name] for name in ("objective", "steps", "batch", "rate", "seed")},
    }


def go(
    cloud: Any,
    request: dict[str, Any],
    place: Path,
    where: str,
    show: Path | None,
    as_json: Path | None,
    overwrite: bool,
) -> None:
    """Train, or find it done; report, draw."""
    from eqflow.cli import _density_picture
    from eqflow.data import DatasetError

    folder, begin = DensityFolder(place), time.monotonic()
    for note in cloud.notes:
        typer.echo(f"note: {in_options(note)}", err=True)
    folder.claim(request, 8 * cloud.values.numel() + 2**20, overwrite)
    try:
        before = _fit_work.complete(folder)
        report = before or _fit_work.staged(
            folder,
            cloud.name,
            where,
            lambda observer: _train(cloud, request, folder.stages, where, observer),
            lambda out, fitted: _density_picture.draw(out, cloud, fitted),
        )
    except ValueError as error:
        raise usage(in_options(error)) from None
    except (DatasetError, FloatingPointError, MemoryError) as error:
        raise Problem(in_options(error)) from error
    typer.echo("\n".join(lines(report)))
    said = "was complete already" if before else f"fitted in {duration(time.monotonic() - begin)}"
    typer.echo(f"\n{place} {said}: {folder.picture.name}, {folder.tensors.name}, {folder.report.name}")
    _fit_work.copies(folder, report, show, as_json)
    path = shlex.quote(str(place))
    typer.echo(f"next: eqflow cluster {path} --show {path}-clusters.png")


def _train(cloud: Any, request: dict[str, Any], stages: Path, where: str, observer: Callable) -> Fitted:
    from eqflow.cli import _density_kept, _fit_measures
    from eqflow.cli._stages import Progress
    from eqflow.data.checkpoint import Checkpoint
    from eqflow.score import DensityShape, DensityTraining, Gaussian, train_density

    begin, mean, sd = time.monotonic(), cloud.values.mean(0), cloud.values.std(0)
    points = ((cloud.values - mean) / sd).float().to(where)
    shape = DensityShape(
        points.shape[1], request["components"], request["couplings"], tuple(request["hidden"]) or (64, 64)
    )
    likelihood, matching = OBJECTIVES[request["objective"]]
    training = DensityTraining(
        request["steps"], request["batch"], request["rate"], likelihood, matching, seed=request["seed"]
    )
    store = Checkpoint(stages / "training.pt", seconds=_SECONDS)
    state = store.load()
    fit = train_density(
        points,
        shape,
        training,
        state=state and {name: tensor.to(where) for name, tensor in state.items()},
        save=lambda state: store.save(state) if store.due() else None,
        progress=lambda step, *_: observer(Progress("density", step, training.steps, "steps")),
    )
    density, fresh = fit.density, fit.apart
    rest = points.double()
    single = Gaussian(rest.mean(0), rest.T.cov().reshape(shape.dimension, shape.dimension))
    units = float(sd.log().sum())
    log_density = density.log_density(fresh).double()
    report = {
        "points": len(points),
        "held_out": len(fresh),
        "coordinates": list(cloud.names),
        "system": cloud.system,
        "mean": mean.tolist(),
        "sd": sd.tolist(),
        **{name: request[name] for name in ("components", "couplings", "objective", "seed")},
        "log_density": float(log_density.mean()) - units,
        "log_density_error": float(log_density.std()) / math.sqrt(len(fresh)),
        "log_density_of_one_gaussian": float(single.log_density(fresh.double()).mean()) - units,
        "steps": training.steps,
        "best_step": int(fit.history[fit.history[:, 2].argmin(), 0]),
        "stein": _fit_measures.identities(fresh, density.at()(fresh)),
        "history": fit.history.tolist(),
        "seconds": round(time.monotonic() - begin, 2),
    }
    tensors, about = _density_kept.kept(points, mean, sd, density, cloud)
    return Fitted(tensors, about, report, density)


def lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    names, gain = report["coordinates"], report["log_density"] - report["log_density_of_one_gaussian"]
    bent = f", bent by {report['couplings']} couplings" if report["couplings"] else ""
    stein = report["stein"]
    what = f"{count(report['components'])} Gaussians of one shape{bent}"
    rows = [
        ("points", f"{count(report['points'])} of {len(names)} coordinates: {', '.join(names[:6])}"
                   + (", ..." if len(names) > 6 else "")),
        ("density", f"{what}, by {_OBJECTIVE[report['objective']]}"),
        ("held out", f"log density {report['log_density']:.4g} ± {report['log_density_error']:.2g} a point on "
                     f"{count(report['held_out'])}, {abs(gain):.3g} {'above' if gain >= 0 else 'below'} one Gaussian"),
        ("stopped", f"at the best of {count(report['steps'])} steps, {count(report['best_step'])}"),
        ("score", f"Stein's identities hold to {stein['missed']:.2g}, {stein['standard_errors']:.1f} standard errors"),
    ]  # fmt: skip
    return [f"{name:<10}{value}" for name, value in rows]


_OBJECTIVE = {
    "likelihood": "maximum likelihood",
    "matching": "score matching",
    "both": "maximum likelihood and score matching",
}
