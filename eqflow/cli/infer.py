"""`eqflow infer`: the equation of motion behind points without an order, with errors and a test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqflow.cli import _infer_work
from eqflow.cli._fit_request import check_show
from eqflow.cli._options import Columns, Dataset, Json, Threshold, option, real_option, whole_option
from eqflow.cli._run_folder import write_json
from eqflow.cli._shell import Problem, in_options, usage
from eqflow.cli._words import count, number

_MODEL, _FIT, _FILES = "Model", "Fit", "Files"


def infer(
    points: Annotated[
        Path | None,
        typer.Argument(help="A .csv, .npy or .hdf5 file: a row a point, a column a coordinate.", show_default=False),
    ] = None,
    library: Annotated[
        str | None,
        option(
            "--library",
            help="Candidate terms: polynomial:DEGREE, trigonometric:HARMONICS, or both joined by +.",
            panel=_MODEL,
        ),
    ] = None,
    system: Annotated[
        str | None, option("--system", help="A system with unknown parameters: lorenz, gene-network.", panel=_MODEL)
    ] = None,
    noise: Annotated[
        str | None,
        option(
            "--noise",
            metavar="D",
            help="Diffusion: noise is sqrt(2 D) dW. A number, one a coordinate as 0.1,0.2, or unknown.",
            panel=_MODEL,
        ),
    ] = None,
    times: Annotated[
        str | None,
        option("--times", metavar="COLUMN", help="The column that holds the time of each point.", panel=_MODEL),
    ] = None,
    columns: Columns = None,
    dataset: Dataset = None,
    threshold: Threshold = 4.0,
    every_term: Annotated[bool, option("--every-term", help="Keep every candidate term.", panel=_FIT)] = False,
    functions: Annotated[
        int | None,
        whole_option("--functions", help="Test functions. Default: 40, or 3 a term.", panel=_FIT),
    ] = None,
    window: Annotated[
        str | None,
        option(
            "--window",
            metavar="NAME=LOW:HIGH,…",
            help="The box in which points were seen, such as x=0:30,z=10: (no number: no edge).",
            panel=_FIT,
        ),
    ] = None,
    bandwidth: Annotated[
        float,
        real_option("--bandwidth", help="Of the functions in a window, in standard deviations.", panel=_FIT),
    ] = 0.5,
    seed: Annotated[int, whole_option("--seed", help="Of the functions.", panel=_FIT)] = 0,
    as_json: Json = None,
    show: Annotated[
        Path | None,
        option("--show", metavar="FILE", help="Draw coefficients, errors and the test: a .png.", panel=_FILES),
    ] = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace the picture.", panel=_FILES)] = False,
) -> None:
    """Find the equation dx = f(x) dt + sqrt(2 D) dW that keeps the points in their distribution.

    The points need no order and no time stamps. Prints the equations with errors in units of the last digit, whether
    the points agree with the model, and what they cannot tell. Exit code 1 where they contradict the model.

    \b
    eqflow infer cloud.csv --library polynomial:2 --noise 10
    eqflow infer lorenz.npy --system lorenz --show lorenz.png
    eqflow infer lorenz.npy --system lorenz --noise 10 --window x=0:
    eqflow infer cells.csv --library polynomial:1 --noise unknown --times hour --json cells.json
    """
    if points is None:
        raise usage("expected a file of points; see `eqflow infer --help`")
    if (library is None) == (system is None):
        raise usage("expected one of --library, such as polynomial:2, and --system, such as lorenz")
    number("--threshold", threshold, above=0)
    number("--bandwidth", bandwidth, above=0)
    if show is not None:
        check_show(show, overwrite)
    if functions is not None and functions < 1:
        raise usage(f"expected --functions from 1 up, got {functions}")
    if not 0 <= seed < 2**64:
        raise usage(f"expected --seed in [0, 2^64), got {seed}")
    request = _infer_work.Request(
        library, system, noise, times, threshold, every_term, functions, seed, window, bandwidth
    )
    try:
        answer = _infer_work.answer(_infer_work.read(points, dataset, columns, times), request)
    except ValueError as error:
        raise Problem(in_options(error)) from None
    typer.echo("\n".join(answer.lines))
    if as_json is not None:
        write_json(as_json, answer.facts)
    if show is not None:
        from eqflow.cli import _infer_picture

        title = f"{points.name}: {count(answer.facts['points'])} points, {system or library}"
        _infer_picture.draw(show, title, answer.fits, _infer_picture.known(system))
        typer.echo(f"wrote {show}")
    raise typer.Exit(1 if answer.contradicted else 0)
