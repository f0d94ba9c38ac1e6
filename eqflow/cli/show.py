"""`eqflow show`: a picture of a dataset, a fit, a density, a score or a rollout, or a film."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from eqflow.cli import _run_info
from eqflow.cli._shell import Problem, choice, one_line, usage
from eqflow.cli._words import count, real, whole

TILES = 24  # 6 x 4 on a sheet
MOST_TILES = 400  # of a sweep that is shown whole
GIF_WIDTH = 400  # pixels; a GIF has no compression to speak of


def show(
    folder: Annotated[Path, typer.Argument(help="The folder.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A .png, or a .gif or .mp4 of the time. Default: FOLDER's name.png here."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", "-n", parser=whole, metavar="N", help="How many. Default: 24, a whole sweep, or 1 in a film."
        ),
    ] = None,
    first: Annotated[int, typer.Option("--first", parser=whole, metavar="N", help="The first sample.")] = 0,
    field: Annotated[str, typer.Option("--field", help="u or v.")] = "v",
    colormap: Annotated[str, typer.Option("--colormap", help="One of matplotlib's.")] = "magma",
    rate: Annotated[
        float, typer.Option("--rate", parser=real, metavar="X", help="Frames per second of a film.")
    ] = 25.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of that name.")] = False,
) -> None:
    """A picture of a dataset, or a film of its trajectories. A file that exists is replaced with --overwrite only.

    Of a fit, a density, a score and a rollout too, without the options that choose among samples and fields.

    \b
    eqflow show wave
    eqflow show wave --samples 6 --field u --colormap viridis --out six.png
    eqflow show growth --first 3 --out growth.mp4
    """
    choice("--field", field, ("u", "v"))
    if samples is not None and samples < 1:
        raise usage(f"expected --samples from 1 up, got {samples}")
    if first < 0:
        raise usage(f"expected --first from 0 up, got {first}")
    if not 1 <= rate <= 100:
        raise usage(f"expected --rate in [1, 100] frames per second, got {rate:g}")
    from eqflow.cli import _films

    target = out or Path(f"{folder.resolve().name or 'picture'}.png")
    _films.check_target(target, overwrite)
    if kind := _run_info.kind(folder):
        _run_info.show(folder, kind, target)
        typer.echo(f"wrote {target}")
        return
    _check_colormap(colormap)
    film = target.suffix.lower() in _films.FILMS
    _draw(folder, target, samples, first, field, colormap, rate if film else None)
    typer.echo(f"wrote {target}")


def _check_colormap(name: str) -> None:
    import difflib

    from matplotlib import colormaps

    if name not in colormaps:
        near = difflib.get_close_matches(name, colormaps, 3, 0.5)
        guess = f"did you mean {' or '.join(near)}?" if near else "try magma, viridis, cividis or gray"
        raise usage(f"expected --colormap to be one of matplotlib's, got {name!r}: {guess}")


def _draw(
    folder: Path, target: Path, samples: int | None, first: int, field: str, colormap: str, rate: float | None
) -> None:
    import numpy

    from eqflow.cli import _captions, _films, _pictures

    dataset = _open(folder, "all" if rate else "last")
    recipe = dataset.recipe
    if rate and recipe.frames < 2:
        raise usage(
            f"expected trajectories to make a film of, but {folder} holds one frame of each sample: write a .png, or "
            "generate with --every"
        )
    points = _captions.points(recipe)
    wanted = samples or (1 if rate else points if 1 < points <= MOST_TILES else TILES)
    chosen = range(first, min(first + wanted, len(dataset)))
    if not chosen:
        raise usage(f"expected --first below {len(dataset)}, the number of samples, got {first}")
    channel = "uv".index(field)
    states = [dataset[sample][..., channel, :, :].numpy() for sample in _counted(chosen, "reading")]
    fields = numpy.stack(states, -3)  # [samples, height, width], of a film [frames, samples, height, width]
    axes = None if rate else _captions.map_axes(recipe, chosen)
    words = _pictures.Words(
        title="Gray-Scott" if recipe.name == "custom" else recipe.name,
        details=_captions.details(recipe, "" if rate else f"step {count(recipe.steps)}"),
        field=field,
        limits=_pictures.limits(fields),
        tiles=() if axes else _captions.tile_labels(recipe, chosen),
        rows=axes[0] if axes else (),
        columns=axes[1] if axes else (),
        stamp=f"step {count(recipe.steps)}" if rate else "",
    )
    pixels = GIF_WIDTH if target.suffix.lower() == ".gif" else _pictures.WIDTH
    columns = len(axes[1]) if axes else None
    sheet = _pictures.Sheet(len(chosen), recipe.height, recipe.width, words, columns, pixels)
    palette = _pictures.palette(colormap)
    if rate:
        frames = _counted(list(enumerate(fields)), "drawing")
        drawings = (sheet.draw(tiles, f"step {count(number * recipe.every)}") for number, tiles in frames)
        _films.save_film(target, drawings, palette, rate)
    else:
        _films.save_still(target, sheet.draw(fields), palette, "  ".join((words.title, *words.details, field)))


def _open(folder: Path, frames: str) -> Any:
    from eqflow.data import DatasetError, Snapshots

    try:
        return Snapshots(folder, frames=frames)
    except DatasetError as error:
        raise Problem(one_line(error)) from None


def _counted(things: Sequence[Any], what: str) -> Iterable[Any]:
    """The same things, with a bar on a terminal."""
    if not sys.stderr.isatty() or len(things) < 2:
        return things
    from rich.console import Console
    from rich.progress import track

    return track(things, what, console=Console(stderr=True), transient=True)
