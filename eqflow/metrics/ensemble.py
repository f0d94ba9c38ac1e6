"""Whether an ensemble of fields still looks like the data: spectrum, correlations, pixels, and how many have died."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqflow.metrics.spectrum import radial_spectrum
from eqflow.systems.gray_scott import DEAD_STD

WAVES = 24  # wave numbers that a spectrum is compared over
_QUANTILES, _PIXELS = 512, 2**20
_ROUNDING = 1e-13  # a variance below this share of the mean square is that of the rounding of float32


class EnsembleReport(NamedTuple):
    """An ensemble beside the data; float64 [channels] where nothing else is said."""

    mean: Tensor
    deviation: Tensor  # of all pixels
    data_mean: Tensor
    data_deviation: Tensor
    data_mean_spread: Tensor  # standard deviation over the data's samples of their means
    spectrum: Tensor  # mean |log(power / data's power)| over the wave numbers 1 .. WAVES
    histogram: Tensor  # distance of the pixel distributions (Wasserstein-1), in units of the fields
    correlation: Tensor  # root mean square difference of the two-point correlations; NaN where all pixels are equal
    dead: int  # samples whose last channel is homogeneous
    mean_error: Tensor  # standard errors over the samples, NaN where there is only one
    deviation_error: Tensor
    spectrum_error: Tensor  # over the samples of both
    spectrum_chance: Tensor  # about what `spectrum` is for two independent sets of one law, as few and uneven as these

    def plain(self) -> dict[str, Any]:
        """Lists, for JSON."""
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in self._asdict().items()}


def spectrum_log_ratio(
    fields: Tensor,  # [samples, channels, height, width]
    data: Tensor,  # [others, channels, height, width], of the same grid
    waves: int = WAVES,
) -> Tensor:
    """Mean |log ratio| of the radial spectra, averaged over samples first: float64 [channels].

    Over the wave numbers 1 .. `waves`, or those that the grid has; infinite where one of both has no power.

    Example:
        >>> data = torch.randn(4, 2, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> spectrum_log_ratio(data * torch.tensor([2.0, 1.0]).view(2, 1, 1), data)  # log 4 and 0
        tensor([1.3863, 0.0000], dtype=torch.float64)
    """
    own, reference = _spectra(fields, data, waves)
    return (own.mean(0) / reference.mean(0)).log().abs().mean(1)


def _spectra(fields: Tensor, data: Tensor, waves: int) -> tuple[Tensor, Tensor]:
    """Of every sample, [samples, channels, waves] and [others, channels, waves]."""
    if fields.ndim != 4 or fields.shape[1:] != data.shape[1:]:
        raise ValueError(
            f"expected fields [samples, channels, height, width] of the data's grid {list(data.shape[1:])}, got "
            f"{list(fields.shape)}"
        )
    return radial_spectrum(fields)[..., :waves], radial_spectrum(data)[..., :waves]


def _error(values: Tensor) -> Tensor:
    """Standard error of the mean over the first axis, NaN for one."""
    return ((values - values.mean(0)).square().sum(0) / (len(values) - 1) / len(values)).sqrt()


def _spectrum_errors(own: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Of `spectrum_log_ratio`, to first order in the powers: its standard error, and E|log ratio| for equal laws."""
    sign = (own.mean(0) / reference.mean(0)).log().sign()
    relative = [spectrum / spectrum.mean(0) for spectrum in (own, reference)]
    error = torch.hypot(*(_error((sign * part).mean(2)) for part in relative))
    chance = math.sqrt(2 / math.pi) * torch.hypot(*(_error(part) for part in relative))
    return error, chance.mean(1)


def two_point_correlation(
    fields: Tensor,  # [samples, channels, height, width]
) -> Tensor:
    """The correlation of a channel with itself at every whole distance, float64 [channels, distances from 0].

    Averaged over samples and directions, up to half the shorter side; distance 0 has 1. NaN where all pixels of a
    channel are equal but for rounding.

    Example:
        >>> stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 1, 8, 8)
        >>> two_point_correlation(stripes)[0, :2]  # distance 1 has four neighbours and four corners
        tensor([ 1.0000, -0.5000], dtype=torch.float64)
    """
    height, width = fields.shape[2:]
    centred = fields.double() - fields.double().mean((0, 2, 3), keepdim=True)
    covariance = torch.fft.ifft2(torch.fft.fft2(centred).abs().square()).real.mean(0) / (height * width)
    rows, columns = (
        torch.minimum(torch.arange(n), n - torch.arange(n)).to(fields.device, torch.float64) for n in (height, width)
    )
    ring = torch.hypot(rows[:, None], columns).round().long().flatten()
    reach = min(height, width) // 2
    sums = covariance.new_zeros(len(covariance), int(ring.max()) + 1).index_add_(1, ring, covariance.flatten(1))
    correlation = sums / ring.bincount()
    something = correlation[:, :1] > _ROUNDING * fields.double().square().mean((0, 2, 3))[:, None]
    return torch.where(something, correlation / correlation[:, :1], math.nan)[:, : reach + 1]


def _quantiles(fields: Tensor) -> Tensor:
    """[channels, quantiles] of the pixels, of an even choice of them where there are very many."""
    pixels = fields.transpose(0, 1).flatten(1)
    pixels = pixels[:, :: -(-pixels.shape[1] // _PIXELS)].double().sort(1).values
    places = (torch.arange(_QUANTILES, device=fields.device) + 0.5) / _QUANTILES * pixels.shape[1]
    return pixels[:, places.long()]


def compare_ensembles(
    fields: Tensor,  # [samples, channels, height, width]
    data: Tensor,  # [others, channels, height, width], of the same grid and in the same units
    *,
    dead_below: float = DEAD_STD,
) -> EnsembleReport:
    """The statistics of fields beside those of the data.

    Args:
        fields: such as the clean fields of a long rollout.
        data: samples of the distribution that they should have.
        dead_below: a sample is dead when the standard deviation of its last channel is at most this, in the units of
            the fields. The default is that of concentrations: give 2 DEAD_STD for fields 2 c - 1.

    Raises:
        ValueError: the shapes do not fit, or a field is not finite.

    Example:
        >>> data = torch.randn(8, 2, 48, 48, generator=torch.Generator().manual_seed(0))
        >>> report = compare_ensembles(torch.cat([data, torch.zeros(1, 2, 48, 48)]), data)
        >>> report.dead, bool((report.spectrum < 0.2).all())
        (1, True)
    """
    own, reference = _spectra(fields, data, WAVES)
    for name, values in (("fields", fields), ("data", data)):
        if not values.isfinite().all():
            raise ValueError(f"expected finite {name}, got NaN or infinite numbers: the rollout or the data broke")
    spread, mean = torch.std_mean(fields.double(), (0, 2, 3))
    squares = (fields.double() - mean.view(-1, 1, 1)).square().mean((2, 3))
    spectrum_error, spectrum_chance = _spectrum_errors(own, reference)
    data_spread, data_mean = torch.std_mean(data.double(), (0, 2, 3))
    apart = two_point_correlation(fields) - two_point_correlation(data)
    return EnsembleReport(
        mean=mean,
        deviation=spread,
        data_mean=data_mean,
        data_deviation=data_spread,
        data_mean_spread=data.double().mean((2, 3)).std(0),
        spectrum=(own.mean(0) / reference.mean(0)).log().abs().mean(1),
        histogram=(_quantiles(fields) - _quantiles(data)).abs().mean(1),
        correlation=apart.square().mean(1).sqrt(),
        dead=int((fields[:, -1].double().flatten(1).std(1, correction=0) <= dead_below).sum()),
        mean_error=_error(fields.double().mean((2, 3))),
        deviation_error=_error(squares) / (2 * spread),
        spectrum_error=spectrum_error,
        spectrum_chance=spectrum_chance,
    )
