"""The similarity of Table 2 of Zhang & Levin 2025 by the protocol of their released code: for parity, never a gate.

The start is clean, not noised; K has the Frobenius norm 1; stochastic Heun with dt = 0.01 and eta = 0.1; the
displacement is that of an exponential moving average of the raw, noisy trace; and of +K and -K the larger |cos| counts.
It mixes the recovered dynamics with relaxation: see `metrics.fidelity` for a protocol that separates them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eqflow.dynamics.flows import SkewFlow
from eqflow.dynamics.observers import MovingAverage
from eqflow.dynamics.rollout import rollout

STEPS, DECAY = 200, 0.9


def similarity_as_released(
    clean: Tensor,  # [samples, channels, height, width]
    change: Tensor,  # of the clean fields over 20 steps of the system, of the same shape
    score: Any,
    kernel: Tensor,  # [channels, channels, 2r + 1, 2r + 1], skew-symmetric
    *,
    steps: int = STEPS,
    dt: float = 0.01,
    eta: float = 0.1,
    seed: int = 0,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """The larger |cos| of both signs of K, float64 [samples].

    Args:
        clean: the starts.
        change: the true change.
        score: such as a `PatternScore`, with `clip=True` as the released code had it.
        kernel: K, of any length: its Frobenius norm is made 1.
        steps: of the trace that is averaged.
        dt, eta, seed: of the rollout.
        autocast: precision of the score; see `SkewFlow`.
    """
    if clean.shape != change.shape:
        raise ValueError(f"expected a change of the shape of the starts {list(clean.shape)}, got {list(change.shape)}")
    found = []
    for sign in (1, -1):
        flow = SkewFlow(score, sign * kernel / kernel.norm(), eta, autocast=autocast)
        trace = MovingAverage(DECAY)
        rollout(clean, flow, steps, dt=dt, integrator="heun", seed=seed, observers=[trace])
        moved = (trace.mean - clean).flatten(1).double()
        truth = change.flatten(1).double()
        found.append((moved * truth).sum(1) / (moved.norm(dim=1) * truth.norm(dim=1)))
    return torch.stack(found).abs().amax(0)
