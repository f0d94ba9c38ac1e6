"""The Gray-Scott problem that everybody gets, and the float64 answer that everybody must give."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from eqflow import ops
from eqflow.systems.gray_scott import initial_state, preset

PARAMETERS = preset("wave").parameters
FEED, KILL = PARAMETERS.feed, PARAMETERS.kill
DIFFUSION_U, DIFFUSION_V = PARAMETERS.diffusion_u, PARAMETERS.diffusion_v
CHECKED_STEPS = 100
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
PEER_TOLERANCE = 5e-5  # folded coefficients in float32, which are fastest, err by 2e-5


@functools.cache
def _pattern(samples: int = 4) -> Tensor:
    start = initial_state("discs", torch.arange(samples), 128, 128, seed=0)
    return ops.gray_scott(start, 2000, feed=FEED, kill=KILL, backend="auto")


def developed(batch: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Waves all over the grid, [batch, 2, height, width].

    A start of discs would be unfair: in its empty parts v falls below 1e-38, where libraries that do not flush
    subnormals to zero run several times slower.
    """
    pattern = _pattern()
    rows, columns = torch.arange(height) % 128, torch.arange(width) % 128
    samples = torch.arange(batch) % len(pattern)
    return pattern[samples][:, :, rows][..., columns].to(dtype).contiguous()


def expected(state: Tensor, stencil: str = "5-point", dt: float = 1.0) -> Tensor:
    """The reference in float64 after `CHECKED_STEPS` steps."""
    return ops.gray_scott(state.double(), CHECKED_STEPS, **arguments(stencil, dt), backend="reference")


def arguments(stencil: str = "5-point", dt: float = 1.0) -> dict:
    """Keyword arguments of `ops.gray_scott` for this problem."""
    diffusion = {"diffusion_u": DIFFUSION_U, "diffusion_v": DIFFUSION_V}
    return {"feed": FEED, "kill": KILL, **diffusion, "stencil": stencil, "dt": dt}


def require_equal(name: str, result: Tensor, answer: Tensor, allowed: float | None = None) -> float:
    """The largest error; an AssertionError if it is not a rounding error."""
    error = float((result.double().cpu() - answer.cpu()).abs().max())
    allowed = allowed or TOLERANCE[result.dtype]
    if not error <= allowed:  # also NaN
        raise AssertionError(
            f"{name} is wrong: it differs from the float64 reference by {error:.2g} after {CHECKED_STEPS} steps, "
            f"more than {allowed:.0e}. A wrong result is not timed"
        )
    return error
