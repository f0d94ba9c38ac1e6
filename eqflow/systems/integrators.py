"""One step of an ordinary or a stochastic differential equation, in plain PyTorch.

Products and sums are separate operations: a fused multiply-add in one part of a vector and not in another would make a
chaotic trajectory depend on how its batch is split.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def runge_kutta(velocity: Callable[[Tensor], Tensor], state: Tensor, dt: float | Tensor) -> Tensor:
    """One step of dx = v(x) dt by the classical method of fourth order.

    Example:
        >>> round(float(runge_kutta(torch.neg, torch.ones(1, dtype=torch.float64), 0.1)), 7)
        0.9048375
    """
    first = velocity(state)
    second = velocity(state + first * (dt / 2))
    third = velocity(state + second * (dt / 2))
    fourth = velocity(state + third * dt)
    return state + (first + (second + third) * 2 + fourth) * (dt / 6)


def heun(drift: Callable[[Tensor], Tensor], state: Tensor, dt: float, noise: Tensor) -> Tensor:
    """One step of dx = f(x) dt + dW by Heun's method, for additive noise: weak order 2.

    Args:
        drift: f.
        state: x.
        dt: time step.
        noise: the increment of W in this step, for example sqrt(2 D dt) times standard normals.
    """
    first = drift(state)
    second = drift(state + first * dt + noise)
    return state + (first + second) * (dt / 2) + noise
