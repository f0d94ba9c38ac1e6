"""Training of a denoiser: the prediction that is nearest in the mean square is the mean given the noised point.

    y = sqrt(alpha) x + sqrt(1 - alpha) epsilon,   tau uniform in (0, 1),   loss = mean of (output(y, tau) - target)^2

Every draw is a function of (seed, step, row): training goes on after a stop to the bits of the undisturbed one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import swa_utils

from eqflow import ops
from eqflow.ops import philox
from eqflow.score.denoiser import Denoiser, DenoiserShape
from eqflow.score.run import Run, cosine, identity

_NOISE, _ROWS = philox.STREAMS["data-noise"], philox.STREAMS["minibatch"]
# Steps of the streams: `sample_pool` has 0 and 1 of the same seed.
_TRAINING, _HELD_OUT = 2**32, 2**33
_HELD_OUT_ROWS = 4096  # at most: enough for two digits, and cheap


@dataclass(frozen=True)
class DenoiserTraining:
    """How a denoiser is trained: Adam on minibatches drawn with replacement.

    Args:
        steps: of Adam.
        batch: rows a step.
        rate: learning rate at the beginning.
        anneal: whether the rate falls to 0 along a half cosine.
        weight_decay: added to the gradient, times the parameters.
        average: decay of the running average of the parameters that is kept in their place; None: the last ones.
        held_out: share of the points kept apart for the held-out loss; 0: none.
        every: steps between two looks at the losses, and between two checkpoints.
        seed: of weights, minibatches, times, noise and split.

    Raises:
        ValueError: an argument is out of range.
    """

    steps: int = 5000
    batch: int = 1024
    rate: float = 3e-3
    anneal: bool = True
    weight_decay: float = 0.0
    average: float | None = None
    held_out: float = 0.1
    every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, 2**31),
            ("batch", 1, 2**31),
            ("rate", 0.0, math.inf),
            ("weight_decay", 0.0, math.inf),
            ("held_out", 0.0, 0.9),
            ("every", 1, 2**31),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"expected {name} in [{low}, {high}], got {getattr(self, name)}")
        if self.average is not None and not 0 < self.average < 1:
            raise ValueError(f"expected average in (0, 1), such as 0.999, got {self.average}")

    @classmethod
    def released(cls, points: int, *, seed: int = 0) -> DenoiserTraining:
        """The paper's released protocol: 512 epochs of batches of 2048, rate 0.01, decay 1e-5.

        Args:
            points: how many there are.
            seed: as above.
        """
        steps = 512 * math.ceil(points / 2048)
        return cls(steps, 2048, 1e-2, anneal=False, weight_decay=1e-5, held_out=0.0, seed=seed)


class DenoiserFit(NamedTuple):
    """What `train_denoiser` gives."""

    denoiser: Denoiser
    history: Tensor  # [looks, 3]: step, mean training loss since the look before, held-out loss (NaN without)
    state: dict[str, Tensor]  # the checkpoint at the end


class _Run(Run):
    """The training of a denoiser."""

    def __init__(self, points: Tensor, shape: DenoiserShape, training: DenoiserTraining):
        self.shape, self.training = shape, training
        self.denoiser = Denoiser(shape, seed=training.seed).to(points.device)
        self.kept: torch.nn.Module = self.denoiser
        networks = {"denoiser": self.denoiser}
        if training.average is not None:
            averaging = swa_utils.get_ema_multi_avg_fn(training.average)
            self.kept = networks["kept"] = swa_utils.AveragedModel(self.denoiser, multi_avg_fn=averaging)
        weights, decay = self.denoiser.parameters(), training.weight_decay
        adam = torch.optim.Adam(weights, lr=training.rate, weight_decay=decay, fused=True)
        super().__init__(networks, adam, identity(points, shape, training))
        words = self._words(len(points), 1, _HELD_OUT, points.device)[:, 0]
        apart = min(round(training.held_out * len(points)), len(points) - 1)
        self.apart, self.points = points[words.argsort(stable=True)].tensor_split([apart])
        self.apart = self.apart[:_HELD_OUT_ROWS]

    def _words(self, rows: int, count: int, step: int, device: torch.device) -> Tensor:
        samples = torch.arange(rows, device=device)
        return philox.words(samples, count, seed=self.training.seed, step=step, stream=_ROWS)

    def _loss(self, model: torch.nn.Module, points: Tensor, words: Tensor, step: int) -> Tensor:
        """The denoising loss of some points; words [rows] are for the times, the step of the counter for the noise."""
        shape = self.shape
        tau = philox.unit_interval(words)
        alpha = torch.full_like(tau, shape.alpha) if shape.alpha else shape.schedule.alpha(tau)
        signal, noise = (part.sqrt()[:, None].to(points) for part in (alpha, 1 - alpha))
        counter = {"seed": self.training.seed, "step": step, "stream": _NOISE, "device": points.device}
        epsilon = ops.normal(*points.shape, **counter)
        target = {"epsilon": epsilon, "x0": points, "v": signal * epsilon - noise * points}[shape.predicts]
        return (model(signal * points + noise * epsilon, tau.to(points)) - target).square().mean()

    def advance(self) -> Tensor:
        """One step of Adam; the loss before it."""
        training, step = self.training, _TRAINING + self.step
        words = self._words(training.batch, 2, step, self.points.device)
        if training.anneal:
            self.optimiser.param_groups[0]["lr"] = training.rate * cosine(self.step / training.steps)
        self.optimiser.zero_grad()
        chosen = self.points[philox.integers(words[:, 0], len(self.points))]
        loss = self._loss(self.denoiser, chosen, words[:, 1], step)
        loss.backward()
        self.optimiser.step()
        if self.kept is not self.denoiser:
            self.kept.update_parameters(self.denoiser)
        self.step += 1
        return loss.detach()

    @torch.no_grad()
    def look(self) -> float:
        """The loss on the points kept apart, at times and with noise that stay the same."""
        if not len(self.apart):
            return math.nan
        words = self._words(len(self.apart), 1, _HELD_OUT + 1, self.apart.device)[:, 0]
        return float(self._loss(self.kept, self.apart, words, _HELD_OUT))

    def result(self) -> Denoiser:
        """The network to use: the average where one is kept, without gradients of its own."""
        trained = self.denoiser if self.kept is self.denoiser else self.kept.module
        return trained.requires_grad_(False)


def _check(points: Tensor, shape: DenoiserShape) -> None:
    if points.dtype != torch.float32:
        raise TypeError(f"expected float32 points, got {points.dtype}: use points.float()")
    if points.ndim != 2 or points.shape[1] != shape.dimension or len(points) < 2:
        raise ValueError(f"expected points [2 or more, {shape.dimension}], got {list(points.shape)}")
    if not points.isfinite().all():
        row = int((~points.isfinite().all(1)).nonzero()[0])
        raise ValueError(f"expected finite points, but row {row} has NaN or infinite numbers: mend the input")
    spread = points.std(0)
    if spread.min() < 1 / 3 or spread.max() > 3:
        warnings.warn(
            f"expected standardised points, got coordinates with standard deviations from {float(spread.min()):.3g} to "
            f"{float(spread.max()):.3g}: subtract the mean and divide by the standard deviation",
            stacklevel=3,
        )


def train_denoiser(
    points: Tensor,  # [points, dimension], float32
    shape: DenoiserShape,
    training: DenoiserTraining | None = None,
    *,
    state: dict[str, Tensor] | None = None,
    save: Callable[[dict[str, Tensor]], None] | None = None,
    progress: Callable[[int, float, float], None] | None = None,
) -> DenoiserFit:
    """Trains a denoiser on points.

    Args:
        points: the data, standardised; where they are decides where training runs.
        shape: of the network.
        training: options; None: the defaults.
        state: a checkpoint to go on from: the result has the bits of the undisturbed training.
        save: called with a checkpoint, a plain dict of tensors, every `training.every` steps and at the end.
        progress: called with (step, training loss, held-out loss) as often.

    Returns:
        DenoiserFit(denoiser, history, state).

    Raises:
        TypeError, ValueError: an argument is wrong, or the checkpoint belongs to another training.

    Example:
        >>> points = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> fit = train_denoiser(points, DenoiserShape(2, (32,)), DenoiserTraining(steps=50, batch=64, every=25))
        >>> fit.denoiser.at(0.95)(points).shape, fit.history[:, 0].tolist()
        (torch.Size([500, 2]), [25.0, 50.0])
    """
    training = training or DenoiserTraining()
    _check(points, shape)
    run = _Run(points, shape, training)
    if state is not None:
        run.load(state)
    run.follow(training.steps, training.every, save, progress)
    return DenoiserFit(run.result(), run.table(), run.state())
