"""Gaussian random fields on a periodic grid: the one kind of picture whose score and best denoiser are known exactly.

Every wave number has its own covariance S(q) = E[x^ x^^H] / (height width), with x^ = rfft2(x - mean), and so

    x      is mean + sqrt(S) times white noise
    D(y)   = mean + S (S + sigma^2 I)^-1 (y - mean)                     the posterior mean, which is linear
    s(x)   = -(alpha S + (1 - alpha) I)^-1 (x - sqrt(alpha) mean)       of x = sqrt(alpha) x_0 + sqrt(1 - alpha) n
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from eqflow import ops
from eqflow.metrics.wiener import Wiener, field_statistics, filtered
from eqflow.ops import philox

_MOST = 8192  # unknowns of the best local filter: their matrix fills half a gibibyte


@dataclass(frozen=True, eq=False)
class GaussianField:
    """A Gaussian random field of known mean and spectrum.

    Args:
        mean: of each channel, [channels].
        spectrum: S(q), [channels, channels, height, width // 2 + 1]: Hermitian and not negative, and S(-q) = S(q)* on
            the columns 0 and width / 2, as it is for real fields.
        width: of the grid, which the half plane does not tell.

    Raises:
        ValueError: no real field has this spectrum.

    Example:
        >>> field = GaussianField.radial(lambda q: 40 * (-8 * q.square()).exp(), [[1.0], [0.5]], (16, 16))
        >>> field.sample(3, seed=0).shape, field.error(0.5).round(decimals=4).tolist()
        (torch.Size([3, 2, 16, 16]), [0.0105, 0.0026])
    """

    mean: Tensor
    spectrum: Tensor
    width: int

    @classmethod
    def radial(
        cls,
        profile: Callable[[Tensor], Tensor],
        mixing: Any,  # [channels, sources]
        size: tuple[int, int],
        *,
        mean: Any = None,  # [channels]
    ) -> GaussianField:
        """S(q) = mixing diag(profile(|q|)) mixing^T: independent isotropic sources, mixed into channels.

        Args:
            profile: power, 1 for white noise of variance 1, of the wave number in radians per pixel: [height,
                width // 2 + 1] to the same, or to [sources, height, width // 2 + 1].
            mixing: weight of every source in every channel.
            size: height and width.
            mean: of each channel; None: 0.
        """
        mixing = torch.as_tensor(mixing, dtype=torch.float64)
        rows, columns = torch.fft.fftfreq(size[0], dtype=torch.float64), torch.fft.rfftfreq(size[1]).double()
        power = profile(2 * math.pi * torch.hypot(rows[:, None], columns)).double()
        power = power.expand(mixing.shape[1], *power.shape[-2:])
        center = torch.zeros(len(mixing)) if mean is None else torch.as_tensor(mean)
        spectrum = torch.einsum("is,shw,js->ijhw", mixing, power, mixing)
        return cls(center.double(), spectrum.to(torch.complex128), size[1])

    @classmethod
    def fit(cls, clean: Tensor) -> GaussianField:
        """The Gaussian twin of fields [fields, channels, height, width]: of their mean and spectrum."""
        return cls(*field_statistics(clean), clean.shape[3])

    def __post_init__(self) -> None:
        channels, half = len(self.mean), self.width // 2 + 1
        if self.spectrum.ndim != 4 or [*self.spectrum.shape[:2], self.spectrum.shape[3]] != [channels, channels, half]:
            raise ValueError(
                f"expected a spectrum [{channels}, {channels}, height, {half}] for {channels} channels and width "
                f"{self.width}, got {list(self.spectrum.shape)}"
            )
        least = 1e-9 * float(self.spectrum.abs().max())
        own = self.spectrum[..., [0, -1] if self.width % 2 == 0 else [0]]
        for found, expected, what in (
            (self.spectrum, self.spectrum.transpose(0, 1).conj(), "Hermitian S(q)"),
            (own, own.flip(2).roll(1, 2).conj(), "S(-q) = S(q)* on the columns 0 and width / 2"),
        ):
            if not (found - expected).abs().max() <= least:
                raise ValueError(f"expected {what}, since no real field has another spectrum: make it so")
        if not self._axes[0].min() >= -least:
            raise ValueError(f"expected S(q) not negative, got an eigenvalue {float(self._axes[0].min()):g}")

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """Variances along the principal axes of every wave number, and the axes."""
        return torch.linalg.eigh(self.spectrum.to(torch.complex128).permute(2, 3, 0, 1))

    def _of_spectrum(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of the matrices S(q), complex [channels, channels, height, width // 2 + 1]."""
        variances, axes = self._axes
        return ((axes * function(variances.clamp(min=0))[..., None, :]) @ axes.mH).permute(2, 3, 0, 1)

    def sample(self, count: int, *, seed: int, first_sample: int = 0) -> Tensor:
        """Fields of the stream "initial", fixed by (seed, sample): float32 [count, channels, height, width]."""
        shape, stream = (len(self.mean), self.spectrum.shape[2], self.width), philox.STREAMS["initial"]
        places = {"seed": seed, "first_sample": first_sample, "stream": stream, "device": self.mean.device}
        noise = ops.normal(count, math.prod(shape), **places).view(count, *shape)
        return (self.mean.view(-1, 1, 1) + filtered(noise, self._of_spectrum(torch.sqrt))).float()

    def denoiser(self, sigma: float) -> Wiener:
        """E[x_0 | x_0 + sigma epsilon], exactly."""
        return Wiener(self.mean, self.spectrum, self.width, sigma)

    def error(self, sigma: float) -> Tensor:
        """The mean square error of the exact denoiser, which none goes below: float64 [channels]."""
        return self.denoiser(sigma).error

    def score(self, alpha: float) -> GaussianScore:
        """The exact score of fields sqrt(alpha) x_0 + sqrt(1 - alpha) n."""
        return GaussianScore(self, alpha)

    def best_local_error(self, sigma: float, radius: int) -> Tensor:
        """The least mean square error of a denoiser that sees (2 radius + 1)^2 pixels: float64 [channels].

        The normal equations of all channels and pixels in view, from the covariance C(r) = irfft2(S) of pixels r apart.
        No denoiser of this field of view has a smaller error, linear or not, since the field is Gaussian.

        Raises:
            ValueError: the field of view has too many pixels to solve for.

        Example:
            >>> white = GaussianField.radial(torch.ones_like, [[1.0]], (16, 16))
            >>> white.best_local_error(1.0, 0).round(decimals=6).item()
            0.5
        """
        channels, height = len(self.mean), self.spectrum.shape[2]
        sides = [torch.arange(min(2 * radius + 1, side)) - min(radius, side // 2) for side in (height, self.width)]
        rows, columns = (part.flatten() for part in torch.meshgrid(*sides, indexing="ij"))
        unknowns = channels * len(rows)
        if radius < 0 or unknowns > _MOST or not sigma > 0:
            raise ValueError(
                f"expected a radius from 0 up with at most {_MOST} unknowns and sigma above 0, got {radius} with "
                f"{unknowns} unknowns and {sigma}: take a smaller radius, a large one hardly changes the error"
            )
        covariance = torch.fft.irfft2(self.spectrum.cpu().to(torch.complex128), s=(height, self.width))
        apart = (rows[:, None] - rows) % height, (columns[:, None] - columns) % self.width
        seen = covariance[:, :, apart[0], apart[1]].transpose(1, 2).reshape(unknowns, unknowns)
        target = covariance[:, :, rows % height, columns % self.width].transpose(1, 2).reshape(unknowns, channels)
        factor = torch.linalg.cholesky(seen + sigma**2 * torch.eye(unknowns, dtype=torch.float64))
        explained = torch.linalg.solve_triangular(factor, target, upper=False).square().sum(0)
        return covariance[:, :, 0, 0].diagonal() - explained


@dataclass(frozen=True, eq=False)
class GaussianScore:
    """A `Score` of x = sqrt(alpha) x_0 + sqrt(1 - alpha) n, with x_0 a Gaussian field: exact.

    Example:
        >>> white = GaussianField.radial(torch.ones_like, [[1.0]], (4, 4))
        >>> white.score(0.9)(torch.ones(1, 1, 4, 4)).mean().round(decimals=6).item()
        -1.0
    """

    field: GaussianField
    alpha: float

    state_scale = 0.0
    output_scale = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"expected alpha in (0, 1), the squared coefficient of the signal, got {self.alpha}")

    @property
    def lipschitz(self) -> float:
        """No eigenvalue of its Jacobian lies below minus this."""
        return 1 / (1 - self.alpha)

    @cached_property
    def _precision(self) -> Tensor:
        return self.field._of_spectrum(lambda variance: 1 / (self.alpha * variance + 1 - self.alpha))

    def output(self, state: Tensor) -> Tensor:
        """The score, of the shape and type of the states [batch, channels, height, width]."""
        mean = math.sqrt(self.alpha) * self.field.mean.to(state.device).view(-1, 1, 1)
        return -filtered(state - mean, self._precision).to(state.dtype)

    def __call__(self, state: Tensor) -> Tensor:
        return self.output(state)
