"""`eqflow rollout`: follow dynamics for many steps, from a closed form, from points, or the ground truth."""

from __future__ import annotations

import re
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from eqflow.cli import _place, _sources
from eqflow.cli._run_folder import RunFolder
from eqflow.cli._shell import Problem, in_options, rank, usage
from eqflow.cli._words import count, duration, number, real, whole

_SYSTEM, _RUN, _FILES = "System", "Run", "Files"


def _option(*names: str, help: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def _whole(*names: str, **more: Any) -> Any:
    return _option(*names, parser=whole, metavar="N", **more)


def _real(*names: str, **more: Any) -> Any:
    return _option(*names, parser=real, metavar="X", **more)


def rollout(
    source: Annotated[
        str | None, typer.Argument(help="gaussian, mixture, points FILE or gray-scott:PRESET.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Argument(help="With points: a .csv, .npy or .hdf5 file.", show_default=False)
    ] = None,
    out: Annotated[Path | None, _option("--out", "-o", help="Folder of the rollout. Required.", panel=_FILES)] = None,
    steps: Annotated[int, _whole("--steps", help="Time steps.", panel=_RUN)] = 1000,
    dt: Annotated[float | None, _real("--dt", help="Time step. Default: 0.01; the preset's.", panel=_RUN)] = None,
    batch: Annotated[int, _whole("--batch", "-n", help="Samples that move at once.", panel=_RUN)] = 64,
    every: Annotated[
        int | None, _whole("--every", help="Keep each EVERY-th state. Default: the first and the last.", panel=_RUN)
    ] = None,
    integrator: Annotated[
        str | None,
        _option("--integrator", help="exact-ou, heun, euler-maruyama or rk4. Default: the best.", panel=_RUN),
    ] = None,
    seed: Annotated[int, _whole("--seed", help="Same seed, same numbers, for any split of the batch.", panel=_RUN)] = 0,
    device: Annotated[
        str, _option("--device", help="auto, cpu or cuda; auto takes a GPU where there is one.", panel=_RUN)
    ] = "auto",
    backend: Annotated[str, _option("--backend", help="auto, or one from `eqflow backends`.", panel=_RUN)] = "auto",
    eta: Annotated[float | None, _real("--eta", help="Pull to the data. Default: 0.1.", panel=_SYSTEM)] = None,
    kernel: Annotated[
        str | None,
        _option(
            "--kernel",
            help="Skew part: rotation:GAMMA, random:SEED[:RADIUS], matrix:'0,-1;1,0' or none. Default: rotation:1.",
            panel=_SYSTEM,
        ),
    ] = None,
    alpha: Annotated[
        float | None, _real("--alpha", help="Points: squared signal, 1 - noise variance. Default: 0.95.", panel=_SYSTEM)
    ] = None,
    means: Annotated[
        str | None, _option("--means", help="Mixture: '-1.5,0;1.5,0', its default.", panel=_SYSTEM)
    ] = None,
    weights: Annotated[
        str | None, _option("--weights", help="Mixture: '0.3,0.7'. Default: equal.", panel=_SYSTEM)
    ] = None,
    covariance: Annotated[
        str | None,
        _option("--covariance", help="'2,0.5;0.5,0.7', or a variance. Default: 1; mixture 0.25.", panel=_SYSTEM),
    ] = None,
    dimension: Annotated[int | None, _whole("--dimension", help="Gaussian. Default: 2.", panel=_SYSTEM)] = None,
    size: Annotated[str | None, _option("--size", help="Gray-Scott: N or HxW. Default: 128.", panel=_SYSTEM)] = None,
    show: Annotated[
        Path | None, _option("--show", help="A picture (.png) or film (.gif, .mp4) at the end.", panel=_FILES)
    ] = None,
    overwrite: Annotated[bool, _option("--overwrite", help="Replace another rollout.", panel=_FILES)] = False,
) -> None:
    """Follow dynamics that keep a density: dx = (K * s + eta s) dt + sqrt(2 eta) dW, or the ground truth.

    The same command goes on where it was stopped, with the same numbers; torchrun splits the samples over ranks.

    \b
    eqflow rollout mixture --steps 2000 --every 20 --out two --show two.png
    eqflow rollout points cloud.csv --alpha 0.98 --kernel rotation:0.7 --out cloud --show cloud.gif --every 10
    eqflow rollout gaussian --covariance '2,0.5;0.5,0.7' --eta 0.4 --dt 0.05 --out gauss
    eqflow rollout gray-scott:wave --steps 5000 --every 50 --out wave --show wave.gif
    """
    given = {name: value for name, value in locals().items() if name not in ("overwrite", "show", "out", "device")}
    this, ranks = rank()
    kind, preset = _kind(source, file, given)
    _check(given, ranks)
    place = _place.folder(out)
    if show:
        _check_show(show, steps, every, overwrite)
    where = _place.device(device, backend)
    samples = range(this * batch // ranks, (this + 1) * batch // ranks)
    made = _source(kind, preset, samples, given, where)
    _go(made, place, given, samples, this, ranks, where, show, overwrite)


_OF = {
    "gaussian": ("covariance", "dimension"),
    "mixture": ("means", "weights", "covariance"),
    "points": ("alpha",),
    "gray-scott": ("size",),
}
_SCORED = ("eta", "kernel", "integrator")


def _kind(source: str | None, file: Path | None, given: dict[str, Any]) -> tuple[str, str]:
    """Which source, the name of a preset, and no option that belongs to another source."""
    kind, _, preset = (source or "").partition(":")
    if kind not in _OF or bool(preset) != (kind == "gray-scott"):
        raise usage(f"expected a source: {_sources.KINDS}, got {source!r}")
    if (file is not None) != (kind == "points"):
        got = "no file" if file is None else f"a file with {source}"
        raise usage(f"expected a file with the source points, and only there, got {got}")
    for option in {name for names in _OF.values() for name in names} | set(_SCORED):
        own = option in _OF[kind] or (option in _SCORED and kind != "gray-scott")
        if given[option] is not None and not own:
            raise usage(f"expected no --{option} with {source}, where it means nothing: leave it out")
    return kind, preset


def _check(given: dict[str, Any], ranks: int) -> None:
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


def _check_show(show: Path, steps: int, every: int | None, overwrite: bool) -> None:
    from eqflow.cli import _films

    try:
        _films.check_target(show, True)
    except Problem as error:
        raise Problem(str(error).replace("--out", "--show"), error.exit_code) from None
    if show.suffix.lower() in _films.FILMS and every is None:
        raise usage(f"expected --every with a film, got none: add for example --every {max(1, steps // 100)}")


def _source(kind: str, preset: str, samples: range, given: dict[str, Any], where: str) -> _sources.Source:
    if kind == "gray-scott":
        return _sources.ground_truth(preset, samples, given["seed"], given["size"], given["backend"])
    import torch

    from eqflow.dynamics import SkewFlow

    score, about = _sources.score(kind, given["file"], given)
    start = score.sample(len(samples), seed=given["seed"], first_sample=samples.start)
    skew = _sources.kernel(given["kernel"], start.shape[1])
    try:
        flow = SkewFlow(
            score.to(torch.device(where)),
            skew.to(where),
            0.1 if given["eta"] is None else given["eta"],
            backend=given["backend"],
        )
    except ValueError as error:
        raise usage("--kernel: " + in_options(error)) from None
    if start.ndim == 2 and skew.shape[-1] > 1:
        raise usage(f"expected a --kernel of radius 0 for points, got {given['kernel']!r}: write random:SEED")
    return _sources.Source(kind, flow, start, about)


def _go(
    source: _sources.Source,
    place: Path,
    given: dict[str, Any],
    samples: range,
    this: int,
    ranks: int,
    where: str,
    show: Path | None,
    overwrite: bool,
) -> None:
    from eqflow.cli import _job, _steps
    from eqflow.data import DatasetError
    from eqflow.dynamics import Diverged, ResumeError
    from eqflow.ops import BackendError

    steps, every = given["steps"], given["every"] or given["steps"]
    dt = (
        given["dt"] or (None if source.name in ("gaussian", "mixture", "points") else source.dynamics.system.dt) or 0.01
    )
    plain = {name: value for name, value in given.items() if name not in ("file", "backend")}
    options = {**plain, "dt": dt, "every": every, "source_data": source.about, "ranks": ranks}
    folder = RunFolder(place, source.name, this)
    meter = _steps.Meter(given["batch"], ranks)
    begin = time.monotonic()
    try:
        _check_step(source, given, dt, samples)
        folder.claim(options, source.start.nbytes * (steps // every + 1) * ranks, overwrite)
        before = folder.frames.exists()
        _job.run(
            lambda observer: _work(source, folder, given, dt, every, samples, where, observer, options),
            _steps.display(meter, source.name, steps, this),
            lambda: _part(meter, place, this, ranks),
        )
    except (ValueError, ResumeError) as error:
        raise usage(_as_options(error)) from None
    except (DatasetError, BackendError, Diverged, FloatingPointError, MemoryError) as error:
        raise Problem((f"rank {this}: " if ranks > 1 else "") + _as_options(error)) from error
    if this:
        return
    seconds = time.monotonic() - begin
    what = f"{count(given['batch'])} samples, {count(steps)} steps, {count(steps // every + 1)} frames"
    if before and not meter.rate:
        typer.echo(f"{place} was complete already: {what}")
    else:
        typer.echo(f"{place}: {what}, {duration(seconds)}" + (f", {meter.words()}" if meter.rate else ""))
    if show:
        from eqflow.cli import _rollout_picture

        _rollout_picture.draw(show, folder.frames, source, every, dt)
        typer.echo(f"wrote {show}")


def _check_step(source: _sources.Source, given: dict[str, Any], dt: float, samples: range) -> None:
    """Everything about the step that can be wrong, before the first file; what is worth a warning is a note."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        source.dynamics.stepper(
            source.start[:1], integrator=given["integrator"], dt=dt, seed=given["seed"], first_sample=samples.start
        )
    if samples.start == 0:
        for warning in found:
            typer.echo(f"note: {_as_options(warning.message)}", err=True)


def _work(
    source: _sources.Source,
    folder: RunFolder,
    given: dict[str, Any],
    dt: float,
    every: int,
    samples: range,
    where: str,
    observer: Any,
    options: dict,
) -> Any:
    from eqflow.cli._steps import Progress
    from eqflow.data.checkpoint import Checkpoint
    from eqflow.data.recorder import Recorder
    from eqflow.dynamics import rollout as run
    from eqflow.dynamics.observers import Watcher

    steps, start = given["steps"], source.start.to(where)
    block = getattr(source.dynamics, "segment", 10)
    recorder = Recorder(
        folder.frames, start, steps=steps, every=every, dt=dt, first_sample=samples.start, about={"options": options}
    )
    with recorder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said already
        return run(
            start,
            source.dynamics,
            steps,
            dt=dt,
            integrator=given["integrator"],
            seed=given["seed"],
            first_sample=samples.start,
            observers=[recorder, Watcher(lambda step, time: observer(Progress(step, steps)), block)],
            checkpoint=Checkpoint(folder.checkpoint, every=block, seconds=5.0),
        )


def _as_options(error: BaseException | Warning) -> str:
    message = in_options(error)
    message = re.sub(r"\bintegrator='([a-z0-9-]+)'", r"--integrator \1", message)
    return re.sub(r"\b(dt|eta)=([0-9.e+-]*[0-9])", r"--\1 \2", message)


def _part(meter: Any, place: Path, this: int, ranks: int) -> None:
    """What is said after Ctrl-C."""
    if this:
        return
    seen = meter.latest
    done = f" at step {count(seen.samples_done)} of {count(seen.samples_total)}" if seen else ""
    command = shlex.join(["eqflow", *(word for word in sys.argv[1:] if word != "--overwrite")])
    again = "give the same torchrun command again" if ranks > 1 else f"run `{command}`"
    typer.echo(f"stopped{done}: at most the last 5 s are lost of {place}; to go on, {again}", err=True)
