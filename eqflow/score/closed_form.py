"""Scores in closed form: a Gaussian, a mixture of Gaussians, and a cloud of points under Gaussian noise.

Each is a function score(state) of the shape of the state, [batch, dimension] or a batch of fields, with

    dimension       numbers a sample
    lipschitz       no eigenvalue of the Jacobian of the score lies below -lipschitz: the number that limits a step
    log_density     log p(state), [batch]
    divergence      the trace of the Jacobian of the score, [batch]
    sample          exact samples by counter: the same ones on every device and for every split of a batch

The tensors given decide precision and device; `score.to(...)` moves them like `Tensor.to`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from eqflow import ops
from eqflow.ops import philox
from eqflow.systems import GaussianMixture

_STREAM = philox.STREAMS["initial"]  # step 0: the normals of a sample; step 1: which component or point it comes from


class _ClosedForm:
    """Folding, moving and checking, the same for all."""

    state_scale: ClassVar[float] = 0.0
    output_scale: ClassVar[float] = 1.0

    def output(self, state: Tensor) -> Tensor:
        return self(state)

    def to(self, *to):
        """The same score in another precision or on another device; takes what Tensor.to takes."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{k: v.to(*to) for k, v in values.items() if isinstance(v, Tensor)})

    def _rows(self, state: Tensor, like: Tensor) -> Tensor:
        if state.dtype != like.dtype or state.device != like.device:
            raise TypeError(
                f"expected a {like.dtype} state on {like.device} as this score is, got {state.dtype} on "
                f"{state.device}: use score.to(state)"
            )
        if state.ndim < 2 or state[0].numel() != self.dimension:
            raise ValueError(
                f"expected a state [batch, ...] of {self.dimension} numbers a sample, got {list(state.shape)}"
            )
        return state.flatten(1)


def _check_finite(name: str, value: Tensor) -> None:
    if not value.is_floating_point():
        raise TypeError(f"expected {name} in floating point, got {value.dtype}: use {name}.float()")
    if not value.isfinite().all():
        raise ValueError(f"expected finite {name}, got NaN or infinite values: mend the input")


def _normals(batch: int, seed: int, first_sample: int, like: Tensor) -> Tensor:
    """Standard normals [batch, numbers of a sample like `like`]."""
    sites = like.numel()
    return ops.normal(batch, sites, seed=seed, stream=_STREAM, first_sample=first_sample, device=like.device).to(like)


def _origin_words(batch: int, seed: int, first_sample: int, device: torch.device) -> Tensor:
    """One random word a sample, int64 [batch]: which component or point it comes from."""
    samples = torch.arange(first_sample, first_sample + batch, device=device)
    return philox.words(samples, 1, seed=seed, step=1, stream=_STREAM)[:, 0]


@dataclass(frozen=True, eq=False)
class Gaussian(_ClosedForm):
    """The score -covariance^-1 (state - mean) of a Gaussian.

    Args:
        mean: [dimension], or a field [channels, height, width], which is flattened.
        covariance: [dimension, dimension], symmetric and positive definite; a number is the variance of each
            independent coordinate.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> Gaussian(torch.zeros(2), 0.25)(torch.tensor([[1.0, -2.0]]))
        tensor([[-4.,  8.]])
    """

    mean: Tensor
    covariance: Tensor | float

    def __post_init__(self) -> None:
        _check_finite("mean", self.mean)
        if not isinstance(self.covariance, Tensor):
            if not 0 < self.covariance < math.inf:
                raise ValueError(f"expected a positive variance, got {self.covariance}")
            return
        _check_finite("covariance", self.covariance)
        if self.covariance.shape != (self.dimension, self.dimension):
            raise ValueError(
                f"expected a covariance [{self.dimension}, {self.dimension}] for a mean of {self.dimension} numbers, "
                f"got {list(self.covariance.shape)}"
            )
        lowest, highest = self._eigenvalues
        symmetric = torch.allclose(self.covariance, self.covariance.T, rtol=1e-5, atol=1e-6 * highest)
        if not symmetric or lowest <= 0:
            raise ValueError(
                "expected a symmetric positive definite covariance, got "
                + (f"a smallest eigenvalue of {lowest:.3g}" if symmetric else "one that is not symmetric")
            )

    @property
    def dimension(self) -> int:
        return self.mean.numel()

    @cached_property
    def _eigenvalues(self) -> tuple[float, float]:
        """The smallest and the largest one of the covariance."""
        if not isinstance(self.covariance, Tensor):
            return self.covariance, self.covariance
        values = torch.linalg.eigvalsh(self.covariance.double())
        return float(values[0]), float(values[-1])

    @cached_property
    def _root(self) -> Tensor:
        """The lower Cholesky factor, in float64."""
        return torch.linalg.cholesky(self.covariance.double())

    @cached_property
    def _precision(self) -> Tensor | float:
        if not isinstance(self.covariance, Tensor):
            return 1 / self.covariance
        return torch.cholesky_inverse(self._root).to(self.mean)

    @cached_property
    def _log_normaliser(self) -> float:
        if not isinstance(self.covariance, Tensor):
            return 0.5 * self.dimension * math.log(2 * math.pi * self.covariance)
        return 0.5 * self.dimension * math.log(2 * math.pi) + float(self._root.diagonal().log().sum())

    @property
    def lipschitz(self) -> float:
        return 1 / self._eigenvalues[0]

    def _pull(self, away: Tensor) -> Tensor:
        return -(away @ self._precision) if isinstance(self._precision, Tensor) else away * -self._precision

    def __call__(self, state: Tensor) -> Tensor:
        away = self._rows(state, self.mean) - self.mean.flatten()
        return self._pull(away).view_as(state)

    def log_density(self, state: Tensor) -> Tensor:
        away = self._rows(state, self.mean) - self.mean.flatten()
        return 0.5 * (away * self._pull(away)).sum(1) - self._log_normaliser

    def divergence(self, state: Tensor) -> Tensor:
        matrix = isinstance(self._precision, Tensor)
        trace = float(self._precision.trace()) if matrix else self.dimension * self._precision
        return self._rows(state, self.mean).new_full((len(state),), -trace)

    def sample(self, batch: int, *, seed: int, first_sample: int = 0) -> Tensor:
        normals = _normals(batch, seed, first_sample, self.mean)
        if isinstance(self.covariance, Tensor):
            # Column by column: the rounding of a matrix product would depend on how the batch is split.
            columns = zip(normals.unbind(1), self._root.to(self.mean).unbind(1), strict=True)
            away = sum(normal[:, None] * column for normal, column in columns)
        else:
            away = normals * math.sqrt(self.covariance)
        return (self.mean.flatten() + away).view(batch, *self.mean.shape)


