"""A score held to what its data are on the large scale, where a network that sees a few pixels knows least.

A score of noised fields is learned to a few percent, which is enough for fronts and textures. What share of a field is
empty, and how regions are arranged, hangs on forces far below that: rollouts drift there first, by the score alone as
well. The data tell these few numbers exactly. With s the score, x_c the mean of channel c over N sites and a_ck the
logarithm of its power at whole wave numbers k (`metrics.radial_spectrum`), all of noised fields,

    s' = s - grad [ sum over c of N (x_c - m_c)^2 / (8 (1 - alpha))  +  sum over c, k of (a_ck - l_ck)^2 / (2 d_ck^2) ]

is the score of the same density times a factor: a gradient again where s is one, so that a skew flow keeps it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WAVES = 10  # beyond, power relaxes in a few units of time by itself, and forces on few numbers become stiff
_FIRM = 0.25  # curvature of the mean's part over that of the noise: with all of it, steps of time 0.02 can grow
_FIRMEST = 0.5  # of the power's part


@dataclass(frozen=True, eq=False)
class AnchoredScore:
    """A score whose fields keep a given mean and, about, the power of given wave numbers.

    Args:
        score: of noised data, with `alpha`.
        mean: m / sqrt(alpha), of clean fields: [channels], or [batch, channels] to give each sample its own, such as
            the one that it starts with.
        power: l, [channels, waves]: mean logarithm of the power at the wave numbers from 1.
        spread: d, [channels, waves]: how far from it a field may be.

    Raises:
        ValueError: the score has no alpha, or the shapes do not fit.

    Example:
        >>> from eqflow.score import PatternDenoiser, PatternShape
        >>> score = PatternDenoiser(PatternShape(), [0.0, 0.0], [1.0, 0.5]).at()
        >>> data = torch.randn(64, 2, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> anchored = AnchoredScore.fit(score, data, waves=4)
        >>> anchored.mean.shape, anchored.power.shape, anchored(data[:3]).shape
        (torch.Size([2]), torch.Size([2, 4]), torch.Size([3, 2, 32, 32]))
    """

    score: Any
    mean: Tensor
    power: Tensor
    spread: Tensor

    @classmethod
    def fit(
        cls,
        score: Any,
        clean: Tensor,  # [samples, channels, height, width]
        *,
        waves: int = WAVES,
        sharpness: float = 2.0,
        seed: int = 0,
    ) -> AnchoredScore:
        """Anchored to clean fields of the data.

        Args:
            score: with `noised`, such as a `PatternScore`.
            clean: as many fields as there are, of the grid that will be rolled out.
            waves: wave numbers whose power is held, from 1.
            sharpness: by how much narrower than among the data the power of one field may vary: 1 is the data's own
                spread, which is too weak against the drift of most scores. Where that would be stiffer than half the
                noise, as for wave numbers that are noise alone, the spread is what is half as stiff.
            seed: of the noise.
        """
        if not sharpness > 0:
            raise ValueError(f"expected sharpness above 0, got {sharpness}: waves=0 holds no power")
        logs = _energy(score.noised(clean, seed=seed), waves).log()
        spread = logs.std(0) if waves else logs[0]
        least = (4 * (1 - score.alpha) / (_FIRMEST * logs.mean(0).exp())).sqrt()  # 4 / (d^2 power) is the curvature
        return cls(score, clean.mean((0, 2, 3)), logs.mean(0), torch.maximum(spread / sharpness, least))

    def __post_init__(self) -> None:
        if getattr(self.score, "alpha", None) is None:
            raise ValueError(
                f"expected the score of noised data, whose alpha says how firm the mean is held, got "
                f"{type(self.score).__name__} without alpha"
            )
        channels = self.mean.shape[-1]
        if self.mean.ndim > 2 or self.power.shape != self.spread.shape or self.power.shape[:-1] != (channels,):
            raise ValueError(
                f"expected mean [channels] or [batch, channels], power and spread [channels, waves], got "
                f"{list(self.mean.shape)}, {list(self.power.shape)} and {list(self.spread.shape)}"
            )
        if not (self.spread > 0).all():
            raise ValueError("expected spread above 0 everywhere: leave out wave numbers that have no power")

    @property
    def alpha(self) -> float:
        """That of the score."""
        return self.score.alpha

    @property
    def lipschitz(self) -> float | None:
        """That of the score, if it has one: the forces are softer than the noise."""
        return getattr(self.score, "lipschitz", None)

    @property
    def state_scale(self) -> float:
        return self.score.state_scale

    @property
    def output_scale(self) -> float:
        return self.score.output_scale

    def noised(self, clean: Tensor, **options: Any) -> Tensor:
        """That of the score."""
        return self.score.noised(clean, **options)

    def force(
        self,
        state: Tensor,  # [batch, channels, height, width]
    ) -> Tensor:
        """s' - s, of the shape of the state."""
        mean = math.sqrt(self.alpha) * self.mean.to(state).unflatten(-1, (-1, 1, 1))
        pull = _FIRM * (mean - state.mean((2, 3), keepdim=True)) / (1 - self.alpha)
        waves = self.power.shape[1]
        if not waves:
            return pull.expand_as(state)
        energy = _energy(state, waves)
        slope = -2 * (energy.log() - self.power.to(state)) / (self.spread.to(state).square() * energy)
        slope = torch.nn.functional.pad(slope, (1, 1))  # none on the mean and beyond
        spectrum = torch.fft.rfft2(state) * slope[:, :, _rings(state, waves)]
        return pull + torch.fft.irfft2(spectrum, s=state.shape[2:])

    def output(self, state: Tensor) -> Tensor:
        """That of the score, moved so that the score becomes s'."""
        return self.score.output(state) + self.force(state) / self.output_scale

    def __call__(self, state: Tensor) -> Tensor:
        return self.state_scale * state + self.output_scale * self.output(state)


def _rings(fields: Tensor, waves: int) -> Tensor:
    """The whole wave number of every place of rfft2, waves + 1 beyond: [height, width // 2 + 1]."""
    height, width = fields.shape[2:]
    shorter = min(height, width)
    if waves > shorter // 2:
        raise ValueError(f"expected at most {shorter // 2} wave numbers on a grid {height} x {width}, got {waves}")
    options = {"dtype": torch.float64, "device": fields.device}
    rows, columns = torch.fft.fftfreq(height, **options), torch.fft.rfftfreq(width, **options)
    return (torch.hypot(rows[:, None], columns) * shorter).round().long().clamp(max=waves + 1)


def _energy(fields: Tensor, waves: int) -> Tensor:
    """Sum of squares at every whole wave number from 1, N times the radial spectrum: [batch, channels, waves]."""
    height, width = fields.shape[2:]
    ring = _rings(fields, waves).flatten()
    twice = fields.new_full((width // 2 + 1,), 2.0)  # for the half plane that rfft2 leaves out
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    power = torch.fft.rfft2(fields).abs().square() * (twice / (height * width))
    found = power.new_zeros(*power.shape[:2], waves + 2)
    return found.index_add_(2, ring, power.flatten(2))[..., 1 : waves + 1]
