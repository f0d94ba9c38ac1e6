"""Dynamics that a rollout follows: the skew flow of a score, and any drift. Each makes its own stepper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from eqflow.dynamics import coefficients, limits, skew
from eqflow.dynamics.integrators import Fused, RungeKutta, Stepper

INTEGRATORS = ("exact-ou", "heun", "euler-maruyama", "rk4")


def _choose(integrator: str | None, default: str, known: Sequence[str], dt: float | None) -> tuple[str, float]:
    name = integrator or default
    if name not in known:
        raise ValueError(f"expected integrator {', '.join(map(repr, known))} for these dynamics, got {name!r}")
    if dt is None or not 0 < dt < math.inf:
        raise ValueError(f"expected dt above 0, got {dt}")
    return name, float(dt)


@dataclass(frozen=True)
class SkewFlow:
    """dx = (K * s(x) + eta s(x)) dt + sqrt(2 eta) dW: keeps the density whose score is s (Eq. 10, 11).

    Args:
        score: a `Score`: score(x) = state_scale x + output_scale output(x).
        kernel: [channels, channels, 2r + 1, 2r + 1], skew-symmetric; see `eqflow.dynamics.skew`.
        eta: strength of the gradient part, from 0 up.
        compile: compile the output of the score with torch.compile.
        autocast: type in which the score computes its output, for example torch.bfloat16; None: as it is.
        backend: of the fused step: "auto", "reference", "native" or "triton".

    Raises:
        ValueError: the kernel is not skew-symmetric, or eta is negative.

    Example:
        >>> from eqflow.dynamics import rollout, skew
        >>> from eqflow.score import Gaussian
        >>> flow = SkewFlow(Gaussian(torch.zeros(2), 1.0), skew.rotation(1.0), eta=0.5)
        >>> rollout(torch.zeros(4, 2), flow, 10, dt=0.01).step
        10
    """

    score: Any
    kernel: Tensor
    eta: float = 0.1
    compile: bool = field(default=False, kw_only=True)
    autocast: torch.dtype | None = field(default=None, kw_only=True)
    backend: str = field(default="auto", kw_only=True)

    def __post_init__(self):
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"expected eta finite and from 0 up, got {self.eta}")
        worst = skew.violation(self.kernel)
        if not worst <= 1e-6 * float(self.kernel.abs().max()):
            raise ValueError(
                f"expected a skew-symmetric kernel, K[o, i, u, v] = -K[i, o, -u, -v], but the largest violation is "
                f"{worst:.3g}: eqflow.dynamics.skew.project makes it so"
            )

    @cached_property
    def output(self) -> Callable[[Tensor], Tensor]:
        """What the score computes of a state, compiled and in lower precision where that was asked for."""
        inner = torch.compile(self.score.output) if self.compile else self.score.output
        if self.autocast is None:
            return inner

        def in_lower_precision(state: Tensor) -> Tensor:
            with torch.autocast(state.device.type, self.autocast):
                return inner(state)

        return in_lower_precision

    def score_error(
        self,
        state: Tensor,  # [batch, ...]
    ) -> float:
        """The relative error that `compile` and `autocast` make in the score at some states."""
        with torch.no_grad():
            exact, scale = self.score(state).double(), self.score.output_scale
            found = self.score.state_scale * state.double() + scale * self.output(state).double()
        return float((found - exact).norm() / exact.norm())

    def drift(self, state: Tensor) -> Tensor:
        """K * s + eta s."""
        score = self.score(state)
        return skew.convolve(self.kernel.to(score), score) + self.eta * score

    def norm(self, state: Tensor) -> float:
        """Spectral norm of the kernel on the grid of `state`."""
        height, width = state.shape[2:] if state.ndim == 4 else (1, 1)
        return skew.spectral_norm(self.kernel, height, width)

    def stepper(
        self, state: Tensor, *, integrator: str | None, dt: float | None, seed: int, first_sample: int
    ) -> Stepper:
        """What advances states like `state`.

        Raises:
            ValueError: no such integrator, or dt is above its stability limit.
        """
        alpha = getattr(self.score, "alpha", None)
        known = INTEGRATORS if alpha is not None else INTEGRATORS[1:]
        # The exponential of a larger kernel is a series, and a larger kernel still.
        exact = alpha is not None and self.kernel.shape[-1] == 1
        default = "rk4" if self.eta == 0 else "exact-ou" if exact else "heun"
        name, dt = _choose(integrator, default, known, dt)
        if state.shape[1] != len(self.kernel):
            raise ValueError(
                f"expected a state of {len(self.kernel)} channels as the kernel has, got {list(state.shape)}"
            )
        if name == "rk4" and self.eta > 0:
            raise ValueError(f"expected eta = 0 for 'rk4', which makes no noise, got {self.eta:g}: take 'heun'")
        numbers = {"eta": self.eta, "gamma": self.norm(state), "lipschitz": getattr(self.score, "lipschitz", None)}
        if name != "exact-ou":
            limits.check_step(name, dt, **numbers)
        cause = _cause(name, dt, **numbers)
        if name == "rk4":
            return RungeKutta(dt, cause, self.drift)
        passes = coefficients.of_skew_flow(name, self, dt, state)
        return Fused(name, dt, cause, passes, self.output, seed=seed, first_sample=first_sample, backend=self.backend)


def _cause(name: str, dt: float, *, eta: float, gamma: float, lipschitz: float | None) -> str:
    if lipschitz is None or not math.isfinite(lipschitz):
        return f"no Lipschitz constant is known that would bound dt={dt:g}; try dt={dt / 4:.2g}"
    limit = limits.stability_limit(name, eta=eta, gamma=gamma, lipschitz=lipschitz)
    if limit == math.inf:
        return f"{name} is stable for any dt, so look at the score far from the data"
    return (
        f"dt={dt:g} is {dt / limit:.0%} of the stability limit for the Lipschitz constant {lipschitz:.3g} that the "
        f"score claims; if the score is steeper there, try dt={dt / 4:.2g}"
    )


@dataclass(frozen=True)
class Drift:
    """dx = f(x) dt + sqrt(2 eta) dW for any function f.

    Args:
        function: f, [batch, ...] -> the same shape.
        eta: strength of the noise; 0 for none, which any floating-point type may have.
        lipschitz: of f, if known: then a dt that must diverge is refused.
        backend: of the fused step.
    """

    function: Callable[[Tensor], Tensor]
    eta: float = 0.0
    lipschitz: float | None = field(default=None, kw_only=True)
    backend: str = field(default="auto", kw_only=True)

    def __post_init__(self):
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"expected eta finite and from 0 up, got {self.eta}")

    def stepper(
        self, state: Tensor, *, integrator: str | None, dt: float | None, seed: int, first_sample: int
    ) -> Stepper:
        """What advances states like `state`; see `SkewFlow.stepper`."""
        name, dt = _choose(integrator, "heun" if self.eta else "rk4", INTEGRATORS[1:], dt)
        if name == "rk4" and self.eta > 0:
            raise ValueError(f"expected eta = 0 for 'rk4', which makes no noise, got {self.eta:g}: take 'heun'")
        # The worst direction is not known: that of a gradient bounds all that decay.
        limit = math.inf
        if self.lipschitz:
            limit = limits.stability_limit(name, eta=1.0, gamma=0.0, lipschitz=self.lipschitz)
        if dt >= limit:
            raise ValueError(
                f"expected dt below {limit:.3g}, where {name} becomes unstable for a drift of Lipschitz constant "
                f"{self.lipschitz:.4g}, got {dt:g}: take dt={limit / 2:.2g}"
            )
        cause = f"the drift may be too steep for dt={dt:g}; try dt={dt / 4:.2g}"
        if name == "rk4":
            return RungeKutta(dt, cause, self.function)
        passes = coefficients.of_drift(name, self.eta, dt, state)
        return Fused(name, dt, cause, passes, self.function, seed=seed, first_sample=first_sample, backend=self.backend)