@dataclass(frozen=True, eq=False)
class Mixture(_ClosedForm):
    """The score of a mixture of Gaussians: sum of w_j(state) score_j(state), w the posterior weights.

    Args:
        means: [components, dimension], or fields [components, channels, height, width].
        covariance: [dimension, dimension] for all, or [components, dimension, dimension]; a number is the variance of
            every coordinate of every component.
        weights: [components], not negative; scaled to the sum 1. None: equal weights.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> score = Mixture(torch.tensor([[-1.0], [1.0]]), 0.25)
        >>> score(torch.tensor([[2.0], [0.5]])).flatten()
        tensor([-4.0000,  1.8561])
    """

    means: Tensor
    covariance: Tensor | float
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.means.ndim < 2 or not len(self.means):
            raise ValueError(f"expected means [components, dimension], got {list(self.means.shape)}")
        if self._one_each and len(self.covariance) != len(self.means):
            raise ValueError(
                f"expected a covariance for each of the {len(self.means)} means, got {len(self.covariance)}"
            )
        if self.weights is not None:
            _check_finite("weights", self.weights)
            if self.weights.shape != self.means.shape[:1] or (self.weights < 0).any() or self.weights.sum() <= 0:
                raise ValueError(
                    f"expected {len(self.means)} weights from 0 up with a positive sum, got {self.weights.tolist()}"
                )
        _ = self.components  # made at once, so that wrong means and covariances show here

    @property
    def _one_each(self) -> bool:
        return isinstance(self.covariance, Tensor) and self.covariance.ndim == 3

    @cached_property
    def components(self) -> tuple[Gaussian, ...]:
        covariances = self.covariance if self._one_each else [self.covariance] * len(self.means)
        return tuple(Gaussian(mean, covariance) for mean, covariance in zip(self.means, covariances, strict=True))

    @cached_property
    def _shares(self) -> Tensor:
        """The weights with the sum 1, [components]."""
        weights = self.means.new_ones(len(self.means)) if self.weights is None else self.weights.to(self.means)
        return weights / weights.sum()

    @cached_property
    def _exact(self) -> GaussianMixture:
        """The same in float64, whatever the precision of the states."""
        covariance = self.covariance
        if isinstance(covariance, Tensor):
            covariance = covariance.double().view(-1, self.dimension, self.dimension)
        return GaussianMixture(self.means.flatten(1).double(), covariance, self._shares.double())

    @property
    def dimension(self) -> int:
        return self.means[0].numel()

    @property
    def lipschitz(self) -> float:
        return self._exact.lipschitz

    def __call__(self, state: Tensor) -> Tensor:
        return self._exact(self._rows(state, self.means)).view_as(state)

    def log_density(self, state: Tensor) -> Tensor:
        return self._exact.log_density(self._rows(state, self.means))

    def divergence(self, state: Tensor) -> Tensor:
        return self._exact.divergence(self._rows(state, self.means))

    def sample(self, batch: int, *, seed: int, first_sample: int = 0) -> Tensor:
        uniform = philox.unit_interval(_origin_words(batch, seed, first_sample, self.means.device))
        chosen = torch.searchsorted(self._shares.double().cumsum(0), uniform).clamp_max(len(self.means) - 1)
        normals = _normals(batch, seed, first_sample, self.means[0])
        if isinstance(self.covariance, Tensor):
            roots = torch.stack([part._root for part in self.components[: len(self.means) if self._one_each else 1]])
            columns = roots.to(self.means)[chosen if self._one_each else chosen * 0].unbind(2)
            away = sum(normal[:, None] * column for normal, column in zip(normals.unbind(1), columns, strict=True))
        else:
            away = normals * math.sqrt(self.covariance)
        return self.means[chosen] + away.view(batch, *self.means.shape[1:])


