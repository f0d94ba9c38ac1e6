"""The steady density of known dynamics, without a single sample: a density whose Fokker-Planck residual is small.

    r = s . f + div f - D (s . s + div s),   s = grad log q          (Lu, Kusmierz and Mihalas, Eq. 3)

Since q evolved under f and D changes at the rate -q r, the integral of q |r| is how fast it moves. The paper minimises
the mean of |r|, where the far tail rules: a mixture has not the tail of the steady state, and pays for it everywhere.
Weighted by q, with the gradient through q too, the same descent finds the density:

    squared     the integral of q r^2, over that of q
    absolute    the integral of q |r|, over that of q
    unweighted  the mean of |r|, which is the paper's

All integrals are over a box; without the division a density that leaves it would have the lowest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.ops import philox
from eqflow.ops.trace import field_divergence
from eqflow.score.density import Density, DensityShape, Local
from eqflow.score.run import Run, cosine

OBJECTIVES = ("squared", "absolute", "unweighted")
Drift = Callable[[Tensor], Tensor]
Box = tuple[Sequence[float], Sequence[float]]

_PROBES, _WEIGHTS = philox.STREAMS["probes"], philox.STREAMS["weights"]
_TRAINING, _JUDGED = 2**34, 2**35  # steps of the stream of probes
_CENTROIDS = 3  # step of the stream of weights: couplings have 2
_JUDGES = 8192  # probes that measure mass and objective
_INNER, _WIDTH = 2 / 3, 1 / 18  # share of the box where components start, and their deviation
_FLOOR, _CLIP = 0.01, 5.0  # of the learning rate, at the end; norm of a gradient
_BETAS = (0.9, 0.99)
_LEAST_MASS = 0.9  # in the box, below which a run has escaped to q = 0


@dataclass(frozen=True)
class DynamicsTraining:
    """How a density is found from dynamics: Adam on the residual at fresh uniform probes in a box.

    Args:
        objective: "squared", "absolute" or "unweighted", see above.
        steps: of Adam.
        probes: points a step.
        rate: learning rate at the beginning; it falls to a hundredth along half a cosine. Couplings want 1e-2.
        anneal: a larger D from which it falls geometrically to its own during the first half of the steps; 0.5 in the
            units of the limit cycle where D is 0.1 or less. None: D as it is from the beginning.
        starts: runs from different centroids, of which the one of the lowest objective counts.
        every: steps between two looks at the mass in the box.
        seed: of centroids, weights and probes.

    Raises:
        ValueError: an argument is out of range.
    """

    objective: str = "squared"
    steps: int = 600
    probes: int = 448
    rate: float = 6e-2
    anneal: float | None = None
    starts: int = 3
    every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"expected objective {', '.join(map(repr, OBJECTIVES))}, got {self.objective!r}")
        for name in ("steps", "probes", "starts", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} from 1 up, got {getattr(self, name)}")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"expected a positive rate, got {self.rate}")


class DynamicsFit(NamedTuple):
    """What `density_from_dynamics` gives."""

    density: Density
    objective: float  # of the density, over the box
    mass: float  # of it in the box: near 1, or the box is too small
    objectives: Tensor  # of every start; infinite where the mass escaped
    history: Tensor  # of the best start, [looks, 3]: step, mean objective since the look before, mass in the box


def stationary_residual(
    drift: Drift,
    diffusion: float,
    points: Tensor,  # [batch, dimension]
    local: Local,
) -> Tensor:
    """r = s . f + div f - D (s . s + div s) of a density, [batch]; zero everywhere for the steady one.

    Args:
        drift: f, a function of points [batch, dimension].
        diffusion: D, the same for all coordinates.
        points: where.
        local: the density there, as `Density.local` gives it.

    Example:
        >>> density = Density(DensityShape(1, 1), torch.zeros(1, 1), 2.0)
        >>> x = torch.tensor([[0.5], [3.0]])
        >>> stationary_residual(lambda x: -x, 4.0, x, density.local(x)).detach()
        tensor([0., 0.])
    """
    flow = field_divergence(drift, points)
    inner = local.score.square().sum(1) + local.divergence
    return (local.score * flow.velocity).sum(1) + flow.divergence - diffusion * inner


def _uniform(low: Tensor, high: Tensor, rows: int, *, seed: int, step: int, stream: int) -> Tensor:
    """Uniform points in a box, [rows, dimension]."""
    words = philox.words(torch.arange(rows, device=low.device), len(low), seed=seed, step=step, stream=stream)
    return low + (high - low) * philox.unit_interval(words).to(low)


class _Run(Run):
    """One start."""

    def __init__(self, drift: Drift, diffusion: float, box: Tensor, density: Density, training: DynamicsTraining):
        self.drift, self.diffusion, self.box, self.training = drift, diffusion, box, training
        self.density, self.escaped = density, False
        self.volume = float((box[1] - box[0]).prod())
        adam = torch.optim.Adam(density.parameters(), lr=training.rate, betas=_BETAS, fused=True)
        super().__init__({"density": density}, adam, torch.zeros(0))

    def probes(self, rows: int, step: int) -> Tensor:
        return _uniform(*self.box, rows, seed=self.training.seed, step=step, stream=_PROBES)

    def objective(self, probes: Tensor, diffusion: float) -> tuple[Tensor, Tensor]:
        """The integral of q r^2 or q |r| over that of q, or the mean of |r|; and the mass in the box."""
        local = self.density.local(probes)
        residual = stationary_residual(self.drift, diffusion, probes, local)
        weight = self.volume * local.log_density.exp()
        if self.training.objective == "unweighted":
            return residual.abs().mean(), weight.mean()
        size = residual.square() if self.training.objective == "squared" else residual.abs()
        mass = weight.mean()
        return (weight * size).mean() / mass, mass

    @property
    def _annealed(self) -> float:
        """D at this step."""
        half = self.training.steps / 2
        if self.training.anneal is None or self.step >= half:
            return self.diffusion
        return self.training.anneal * (self.diffusion / self.training.anneal) ** (self.step / half)

    def advance(self) -> Tensor:
        training = self.training
        self.optimiser.param_groups[0]["lr"] = training.rate * (
            _FLOOR + (1 - _FLOOR) * cosine(self.step / training.steps)
        )
        self.optimiser.zero_grad()
        loss, _ = self.objective(self.probes(training.probes, _TRAINING + self.step), self._annealed)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.density.parameters(), _CLIP)
        self.optimiser.step()
        self.step += 1
        return loss.detach()

    @torch.no_grad()
    def judged(self) -> tuple[float, float]:
        """The objective at the true D and the mass in the box, by many probes."""
        return tuple(map(float, self.objective(self.probes(_JUDGES, _JUDGED), self.diffusion)))

    def look(self) -> float:
        mass = self.judged()[1]
        if self.training.objective != "unweighted" and mass < _LEAST_MASS:
            raise _Escaped
        return mass


class _Escaped(Exception):
    """The mass left the box, where q = 0 costs nothing."""


def _start(box: Tensor, shape: DensityShape, seed: int) -> Density:
    """Components at random places well inside the box."""
    middle, half = box.mean(0), (box[1] - box[0]) / 2 * _INNER
    centroids = _uniform(middle - half, middle + half, shape.components, seed=seed, step=_CENTROIDS, stream=_WEIGHTS)
    return Density(shape, centroids, (box[1] - box[0]) * _WIDTH, seed=seed)


def density_from_dynamics(
    drift: Drift,
    diffusion: float,
    box: Box,
    shape: DensityShape,
    training: DynamicsTraining | None = None,
    *,
    start: Density | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int, float, float], None] | None = None,
) -> DynamicsFit:
    """The steady density of dx = f(x) dt + sqrt(2 D) dW, from f and D alone.

    Args:
        drift: f, a function of points [batch, dimension], differentiable by torch.
        diffusion: D, the same for all coordinates.
        box: (low, high), which holds nearly all of the steady state.
        shape: what the density is made of.
        training: options; None: the defaults.
        start: a density to begin with, such as one trained on a few points: one run, from there.
        dtype: of the density, where it begins from nothing.
        progress: called with (start, step, objective, mass in the box) at every look.

    Returns:
        DynamicsFit(density, objective, mass, objectives, history).

    Raises:
        ValueError: an argument is wrong.
        FloatingPointError: the mass left the box in every run, or the loss is no number any more.

    Example:
        >>> training = DynamicsTraining(steps=100, probes=128, starts=1)
        >>> fit = density_from_dynamics(lambda x: -x, 0.25, ([-2.0], [2.0]), DensityShape(1, 4), training)
        >>> round(fit.mass, 1)
        1.0
    """
    training = training or DynamicsTraining()
    if not 0 < diffusion < math.inf:
        raise ValueError(f"expected a positive diffusion, got {diffusion}")
    if training.anneal is not None and not diffusion <= training.anneal < math.inf:
        raise ValueError(f"expected anneal from the diffusion {diffusion} up, got {training.anneal}")
    if start is not None and start.shape != shape:
        raise ValueError(f"expected a start of {shape}, got one of {start.shape}")
    like = start.centroids.detach() if start is not None else torch.empty(0, dtype=dtype)
    edges = torch.stack([torch.as_tensor(edge).to(like) for edge in box])
    if edges.shape != (2, shape.dimension) or not (edges.isfinite().all() and (edges[0] < edges[1]).all()):
        raise ValueError(f"expected a box (low, high) of {shape.dimension} finite numbers each, low < high, got {box}")
    best, objectives = None, []
    for number in range(1 if start is not None else training.starts):
        own = replace(training, seed=(training.seed + number) % 2**64)
        density = _start(edges, shape, own.seed) if start is None else _copy(start)
        run = _Run(drift, diffusion, edges, density, own)
        told = None if progress is None else (lambda *row, number=number: progress(number, *row))
        try:
            run.follow(training.steps, training.every, progress=told)
        except _Escaped:
            objectives.append(math.inf)
            continue
        objective, mass = run.judged()
        if not objectives or objective < min(objectives):
            best = DynamicsFit(density.requires_grad_(False), objective, mass, torch.zeros(0), run.table())
        objectives.append(objective)
    if best is None:
        raise FloatingPointError(
            f"the mass left the box in each of {len(objectives)} runs: take a larger box, a smaller rate, or anneal"
        )
    return best._replace(objectives=torch.tensor(objectives, dtype=torch.float64))


def _copy(density: Density) -> Density:
    """The same parameters, to be changed."""
    made = Density(density.shape, density.centroids.detach(), 1.0)
    made.load_state_dict(density.state_dict())
    return made.requires_grad_(True)
