"""Scores of patterns in files: those of `eqflow train`, and those that come with the package."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eqflow import ops
from eqflow.score.pattern import PatternDenoiser
from eqflow.score.pattern_shape import PatternShape
from eqflow.systems.gray_scott import GrayScott, initial_state

FORMAT = 1
_UNSEEN = 2**30  # number of the first simulated sample: no training and no dataset gets so far
_WEIGHTS = "denoiser."


class StoredScore(NamedTuple):
    """A denoiser for patterns with what is needed to use it."""

    denoiser: PatternDenoiser
    name: str
    channels: tuple[str, ...]
    offset: Tensor  # [channels, 1, 1]: data = offset + factor * field
    factor: Tensor
    size: tuple[int, int]  # of the grids that it was trained on
    system: GrayScott | None  # whose final states the fields are, where that is known
    steps: int | None  # to a final state
    starts: Tensor | None  # clean fields, [samples, channels, height, width], where nothing makes them
    about: dict[str, Any]  # everything that the file says
    pictures: Tensor | None = None  # [species, channels + 1, side, side], which the fields are scattered from

    @property
    def scatter(self) -> dict[str, Any]:
        """How the pictures are scattered: the options of `ops.scatter`."""
        return self.about["scatter"]

    def fields(
        self, samples: range, *, seed: int = 0, size: tuple[int, int] | None = None, backend: str = "auto"
    ) -> Tensor:
        """Clean fields that no training has seen: simulated, scattered, or kept apart and taken over and over.

        Args:
            samples: their numbers.
            seed: of the simulation's starts.
            size: of the grid; None: the training's.
            backend: of the simulation.

        Returns:
            float32 [samples, channels, height, width] on the CPU, in the units of the denoiser.

        Raises:
            ValueError: fields of another size are asked for where nothing is known that makes them.
        """
        size = size or self.size
        if self.pictures is not None:
            options = {"seed": seed, "first_sample": samples.start + _UNSEEN, **self.scatter}
            return ops.scatter(self.pictures, len(samples), size, **options).images
        if self.system is not None:
            numbers = torch.arange(samples.start, samples.stop) + _UNSEEN
            start = initial_state("discs", numbers, *size, seed=seed, parameters=self.system)
            return (self.system.run(start, self.steps, backend=backend) - self.offset) / self.factor
        if size != self.size:
            raise ValueError(
                f"expected the grid of the kept fields, {self.size[0]} x {self.size[1]}, got {size[0]} x {size[1]}: no "
                "system is known that would make others"
            )
        return self.starts[torch.tensor(samples) % len(self.starts)]


def about_score(
    denoiser: PatternDenoiser,
    *,
    name: str,
    channels: list[str],
    offset: list[float],
    factor: list[float],
    size: tuple[int, int],
    system: dict[str, Any] | None,
    apart: Tensor,
    pictures: Tensor | None = None,
    **more: Any,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the note of a file that `read_score` reads; `more` is noted too, such as "scatter"."""
    about = {"format": FORMAT, "shape": denoiser.shape.config(), "name": name, "channels": channels}
    about |= {"offset": offset, "factor": factor, "size": list(size), "system": system, **more}
    tensors = {_WEIGHTS + key: value for key, value in denoiser.state_dict().items()}
    if pictures is not None:
        return tensors | {"pictures": pictures}, about
    return tensors | ({} if system else {"starts": apart}), about


def read_score(path: str | os.PathLike) -> StoredScore:
    """The score in a file.

    Raises:
        ValueError: there is none, it is damaged, or another version wrote it.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = json.loads((file.metadata() or {})["eqflow"])
    except FileNotFoundError:
        raise ValueError(f"expected a score in {path}: no such file") from None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}): train again") from None
    if about.get("format") != FORMAT:
        raise ValueError(
            f"expected a score of format {FORMAT} in {path}, got {about.get('format')}: another version of eqflow made "
            "it, so install that one, or train again"
        )
    shape = PatternShape.from_config(about["shape"])
    denoiser = PatternDenoiser(shape, [0.0] * shape.channels, [1.0] * shape.channels)
    weights = {name.removeprefix(_WEIGHTS): value for name, value in tensors.items() if name.startswith(_WEIGHTS)}
    denoiser.load_state_dict(weights)
    offset, factor = (torch.tensor(about[name]).view(-1, 1, 1) for name in ("offset", "factor"))
    system, (height, width) = about["system"], about["size"]
    return StoredScore(
        denoiser.requires_grad_(False),
        about["name"],
        tuple(about["channels"]),
        offset,
        factor,
        (height, width),
        GrayScott(**system["parameters"]) if system else None,
        system["steps"] if system else None,
        tensors.get("starts"),
        about,
        tensors.get("pictures"),
    )


def _shipped() -> dict[str, Path]:
    folder = Path(__file__).parent / "pretrained"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def pretrained(name: str) -> StoredScore:
    """A score that comes with the package: Gray-Scott "life", "maze", "spirals" or "wave", or a creature.

    Gray-Scott is 128 x 128, after 10,000 steps; the creatures "firefly" and "two-dots" are scattered, in three colours.

    Raises:
        ValueError: there is none of that name.

    Example:
        >>> wave = pretrained("wave")
        >>> wave.channels, round(wave.denoiser.sigma, 4), wave.fields(range(2)).shape
        (('u', 'v'), 0.2418, torch.Size([2, 2, 128, 128]))
    """
    there = _shipped()
    if name not in there:
        raise ValueError(f"expected a pretrained score {' or '.join(there)}, got {name!r}: `eqflow train` makes others")
    return read_score(there[name])
