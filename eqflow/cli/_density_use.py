"""What `eqflow cluster` and `eqflow denoise` share: their checks, and the files of points that they write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from eqflow.cli import _fit_request
from eqflow.cli._shell import Problem, usage
from eqflow.cli._words import number

ENDINGS = (".csv", ".npy")

Run = Annotated[Path | None, typer.Argument(help="The folder that `eqflow density` made.", show_default=False)]
Points = Annotated[
    Path | None, typer.Argument(help="A .csv, .npy or .hdf5 file. Default: the points of RUN.", show_default=False)
]


def check(
    command: str,
    run: Path | None,
    file: Path | None,
    given: dict[str, str | None],
    temperature: float,
    steps: int,
    out: Path | None,
    show: Path | None,
    overwrite: bool,
) -> None:
    """All that can be wrong with the options."""
    if run is None:
        raise usage(f"expected RUN, the folder of a density; see `eqflow {command} --help`")
    for name, value in given.items():
        if value is not None and file is None:
            raise usage(f"expected --{name} with a file of points only: leave it out, or give the file after RUN")
    number("--temperature", temperature, above=0)
    if steps < 1:
        raise usage(f"expected --steps from 1 up, got {steps}")
    if out is not None:
        if out.suffix.lower() not in ENDINGS:
            raise usage(f"expected --out to end in .csv or .npy, got {str(out)!r}")
        if out.exists() and not overwrite:
            raise Problem(f"{out} exists already: add --overwrite to replace it, or choose another --out")
    if show is not None:
        _fit_request.check_show(show, overwrite)


def write(out: Path, names: Sequence[str], columns) -> None:
    """Columns [rows, columns] as CSV with a header, or as NPY; whole or not at all."""
    import io

    import numpy

    from eqflow.data import DatasetError
    from eqflow.data.files import write_whole

    if out.suffix.lower() == ".npy":
        content = io.BytesIO()
        numpy.save(content, columns)
        data = content.getvalue()
    else:
        text = io.StringIO()
        numpy.savetxt(text, columns, delimiter=",", header=",".join(names), comments="", fmt="%.17g")
        data = text.getvalue().encode()
    try:
        write_whole(out, data)
    except DatasetError as error:
        raise Problem(str(error)) from None
