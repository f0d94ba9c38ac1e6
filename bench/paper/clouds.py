"""Points in the units of a training, with the pool of noised points and scores, and the truth where it is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bench.paper.denoisers import trained
from bench.paper.files import digest
from bench.paper.study import Study
from eqflow import ops
from eqflow.dynamics import closed_form
from eqflow.dynamics.flip import Flip, choose_flip
from eqflow.dynamics.modes import Modes
from eqflow.ops import philox
from eqflow.score import (
    CosineSchedule,
    DenoiserShape,
    DenoiserTraining,
    KernelScore,
    Pool,
    Score,
    make_pool,
)
from eqflow.systems import Lorenz, system

ALPHA = 0.95
HELD_OUT, COMPARED = 8192, 1024
_JUDGED = 20_000  # points that show a symmetry
CHAOTIC = ("lorenz", "chen", "sprott-b", "rossler", "halvorsen", "thomas")
TITLES = {"lorenz": "Lorenz", "chen": "Chen", "sprott-b": "Sprott B", "rossler": "Rössler", "halvorsen": "Halvorsen",
          "thomas": "Thomas"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points and everything that follows from them alone.

    Args:
        name: of the system.
        system: what they come from.
        points: float32 [points, dimension], x.
        mean, sd: x = (X - mean) / sd in the units X of the system, float64 [dimension].
        score: of the noised points.
        pool: y and score there, to train on.
        held_out: others, to judge with.
    """

    name: str
    system: Any
    points: Tensor
    mean: Tensor
    sd: Tensor
    score: Score
    pool: Pool
    held_out: Pool

    @property
    def alpha(self) -> float:
        return self.score.alpha

    @property
    def compared(self) -> Tensor:
        """The points at which fields are compared: clean ones, float64."""
        return self.points[:COMPARED].double()

    def scores(self, points: Tensor) -> Tensor:
        """s, float64."""
        return self.score(points.float()).double()

    def truth(self, points: Tensor) -> Tensor:
        """The velocity of the system in the units of the points, float64."""
        return self.system.velocity(self.mean + self.sd * points.double()) / self.sd

    @cached_property
    def flip(self) -> Flip:
        """The symmetry to build in, from points noised once each: its test wants independent ones."""
        clean = self.points[:_JUDGED]
        noise = ops.normal(*clean.shape, seed=2, stream=philox.STREAMS["data-noise"])
        noised = self.alpha**0.5 * clean + (1 - self.alpha) ** 0.5 * noise
        return choose_flip(noised, self.score(noised))

    def modes(self, **options) -> Modes:
        """The closed form on the pool; the options are those of `closed_form`."""
        return closed_form(*self.pool, **options)

    @cached_property
    def best_modes(self) -> Modes:
        """The closed form at its best: with the symmetry that the points show, where they show one."""
        shared = self.flip.signs is not None
        return self.modes(signs=self.flip.signs, parity="even" if shared else None)


def _pool(study: Study, points: Tensor, score: Score, count: int, seed: int, name: str) -> Pool:
    """Made once: with a kernel score it is the sum over all pairs."""
    key = digest(points, score.alpha, score(points[:16]), count, seed)
    made = study.cache.get(
        f"pool-{name}", key, lambda: make_pool(points, score.alpha, count, seed=seed, score=score)._asdict()
    )
    return Pool(made["points"], made["scores"])


def _cloud(study: Study, name: str, of: Any, points: Tensor, mean: Tensor, sd: Tensor, score: Score, pool: int):
    pools = [_pool(study, points, score, study.count(count), seed, name) for seed, count in ((0, pool), (1, HELD_OUT))]
    return Cloud(name, of, points, mean, sd, score, *pools)


def _standardised(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, sd = raw.mean(0), raw.std(0)
    return ((raw - mean) / sd).float(), mean, sd


def chaotic(study: Study, name: str, *, points: int = 100_000, pool: int = 100_000) -> Cloud:
    """Standardised points of an attractor with their kernel score at alpha = 0.95."""
    standard = _standardised(system(name).sample(study.count(points), seed=0))
    return _cloud(study, name, system(name), *standard, KernelScore(standard[0], ALPHA), pool)


def planar(study: Study, name: str, *, points: int = 10_000, pool: int = 100_000) -> Cloud:
    """Points of a planar set as it is, neither centred nor scaled, with their kernel score at alpha = 0.95."""
    drawn = system(name).sample(study.count(points), seed=0).float()
    zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    return _cloud(study, name, system(name), drawn, zero, one, KernelScore(drawn, ALPHA), pool)


def released(study: Study) -> Cloud:
    """The points and the score of the paper's published code: ten Lorenz runs with their start, a trained score.

    The starts of the runs are not stated; here they are standard normal around (0, 0, 25).
    """
    steps = study.count(5000)
    starts = ops.normal(10, 3, seed=0).double() + torch.tensor([0.0, 0.0, 25.0])
    visited = Lorenz().run(starts, steps, every=1).flatten(0, 1)
    shuffled = torch.randperm(len(visited), generator=torch.Generator().manual_seed(0))
    points, mean, sd = _standardised(visited[shuffled])
    training = DenoiserTraining.released(len(points))
    denoiser = trained(study, points, DenoiserShape.released(3), training, "lorenz-released")
    score = denoiser.at(CosineSchedule().alpha(0.2))
    return _cloud(study, "lorenz-released", Lorenz(), points, mean, sd, score, 200_000)
