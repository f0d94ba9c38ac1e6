"""Options in panels, as every command declares them, and those that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eqflow.cli._words import real, whole


def option(*names: str, help: str, panel: str, **more: Any) -> Any:
    """An option in a panel of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def whole_option(*names: str, **more: Any) -> Any:
    """An option that takes a whole number."""
    return option(*names, parser=whole, metavar="N", **more)


def real_option(*names: str, **more: Any) -> Any:
    """An option that takes a real number."""
    return option(*names, parser=real, metavar="X", **more)


Cloud = Annotated[
    str | None,
    typer.Argument(help="A .csv, .npy or .hdf5 file, or a known system: lorenz, ring, ...", show_default=False),
]
Samples = Annotated[
    int | None, whole_option("--samples", "-n", help="Known system: points to draw. Default: 20000.", panel="Points")
]
Columns = Annotated[
    str | None, option("--columns", help="Coordinates to take: x,z or 1,3. Default: all.", panel="Points")
]
Dataset = Annotated[str | None, option("--dataset", help="Which one of an HDF5 file.", panel="Points")]
Repeats = Annotated[
    str, option("--repeats", help="Rows that repeat: refuse (from 1 % on), keep or drop.", panel="Points")
]
Device = Annotated[str, option("--device", help="auto, cpu or cuda; auto takes a GPU where there is one.", panel="Run")]
Threshold = Annotated[float, real_option("--threshold", help="Standard errors a term must have.", panel="Fit")]
Json = Annotated[Path | None, option("--json", metavar="FILE", help="Write the numbers to a file too.", panel="Files")]
Picture = Annotated[
    list[str] | None,
    typer.Argument(help="Icons by name, or files with alpha: .png, .webp, .tif, .svg.", show_default=False),
]
Mask = Annotated[
    Path | None, option("--mask", help="What of a photograph is the creature: a grey picture.", panel="Creatures")
]
Pixels = Annotated[float, real_option("--pixels", help="Longest side of a creature.", panel="Creatures")]
Scale = Annotated[str, option("--scale", help="Range of sizes, such as 0.8:1.25.", panel="Creatures")]
Coverage = Annotated[
    float, real_option("--coverage", help="Share of the area that creatures cover, at most.", panel="Creatures")
]
Overlap = Annotated[
    float, real_option("--overlap", help="Alpha that two creatures may share at a pixel.", panel="Creatures")
]
Background = Annotated[str, option("--background", help="white, black or #rrggbb.", panel="Creatures")]
