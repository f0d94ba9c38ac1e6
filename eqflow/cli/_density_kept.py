"""What a density keeps, as tensors and plain values, and how another command uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from eqflow.cli import _sources
from eqflow.cli._run_folder import DensityFolder
from eqflow.cli._shell import Problem, in_options


def kept(points, mean, sd, density, cloud) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that is needed to use the density."""
    about = {"format": 1, "name": cloud.name, "names": list(cloud.names), "density": density.shape.config()}
    parts = {f"density.{name}": value for name, value in density.state_dict().items()}
    return {"mean": mean, "sd": sd, "points": points, **parts}, about


class Kept(NamedTuple):
    """A density that can be used, and points for it."""

    mean: Tensor  # of the coordinates, [dimension], float64
    sd: Tensor
    density: Any  # of standardised points, float64
    points: Tensor  # standardised, float64
    name: str
    names: tuple[str, ...]

    def outward(self, points: Tensor) -> Tensor:
        """In the units of the data."""
        return self.mean + self.sd * points


def load(run: Path, file: Path | None, dataset: str | None, columns: str | None) -> Kept:
    """The density in a folder, with the points it was made of or those of a file.

    Raises:
        Problem: there is no finished density, or the points do not suit it.
    """
    import torch

    from eqflow.cli import _fit_work
    from eqflow.data import DatasetError
    from eqflow.data.tensors import read_tensors
    from eqflow.score import Density, DensityShape

    folder = DensityFolder(run)
    if not folder.options.is_file():
        what = "is no folder" if not run.is_dir() else f"has no {folder.options.name}"
        raise Problem(f"expected RUN to be the folder of a density, but {run} {what}: make one with `eqflow density`")
    try:
        if _fit_work.complete(folder) is None:
            raise Problem(f"expected a finished density in {run}: the same `eqflow density` again goes on")
        tensors, about = read_tensors(folder.tensors)
    except DatasetError as error:
        raise Problem(in_options(error)) from None
    parts = {key.removeprefix("density."): value for key, value in tensors.items() if key.startswith("density.")}
    shape = DensityShape.from_config(about["density"])
    density = Density(shape, torch.zeros(shape.components, shape.dimension), 1.0)
    density.load_state_dict(parts)
    density = density.double().requires_grad_(False)
    mean, sd, names = tensors["mean"], tensors["sd"], tuple(about["names"])
    if file is None:
        return Kept(mean, sd, density, tensors["points"].double(), about["name"], names)
    read = _sources.read_points(file, dataset, columns)
    if read.values.ndim != 2 or read.values.shape[1] != len(names):
        raise Problem(
            f"expected points of the {len(names)} coordinates {', '.join(names[:6])} in {file}, got "
            f"{list(read.values.shape)}: say which with --columns"
        )
    return Kept(mean, sd, density, (read.values - mean) / sd, file.stem, names)
