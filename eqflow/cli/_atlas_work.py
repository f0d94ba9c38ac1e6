"""An atlas from its options to its last word: many rules of one score, measured, sorted, drawn."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import typer

from eqflow.cli import _atlas_picture, _fit_work, _score_source, _words, _world, _world_measure
from eqflow.cli._design_report import value
from eqflow.cli._run_folder import AtlasFolder, write_json
from eqflow.cli._shell import Problem, in_options, usage
from eqflow.cli._words import duration, number

_MOST = 400  # rules
_GOLDEN = math.pi * (3 - math.sqrt(5))


class Mapped(NamedTuple):
    """What the work gives."""

    tensors: None
    about: dict[str, Any]
    report: dict[str, Any]
    frames: list[Path]  # of the worlds in the order of the report
    tracks: list[Any]


def check(run: str | None, given: dict[str, Any]) -> None:
    """The options by themselves."""
    if run is None:
        raise usage("expected RUN, a folder of `eqflow design`, or pretrained:NAME of creatures; see `eqflow atlas -h`")
    if not 1 <= given["rules"] <= _MOST:
        raise usage(f"expected --rules in [1, {_MOST}], got {given['rules']}")
    if given["radius"] not in (0, 1):
        raise usage(f"expected --radius 0 or 1, got {given['radius']}")
    number("--speed", given["speed"], above=0)
    number("--eta", given["eta"], least=0)
    if given["dt"] is not None:
        number("--dt", given["dt"], above=0)
    if not 1 <= given["every"] <= given["steps"] or given["steps"] % given["every"]:
        raise usage(f"expected --every to divide --steps {given['steps']}, got {given['every']}")
    if not 0 <= given["seed"] < 2**64:
        raise usage(f"expected --seed in [0, 2^64), got {given['seed']}")
    _words.size(given["size"])


def stem(run: str) -> str:
    """What the atlas is called by."""
    return run.partition(":")[2] or Path(run).name


def rules(count: int, speed: float, radius: int) -> list[str]:
    """Words of kernels: axes spread evenly over the sphere of colours by the golden angle, or random 3x3 kernels."""
    if radius:
        return [f"random:{seed}:{radius}" for seed in range(count)]
    found = []
    for index in range(count):
        height = 1 - (2 * index + 1) / count
        away, angle = math.sqrt(1 - height * height), index * _GOLDEN
        axis = (away * math.cos(angle), away * math.sin(angle), height)
        found.append("angles:" + ",".join(f"{speed * part:.4f}" for part in axis))
    return found


def go(run: str, given: dict[str, Any], place: Path, where: str, as_json: Path | None, overwrite: bool) -> None:
    """Make the atlas, or find it made; say what is in it."""
    from eqflow.data import DatasetError
    from eqflow.dynamics import Diverged
    from eqflow.dynamics.fingerprint import describe

    stored = _score_source.load(run)
    if stored.pictures is None:
        raise Problem(f"expected the score of creatures, of `eqflow design`, got that of {stored.name} in {run}")
    height, width = _words.size(given["size"])
    if stored.pictures.shape[-1] > min(height, width):
        raise usage(f"expected a world larger than its creatures of {stored.pictures.shape[-1]}, got {given['size']}")
    request = {**given, "weights": describe(stored.denoiser.state_dict())}
    folder, begin = AtlasFolder(place), time.monotonic()
    try:
        folder.claim(request, 3 * height * width * given["rules"] * (given["steps"] // given["every"] + 1), overwrite)
        before = _fit_work.complete(folder)
        report = before or _fit_work.staged(
            folder,
            stored.name,
            where,
            lambda observer: work(stored, request, folder, where, observer),
            lambda out, mapped: _atlas_picture.draw(folder, mapped),
        )
    except ValueError as error:
        raise usage(in_options(error)) from None
    except (DatasetError, Diverged, FloatingPointError, MemoryError) as error:
        raise Problem(in_options(error)) from error
    for world in report["worlds"]:
        typer.echo(_line(world))
    said = "was complete already" if before else f"made in {duration(time.monotonic() - begin)}"
    typer.echo(f"\n{place} {said}: {folder.picture.name}, {folder.tensors.name}, {folder.report.name}")
    if as_json:
        write_json(as_json, report)
        typer.echo(f"wrote {as_json}")
    best = shlex.quote(report["worlds"][0]["kernel"])
    typer.echo(f"next: eqflow rollout {shlex.quote(run)} --kernel {best} --size 256 --batch 1 --every 10 --out best")


def _line(world: dict[str, Any]) -> str:
    return (
        f"{world['name']:<44}speed {value(world['speed'])}  creatures {world['start']} -> {world['end']}  "
        f"match {value(world['match'])}"
    )


def work(
    stored: Any, request: dict[str, Any], folder: AtlasFolder, where: str, observer: Callable[[Any], None]
) -> Mapped:
    """Every rule, then K = 0, from one start with one noise."""
    from eqflow.cli import _sources

    score = _score_source.at(stored, None, False, where)
    start = _world.begin(stored, score, _words.size(request["size"]), "scatter", request["seed"], where)
    words = [*rules(request["rules"], request["speed"], request["radius"]), "none"]
    dt = request["dt"] or (1 - score.alpha) / 4
    worlds, paths, tracks = [], [], []
    for index, word in enumerate(words):
        path = folder.stages / f"{index:03d}.npy"
        _world.follow(
            _world.flow(score, _sources.kernel(word, len(stored.channels)), request["eta"], where),
            start,
            path,
            steps=request["steps"],
            every=request["every"],
            dt=dt,
            seed=request["seed"],
            stage=f"rule {index + 1} of {len(words)}",
            checkpoint=folder.stages / f"{index:03d}.pt",
            observer=observer,
        )
        found, flights = _world_measure.brief(stored, path, dt * request["every"])
        worlds.append({"name": f"{stored.name}/{word}/{request['seed']}", "kernel": word, **found})
        paths.append(path)
        tracks.append(flights)
    order = sorted(range(len(words)), key=lambda index: -(worlds[index]["speed"][0] or 0.0))
    report = {"name": stored.name, "dt": dt, **request, "worlds": [worlds[index] for index in order]}
    return Mapped(None, {}, report, [paths[index] for index in order], [tracks[index] for index in order])
