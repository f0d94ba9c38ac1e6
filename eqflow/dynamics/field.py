"""Velocity fields as dynamics: followed as they are, or with noise that the score balances; and which way they turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eqflow.dynamics.flows import Drift
from eqflow.dynamics.integrators import Stepper


def sense(
    moments: Tensor,  # [..., dimension, dimension]: E[x_i v_j]
) -> Tensor:
    """+1 or -1, [...]: which way a flow turns, counterclockwise or not, in the plane of its largest angular momentum.

    Snapshots cannot tell a flow from its reverse: found flows are multiplied by this number, so that equal ones agree.
    """
    momentum = (moments - moments.mT).triu(1).flatten(-2)
    largest = momentum.gather(-1, momentum.abs().argmax(-1, keepdim=True))[..., 0]
    return torch.where(largest < 0, -1.0, 1.0).to(moments)


class Field:
    """dx = v(x) dt: what a rollout needs, from a `velocity`."""

    def velocity(
        self,
        points: Tensor,  # [rows, dimension]
    ) -> Tensor:
        """v, [rows, dimension]."""
        raise NotImplementedError

    def stepper(
        self, state: Tensor, *, integrator: str | None, dt: float | None, seed: int, first_sample: int
    ) -> Stepper:
        """What advances states like `state`; see `Drift.stepper`."""
        drift = Drift(self.velocity)
        return drift.stepper(state, integrator=integrator, dt=dt, seed=seed, first_sample=first_sample)


@dataclass(frozen=True, eq=False)
class NoisyFlow(Field):
    """dx = (v(x) + eta s(x)) dt + sqrt(2 eta) dW: keeps the density of s if v does, and mends what v does not.

    Args:
        flow: anything with `velocity(points)`, such as a `LearnedFlow` of one model or a `PolynomialField`.
        score: s, any function of the points, such as a `KernelScore`.
        eta: strength of the gradient part and of its noise, above 0.
        backend: of the fused step.

    Raises:
        ValueError: eta is not above 0.

    Example:
        >>> from eqflow.dynamics import PolynomialField, rollout
        >>> turn = PolynomialField(torch.eye(2, dtype=torch.int64), torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        >>> rollout(torch.zeros(4, 2), NoisyFlow(turn, lambda x: -x, eta=0.25), 10, dt=0.01).step
        10
    """

    flow: Any
    score: Any
    eta: float = 0.25
    backend: str = field(default="auto", kw_only=True)

    def __post_init__(self) -> None:
        if not self.eta > 0:
            raise ValueError(f"expected eta above 0, got {self.eta}: without noise follow the flow itself")

    def velocity(self, points: Tensor) -> Tensor:
        return torch.add(self.flow.velocity(points), self.score(points), alpha=self.eta)

    def stepper(
        self, state: Tensor, *, integrator: str | None, dt: float | None, seed: int, first_sample: int
    ) -> Stepper:
        """What advances states like `state`: Heun unless another integrator is named."""
        drift = Drift(self.velocity, self.eta, backend=self.backend)
        return drift.stepper(state, integrator=integrator, dt=dt, seed=seed, first_sample=first_sample)
