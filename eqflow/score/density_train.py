"""Training of a density on points: maximum likelihood, score matching, or both.

    loss = likelihood * mean of -log p(x) + matching * mean of (|s(x)|^2 / 2 + div s(x)),    s = grad log p

The second term is, but for a constant, half the mean square distance of s from the true score (Hyvarinen 2005). Every
draw is a function of (seed, step, row): training goes on after a stop to the bits of the undisturbed one.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow import ops
from eqflow.ops import philox
from eqflow.score.density import Density, DensityShape
from eqflow.score.run import Run, State, cosine, identity

_ROWS, _INITIAL = philox.STREAMS["minibatch"], philox.STREAMS["initial"]
# Steps of the streams: `train_denoiser` has those from 2^32 on, sampling 0 and 1.
_TRAINING, _SPLIT, _CENTROIDS = 2**34, 2**35, 2**35
_HELD_OUT_ROWS = 4096  # at most
_FLOOR = 0.01  # of the learning rate, at the end
_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class DensityTraining:
    """How a density is trained on points: Adam on minibatches drawn with replacement.

    Args:
        steps: of Adam.
        batch: rows a step.
        rate: learning rate at the beginning; it falls to a hundredth along half a cosine.
        likelihood: weight of maximum likelihood.
        matching: weight of score matching; alone it leaves stray components where it has no points.
        deviation: of every component at the start, in the units of the points.
        jitter: standard deviation of the noise on the points that the centroids start at.
        sparsity: weight of the mean |a| + |b| of the couplings, which keeps them near the identity.
        held_out: share of the points kept apart, by whose loss the best parameters are chosen; 0: the last ones are
            kept, and few points with many components are then learned by heart.
        every: steps between two looks at the held-out loss, and between two checkpoints.
        seed: of centroids, weights, minibatches and split.

    Raises:
        ValueError: an argument is out of range.
    """

    steps: int = 800
    batch: int = 256
    rate: float = 3e-3
    likelihood: float = 1.0
    matching: float = 0.0
    deviation: float = 0.25
    jitter: float = 0.0
    sparsity: float = 0.0
    held_out: float = 0.1
    every: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, 2**31),
            ("batch", 1, 2**31),
            ("rate", 0.0, math.inf),
            ("likelihood", 0.0, math.inf),
            ("matching", 0.0, math.inf),
            ("jitter", 0.0, math.inf),
            ("sparsity", 0.0, math.inf),
            ("held_out", 0.0, 0.9),
            ("every", 1, 2**31),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"expected {name} in [{low}, {high}], got {getattr(self, name)}")
        if not 0 < self.deviation < math.inf:
            raise ValueError(f"expected a positive deviation, got {self.deviation}")
        if not self.likelihood + self.matching > 0:
            raise ValueError("expected a weight above 0 for likelihood or matching, got two zeros")


class DensityFit(NamedTuple):
    """What `train_density` gives."""

    density: Density
    history: Tensor  # [looks, 3]: step, mean training loss since the look before, held-out loss (NaN without)
    state: State  # the checkpoint at the end
    apart: Tensor  # [held out, dimension]: the points that were kept apart


class _Run(Run):
    """The training of a density; `kept` has had the lowest held-out loss so far."""

    def __init__(self, points: Tensor, shape: DensityShape, training: DensityTraining):
        self.training = training
        order = self._words(len(points), 1, _SPLIT, points.device)[:, 0].argsort(stable=True)
        self.apart, self.points = points[order].tensor_split(
            [min(round(training.held_out * len(points)), len(points) - 1)]
        )
        self.apart = self.apart[:_HELD_OUT_ROWS]
        self.density = Density(shape, self._centroids(shape), training.deviation, seed=training.seed)
        self.kept = copy.deepcopy(self.density) if len(self.apart) else self.density
        adam = torch.optim.Adam(self.density.parameters(), lr=training.rate, betas=_BETAS, fused=True)
        super().__init__({"density": self.density, "kept": self.kept}, adam, identity(points, shape, training))

    def _words(self, rows: int, count: int, step: int, device: torch.device) -> Tensor:
        samples = torch.arange(rows, device=device)
        return philox.words(samples, count, seed=self.training.seed, step=step, stream=_ROWS)

    def _centroids(self, shape: DensityShape) -> Tensor:
        """Points in random order, as often as it takes."""
        rows = torch.arange(shape.components, device=self.points.device) % len(self.points)
        counter = {"seed": self.training.seed, "step": _CENTROIDS, "stream": _INITIAL, "device": self.points.device}
        noise = ops.normal(shape.components, shape.dimension, **counter).to(self.points)
        return self.points[rows] + self.training.jitter * noise

    def _loss(self, density: Density, points: Tensor) -> Tensor:
        training = self.training
        if not training.matching:
            return -training.likelihood * density.log_density(points).mean()
        log_density, score, divergence = density.local(points)
        matching = (score.square().sum(1) / 2 + divergence).mean()
        return training.matching * matching - training.likelihood * log_density.mean()

    def advance(self) -> Tensor:
        training = self.training
        words = self._words(training.batch, 1, _TRAINING + self.step, self.points.device)[:, 0]
        rate = training.rate * (_FLOOR + (1 - _FLOOR) * cosine(self.step / training.steps))
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.zero_grad()
        loss = self._loss(self.density, self.points[philox.integers(words, len(self.points))])
        penalty = training.sparsity * self.density.coupling_size() if training.sparsity else 0.0
        (loss + penalty).backward()
        self.optimiser.step()
        self.step += 1
        return loss.detach()

    @torch.no_grad()
    def look(self) -> float:
        if not len(self.apart):
            return math.nan
        loss = float(self._loss(self.density, self.apart))
        if loss < min((before[2] for before in self.history), default=math.inf):
            self.kept.load_state_dict(self.density.state_dict())
        return loss


def _check(points: Tensor, shape: DensityShape) -> None:
    if points.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"expected float32 or float64 points, got {points.dtype}: use points.float()")
    if points.ndim != 2 or points.shape[1] != shape.dimension or len(points) < 2:
        raise ValueError(f"expected points [2 or more, {shape.dimension}], got {list(points.shape)}")
    if not points.isfinite().all():
        row = int((~points.isfinite().all(1)).nonzero()[0])
        raise ValueError(f"expected finite points, but row {row} has NaN or infinite numbers: mend the input")
    if shape.components > len(points) / 5:
        warnings.warn(
            f"{shape.components} components for {len(points)} points: fewer than five points each are known by heart: "
            "take fewer components, and watch the held-out loss",
            stacklevel=3,
        )


def train_density(
    points: Tensor,  # [points, dimension], float32 or float64
    shape: DensityShape,
    training: DensityTraining | None = None,
    *,
    state: State | None = None,
    save: Callable[[State], None] | None = None,
    progress: Callable[[int, float, float], None] | None = None,
) -> DensityFit:
    """Trains a density on points.

    Args:
        points: the data, of about unit size; their precision and place decide those of the density.
        shape: what the density is made of; the components start at points drawn from the data.
        training: options; None: the defaults.
        state: a checkpoint to go on from: the result has the bits of the undisturbed training.
        save: called with a checkpoint, a plain dict of tensors, every `training.every` steps and at the end.
        progress: called with (step, training loss, held-out loss) as often.

    Returns:
        DensityFit(density, history, state, apart); the density has the parameters of the lowest held-out loss.

    Raises:
        TypeError, ValueError: an argument is wrong, or the checkpoint belongs to another training.
        FloatingPointError: the loss is no number any more.

    Example:
        >>> points = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> fit = train_density(points, DensityShape(2, 5), DensityTraining(steps=40))
        >>> fit.density.sample(3, seed=1).shape, fit.history[:, 0].tolist()
        (torch.Size([3, 2]), [20.0, 40.0])
    """
    training = training or DensityTraining()
    _check(points, shape)
    run = _Run(points, shape, training)
    if state is not None:
        run.load(state)
    run.follow(training.steps, training.every, save, progress)
    return DensityFit(run.kept.requires_grad_(False), run.table(), run.state(), run.apart)
