"""A world from its options to its last word: train, roll out, track, film, report; each stage is kept."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import typer

from eqflow.cli import _colour, _fit_work, _score_source, _stages, _train_report, _world, _world_measure
from eqflow.cli._run_folder import DesignFolder, write_json
from eqflow.cli._shell import Problem, in_options, usage
from eqflow.cli._words import duration

_HELD_OUT, _RATE = 64, 0.003
_BATCHES = {"cpu": 2, "cuda": 32}  # canvases a step
_PROBE = (8, 40)  # steps before and within a timing
_LEAST_STEPS = 50


class Designed(NamedTuple):
    """What the work gives; its files are written already, but for the pictures."""

    tensors: None
    about: dict[str, Any]
    report: dict[str, Any]
    tracks: tuple[Any, Any]  # of the rule and of K = 0


def go(
    creatures: list[Any],
    request: dict[str, Any],
    place: Path,
    where: str,
    show: Path | None,
    as_json: Path | None,
    overwrite: bool,
) -> None:
    """Make the world, or find it made; report, draw."""
    from eqflow.cli import _design_report
    from eqflow.data import DatasetError
    from eqflow.dynamics import Diverged, ResumeError

    folder, meter, begin = DesignFolder(place), _train_report.Meter(), time.monotonic()
    height, width = request["size"]
    frames = (request["steps"] + request["null"]) // request["every"] + 2
    name = ", ".join(creature.name for creature in creatures)
    try:
        folder.claim(request, 3 * height * width * frames + 2**25, overwrite)
        before = _fit_work.complete(folder)
        report = before or _fit_work.staged(
            folder,
            name,
            where,
            lambda observer: work(creatures, request, folder, where, meter, observer),
            lambda out, designed: _design_report.draw(folder, designed),
            meter,
        )
        if not before or not folder.page.exists():
            _design_report.write_page(folder, report)
    except ValueError as error:
        raise usage(in_options(error)) from None
    except (DatasetError, Diverged, ResumeError, FloatingPointError, MemoryError) as error:
        raise Problem(in_options(error)) from error
    typer.echo("\n".join(_design_report.lines(report)))
    said = "was complete already" if before else f"made in {duration(time.monotonic() - begin)}"
    typer.echo(f"\n{place} {said}: open {folder.page}; film {folder.film.name}, frames, tracks.npz, report.json")
    if show:
        from eqflow.cli import _world_film

        if show.suffix.lower() == folder.film.suffix:
            shutil.copyfile(folder.film, show)
        else:
            import numpy as np

            _world_film.film(show, np.load(folder.world, mmap_mode="r"), _world_measure.read(folder.tracks, "rule"))
        typer.echo(f"wrote {show}")
    if as_json:
        write_json(as_json, report)
        typer.echo(f"wrote {as_json}")
    typer.echo(f"next: eqflow atlas {shlex.quote(str(place))}")


def work(
    creatures: list[Any], request: dict[str, Any], folder: DesignFolder, where: str, meter: Any, observer: Callable
) -> Designed:
    """Everything but the pictures."""
    from eqflow.cli import _sources
    from eqflow.data.folder import read_json
    from eqflow.score import read_score

    quality = folder.stages / "quality.json"
    if not folder.tensors.exists() or not quality.exists():
        write_json(quality, _learn(creatures, request, folder, where, meter, observer))
    stored = read_score(folder.tensors)
    score = _score_source.at(stored, None, False, where)
    kernel = _sources.kernel(request["kernel"], len(_colour.NAMES))
    start = _world.begin(stored, score, tuple(request["size"]), request["start"], request["seed"], where)
    for path, turn, steps in ((folder.world, kernel, "steps"), (folder.null, 0 * kernel, "null")):
        _world.follow(
            _world.flow(score, turn, request["eta"], where),
            start,
            path,
            steps=request[steps],
            every=request["every"],
            dt=request["dt"],
            seed=request["seed"],
            stage={"steps": "world", "null": "world without K"}[steps],
            checkpoint=folder.stages / f"{path.stem}.pt",
            observer=observer,
        )
    found, tracks = _world_measure.measure(stored, request, folder, observer)
    report = {
        "name": "-".join(request["pictures"]),
        "world": f"{'-'.join(request['pictures'])}/{request['kernel']}/{request['seed']}",
        "matrix": kernel.flatten(1).tolist() if kernel.shape[-1] == 1 else kernel.tolist(),
        **request,
        "training": read_json(quality),
        **found,
    }
    return Designed(None, {}, report, tracks)


def _learn(
    creatures: list[Any], request: dict[str, Any], folder: DesignFolder, where: str, meter: Any, observer: Callable
) -> dict[str, Any]:
    """The score, saved; how good it is."""
    from eqflow.cli import _train_work
    from eqflow.data.tensors import save_tensors

    source = _source(creatures, request)
    plan = _planned(source, request, folder, where, observer)
    asked = {
        "held_out": _HELD_OUT,
        "shape": _shape(request).config(),
        **plan,
        **{"rate": _RATE, "precision": None, "compile": False, "seed": request["seed"]},
        "symmetries": "none",  # every turn is in the pictures already, and a flip would make a mirror image
    }
    meter.batch = plan["batch"]
    trained = _train_work.train(source, asked, folder.stages, where, meter, observer, 5.0)
    save_tensors(folder.tensors, trained.tensors, {**trained.about, "kernel": request["kernel"]})
    return trained.report


def _source(creatures: list[Any], request: dict[str, Any]) -> Any:
    """The scatter as a training takes it: colours in [-1, 1], which are 2 c - 1."""

    from eqflow.cli._train_source import Source

    half = [0.5] * len(_colour.NAMES)
    about = {"scatter": request["scatter"], "pictures": request["pictures"]}
    name, size = "-".join(request["pictures"]), tuple(request["canvas"])
    return Source(name, _colour.NAMES, size, about, None, half, half, None, pictures=pictures_of(creatures))


def pictures_of(creatures: list[Any]) -> Any:
    """The creatures as `ops.scatter` takes them: [species, 4, side, side], colours from -1 to 1."""
    import torch

    side = max(creature.picture.shape[-1] for creature in creatures)
    pictures = torch.stack([_padded(creature.picture, side) for creature in creatures])
    return torch.cat([2 * pictures[:, :3] - 1, pictures[:, 3:]], 1)


def _padded(picture: Any, side: int) -> Any:
    import torch

    room = side - picture.shape[-1]
    return torch.nn.functional.pad(picture, (room // 2, room - room // 2) * 2)


def _shape(request: dict[str, Any]) -> Any:
    from eqflow.score import PatternShape

    dilations = tuple(int(word) for word in request["dilations"].split(","))
    return PatternShape(len(_colour.NAMES), width=request["width"], dilations=dilations, alpha=request["alpha"])


def _planned(
    source: Any, request: dict[str, Any], folder: DesignFolder, where: str, observer: Callable
) -> dict[str, int]:
    """Steps that fit into the budget, timed once and kept: a training that goes on has the bits of a whole one."""
    from eqflow.data.folder import read_json
    from eqflow.score import PatternTraining, train_pattern

    path = folder.stages / "plan.json"
    if (kept := read_json(path)) is not None:
        return kept
    observer(_stages.Progress("time a step", 0, 1, "probes"))
    batch = _BATCHES[where.partition(":")[0]]
    times: list[float] = []
    options = PatternTraining(steps=sum(_PROBE), batch=batch, symmetries="none", every=10**6)
    train_pattern(
        source.fields(2, request["seed"], where),
        _shape(request),
        options,
        watch=lambda step: times.append(time.perf_counter()) or False,
    )
    each = max((times[-1] - times[_PROBE[0]]) / (len(times) - 1 - _PROBE[0]), 1e-6)
    plan = {"steps": max(_LEAST_STEPS, round(60 * request["minutes"] / each)), "batch": batch}
    write_json(path, plan)
    return plan
