"""A density that can be evaluated, differentiated and drawn from: a mixture of Gaussians seen through couplings.

    log p(x) = log sum_i w_i N(xi; Xi_i, Sigma) + log |det d xi / d x|,   xi = Phi^-1(x),   Sigma = K K^T

with one covariance for all components and Phi a chain of affine couplings, the identity where there are none (Lu,
Kusmierz and Mihalas, Eq. 5 and 6 and Appendix E, with the signs of the normaliser mended).
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from eqflow.score.closed_form import Mixture
from eqflow.score.coupling import Coupling
from eqflow.systems.whitened import WhitenedMixture


@dataclass(frozen=True)
class DensityShape:
    """What a density is made of.

    Args:
        dimension: numbers of a point.
        components: Gaussians of the mixture.
        couplings: 0 for a plain mixture; 2 or 4 where the mass lies along curves and components are dear.
        hidden: widths of the hidden layers of a coupling.

    Raises:
        ValueError: an argument is out of range.
    """

    dimension: int
    components: int = 100
    couplings: int = 0
    hidden: tuple[int, ...] = (64, 64)

    def __post_init__(self) -> None:
        for name, least in (("dimension", 1), ("components", 1), ("couplings", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"expected {name} from {least} up, got {getattr(self, name)}")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"expected hidden widths from 1 up, got {self.hidden}")
        if self.couplings and self.dimension < 2:
            raise ValueError("expected couplings=0 for one coordinate: they move coordinates by the others")

    def config(self) -> dict[str, Any]:
        """The same as plain values, for JSON.

        Example:
            >>> DensityShape.from_config(DensityShape(2, 9).config()) == DensityShape(2, 9)
            True
        """
        return {**asdict(self), "hidden": list(self.hidden)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DensityShape:
        """The shape whose `config` this is."""
        return cls(**{**config, "hidden": tuple(config["hidden"])})


class Local(NamedTuple):
    """A density at some points."""

    log_density: Tensor  # [batch]
    score: Tensor  # [batch, dimension]
    divergence: Tensor  # [batch]: of the score, the Laplacian of log p


class Density(nn.Module):
    """Mixture and couplings; as a module the map Phi from latent to data, as `at()` a score for dynamics.

    Its numbers are differentiable in the parameters and in the points; `density.double()` works in float64.

    Args:
        shape: what it is made of.
        centroids: Xi at the start, [components, dimension].
        deviation: of every component at the start: a number, or one for each coordinate.
        seed: of the initial weights of the couplings.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> density = Density(DensityShape(2, 3), torch.zeros(3, 2), 2.0)
        >>> round(density.log_density(torch.zeros(1, 2)).exp().item() * 8 * math.pi, 6)
        1.0
        >>> density.score(torch.tensor([[1.0, -2.0]])).detach()
        tensor([[-0.2500,  0.5000]])
    """

    def __init__(self, shape: DensityShape, centroids: Tensor, deviation: float | Tensor, *, seed: int = 0):
        super().__init__()
        if centroids.shape != (shape.components, shape.dimension):
            raise ValueError(f"expected centroids [{shape.components}, {shape.dimension}], got {list(centroids.shape)}")
        spread = torch.as_tensor(deviation, dtype=centroids.dtype, device=centroids.device).expand(shape.dimension)
        if not (spread > 0).all() or not (spread.isfinite().all() and centroids.isfinite().all()):
            raise ValueError("expected finite centroids and positive deviations")
        self.shape = shape
        self.centroids = nn.Parameter(centroids.detach().clone())
        self.logits = nn.Parameter(centroids.new_zeros(shape.components))
        self.root = nn.Parameter(torch.diag(spread.log()))  # K, with the logarithm of its diagonal
        self.couplings = nn.ModuleList(
            Coupling(shape.dimension, shape.hidden, parity=index % 2, seed=seed, index=index).to(centroids)
            for index in range(shape.couplings)
        )

    @property
    def dimension(self) -> int:
        return self.shape.dimension

    @property
    def factor(self) -> Tensor:
        """K, lower triangular with a positive diagonal: Sigma = K K^T."""
        return self.root.tril(-1) + self.root.diagonal().exp().diag()

    def coupling_size(self) -> Tensor:
        """Mean |a| + |b| over the couplings, []: 0 where they are the identity."""
        sizes = [size.abs().mean() for each in self.couplings for size in (each.scale_size, each.shift_size)]
        return torch.stack(sizes).sum() / len(self.couplings) if sizes else self.root.new_zeros(())

    def mixture(self, temperature: float = 1.0) -> WhitenedMixture:
        """The latent mixture, with its covariance times a temperature."""
        whiten = torch.linalg.solve_triangular(self.factor, torch.eye(self.dimension).to(self.root), upper=False)
        return WhitenedMixture(self.centroids, whiten / math.sqrt(temperature), self.logits.log_softmax(0))

    def forward(
        self,
        latent: Tensor,  # [batch, dimension]
    ) -> Tensor:
        """Phi: from latent to data, [batch, dimension]."""
        for coupling in self.couplings:
            latent = coupling(latent)
        return latent

    def inverse(
        self,
        points: Tensor,  # [batch, dimension]
    ) -> tuple[Tensor, Tensor]:
        """xi = Phi^-1(x), [batch, dimension], and log |det d xi / d x|, [batch]."""
        total = points.new_zeros(len(points))
        for coupling in reversed(self.couplings):
            points, log_det = coupling.inverse(points)
            total = total + log_det
        return points, total

    def log_density(
        self,
        points: Tensor,  # [batch, dimension]
    ) -> Tensor:
        """log p, normalised, [batch]."""
        latent, log_det = self.inverse(points)
        return self.mixture().log_density(latent) + log_det

    def energy(
        self,
        points: Tensor,  # [batch, dimension]
    ) -> Tensor:
        """-log p, [batch]."""
        return -self.log_density(points)

    def score(
        self,
        points: Tensor,  # [batch, dimension]
    ) -> Tensor:
        """grad log p, [batch, dimension]."""
        if not len(self.couplings):
            return self.mixture().score(points)
        return torch.func.grad(lambda rows: self.log_density(rows).sum())(points)

    def divergence(
        self,
        points: Tensor,  # [batch, dimension]
    ) -> Tensor:
        """div grad log p, exactly, [batch]: in closed form, or by one more backward pass a coordinate."""
        return self.local(points).divergence

    def local(
        self,
        points: Tensor,  # [batch, dimension]
    ) -> Local:
        """All three at once."""
        if not len(self.couplings):
            return Local(*self.mixture().local(points))
        wanted = torch.is_grad_enabled()
        with torch.enable_grad():
            rows = points if points.requires_grad else points.detach().requires_grad_()
            log_density = self.log_density(rows)
            (score,) = torch.autograd.grad(log_density.sum(), rows, create_graph=True)
            slopes = [torch.autograd.grad(column.sum(), rows, create_graph=True)[0] for column in score.unbind(1)]
            divergence = torch.stack([slope[:, place] for place, slope in enumerate(slopes)]).sum(0)
        found = Local(log_density, score, divergence)
        return found if wanted else Local(*(part.detach() for part in found))

    def sample(self, batch: int, *, seed: int, first_sample: int = 0) -> Tensor:
        """Points of the density, [batch, dimension]; their latent ones are functions of (seed, index) alone.

        Args:
            batch: number of points.
            seed: in [0, 2^64).
            first_sample: index of the first point.
        """
        with torch.no_grad():
            return self(self._noised().sample(batch, seed=seed, first_sample=first_sample))

    @torch.no_grad()
    def _noised(self, alpha: float = 1.0) -> Mixture:
        """The latent mixture under noise, without gradients."""
        covariance = alpha * self.factor @ self.factor.T + (1 - alpha) * torch.eye(self.dimension).to(self.root)
        return Mixture(alpha**0.5 * self.centroids.detach(), covariance, self.logits.softmax(0))

    def at(self, alpha: float = 1.0) -> DensityScore | Mixture:
        """The score of the density, or of it under noise, sqrt(alpha) x + sqrt(1 - alpha) epsilon, in closed form.

        Args:
            alpha: squared coefficient of the signal, in (0, 1]; 1 for the density itself.

        Raises:
            ValueError: there is no closed form, as couplings are in the way.
        """
        if not 0 < alpha <= 1:
            raise ValueError(f"expected alpha in (0, 1], the squared coefficient of the signal, got {alpha}")
        if not len(self.couplings):
            return self._noised(alpha)
        if alpha < 1:
            raise ValueError(
                f"expected alpha=1 for a density with couplings, whose noised score has no closed form, got {alpha}: "
                "train one with couplings=0, or take the score of the points it draws with score.Points"
            )
        return DensityScore(self)


@dataclass(frozen=True, eq=False)
class DensityScore:
    """The score of a density with couplings as dynamics want it; a `Score`, without a gradient in the parameters.

    It claims no `lipschitz`: couplings may be steep.

    Args:
        density: what it is the score of.
    """

    density: Density
    state_scale: ClassVar[float] = 0.0
    output_scale: ClassVar[float] = 1.0

    @property
    def dimension(self) -> int:
        return self.density.dimension

    def to(self, *to) -> DensityScore:
        """The same score in another precision or on another device; takes what Module.to takes."""
        return DensityScore(copy.deepcopy(self.density).to(*to))

    def output(self, state: Tensor) -> Tensor:
        return self(state)

    def _rows(self, state: Tensor) -> Tensor:
        like = self.density.centroids
        if state.dtype != like.dtype or state.device != like.device:
            raise TypeError(
                f"expected a {like.dtype} state on {like.device} as this score is, got {state.dtype} on "
                f"{state.device}: use score.to(...)"
            )
        if state.ndim < 2 or state[0].numel() != self.dimension:
            raise ValueError(f"expected a state [batch, {self.dimension}], got {list(state.shape)}")
        return state.flatten(1)

    def __call__(self, state: Tensor) -> Tensor:
        score = self.density.score(self._rows(state)).view_as(state)
        return score if state.requires_grad else score.detach()

    def log_density(self, state: Tensor) -> Tensor:
        """log p, [batch]."""
        return self.density.log_density(self._rows(state))

    def divergence(self, state: Tensor) -> Tensor:
        """div grad log p, [batch]."""
        return self.density.divergence(self._rows(state))

    def sample(self, batch: int, *, seed: int, first_sample: int = 0) -> Tensor:
        """As `Density.sample`."""
        return self.density.sample(batch, seed=seed, first_sample=first_sample)
