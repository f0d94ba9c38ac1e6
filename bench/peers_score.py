"""Training and rollouts of a score of patterns in the structure that the paper's code has, written afresh on diffusers.

Eager float32 throughout, on `diffusers.DDPMScheduler` with 100 linear betas from 1e-4 to 0.1 and a network that
estimates v:

    training  every field at a level of its own, AdamW, the gradient clipped to norm 1, no average of the parameters
    rollout   stochastic Heun, flow and gradient part each with a score of their own at both stages: four networks a
              step. The clean field comes from a step of the scheduler, which clamps it to [-1, 1], and draws a field
              of noise that nobody wants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqflow.dynamics import skew

LEVELS, LEVEL = 100, 10  # of the schedule, and the one of rollouts: alpha = 0.94478
Network = Callable[[Tensor, Tensor], Tensor]  # x and the numbers of the levels -> v


def scheduler() -> Any:
    """The schedule of the paper for v, with clamping.

    Raises:
        ImportError: diffusers is not installed.
    """
    from diffusers import DDPMScheduler

    return DDPMScheduler(LEVELS, beta_start=1e-4, beta_end=0.1, prediction_type="v_prediction", clip_sample=True)


def score(network: Network) -> Callable[[Tensor], Tensor]:
    """s = (sqrt(alpha) clean - x) / (1 - alpha), the clean field from a step of the scheduler."""
    schedule = scheduler()
    alpha = float(schedule.alphas_cumprod[LEVEL])

    def evaluated(state: Tensor) -> Tensor:
        level = torch.full((len(state),), LEVEL, device=state.device)
        clean = schedule.step(network(state, level), LEVEL, state).pred_original_sample
        return (math.sqrt(alpha) * clean - state) / (1 - alpha)

    return evaluated


@torch.no_grad()
def rollout(
    score: Callable[[Tensor], Tensor],
    kernel: Tensor,  # [channels, channels, 1, 1]
    eta: float,
    dt: float,
    steps: int,
    state: Tensor,  # [batch, channels, height, width]
    draw: Callable[[int], Tensor] | None = None,  # the noise of a step; None: torch.randn
) -> Tensor:
    """The state after some steps."""
    scale = math.sqrt(2 * eta * dt)
    for step in range(steps):
        noise = scale * (draw(step) if draw else torch.randn_like(state))
        first = skew.convolve(kernel, score(state)) + eta * score(state)
        guess = state + dt * first + noise
        second = skew.convolve(kernel, score(guess)) + eta * score(guess)
        state = state + dt / 2 * (first + second) + noise
    return state


def training(
    network: nn.Module,  # called as a `Network`
    fields: Tensor,  # [fields, channels, height, width]
    batch: int,
) -> Callable[[int], None]:
    """A function that makes some steps of training."""
    schedule, adam = scheduler(), torch.optim.AdamW(network.parameters(), lr=1e-3)

    def steps(count: int) -> None:
        for _ in range(count):
            clean = fields[torch.randint(len(fields), (batch,), device=fields.device)]
            noise, level = torch.randn_like(clean), torch.randint(LEVELS, (batch,), device=fields.device)
            found = network(schedule.add_noise(clean, noise, level), level)
            loss = F.mse_loss(found, schedule.get_velocity(clean, noise, level))
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            adam.step()

    return steps
