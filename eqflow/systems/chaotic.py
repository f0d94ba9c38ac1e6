"""What all chaotic systems share: the drift and its derivatives, trajectories, and unordered points."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from eqflow import ops
from eqflow.ops import philox
from eqflow.systems.chains import Chains, sample_chains
from eqflow.systems.integrators import heun, runge_kutta

Slopes = tuple[tuple[float | Tensor, ...], ...]

_NOISE = philox.STREAMS["langevin"]


class ChaoticSystem:
    """dx = f(x) dt + sqrt(2 D) dW in a few coordinates, deterministic where the diffusion D is 0.

    A system says `equations` and `slopes`, how its chains are made, where its parameters come from, and its largest
    Lyapunov exponent as far as the literature knows it.
    """

    dimension: ClassVar[int] = 3
    diffusion: ClassVar[float] = 0.0
    chains: ClassVar[Chains]
    source: ClassVar[str]
    lyapunov: ClassVar[float]

    def equations(self, *coordinates: Tensor) -> tuple[Tensor, ...]:
        """The drift, coordinate by coordinate."""
        raise NotImplementedError

    def slopes(self, *coordinates: Tensor) -> Slopes:
        """dF_i / dx_j of the drift, row by row, as numbers where they are constant."""
        raise NotImplementedError

    @property
    def dt(self) -> float:
        """Time step of `run` and `sample`."""
        return self.chains.dt

    def drift(
        self,
        points: Tensor,  # [..., dimension]
    ) -> Tensor:
        """f(x), of the shape of the points."""
        return torch.stack(self.equations(*points.unbind(-1)), -1)

    def velocity(
        self,
        points: Tensor,  # [..., dimension]
        scores: Tensor | None = None,
    ) -> Tensor:
        """The field that carries the density, f - D grad log p: the drift itself where there is no noise.

        Args:
            points: x.
            scores: grad log p at the points, needed with noise.

        Raises:
            ValueError: there is noise and no score.
        """
        if not self.diffusion:
            return self.drift(points)
        if scores is None:
            raise ValueError("expected scores, since with noise the velocity is drift - diffusion * score: pass them")
        return self.drift(points) - self.diffusion * scores

    def jacobian(
        self,
        points: Tensor,  # [..., dimension]
    ) -> Tensor:
        """The matrix dF_i / dx_j of the drift, [..., dimension, dimension]."""
        matrix = points.new_zeros(*points.shape, self.dimension)
        for i, row in enumerate(self.slopes(*points.unbind(-1))):
            for j, slope in enumerate(row):
                matrix[..., i, j] = slope
        return matrix

    def divergence(
        self,
        points: Tensor,  # [..., dimension]
    ) -> Tensor:
        """div f, the trace of the Jacobian, [...]."""
        rows = self.slopes(*points.unbind(-1))
        return sum(row[i] for i, row in enumerate(rows)) + torch.zeros_like(points[..., 0])

    def pushforward(
        self,
        points: Tensor,  # [..., dimension]
        directions: Tensor,  # [..., directions, dimension]
    ) -> tuple[Tensor, Tensor]:
        """f and J z of each direction z, as `eqflow.ops.divergence.pushforward` gives them for networks."""
        return self.drift(points), directions @ self.jacobian(points).mT

    def advance(
        self, state: Tensor, steps: int, seed: int, first_sample: int, first_step: int, dt: float | Tensor
    ) -> Tensor:
        """The state [dimension, batch] some steps later; dt may differ from trajectory to trajectory."""

        def rates(state: Tensor) -> Tensor:
            return torch.stack(self.equations(*state))

        for step in range(first_step, first_step + steps):
            if self.diffusion:
                counter = {"seed": seed, "step": step, "stream": _NOISE, "first_sample": first_sample}
                normals = ops.normal(state.shape[1], len(state), device=state.device, **counter)
                state = heun(rates, state, dt, normals.T.to(state) * (2 * self.diffusion * dt) ** 0.5)
            else:
                state = runge_kutta(rates, state, dt)
        if not state.isfinite().all():
            raise FloatingPointError(
                f"a trajectory of {type(self).__name__} left every bound before step {first_step + steps}: start "
                "nearer to the attractor, or take a smaller step"
            )
        return state

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
        """Follow trajectories for some steps of `dt`, in the precision of the state.

        Args:
            state: where they start.
            steps: number of steps.
            every: give the states after `every`, 2 `every`, ... steps too.
            backend: "auto" or "reference"; there is no kernel.
            seed, first_sample, first_step: counter of the noise; the seed is needed where there is noise.

        Returns:
            [batch, dimension], or [batch, steps // every, dimension].

        Raises:
            ValueError: an argument is wrong.
            FloatingPointError: a trajectory has escaped.

        Example:
            >>> from eqflow.systems import Lorenz
            >>> Lorenz().run(torch.ones(4, 3), 100, every=10).shape
            torch.Size([4, 10, 3])
        """
        if backend not in ("auto", "reference"):
            raise ValueError(f"expected backend 'auto' or 'reference' for {type(self).__name__}, got {backend!r}")
        if self.diffusion and seed is None:
            raise ValueError("expected a seed, since this system has noise: pass seed=...")
        stride, frames = every or steps, []
        columns = state.T.contiguous()
        for begin in range(first_step, first_step + steps - stride + 1, stride) if steps else ():
            columns = self.advance(columns, stride, seed or 0, first_sample, begin, self.dt)
            frames.append(columns.T)
        if every is None:
            return columns.T.contiguous()
        return torch.stack(frames, 1) if frames else state.new_empty(len(state), 0, self.dimension)

    def sample(self, batch: int, *, seed: int, first_sample: int = 0, device: str | torch.device = "cpu") -> Tensor:
        """Unordered points of the attractor, float64 [batch, dimension], functions of (seed, index) alone.

        Point i is snapshot i // 20,000 of chain i % 20,000: the first 20,000 points are independent, and each further
        20,000 cost one interval of all chains. The burn-in of a chain is dropped; its length is uniform in one half to
        the whole of what `chains` says, so that the chains of a nearly periodic system do not keep in step.

        Args:
            batch: number of points.
            seed: in [0, 2^64).
            first_sample: index of the first point.
            device: where they are made.

        Raises:
            ValueError: an argument is wrong.

        Example:
            >>> from eqflow.systems import SprottB
            >>> SprottB().sample(5, seed=0).shape
            torch.Size([5, 3])
        """
        return sample_chains(self, batch, seed=seed, first_sample=first_sample, device=device)
