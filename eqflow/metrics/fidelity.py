"""How much of the true motion recovered dynamics have: cosines of displacements, split by what the sign of K changes.

    odd part (e_+ - e_-) / 2     the recovered dynamics
    even part (e_+ + e_-) / 2    relaxation, which both signs share

e is the displacement of the denoised field after some model time, and it is compared with the true change of the clean
field after some steps of the system. Cosines are taken sample by sample over all sites and channels. They are no test
by themselves: the truth of another sample, K = 0, other kernels and other systems stand beside them.

The odd part is oriented by the K that was given: the sign of its cosine says which of +K and -K goes the way of the
system. For the Gray-Scott patterns that is `skew.rotation` of a negative gamma.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

_NOTHING = 1e-6  # what is left of a field beside another is rounding of float32 if its relative length is below


class Cosines(NamedTuple):
    """Over samples, for every model time and every number of system steps: float64 [times, lags].

    NaN is what cannot be known: the mean where no sample counts, its error where fewer than two do.
    """

    mean: Tensor
    error: Tensor  # standard error of the mean
    deviation: Tensor  # of single samples
    agreeing: Tensor  # share of samples with the sign of the mean
    samples: Tensor  # that count: neither displacement is zero

    def plain(self) -> dict[str, Any]:
        """Lists, for JSON."""
        return {name: value.tolist() for name, value in self._asdict().items()}


def _flat(fields: Tensor) -> Tensor:
    """[times, samples, numbers] in float64, of length 1; rows of zeros become NaN."""
    vectors = fields.flatten(2).double()
    return vectors / vectors.norm(dim=2, keepdim=True)


def displacement_cosines(
    displacement: Tensor,  # [times, samples, channels, height, width]
    truth: Tensor,  # [lags, samples, channels, height, width]
) -> Cosines:
    """The cosine of each displacement with each true change, sample by sample.

    Samples in which one of the two is exactly zero have no direction and are left out; `samples` says how many count.

    Raises:
        ValueError: the shapes do not fit, or the numbers are not finite.

    Example:
        >>> truth = torch.randn(1, 50, 2, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> displacement_cosines(-2 * truth, truth).mean
        tensor([[-1.]], dtype=torch.float64)
    """
    if displacement.ndim != 5 or truth.ndim != 5 or displacement.shape[1:] != truth.shape[1:]:
        raise ValueError(
            "expected displacements [times, samples, channels, height, width] and true changes [lags, ...] of the same "
            f"samples, got {list(displacement.shape)} and {list(truth.shape)}"
        )
    if not (displacement.isfinite().all() and truth.isfinite().all()):
        raise ValueError("expected finite displacements, got NaN or infinite numbers: the rollout or the truth broke")
    values = torch.einsum("tsn,lsn->tls", _flat(displacement), _flat(truth))
    counted = values.isfinite()
    number = counted.sum(2)
    mean = values.nansum(2) / number
    away = torch.where(counted, values - mean[..., None], 0.0)
    deviation = (away.square().sum(2) / (number - 1).clamp(min=0)).sqrt()
    agreeing = ((values.sign() == mean.sign()[..., None]) & counted).sum(2) / number
    return Cosines(mean, deviation / number.sqrt(), deviation, agreeing, number)


def without(
    fields: Tensor,  # [lags, samples, channels, height, width]
    direction: Tensor,  # of the same shape
) -> Tensor:
    """The fields without their component along a direction, sample by sample; zero where only rounding is left.

    Example:
        >>> fields, direction = torch.ones(1, 1, 1, 1, 2), torch.tensor([2.0, 0.0]).view(1, 1, 1, 1, 2)
        >>> without(fields, direction).flatten()
        tensor([0., 1.])
    """
    own, along = fields.flatten(2).double(), direction.flatten(2).double()
    length = along.square().sum(2, keepdim=True)
    share = (own * along).sum(2, keepdim=True) / torch.where(length > 0, length, 1.0)
    left = own - share * along
    something = left.norm(dim=2, keepdim=True) > _NOTHING * own.norm(dim=2, keepdim=True)
    return torch.where(something, left, 0.0).to(fields.dtype).view_as(fields)


class Fidelity(NamedTuple):
    """What `fidelity` finds; every `Cosines` is [times, lags]."""

    odd: Cosines
    even: Cosines
    plus: Cosines  # along +K
    minus: Cosines
    none: Cosines | None  # without K
    other_sample: Cosines | None  # the odd part with the true change of another sample
    other_truths: dict[str, Cosines]  # the odd part with what other systems would do from the same field
    other_truths_apart: dict[str, Cosines]  # the same without its component along the own truth
    other_kernels: dict[str, Cosines]  # the odd parts of other kernels with the truth
    change: Tensor  # root mean square of the true change, float64 [lags]

    def plain(self) -> dict[str, Any]:
        """Lists and dicts, for JSON."""

        def of(value: Any) -> Any:
            if isinstance(value, Cosines):
                return value.plain()
            if isinstance(value, Tensor):
                return value.tolist()
            return {name: of(item) for name, item in value.items()} if isinstance(value, dict) else value

        return {name: of(value) for name, value in self._asdict().items()}


def fidelity(
    plus: Tensor,  # [times, samples, channels, height, width]
    minus: Tensor,  # the same samples, starts and noise along -K
    truth: Tensor,  # [lags, samples, channels, height, width]
    *,
    none: Tensor | None = None,
    other_truths: Mapping[str, Tensor] | None = None,
    other_kernels: Mapping[str, Tensor] | None = None,
) -> Fidelity:
    """The recovered motion beside the true one, with nulls.

    Args:
        plus, minus: displacements of the denoised field along +K and -K, such as `dynamics.paired_rollout` gives.
        truth: change of the clean field after some numbers of system steps.
        none: displacements without K.
        other_truths: changes that other systems make of the same fields, by name, each like `truth`.
        other_kernels: odd parts of other kernels, by name, each like `plus`.

    Returns:
        Fidelity; `odd.mean` over `odd.error` says in standard errors whether there is any motion recovered.

    Raises:
        ValueError: the shapes do not fit, or the numbers are not finite.

    Example:
        >>> noise = torch.randn(3, 64, 2, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> found = fidelity(noise[1:2] + noise[2:], noise[2:] - noise[1:2], noise[1:2])
        >>> round(float(found.odd.mean), 6), abs(float(found.even.mean)) < 4 * float(found.even.error)
        (1.0, True)
    """
    odd, even = (plus - minus) / 2, (plus + minus) / 2
    others = dict(other_truths or {})
    return Fidelity(
        odd=displacement_cosines(odd, truth),
        even=displacement_cosines(even, truth),
        plus=displacement_cosines(plus, truth),
        minus=displacement_cosines(minus, truth),
        none=None if none is None else displacement_cosines(none, truth),
        other_sample=displacement_cosines(odd, truth.roll(1, 1)) if truth.shape[1] > 1 else None,
        other_truths={name: displacement_cosines(odd, other) for name, other in others.items()},
        other_truths_apart={name: displacement_cosines(odd, without(other, truth)) for name, other in others.items()},
        other_kernels={name: displacement_cosines(part, truth) for name, part in (other_kernels or {}).items()},
        change=truth.double().square().mean((1, 2, 3, 4)).sqrt(),
    )
