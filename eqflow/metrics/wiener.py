"""What a denoiser has to beat: the best linear filter, and the best of one number a channel.

With y = x_0 + sigma epsilon and z^ = rfft2(x_0 - mean), channels together, the covariance of every wave number is

    S(q) = E[z^ z^H] / (height width)               a complex channels x channels matrix, no average over directions
    W(q) = S (S + sigma^2 I)^-1,   D(y) = mean + irfft2(W rfft2(y - mean)),   E|D - x_0|^2 = mean over q of sigma^2 W_ii
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_TOGETHER = 64  # fields whose transforms are in memory at once


def filtered(
    fields: Tensor,  # [batch, channels, height, width]
    response: Tensor,  # [channels, channels, height, width // 2 + 1], complex
) -> Tensor:
    """irfft2(response rfft2(fields)), a matrix a wave number: float64 of the shape of the fields."""
    waves = torch.fft.rfft2(fields.double())
    return torch.fft.irfft2((response.to(waves.device) * waves[:, None]).sum(2), s=fields.shape[2:])


def plane_mean(
    half: Tensor,  # [..., height, width // 2 + 1]
    width: int,
) -> Tensor:
    """The mean over all wave numbers of a quantity that q and -q share, given on the half plane of rfft2."""
    twice = torch.full((half.shape[-1],), 2.0, dtype=torch.float64, device=half.device)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    return (half * twice).sum((-2, -1)) / (half.shape[-2] * width)


@dataclass(frozen=True, eq=False)
class Wiener:
    """The optimal linear, translation-invariant denoiser; for Gaussian fields the exact posterior mean.

    Args:
        mean: of each channel, [channels].
        spectrum: S(q), complex [channels, channels, height, width // 2 + 1].
        width: of the grid, which the half plane does not tell.
        sigma: standard deviation of the noise.

    Example:
        >>> clean = torch.randn(64, 2, 8, 8, generator=torch.Generator().manual_seed(1))
        >>> wiener = Wiener.fit(clean, 1.0)
        >>> wiener(clean).shape, wiener.error.round(decimals=1)  # white noise of variance 1 is kept by one half
        (torch.Size([64, 2, 8, 8]), tensor([0.5000, 0.5000], dtype=torch.float64))
    """

    mean: Tensor
    spectrum: Tensor
    width: int
    sigma: float

    @classmethod
    def fit(
        cls,
        clean: Tensor,  # [fields, channels, height, width]
        sigma: float,
    ) -> Wiener:
        """The filter of the fields' own mean and spectrum, summed in float64.

        Raises:
            ValueError: the fields have another shape, or sigma is not above 0.
        """
        mean, spectrum = field_statistics(clean)
        return cls(mean, spectrum, clean.shape[3], sigma)

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"expected sigma above 0, the standard deviation of the noise, got {self.sigma}")

    @cached_property
    def response(self) -> Tensor:
        """W(q), complex [channels, channels, height, width // 2 + 1]."""
        spectrum = self.spectrum.to(torch.complex128).permute(2, 3, 0, 1)
        total = spectrum + self.sigma**2 * torch.eye(len(self.mean), dtype=spectrum.dtype, device=spectrum.device)
        return torch.linalg.solve(total, spectrum).permute(2, 3, 0, 1).contiguous()

    @property
    def error(self) -> Tensor:
        """The mean square error that the spectrum foretells, float64 [channels]."""
        diagonal = self.response.real.diagonal(dim1=0, dim2=1).movedim(-1, 0)
        return self.sigma**2 * plane_mean(diagonal, self.width)

    def __call__(
        self,
        noised: Tensor,  # [batch, channels, height, width]
    ) -> Tensor:
        """The expected clean field, of the shape and type of the noised one."""
        expected = [len(self.mean), self.spectrum.shape[2], self.width]
        if list(noised.shape[1:]) != expected:
            raise ValueError(
                f"expected fields [batch, {', '.join(map(str, expected))}] as this filter was fitted to, got "
                f"{list(noised.shape)}: fit another on this grid"
            )
        mean = self.mean.to(noised.device).view(-1, 1, 1)
        return (mean + filtered(noised - mean, self.response)).to(noised.dtype)


def field_statistics(
    clean: Tensor,  # [fields, channels, height, width]
) -> tuple[Tensor, Tensor]:
    """The mean of each channel, float64, and the spectrum S(q) about it, complex128."""
    if clean.ndim != 4 or not len(clean):
        raise ValueError(f"expected fields [fields, channels, height, width], got {list(clean.shape)}")
    mean = clean.mean((0, 2, 3), dtype=torch.float64)
    spectrum: Tensor | int = 0
    for part in clean.split(_TOGETHER):
        waves = torch.fft.rfft2(part.double() - mean.view(-1, 1, 1))
        spectrum = spectrum + torch.einsum("bihw,bjhw->ijhw", waves, waves.conj())
    return mean, spectrum / (len(clean) * clean.shape[2] * clean.shape[3])


@dataclass(frozen=True, eq=False)
class Trivial:
    """D(y) = mean + std^2 / (std^2 + sigma^2) (y - mean): the best of one number a channel.

    Example:
        >>> trivial = Trivial.fit(torch.tensor([-2.0, 2.0]).view(2, 1, 1, 1), 1.0)
        >>> trivial(torch.tensor([5.0]).view(1, 1, 1, 1)).item(), trivial.error
        (4.0, tensor([0.8000], dtype=torch.float64))
    """

    mean: Tensor  # [channels]
    variance: Tensor  # [channels]
    sigma: float

    @classmethod
    def fit(cls, clean: Tensor, sigma: float) -> Trivial:
        """Of the mean and the variance of each channel of the fields [fields, channels, height, width]."""
        variance, mean = torch.var_mean(clean.double(), (0, 2, 3), correction=0)
        return cls(mean, variance, sigma)

    @property
    def error(self) -> Tensor:
        """The mean square error that the variance foretells, float64 [channels]."""
        return self.sigma**2 * self.variance / (self.variance + self.sigma**2)

    def __call__(self, noised: Tensor) -> Tensor:
        """The expected clean field, of the shape and type of the noised one."""
        mean, variance = (part.to(noised.device).view(-1, 1, 1) for part in (self.mean, self.variance))
        return (mean + variance / (variance + self.sigma**2) * (noised - mean)).to(noised.dtype)
