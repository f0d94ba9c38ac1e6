"""`eqflow discover`: the partial differential equation behind still pictures, with errors and a test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqflow.cli import _discover_work
from eqflow.cli._options import Json, Threshold, option, real_option, whole_option
from eqflow.cli._run_folder import write_json
from eqflow.cli._shell import Problem, in_options, usage
from eqflow.cli._words import number

_MODEL, _DATA, _FIT, _FILES = "Equation", "Pictures", "Fit", "Files"


def discover(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(help="A dataset, a .npy, .npz or .hdf5 file, PNG or TIFF files, or a folder of them."),
    ] = None,
    library: Annotated[
        str,
        option(
            "--library",
            help="Terms of every equation, joined by +: polynomial:DEGREE, laplacian[:DEGREE], bilaplacian[:DEGREE], "
            "squared-gradient, advection[:DEGREE], or a formula of u, u_x, u_y, lap_u.",
            panel=_MODEL,
        ),
    ] = "polynomial:3+laplacian",
    equation: Annotated[
        list[str] | None,
        option("--equation", metavar="U:TERMS", help="Terms of one equation: 'u: 1, u, u v^2, lap u'.", panel=_MODEL),
    ] = None,
    unit: Annotated[
        str | None,
        option("--unit", metavar="U:TERM=X", help="What sets the unit of time: 'u: u v^2 = -1'.", panel=_MODEL),
    ] = None,
    noise: Annotated[
        str | None,
        option(
            "--noise",
            metavar="D",
            help="White noise sqrt(2 D) dW in every cell: a number, one a channel as 0.1,0, or unknown.",
            panel=_MODEL,
        ),
    ] = None,
    step: Annotated[
        str | None,
        option(
            "--step",
            help="continuous, euler (of step 1) or euler:DT, the map x + DT f(x). Default: the dataset's own.",
            panel=_DATA,
        ),
    ] = None,
    stencil: Annotated[
        str | None, option("--stencil", help="5-point or 9-point. Default: the dataset's own.", panel=_DATA)
    ] = None,
    spacing: Annotated[
        float | None, real_option("--spacing", help="Of the cells. Default: the dataset's, or 1.", panel=_DATA)
    ] = None,
    crop: Annotated[bool, option("--crop", help="The pictures are parts of larger ones.", panel=_DATA)] = False,
    samples: Annotated[int | None, whole_option("--samples", "-n", help="Take so many pictures.", panel=_DATA)] = None,
    names: Annotated[
        str | None, option("--names", help="Of the channels: u,v. Default: the file's own.", panel=_DATA)
    ] = None,
    functionals: Annotated[
        str | None,
        option(
            "--functionals",
            metavar="N[:M]",
            help="Degree of the test functionals, and of the factors of pairs. Default: three functionals a term.",
            panel=_FIT,
        ),
    ] = None,
    threshold: Threshold = 4.0,
    simulate: Annotated[
        int | None,
        whole_option(
            "--simulate", help="Run the found equation for N steps from the pictures and compare.", panel=_FIT
        ),
    ] = None,
    seed: Annotated[int, whole_option("--seed", help="Of the noise of --simulate.", panel=_FIT)] = 0,
    show: Annotated[
        Path | None,
        option("--show", metavar="FILE", help="Draw the pictures and how they move, as PNG.", panel=_FILES),
    ] = None,
    film: Annotated[
        Path | None,
        option("--film", metavar="FILE", help="Film of --simulate, as GIF or MP4.", panel=_FILES),
    ] = None,
    as_json: Json = None,
) -> None:
    """Find the equation du/dt = f(u, Δu, ...) that keeps an ensemble of pictures as it is.

    The pictures need no order and no time stamps, but must be of a pattern that moves and has run for long; some
    hundred are enough. Prints the equations with errors in units of the last digit, whether the pictures agree with
    them, and what still pictures cannot tell. Exit code 1 where they contradict every equation of the library.

    \b
    eqflow generate wave --samples 256 --out wave && eqflow discover wave
    eqflow discover wave --simulate 2000 --film wave.gif
    eqflow discover cells/ --names u --library polynomial:3+laplacian+bilaplacian
    eqflow discover maze --equation "u: 1, u, u v^2, lap u" --equation "v: v, u v^2, lap v"
    """
    from eqflow.data import DatasetError

    if not pictures:
        raise usage("expected a dataset or pictures; see `eqflow discover --help`")
    if show is not None and show.suffix.lower() != ".png":
        raise usage(f"expected --show FILE.png, got {str(show)!r}")
    if film is not None:
        _check_film(film, simulate)
    number("--threshold", threshold, above=0)
    if spacing is not None:
        number("--spacing", spacing, above=0)
    if crop and simulate is not None:
        raise usage("expected whole, periodic pictures for --simulate, got --crop: leave one of the two out")
    if not 0 <= seed < 2**64:
        raise usage(f"expected --seed in [0, 2^64), got {seed}")
    for name, value in (("--samples", samples), ("--simulate", simulate)):
        if value is not None and value < 1:
            raise usage(f"expected {name} from 1 up, got {value}")
    request = _discover_work.Request(
        library, tuple(equation or ()), unit, noise, step, stencil, spacing, crop, functionals, threshold
    )
    try:
        data = _discover_work.read(pictures, samples, names)
        answer = _discover_work.answer(data, request)
        typer.echo("\n".join(answer.lines))
        simulated = None
        if simulate is not None:
            from eqflow.cli import _discover_simulate

            simulated = _discover_simulate.run(data, answer, simulate, seed)
            typer.echo("\n".join(simulated.lines))
    except (ValueError, DatasetError) as error:
        raise Problem(in_options(error)) from None
    if as_json is not None:
        write_json(as_json, answer.facts | ({"simulation": simulated.facts} if simulated else {}))
    if film is not None:
        _discover_simulate.save_film(film, data, simulated)
        typer.echo(f"wrote {film}")
    if show is not None:
        from eqflow.cli import _discover_picture

        _discover_picture.draw(show, data, answer, simulated)
    raise typer.Exit(1 if answer.contradicted else 0)


def _check_film(film: Path, simulate: int | None) -> None:
    from eqflow.cli import _films

    if film.suffix.lower() not in _films.FILMS:
        raise usage(f"expected --film FILE.gif or FILE.mp4, got {str(film)!r}")
    if simulate is None:
        raise usage("expected --simulate N with --film, which shows the found equation at work: add it")
    if film.is_dir() or not film.parent.is_dir():
        raise usage(f"expected --film to be a file in a folder that exists, got {film}: make it, or choose another")
    _films.check_codec(film)
