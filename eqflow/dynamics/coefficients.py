"""The passes of each integrator, from those of `ops.langevin`, placed on the device of the state."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from eqflow.ops.langevin import Update, euler_maruyama, heun, ornstein_uhlenbeck

_SERIES_ERROR = 1e-4  # of exp(-h K) for kernels larger than 1x1, as an operator norm
_HIGHEST_ORDER = 8


def _exact(kernel: Tensor, score: Any, eta: float, dt: float) -> Update:
    """The exact Ornstein-Uhlenbeck step for any affine output: epsilon = -sqrt(1 - alpha) (a x + b f)."""
    for order in range(1, _HIGHEST_ORDER + 1):
        update = ornstein_uhlenbeck(kernel, eta, dt, score.alpha, "epsilon", order=order)
        if update.error <= _SERIES_ERROR:
            break
    else:
        raise ValueError(
            f"expected a dt that turns by less, since {_HIGHEST_ORDER} terms of exp(-h K) leave an error of "
            f"{update.error:.1g}, got dt={dt:g}: take dt={dt / 4:.2g}, or integrator='heun'"
        )
    scale = -math.sqrt(1 - score.alpha)
    state_kernel = update.state_kernel + scale * score.state_scale * update.output_kernel
    return update._replace(state_kernel=state_kernel, output_kernel=scale * score.output_scale * update.output_kernel)


def _placed(passes: tuple[Update, ...], state: Tensor) -> tuple[Update, ...]:
    return tuple(
        update._replace(state_kernel=update.state_kernel.to(state), output_kernel=update.output_kernel.to(state))
        for update in passes
    )


def of_skew_flow(name: str, flow: Any, dt: float, state: Tensor) -> tuple[Update, ...]:
    """One pass for "exact-ou" and "euler-maruyama", two for "heun", of a `SkewFlow`."""
    kernel, score = flow.kernel.double().cpu(), flow.score
    if name == "exact-ou":
        return _placed((_exact(kernel, score, flow.eta, dt),), state)
    arguments = (kernel, flow.eta, dt, score.state_scale, score.output_scale)
    return _placed(heun(*arguments) if name == "heun" else (euler_maruyama(*arguments),), state)


def of_drift(name: str, eta: float, dt: float, state: Tensor) -> tuple[Update, ...]:
    """The passes of "heun" or "euler-maruyama" for a `Drift`, whose output is the drift: K = 0 and a pull of 1."""
    nothing = torch.zeros(state.shape[1], state.shape[1], 1, 1, dtype=torch.float64)
    passes = heun(nothing, 1.0, dt) if name == "heun" else (euler_maruyama(nothing, 1.0, dt),)
    passes = tuple(update._replace(noise_scale=math.sqrt(eta) * update.noise_scale) for update in passes)
    return _placed(passes, state)
