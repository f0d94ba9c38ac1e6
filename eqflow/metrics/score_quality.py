"""Whether a denoiser's score can be trusted: is it a gradient, and does it obey Stein's identity.

With D the denoiser of y = x_0 + sigma epsilon, J its Jacobian, and s the score of any fields x of d numbers each:

    |(J - J^T) r| / |J r|          0 for the posterior mean: the score (D - y) / sigma^2 is a gradient
    E[s . x] / d = -1              and E[Re s^(q) x^(q)*] / (height width) = -1 for every wave number q and channel
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import grad
from torch.nn.attention import SDPBackend, sdpa_kernel

from eqflow import ops
from eqflow.metrics.residual import _ratio
from eqflow.ops import philox

FieldFunction = Callable[[Tensor], Tensor]  # keeps the shape [batch, channels, height, width]


def _check_fields(fields: Tensor) -> None:
    if fields.ndim != 4 or len(fields) < 2 or not fields.is_floating_point():
        raise ValueError(
            "expected two or more fields [fields, channels, height, width] of floating point numbers, got "
            f"{list(fields.shape)} of {fields.dtype}"
        )


class Asymmetry(NamedTuple):
    """Of a Jacobian, a share without a unit, and its standard error over fields."""

    asymmetry: float
    standard_error: float


def asymmetry(
    denoiser: FieldFunction,
    noised: Tensor,  # [fields, channels, height, width]
    *,
    directions: Tensor | None = None,  # [fields, channels, height, width]
    probes: int = 4,
    seed: int = 0,
    batch: int = 8,
) -> Asymmetry:
    """(E|(J - J^T) r|^2 / E|J r|^2)^(1/2): 0 for a gradient, 2 for a rotation without stretching.

    For random r it is |J - J^T|_F / |J|_F. J^T r is a backward pass, and J r the derivative of u -> J^T u, which is
    linear: exact up to rounding, of denoisers that differentiate within too.

    Args:
        denoiser: D, which autograd can go through twice, row by row.
        noised: fields that D is made for.
        directions: r of every field; None: `probes` normal ones each, of the stream "probes" of `seed`.
        batch: fields whose derivatives are in memory at once.

    Raises:
        ValueError: the shapes do not fit, or the output does not depend on the fields.

    Example:
        >>> turned = lambda y: 0.8 * y + 0.6 * torch.stack([-y[:, 1], y[:, 0]], 1)
        >>> round(asymmetry(turned, torch.zeros(2, 2, 8, 8)).asymmetry, 6)  # 2 * 0.6 / (0.8^2 + 0.6^2)^(1/2)
        1.2
    """
    _check_fields(noised)
    if probes < 1 or batch < 1 or (directions is not None and directions.shape != noised.shape):
        raise ValueError(
            f"expected probes and batch from 1 up and directions like the fields {list(noised.shape)}, got {probes}, "
            f"{batch} and {None if directions is None else list(directions.shape)}"
        )
    if directions is None:
        place = {"seed": seed, "stream": philox.STREAMS["probes"], "device": noised.device}
        drawn = [ops.normal(len(noised), noised[0].numel(), step=step, **place) for step in range(probes)]
        directions = torch.stack(drawn, 1).view(len(noised), probes, *noised.shape[1:])
    else:
        directions = directions[:, None]
    apart, whole = [], []
    for fields, chosen in zip(noised.split(batch), directions.to(noised).split(batch), strict=True):
        # The fused attentions have no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            fields = fields.detach().requires_grad_()
            clean = denoiser(fields)
            if clean.shape != fields.shape or not clean.requires_grad:
                raise ValueError(
                    f"expected a denoiser that autograd can go through and that keeps the shape {list(fields.shape)}, "
                    f"got {list(clean.shape)}, {'with' if clean.requires_grad else 'without'} a derivative"
                )
            weight = torch.zeros_like(clean, requires_grad=True)
            (pulled,) = grad(clean, fields, weight, create_graph=True)
            for r in chosen.unbind(1):
                (forward,) = grad(pulled, weight, r, retain_graph=True)
                (backward,) = grad(clean, fields, r, retain_graph=True)
                apart.append((forward.double() - backward).flatten(1).square().sum(1))
                whole.append(forward.double().flatten(1).square().sum(1))
    share, error = _ratio(*(_field_sums(parts, len(directions[0])) for parts in (apart, whole)))
    root = math.sqrt(float(share))
    return Asymmetry(root, float(error) / (2 * root) if root else 0.0)


def _field_sums(parts: list[Tensor], probes: int) -> Tensor:
    """Sums over the probes, [fields], of values that came batch by batch and probe by probe."""
    return torch.cat([torch.stack(parts[start : start + probes]).sum(0) for start in range(0, len(parts), probes)])


class FieldStein(NamedTuple):
    """Stein's identity of a score of fields, with standard errors over fields; every value -1 for the true score."""

    product: Tensor  # []: E[s . x] / d
    product_error: Tensor
    spectrum: Tensor  # [channels, waves]: by whole wave numbers 0, 1, ... along the shorter axis
    spectrum_error: Tensor

    @property
    def worst(self) -> float:
        """The largest deviation in standard errors; below 4 or so for an exact score."""
        values = torch.cat([self.product[None], self.spectrum.flatten()])
        return float(((values + 1) / torch.cat([self.product_error[None], self.spectrum_error.flatten()])).abs().max())


@torch.no_grad()
def stein_identity(
    score: FieldFunction,
    states: Tensor,  # [fields, channels, height, width]
    *,
    batch: int = 32,
) -> FieldStein:
    """E[s . x] / d, and its share at every wave number: necessary of a score, though not sufficient.

    Only second moments enter, so the score of a Gaussian field of the same spectrum obeys it on any data.

    Args:
        score: s of the density that the states are of, whatever their coordinates.
        states: independent x of it, noised afresh.
        batch: fields that go through the score at once.

    Returns:
        FieldStein(product, product_error, spectrum, spectrum_error), float64.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> x = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> stein_identity(lambda x: -x, x).worst < 4 < stein_identity(lambda x: -1.1 * x, x).worst
        True
    """
    _check_fields(states)
    height, width = states.shape[2:]
    shorter = min(height, width)
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64, device=states.device) for n in (height, width))
    ring = (torch.hypot(rows[:, None], columns) * shorter).round().long().clamp(max=shorter // 2).flatten()
    sizes = ring.bincount()
    # About the mean of the other fields: the same expectation, since E[s] = 0, with less noise.
    means = states.double().mean((2, 3), keepdim=True)
    others = (means.sum(0) - means) / (len(states) - 1)
    found = []
    for fields, about in zip(states.split(batch), others.split(batch), strict=True):
        values = score(fields)
        if values.shape != fields.shape:
            raise ValueError(f"expected a score of the shape {list(fields.shape)}, got {list(values.shape)}")
        waves = torch.fft.fft2(values.double()) * torch.fft.fft2(fields.double() - about).conj()
        power = waves.real.flatten(2) / (height * width)
        found.append(power.new_zeros(*power.shape[:2], len(sizes)).index_add_(2, ring, power))
    sums = torch.cat(found)
    product, spectrum = sums.sum((1, 2)) / states[0].numel(), sums / sizes
    root = math.sqrt(len(states))
    return FieldStein(product.mean(0), product.std(0) / root, spectrum.mean(0), spectrum.std(0) / root)
