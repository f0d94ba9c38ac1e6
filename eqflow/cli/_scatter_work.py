"""Scattered images from their options to a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer

from eqflow.cli import _colour, _design_request, _design_work, _films, _job, _stages, _words
from eqflow.cli._shell import Problem, in_options, usage
from eqflow.cli._words import bytes_, count, duration

_CHUNK, _SHOWN = 64, 8


def go(creatures: list[Any], given: dict[str, Any], out: Path | None, show: Path | None, overwrite: bool) -> None:
    """Write the images, whole or not at all; say how many there are."""
    name = "-".join(creature.name for creature in creatures)
    out = out or Path(f"{name}.npy")
    if out.suffix.lower() != ".npy" or out.is_dir() or not out.parent.is_dir():
        raise usage(f"expected --out to be a .npy file in a folder that exists, got {str(out)!r}")
    if out.exists() and not overwrite:
        raise Problem(f"{out} exists already: add --overwrite to replace it, or choose another --out")
    if show and show.suffix.lower() not in _films.STILL:
        raise usage(f"expected --show to end in .png, got {str(show)!r}")
    size = _words.size(given["size"])
    _design_request.check_fit(creatures, given, "size", size)
    begin, meter = time.monotonic(), _stages.Meter()
    try:
        placed = _job.run(
            lambda observer: _write(creatures, given, size, out, observer),
            _stages.display(meter, name),
            lambda: typer.echo(f"stopped: nothing of {out} was kept; to go on, run the same command", err=True),
        )
    except (ValueError, MemoryError) as error:
        raise usage(in_options(error)) from None
    typer.echo(
        f"{out}: {count(given['samples'])} images of {size[0]} x {size[1]}, {placed / given['samples']:.1f} creatures "
        f"on each, {bytes_(out.stat().st_size)}, {duration(time.monotonic() - begin)}"
    )
    if show:
        import numpy as np

        some = np.load(out, mmap_mode="r")[:_SHOWN]
        factor = max(1, _colour.zoom(*size) / 2)
        sheet = _colour.sheet([_colour.enlarged(image.transpose(1, 2, 0), factor) for image in some], _SHOWN // 2)
        _colour.save_still(show, sheet, name)
        typer.echo(f"wrote {show}")


def _write(creatures: list[Any], given: dict[str, Any], size: tuple[int, int], out: Path, observer: Any) -> int:
    """The number of creatures on all images."""
    import numpy as np

    from eqflow import ops

    pictures = _design_work.pictures_of(creatures)
    options = _design_request.scatter_options(given, creatures)
    total = 0
    with _films._whole(out) as part:
        shape = (given["samples"], 3, *size)
        images = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        for first in range(0, len(images), _CHUNK):
            observer(_stages.Progress("scatter", first, len(images), "images"))
            rows = images[first : first + _CHUNK]
            found = ops.scatter(
                pictures, len(rows), size, seed=given["seed"], first_sample=given["first"] + first, **options
            )
            rows[:] = ((found.images.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
            total += int(found.placed.sum())
        images.flush()
    return total
