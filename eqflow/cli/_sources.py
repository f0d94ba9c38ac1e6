"""What a rollout starts from and follows, from the words of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from eqflow.cli import _words
from eqflow.cli._shell import Problem, in_options, one_line, usage

KINDS = "gaussian, mixture, points FILE, gray-scott:PRESET, pretrained:NAME, or RUN, the folder of a fit or a score"


class Source(NamedTuple):
    """A rollout that can begin."""

    name: str  # begins the names of the files
    dynamics: Any
    start: Any  # Tensor [batch, ...] of this rank
    about: dict  # plain values that decide the numbers
    dt: float = 0.01
    names: tuple[str, ...] | None = None  # of the coordinates
    advice: str = ""  # where it diverges
    recorded: Callable[[Any], Any] | None = None  # from the state to the numbers of the file; None: as it is


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
    """A skew kernel from rotation:GAMMA, random:SEED[:RADIUS], angles:A,B,C, matrix:ROWS or none."""
    import torch

    from eqflow.dynamics import skew

    text = text or ("none" if channels < 2 else "rotation:1")
    kind, _, rest = text.partition(":")
    try:
        if kind == "none" and not rest:
            return torch.zeros(channels, channels, 1, 1)
        if kind == "rotation":
            return skew.rotation(float(rest or 1), channels)
        if kind == "angles" and channels == 3:
            return skew.from_angles([float(word) for word in rest.split(",")])
        if kind in ("random", "seed"):
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
        f"expected --kernel rotation:GAMMA, random:SEED or random:SEED:RADIUS, angles:A,B,C of three channels, "
        f"matrix:'0,-1;1,0' or none, got {text!r}"
    )


def read_points(path: Path, dataset: str | None, columns: str | None) -> Any:
    """The points in a file, with their names and notes, as `eqflow.data.points.Cloud`."""
    from eqflow.data.points import PointsError, read_points

    try:
        return read_points(path, dataset=dataset, columns=columns.split(",") if columns is not None else None)
    except PointsError as error:
        raise Problem(in_options(error)) from None


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
            points = read_points(file, given["dataset"], given["columns"]).values.float()
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
    return Source(preset, truth, start, {"preset": preset, "size": [height, width]}, truth.system.dt)


def source(kind: str, name: str, samples: range, given: dict[str, Any], where: str) -> Source:
    """What is to be followed, and where it starts."""
    if kind == "gray-scott":
        return ground_truth(name, samples, given["seed"], given["size"], given["backend"])
    if kind == "run":
        from eqflow.cli import _fit_source

        return _fit_source.source(Path(name), samples, given, where)
    if kind in ("score", "pretrained"):
        from eqflow.cli import _score_source

        return _score_source.source(name, samples, given, where)
    import torch

    from eqflow.dynamics import SkewFlow

    points, about = score(kind, given["file"], given)
    start = points.sample(len(samples), seed=given["seed"], first_sample=samples.start)
    turn = kernel(given["kernel"], start.shape[1])
    try:
        flow = SkewFlow(
            points.to(torch.device(where)),
            turn.to(where),
            0.1 if given["eta"] is None else given["eta"],
            backend=given["backend"],
        )
    except ValueError as error:
        raise usage("--kernel: " + in_options(error)) from None
    if start.ndim == 2 and turn.shape[-1] > 1:
        raise usage(f"expected a --kernel of radius 0 for points, got {given['kernel']!r}: write random:SEED")
    return Source(kind, flow, start, about)
