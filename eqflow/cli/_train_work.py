"""A training from its options to its last word: what is asked, how it is trained, what is said of it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import typer

from eqflow.cli import _fit_work, _stages, _train_report
from eqflow.cli._run_folder import ScoreFolder
from eqflow.cli._shell import Problem, choice, in_options, usage
from eqflow.cli._train_source import HELD_OUT, Source, preset
from eqflow.cli._words import duration, number, real

_SECONDS = 5.0  # at most so much is lost
_REFERENCE = 1024  # fields of the training that the Wiener filter is made of
_REFERENCE_SIMULATED = 512
_STARTS = 64  # fields that are kept for rollouts where no simulator makes them
_OF_SYSTEM = ("size", "simulated")


class Trained(NamedTuple):
    """What a training gives."""

    tensors: dict[str, Any]
    about: dict[str, Any]  # how to read the tensors
    report: dict[str, Any]
    denoiser: Any
    apart: Any  # fields that it has not seen


def check(given: dict[str, Any], data: Path | None, ranks: int) -> None:
    """The options by themselves."""
    if (data is None) == (given["system"] is None):
        got = "neither" if data is None else "both"
        raise usage(f"expected a dataset, or --system gray-scott:PRESET, got {got}")
    for name in _OF_SYSTEM if data is not None else ("samples",):
        if given[name] is not None:
            option = {"simulated": "simulated-steps"}.get(name, name)
            raise usage(f"expected no --{option} with {data or '--system'}, where it means nothing: leave it out")
    for name in ("samples", "held_out", "width", "steps", "simulated"):
        if given[name] is not None and given[name] < 1:
            option = {"simulated": "simulated-steps"}.get(name, name.replace("_", "-"))
            raise usage(f"expected --{option} from 1 up, got {given[name]}")
    if given["batch"] < ranks:
        raise usage(f"expected --batch from {ranks}, one field a rank, got {given['batch']}")
    if not 0 <= given["seed"] < 2**64:
        raise usage(f"expected --seed in [0, 2^64), got {given['seed']}")
    number("--rate", given["rate"], above=0)
    choice("--network", given["network"], ("local", "unet"))
    choice("--precondition", given["precondition"], ("edm", "v", "x0"))
    if given["symmetries"] is not None:
        choice("--symmetries", given["symmetries"], ("square", "flips", "none"))
    if given["precision"] is not None:
        choice("--precision", given["precision"], ("bfloat16", "float32"))
    shape(given, 2)
    if given["system"] is not None:
        preset(given["system"], "--system")


def shape(given: dict[str, Any], channels: int) -> Any:
    """The `PatternShape` of the options."""
    from eqflow.score import PatternShape
    from eqflow.score.pattern_shape import ALPHA

    try:
        dilations = tuple(int(word) for word in given["dilations"].split(","))
    except ValueError:
        raise usage(f"expected --dilations as whole numbers such as 1,2,4,2,1, got {given['dilations']!r}") from None
    text = given["alpha"]
    try:
        alpha = None if text == "all" else ALPHA if text is None else real(text)
    except typer.BadParameter:
        raise usage(f"expected --alpha as a number in (0, 1), or all, got {text!r}") from None
    try:
        return PatternShape(
            channels,
            dilations=dilations,
            alpha=alpha,
            **{name: given[name] for name in ("network", "width", "precondition", "conservative")},
        )
    except ValueError as error:
        raise usage(in_options(error)) from None


def resolve(given: dict[str, Any], source: Source) -> dict[str, Any]:
    """Everything that decides the score, as plain values; what these data do not allow is refused."""
    samples = None if source.values is None else len(source.values)
    if samples is not None and samples < 2:
        raise Problem(f"expected two fields or more to learn from, got {samples}: one says nothing about a density")
    held_out = given["held_out"] or (HELD_OUT if samples is None else max(1, min(HELD_OUT, samples // 9)))
    if samples is not None and held_out >= samples:
        raise usage(f"expected --held-out below the {samples} fields there are, got {held_out}")
    square = source.size[0] == source.size[1]
    if given["symmetries"] == "square" and not square:
        raise usage(f"expected a square grid with --symmetries square, got {_grid(source)}: take flips")
    if given["network"] == "unet" and any(side % 4 for side in source.size):
        raise usage(
            f"expected sides divisible by 4 with --network unet, which halves them twice, got {_grid(source)}: take "
            "--network local"
        )
    return {
        "data": source.about,
        "name": source.name,
        "names": list(source.names),
        "offset": source.offset,
        "factor": source.factor,
        "held_out": held_out,
        "shape": shape(given, len(source.names)).config(),
        "symmetries": given["symmetries"] or ("square" if square else "flips"),
        **{name: given[name] for name in ("steps", "batch", "rate", "precision", "compile", "seed")},
    }


def _grid(source: Source) -> str:
    return " x ".join(map(str, source.size))


def go(
    source: Source,
    request: dict[str, Any],
    place: Path,
    where: str,
    this: int,
    ranks: int,
    show: Path | None,
    as_json: Path | None,
    overwrite: bool,
) -> None:
    """Train, or find it done; report, draw."""
    from eqflow.cli import _train_picture
    from eqflow.cli._ranks import together
    from eqflow.data import DatasetError

    folder, begin = ScoreFolder(place), time.monotonic()
    meter = _train_report.Meter(request["batch"])
    try:
        with together(this, ranks, where) as barrier:
            if this == 0:
                for note in source.notes:
                    typer.echo(f"note: {in_options(note)}", err=True)
                folder.claim({**request, "ranks": ranks}, 2**23, overwrite)
            barrier()
            before = _fit_work.complete(folder)
            if before is None and this:
                train(source, request, folder.stages, where, meter, lambda _: None, None)
            report = before or (None if this else _fit_work.staged(
                folder,
                source.name,
                where,
                lambda observer: train(source, request, folder.stages, where, meter, observer, _SECONDS),
                lambda out, trained: _train_picture.draw(out, source, trained),
                meter,
            ))  # fmt: skip
    except ValueError as error:
        raise usage(in_options(error)) from None
    except (DatasetError, FloatingPointError, ImportError, MemoryError) as error:
        raise Problem(in_options(error)) from error
    if this:
        return
    typer.echo("\n".join(_train_report.lines(report)))
    said = "was complete already" if before else f"trained in {duration(time.monotonic() - begin)}"
    typer.echo(f"\n{place} {said}: {folder.picture.name}, {folder.tensors.name}, {folder.report.name}")
    _fit_work.copies(folder, report, show, as_json)
    path = shlex.quote(str(place))
    typer.echo(f"next: eqflow rollout {path} --steps 1000 --every 10 --out {path}-path --show {path}-path.gif")


def train(
    source: Source,
    request: dict[str, Any],
    stages: Path,
    where: str,
    meter: Any,
    observer: Callable,
    seconds: float | None,
) -> Trained:
    """The training itself; without `seconds` nothing is written."""
    from eqflow.cli import _train_quality
    from eqflow.data.checkpoint import Checkpoint
    from eqflow.metrics import Wiener
    from eqflow.score import PatternShape, PatternTraining, about_score, train_pattern
    from eqflow.score.pattern_shape import ALPHA

    begin = time.monotonic()
    observer(_stages.Progress("data", 0, 1, "fields"))
    fields = source.fields(request["held_out"], request["seed"], where)
    shape = PatternShape.from_config(request["shape"])
    options = ("steps", "batch", "rate", "precision", "compile", "seed", "symmetries")
    training = PatternTraining(**{name: request[name] for name in options})
    reference = fields.reference(_REFERENCE_SIMULATED if source.values is None else _REFERENCE)
    alpha = shape.alpha or ALPHA
    meter.wiener = float(Wiener.fit(reference, ((1 - alpha) / alpha) ** 0.5).error.mean())
    store = Checkpoint(stages / "training.pt", seconds=seconds or 0.0)
    state = store.load()

    def watch(step: int) -> bool:
        observer(_stages.Progress("train", step, training.steps, "steps"))
        return seconds is not None and store.due()

    fit = train_pattern(
        fields,
        shape,
        training,
        state=state and {name: tensor.to(where) for name, tensor in state.items()},
        save=lambda state: store.save(state) if seconds is not None and store.due() else None,
        progress=meter.look,
        watch=watch,
    )
    observer(_stages.Progress("measure", 0, 1, "reports"))
    report = {
        "name": source.name,
        "channels": list(source.names),
        "size": list(source.size),
        "samples": None if source.values is None else len(source.values),
        "system": source.system,
        **{name: request[name] for name in ("held_out", "shape", *options)},
        **_train_quality.measure(fit.denoiser, alpha, reference, fields.apart, request["seed"]),
        "history": fit.history.tolist(),
        "seconds": round(time.monotonic() - begin, 2),
    }
    tensors, about = about_score(
        fit.denoiser,
        name=source.name,
        channels=list(source.names),
        offset=source.offset,
        factor=source.factor,
        size=source.size,
        system=source.system,
        apart=fields.apart[:_STARTS],
        pictures=source.pictures,
        **({} if source.pictures is None else {"scatter": source.about["scatter"]}),
    )
    return Trained(tensors, about, report, fit.denoiser, fields.apart)
