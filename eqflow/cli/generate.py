"""`eqflow generate`: simulate an ensemble and write it as a dataset."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from eqflow.cli import _place, _request
from eqflow.cli._options import Device, option, real_option, whole_option
from eqflow.cli._shell import Problem, in_options, rank
from eqflow.cli._words import bytes_, count, duration

_SYSTEM, _RUN, _FILES = "System", "Run", "Files"


def generate(
    preset: Annotated[str | None, typer.Argument(help="A name from `eqflow presets`, such as wave.")] = None,
    out: Annotated[Path | None, option("--out", "-o", help="Folder of the dataset. Required.", panel=_FILES)] = None,
    samples: Annotated[
        int | None, whole_option("--samples", "-n", help="Default: 64, or one for each point of a sweep.", panel=_RUN)
    ] = None,
    size: Annotated[str | None, option("--size", help="Grid: N or HxW. Default: 128.", panel=_RUN)] = None,
    steps: Annotated[int | None, whole_option("--steps", help="Time steps. Default: 10000.", panel=_RUN)] = None,
    every: Annotated[
        int | None, whole_option("--every", help="Keep each EVERY-th state, not the last alone.", panel=_RUN)
    ] = None,
    feed: Annotated[float | None, real_option("--feed", help="F; changes the preset's.", panel=_SYSTEM)] = None,
    kill: Annotated[float | None, real_option("--kill", help="k; changes the preset's.", panel=_SYSTEM)] = None,
    diffusion_u: Annotated[
        float | None, real_option("--diffusion-u", help="D_u; the preset's, or 0.16.", panel=_SYSTEM)
    ] = None,
    diffusion_v: Annotated[
        float | None, real_option("--diffusion-v", help="D_v; the preset's, or 0.08.", panel=_SYSTEM)
    ] = None,
    dt: Annotated[float | None, real_option("--dt", help="Time step; the preset's, or 1.", panel=_SYSTEM)] = None,
    dx: Annotated[float | None, real_option("--dx", help="Grid spacing; the preset's, or 1.", panel=_SYSTEM)] = None,
    stencil: Annotated[str | None, option("--stencil", help="5-point, or 9-point (isotropic).", panel=_SYSTEM)] = None,
    sweep: Annotated[
        list[str] | None,
        option(
            "--sweep",
            metavar="NAME=A:B:N",
            help="N values from A to B. Several sweeps form a grid; sample i takes point i % points.",
            panel=_SYSTEM,
        ),
    ] = None,
    initial: Annotated[
        str | None,
        option("--initial", help="Start: discs (the default), squares, square, blobs or fourier.", panel=_RUN),
    ] = None,
    seed: Annotated[
        int | None, whole_option("--seed", help="Same seed, same files, on any machine. Default: 0.", panel=_RUN)
    ] = None,
    device: Device = "auto",
    backend: Annotated[str, option("--backend", help="auto, or one from `eqflow backends`.", panel=_RUN)] = "auto",
    shard_size: Annotated[
        str | None, option("--shard-size", help="Per file: 256MB, or a number of samples.", panel=_FILES)
    ] = None,
    overwrite: Annotated[
        bool, option("--overwrite", help="Replace another dataset in that folder.", panel=_FILES)
    ] = False,
    keep_dead: Annotated[
        bool | None,
        option(
            "--keep-dead/--redraw-dead",
            help="Store samples that end uniform, or start them again. Default: again, but stored in a sweep.",
            panel=_RUN,
        ),
    ] = None,
) -> None:
    """Simulate an ensemble and write it as a dataset. The same command again goes on where it was stopped.

    \b
    eqflow generate wave --samples 1024 --out wave
    eqflow generate maze --steps 4000 --every 40 --size 256 --out growth
    eqflow generate --sweep feed=0.01:0.06:11 --sweep kill=0.045:0.065:9 --out map
    torchrun --nproc-per-node 4 -m eqflow generate wave -n 65536 --out big
    """
    this, ranks = rank()
    folder = _place.folder(out)
    recipe = _request.recipe(
        folder, preset=preset, samples=samples, size=size, steps=steps, every=every, sweep=sweep or None,
        initial=initial, seed=seed, shard_size=shard_size, keep_dead=keep_dead, feed=feed, kill=kill,
        diffusion_u=diffusion_u, diffusion_v=diffusion_v, dt=dt, dx=dx, stencil=stencil,
    )  # fmt: skip
    where = _place.device(device, backend)
    overwrite = _place.claim(recipe, folder, overwrite)
    _run(recipe, folder, device=where, backend=backend, rank=this, ranks=ranks, overwrite=overwrite)


def _run(recipe: Any, folder: Path, *, rank: int, ranks: int, **machine: Any) -> None:
    from eqflow.cli import _job, _progress
    from eqflow.data import DatasetError, generate
    from eqflow.ops import BackendError

    if rank == 0 and ranks > recipe.shards:
        note = (
            f"note: {recipe.shards} files for {ranks} ranks, so some have nothing to do: a smaller --shard-size helps"
        )
        typer.echo(note, err=True)
    meter = _progress.Meter(recipe.steps * recipe.height * recipe.width, ranks)
    command = _command(sys.argv[1:])
    try:
        summary = _job.run(
            lambda observer: generate(
                recipe, folder, rank=rank, ranks=ranks, observer=observer, command=command, **machine
            ),
            _progress.display(meter, recipe.name, recipe.samples, rank),
            lambda: _part(meter, folder, rank, ranks),
        )
    except (DatasetError, BackendError, FloatingPointError, MemoryError, RuntimeError) as error:
        if type(error) is RuntimeError and "memory" not in str(error):
            raise
        raise Problem((f"rank {rank}: " if ranks > 1 else "") + in_options(error)) from error
    if rank == 0:
        _tell(summary, recipe, folder, ranks)


def _command(words: list[str]) -> str:
    """The command line, without what would throw away what is there."""
    return shlex.join(["eqflow", *(word for word in words if word != "--overwrite")])


def _part(meter: Any, folder: Path, rank: int, ranks: int) -> None:
    """What is said after Ctrl-C."""
    if rank:
        return
    progress = meter.latest
    done = f"{progress.shards_done} of {progress.shards_total} files are" if progress else "what is finished is"
    again = "give the same torchrun command again" if ranks > 1 else f"run `{_command(sys.argv[1:])}`"
    typer.echo(f"stopped: {done} safe in {folder}; to go on, {again}", err=True)


def _tell(summary: Any, recipe: Any, folder: Path, ranks: int) -> None:
    """The last words: what was made, how fast, where it is, what next."""
    frames = f" of {count(recipe.frames)} frames" if recipe.frames > 1 else ""
    files = f"{count(summary.shards)} file{'s' if summary.shards != 1 else ''}"
    what = f"{count(summary.samples)} samples{frames}, {bytes_(summary.bytes)} in {files}"
    dead = [f"{count(summary.redrawn)} redrawn"] if summary.redrawn else []
    dead += [f"{count(summary.dead)} dead"] if summary.dead else []
    if summary.already_complete:
        typer.echo(f"{folder} was complete already: " + ", ".join([what, *dead]))
    else:
        rate = summary.cell_updates / max(summary.seconds, 1e-9) / 1e9
        speed = f"{duration(summary.seconds)}, {rate:.3g} Gcell-updates/s" + (" on rank 0" if ranks > 1 else "")
        kept = summary.shards - summary.shards_made
        before = [f"{count(kept)} of the files were there before"] if kept and ranks == 1 else []
        typer.echo(f"{folder}: " + ", ".join([what, speed, *dead, *before]))
    typer.echo(f"next: eqflow show {shlex.quote(str(folder))}")
