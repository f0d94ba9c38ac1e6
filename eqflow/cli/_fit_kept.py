"""What a fit keeps, as tensors and plain values, and the flow that they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

_STARTS = 65_536  # points that are kept for rollouts where the score needs none


def kept(points, mean, sd, score, modes, flow, cloud, request) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that is needed to use the flow."""
    net = request["score"] == "net"
    every = max(1, len(points) // _STARTS) if net else 1
    tensors = {"mean": mean, "sd": sd, "points": points[::every]}
    about = {"format": 1, "name": cloud.name, "names": list(cloud.names)}
    about |= {"alpha": request["alpha"], "score": "net" if net else "kernel"}
    if net:
        about["denoiser"] = score.denoiser.shape.config()
        tensors |= {f"denoiser.{name}": value for name, value in score.denoiser.state_dict().items()}
    if modes is not None:
        tensors |= {f"modes.{name}": value for name, value in modes.state_dict().items()}
    if flow is not None:
        about["flow"] = flow.config()
        tensors |= {f"flow.{name}": value for name, value in flow.state_dict().items()}
    return tensors, about


class Kept(NamedTuple):
    """A fit that can be used."""

    mean: Tensor  # of the coordinates, [dimension], float64
    sd: Tensor
    score: Any  # of the noised points
    starts: Any  # with `sample`: draws from the noised density
    flow: Any  # LearnedFlow, or None
    modes: Any  # Modes, or None
    about: dict[str, Any]


def load(path: Path) -> Kept:
    """The fit in a file.

    Raises:
        DatasetError: it cannot be read.
    """
    from eqflow.data.tensors import read_tensors
    from eqflow.dynamics import LearnedFlow, Modes
    from eqflow.score import Denoiser, DenoiserShape, Points

    tensors, about = read_tensors(path)

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}

    starts = score = Points(tensors["points"]).at(about["alpha"])
    if about["score"] == "net":
        denoiser = Denoiser(DenoiserShape.from_config(about["denoiser"]))
        denoiser.load_state_dict(part("denoiser"))
        score = denoiser.requires_grad_(False).at(about["alpha"])
    flow = LearnedFlow.from_state_dict(about["flow"], part("flow")) if "flow" in about else None
    modes = Modes(**part("modes")) if part("modes") else None
    return Kept(tensors["mean"], tensors["sd"], score, starts, flow, modes, about)
