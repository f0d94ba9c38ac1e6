"""How well a denoiser cleans fields that it has not seen, beside the best linear filter and the trivial denoiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow import ops
from eqflow.metrics.wiener import Trivial, Wiener
from eqflow.ops import philox

Denoiser = Callable[[Tensor], Tensor]  # y = x_0 + sigma epsilon -> the expected x_0, [batch, channels, height, width]


class DenoisingError(NamedTuple):
    """Mean square error of each channel, with its standard error over fields; float64 [channels]."""

    error: Tensor
    standard_error: Tensor


class DenoisingReport(NamedTuple):
    """A denoiser beside two others on the same fields with the same noise; float64 [channels]."""

    error: Tensor
    standard_error: Tensor
    wiener: Tensor
    wiener_standard_error: Tensor
    trivial: Tensor
    trivial_standard_error: Tensor
    ratio: Tensor  # error / wiener
    ratio_standard_error: Tensor  # of pairs: the fields' own difficulty cancels

    @property
    def below_wiener(self) -> Tensor:
        """By how many percent the error is smaller than that of the optimal linear filter; negative: larger."""
        return 100 * (1 - self.ratio)


@torch.no_grad()
def _errors(denoisers: tuple[Denoiser, ...], clean: Tensor, sigma: float, seed: int, first: int, batch: int) -> Tensor:
    """Square errors of the denoisers on one noise, float64 [denoisers, channels, fields]."""
    if clean.ndim != 4 or len(clean) < 2 or not 0 < sigma < math.inf or batch < 1:
        raise ValueError(
            "expected two or more fields [fields, channels, height, width] and sigma and batch above 0, got "
            f"{list(clean.shape)}, {sigma} and {batch}"
        )
    found, stream = [], philox.STREAMS["data-noise"]
    for start in range(0, len(clean), batch):
        part, sample = clean[start : start + batch], first + start
        noise = ops.normal(
            len(part), part[0].numel(), seed=seed, first_sample=sample, stream=stream, device=clean.device
        )
        noised = part + sigma * noise.view_as(part)
        for denoiser in denoisers:
            denoised = denoiser(noised)
            if denoised.shape != part.shape:
                raise ValueError(
                    f"expected a denoiser that keeps the shape {list(part.shape)}, got {list(denoised.shape)}"
                )
            found.append((denoised - part).double().square().mean((2, 3)))
    return torch.stack([torch.cat(found[index :: len(denoisers)]).T for index in range(len(denoisers))])


def _mean(values: Tensor) -> tuple[Tensor, Tensor]:
    """Over the last dimension, and its standard error."""
    return values.mean(-1), values.std(-1) / math.sqrt(values.shape[-1])


def denoising_error(
    denoiser: Denoiser,
    clean: Tensor,  # [fields, channels, height, width]
    sigma: float,
    *,
    seed: int = 0,
    first_sample: int = 0,
    batch: int = 32,
) -> DenoisingError:
    """E (D(x_0 + sigma epsilon) - x_0)^2, a pixel, channel by channel.

    Args:
        denoiser: D, of noised fields.
        clean: x_0, at best fields that no training has seen.
        sigma: standard deviation of the noise in the units of the fields.
        seed: of the noise, which is that of the stream "data-noise": fixed by (seed, sample, site) alone.
        first_sample: index of the first field in that noise.
        batch: fields that are denoised at once; it does not change the noise.

    Returns:
        DenoisingError(error, standard_error) in the squared units of the fields.

    Raises:
        ValueError: an argument is out of range, or the denoiser changes the shape.

    Example:
        >>> clean = torch.zeros(64, 2, 16, 16)
        >>> denoising_error(lambda noised: noised, clean, 0.5).error.round(decimals=2)  # the noise itself, sigma^2
        tensor([0.2500, 0.2500], dtype=torch.float64)
    """
    return DenoisingError(*_mean(_errors((denoiser,), clean, sigma, seed, first_sample, batch)[0]))


def denoising_report(
    denoiser: Denoiser,
    clean: Tensor,  # [fields, channels, height, width]
    sigma: float,
    *,
    train: Tensor,  # [others, channels, height, width]
    seed: int = 0,
    first_sample: int = 0,
    batch: int = 32,
) -> DenoisingReport:
    """The error of a denoiser beside the Wiener filter and the trivial denoiser, which are fitted to `train`.

    Args:
        denoiser, clean, sigma, seed, first_sample, batch: as for `denoising_error`.
        train: fields that the two others are fitted to; other ones than `clean`, or they look better than they are.

    Raises:
        ValueError: an argument is out of range, or the denoiser changes the shape.

    Example:
        >>> fields = torch.randn(128, 1, 8, 8, generator=torch.Generator().manual_seed(0)).cumsum(3)
        >>> report = denoising_report(lambda noised: noised, fields[:64], 1.0, train=fields[64:])
        >>> bool(report.wiener < report.trivial) and bool(report.below_wiener < 0)
        True
    """
    others = Wiener.fit(train, sigma), Trivial.fit(train, sigma)
    errors = _errors((denoiser, *others), clean, sigma, seed, first_sample, batch)
    own, wiener, trivial = (_mean(part) for part in errors)
    ratio = own[0] / wiener[0]
    _, away = _mean(errors[0] - ratio[:, None] * errors[1])  # the delta method
    return DenoisingReport(*own, *wiener, *trivial, ratio, away / wiener[0])
