"""What a rollout starts from and follows, from the words of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from eqflow.cli import _words
from eqflow.cli._shell import Problem, one_line, usage

KINDS = "gaussian, mixture, points FILE or gray-scott:PRESET"


class Source(NamedTuple):
    """A rollout that can begin."""

    name: str  # begins the names of the files
    dynamics: Any
    start: Any  # Tensor [batch, ...] of this rank
    about: dict  # plain values that decide the numbers


def matrix(option: str, text: str) -> list[list[float]]:
    """Rows from `1,0;0,2`."""
    try:
        rows = [[float(number) for number in row.split(",")] for row in text.split(";")]
    except ValueError:
        rows = []
    if not rows or len({len(row) for row in rows}) != 1:
        raise usage(f"expected {option} as rows of numbers such as '2,0.5;0.5,0.7', got {text!r}")
    return rows


def kernel(text: str | None, channels: int) -> Any:
    """A skew kernel from rotation:GAMMA, random:SEED[:RADIUS], matrix:ROWS or none."""
    import torch

    from eqflow.dynamics import skew

    text = text or ("none" if channels < 2 else "rotation:1")
    kind, _, rest = text.partition(":")
    try:
        if kind == "none" and not rest:
            return torch.zeros(channels, channels, 1, 1)
        if kind == "rotation":
            return skew.rotation(float(rest or 1), channels)
        if kind == "random":
            seed, *radius = (int(word) for word in rest.split(":"))
            if len(radius) < 2:
                return skew.random(channels, radius[0] if radius else 0, seed)
    except ValueError as error:
        raise usage(f"expected --kernel to fit {channels} channels, got {text!r}: {one_line(error)}") from None
    if kind == "matrix":
        rows = torch.tensor(matrix("--kernel matrix:", rest))
        if rows.shape != (channels, channels):
            raise usage(f"expected --kernel matrix: of {channels} x {channels} numbers, got {list(rows.shape)}")
        return rows[..., None, None]
    raise usage(
        f"expected --kernel rotation:GAMMA, random:SEED or random:SEED:RADIUS, matrix:'0,-1;1,0' or none, got {text!r}"
    )


def read_points(path: Path) -> Any:
    """[points, dimension] float32 from a CSV, NPY or HDF5 file."""
    import numpy
    import torch

    if not path.is_file():
        raise Problem(f"expected {path} to be a file of points: no such file")
    ending = path.suffix.lower()
    try:
        if ending == ".npy":
            values = numpy.load(path, allow_pickle=False)
        elif ending in (".h5", ".hdf5"):
            values = _from_hdf5(path)
        elif ending in (".csv", ".txt"):
            with open(path) as file:
                header = any(letter.isalpha() and letter not in "eE" for letter in file.readline().replace("nan", ""))
            values = numpy.loadtxt(path, delimiter=",", ndmin=2, skiprows=int(header))
        else:
            raise usage(f"expected points in a .csv, .npy or .hdf5 file, got {str(path)!r}")
    except (ValueError, OSError, KeyError) as error:
        raise Problem(f"cannot read points from {path}: {one_line(error)}") from None
    points = torch.as_tensor(numpy.asarray(values, dtype="float32"))
    if points.ndim not in (2, 4) or not points.numel():
        raise Problem(
            f"expected points [points, dimension] or fields [points, channels, height, width] in {path}, got "
            f"{list(points.shape)}"
        )
    if not points.isfinite().all():
        raise Problem(f"expected finite points, but {path} holds NaN or infinite values: mend the file")
    return points


def _from_hdf5(path: Path) -> Any:
    import h5py

    found: list[str] = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim in (2, 4):
            found.append(name)

    with h5py.File(path, "r", locking=False) as file:
        file.visititems(visit)
        if len(found) != 1:
            several = f"{len(found)}: {', '.join(found[:4])}" if found else "none"
            raise ValueError(f"expected one dataset [points, dimension] in the file, found {several}")
        return file[found[0]][:]


def score(kind: str, file: Path | None, given: dict[str, Any]) -> tuple[Any, dict]:
    """The score of gaussian, mixture or points, and what decides it."""
    import torch

    from eqflow.dynamics.fingerprint import describe
    from eqflow.score import Gaussian, KernelScore, Mixture

    def covariance(default: float) -> Any:
        rows = matrix("--covariance", given["covariance"]) if given["covariance"] else [[default]]
        return rows[0][0] if len(rows) == len(rows[0]) == 1 else torch.tensor(rows)

    try:
        if kind == "gaussian":
            spread = covariance(1.0)
            size = len(spread) if isinstance(spread, torch.Tensor) else 2
            if given["dimension"] is not None and given["dimension"] < 1:
                raise usage(f"expected --dimension from 1 up, got {given['dimension']}")
            found = Gaussian(torch.zeros(given["dimension"] or size), spread)
        elif kind == "mixture":
            means = torch.tensor(matrix("--means", given["means"] or "-1.5,0;1.5,0"))
            weights = torch.tensor(matrix("--weights", given["weights"])[0]) if given["weights"] else None
            found = Mixture(means, covariance(0.25), weights)
        else:
            points = read_points(file)
            found = KernelScore(points, 0.95 if given["alpha"] is None else given["alpha"])
    except (ValueError, TypeError) as error:
        raise usage(f"{kind}: {one_line(error)}") from None
    return found, describe(found)


def ground_truth(preset: str, samples: range, seed: int, size: str | None, backend: str) -> Source:
    """Gray-Scott from discs."""
    import torch

    from eqflow.cli._request import _close
    from eqflow.dynamics import GroundTruth
    from eqflow.systems import gray_scott

    if preset not in gray_scott.PRESETS:
        near = _close(preset, gray_scott.PRESETS)
        raise usage(
            f"expected gray-scott:PRESET with a preset such as wave, got {preset!r}: {near}`eqflow presets` lists all"
        )
    height, width = _words.size(size or "128")
    try:
        start = gray_scott.initial_state("discs", torch.tensor(samples), height, width, seed=seed)
    except ValueError as error:
        raise usage(one_line(error)) from None
    truth = GroundTruth(gray_scott.preset(preset).parameters, backend=backend)
    return Source(preset, truth, start, {"preset": preset, "size": [height, width]})