@dataclass(frozen=True, eq=False)
class KernelScore(_ClosedForm):
    """The exact score of points under Gaussian noise, p = mean over i of N(sqrt(alpha) x_i, (1 - alpha) I).

    A denoiser like a trained one: `predicts` is "score". See `eqflow.ops.kernel_score` for the equations.

    Args:
        points: [points, dimension], or fields [points, channels, height, width]; float32, or float64 (slower).
        alpha: squared coefficient of the signal, in (0, 1).
        self_term: "include", or "exclude": a state i made from point i sees all the others only. Say `own` where the
            states come from other points than 0, 1, 2, ...

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> score = KernelScore(torch.tensor([[-1.0], [1.0]]), 0.75)
        >>> score(torch.tensor([[2.0]]))
        tensor([[-4.5359]])
    """

    points: Tensor
    alpha: float
    self_term: str = dataclasses.field(default="include", kw_only=True)
    predicts: ClassVar[str] = "score"

    def __post_init__(self) -> None:
        if self.points.ndim < 2 or not self.points.numel():
            raise ValueError(f"expected points [points, dimension], at least one, got {list(self.points.shape)}")
        _check_finite("points", self.points)
        if not 0 < self.alpha < 1:
            raise ValueError(f"expected alpha in (0, 1), the squared coefficient of the signal, got {self.alpha}")
        if self.self_term not in ("include", "exclude"):
            raise ValueError(f"expected self_term 'include' or 'exclude', got {self.self_term!r}")

    @property
    def dimension(self) -> int:
        return self.points[0].numel()

    @property
    def lipschitz(self) -> float:
        return 1 / (1 - self.alpha)

    def _run(self, state: Tensor, own: Tensor | None, values: Tensor | None = None):
        rows = self._rows(state, self.points)
        if own is None and self.self_term == "exclude":
            if len(rows) > len(self.points):
                raise ValueError(
                    f"expected at most {len(self.points)} states, one made from each point, got {len(rows)}: say "
                    "which point each comes from with `own`"
                )
            own = torch.arange(len(rows), device=rows.device)
        exclude = own if self.self_term == "exclude" else None
        return ops.kernel_score(rows, self.points.flatten(1), alpha=self.alpha, exclude=exclude, values=values)

    def __call__(self, state: Tensor, own: Tensor | None = None) -> Tensor:
        return self._run(state, own).score.view_as(state)

    def log_density(self, state: Tensor, own: Tensor | None = None) -> Tensor:
        return self._run(state, own).log_density

    def smooth(
        self,
        state: Tensor,
        values: Tensor,  # [points, numbers]
        own: Tensor | None = None,  # [batch], int64
    ) -> Tensor:
        """E[f(x_0) | state] for the values f(x_i) at the points, [batch, numbers]."""
        return self._run(state, own, values).smoothed

    def divergence(self, state: Tensor, own: Tensor | None = None) -> Tensor:
        """Trace of Cov(sqrt(alpha) x_0 | state) / (1 - alpha)^2 - I / (1 - alpha)."""
        points, noise = self.points.flatten(1), 1 - self.alpha
        centre = points.mean(0)
        score, _, square = self._run(state, own, (points - centre).square().sum(1, keepdim=True))
        mean = state.flatten(1) + noise * score - math.sqrt(self.alpha) * centre  # of sqrt(alpha) (x_0 - centre)
        return (self.alpha * square[:, 0] - mean.square().sum(1)) / noise**2 - self.dimension / noise

    def sample(self, batch: int, *, seed: int, first_sample: int = 0) -> Tensor:
        origin = philox.integers(_origin_words(batch, seed, first_sample, self.points.device), len(self.points))
        noise = _normals(batch, seed, first_sample, self.points[0]).view(batch, *self.points.shape[1:])
        return math.sqrt(self.alpha) * self.points[origin] + math.sqrt(1 - self.alpha) * noise
