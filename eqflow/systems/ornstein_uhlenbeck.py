"""The Ornstein-Uhlenbeck process: linear drift, where everything is known in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from eqflow import ops
from eqflow.ops import philox
from eqflow.systems.exact import GaussianMixture
from eqflow.systems.planar import check_alpha

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """dx = A x dt + sqrt(2) G dW with D = G G^T: stationary N(0, C) with A C + C A^T + 2 D = 0.

    The field that carries the density is v = A x - D grad log p = (A + D C^-1) x; it vanishes in equilibrium.

    Args:
        drift_matrix: A, row by row; every eigenvalue needs a negative real part.
        diffusion: D, row by row; symmetric and positive definite.
        dt: time step of `run`, which is exact for any.

    Raises:
        ValueError: A is not stable, or D is not symmetric and positive definite.

    Example:
        >>> OrnsteinUhlenbeck(((-1.0, 2.0), (-2.0, -1.0)), ((1.0, 0.0), (0.0, 1.0))).velocity(torch.ones(1, 2))
        tensor([[ 2., -2.]])
    """

    drift_matrix: Rows = ((-1.0, 1.5), (-1.5, -0.7))
    diffusion: Rows = ((0.2, 0.04), (0.04, 0.08))
    dt: float = 0.05

    source: ClassVar[str] = "a rotating process of this library"

    def __post_init__(self) -> None:
        drift, diffusion = self._drift, self._diffusion
        if drift.ndim != 2 or drift.shape[0] != drift.shape[1] or diffusion.shape != drift.shape:
            raise ValueError(f"expected two square matrices, got {list(drift.shape)} and {list(diffusion.shape)}")
        growth = float(torch.linalg.eigvals(drift).real.max())
        if growth >= 0:
            raise ValueError(f"expected a drift whose eigenvalues have negative real parts, got one of {growth:g}")
        if not diffusion.allclose(diffusion.T) or torch.linalg.eigvalsh(diffusion).min() <= 0:
            raise ValueError("expected a symmetric positive definite diffusion")

    @property
    def dimension(self) -> int:
        return len(self.drift_matrix)

    @cached_property
    def _drift(self) -> Tensor:
        return torch.tensor(self.drift_matrix, dtype=torch.float64)

    @cached_property
    def _diffusion(self) -> Tensor:
        return torch.tensor(self.diffusion, dtype=torch.float64)

    @cached_property
    def mean(self) -> Tensor:
        """E[x] = 0, float64 [dimension]."""
        return torch.zeros(self.dimension, dtype=torch.float64)

    @cached_property
    def covariance(self) -> Tensor:
        """C, float64 [dimension, dimension]."""
        eye = torch.eye(self.dimension, dtype=torch.float64)
        system = torch.kron(self._drift, eye) + torch.kron(eye, self._drift)
        solution = torch.linalg.solve(system, -2 * self._diffusion.flatten()).view_as(eye)
        return (solution + solution.T) / 2

    @cached_property
    def _current(self) -> Tensor:
        """A + D C^-1."""
        return self._drift + torch.linalg.solve(self.covariance, self._diffusion, left=False)

    def drift(
        self,
        points: Tensor,  # [..., dimension]
    ) -> Tensor:
        """A x."""
        return points @ self._drift.T.to(points)

    def velocity(
        self,
        points: Tensor,  # [..., dimension]
    ) -> Tensor:
        """(A + D C^-1) x: keeps N(0, C)."""
        return points @ self._current.T.to(points)

    def divergence(
        self,
        points: Tensor,  # [..., dimension]
    ) -> Tensor:
        """div v = 0, [...]: the sum of the rates at which the flow v expands."""
        return points.new_zeros(points.shape[:-1])

    def at(self, alpha: float = 1.0) -> GaussianMixture:
        """The exact score of sqrt(alpha) x + sqrt(1 - alpha) epsilon, with `log_density`."""
        check_alpha(alpha)
        eye = torch.eye(self.dimension, dtype=torch.float64)
        return GaussianMixture(self.mean[None], (alpha * self.covariance + (1 - alpha) * eye)[None], eye[0, :1])

    def smoothed_velocity(
        self,
        points: Tensor,  # [..., dimension]
        alpha: float,
    ) -> Tensor:
        """E[sqrt(alpha) v(x_0) | y] at noised points y: keeps the noised density."""
        check_alpha(alpha)
        noised = alpha * self.covariance + (1 - alpha) * torch.eye(self.dimension, dtype=torch.float64)
        smoothed = alpha * self._current @ torch.linalg.solve(noised, self.covariance, left=False)
        return points @ smoothed.T.to(points)

    def sample(self, batch: int, *, seed: int, first_sample: int = 0, device: str | torch.device = "cpu") -> Tensor:
        """Unordered points of N(0, C), float64 [batch, dimension], functions of (seed, index) alone."""
        counter = {"seed": seed, "stream": philox.STREAMS["initial"], "first_sample": first_sample, "device": device}
        return _scaled(torch.linalg.cholesky(self.covariance), ops.normal(batch, self.dimension, **counter))

    def run(
        self,
        state: Tensor,  # [batch, dimension]
        steps: int,
        *,
        every: int | None = None,
        backend: str = "auto",
        seed: int | None = None,
        first_sample: int = 0,
        first_step: int = 0,
    ) -> Tensor:
        """Follow the process exactly: x' = F x + noise of covariance C - F C F^T, F = exp(A dt), for some steps of dt.

        Arguments and result as those of `Lorenz.run`.
        """
        if backend not in ("auto", "reference"):
            raise ValueError(f"expected backend 'auto' or 'reference' for a linear process, got {backend!r}")
        if seed is None:
            raise ValueError("expected a seed, since this process has noise: pass seed=...")
        transition = torch.linalg.matrix_exp(self._drift * self.dt)
        root = torch.linalg.cholesky(self.covariance - transition @ self.covariance @ transition.T)
        stream, frames = philox.STREAMS["langevin"], []
        for step in range(first_step, first_step + steps):
            counter = {"seed": seed, "step": step, "stream": stream, "first_sample": first_sample}
            normals = ops.normal(len(state), self.dimension, device=state.device, **counter)
            state = state @ transition.T.to(state) + _scaled(root, normals).to(state)
            if every and (step + 1 - first_step) % every == 0:
                frames.append(state)
        if every is None:
            return state
        return torch.stack(frames, 1) if frames else state.new_empty(len(state), 0, self.dimension)


def _scaled(root: Tensor, normals: Tensor) -> Tensor:
    """Normals with the covariance root root^T, column by column: a product's rounding would depend on the batch."""
    columns = zip(normals.double().unbind(1), root.to(normals.device).unbind(1), strict=True)
    return sum(normal[:, None] * column for normal, column in columns)
