"""Training of flows: independent networks on one pool of points and scores, in segments that can be interrupted."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from eqflow.dynamics.equivariance import mirror, tied
from eqflow.dynamics.flow_settings import FlowSettings
from eqflow.dynamics.learned import LearnedFlow
from eqflow.dynamics.sectors import sign_of
from eqflow.ops import MLP, flow_train


def _check(points: Tensor, scores: Tensor) -> None:
    for name, value in (("points", points), ("scores", scores)):
        if value.dtype != torch.float32:
            raise TypeError(f"expected float32 {name}, got {value.dtype}: use {name}.float()")
        if not value.isfinite().all():
            raise ValueError(f"expected finite {name}, got NaN or infinite values: mend the input")
    if points.ndim != 2 or points.shape != scores.shape or len(points) < 2:
        raise ValueError(
            f"expected points and scores [2 or more, dimension], got {list(points.shape)} and {list(scores.shape)}"
        )
    spread = points.std(0)
    if not (spread > 0).all():
        raise ValueError(f"expected coordinates that vary, but coordinate {int(spread.argmin())} is constant: drop it")
    if spread.max() > 3 * spread.min() or not 1 / 3 < spread.max() < 3:
        warnings.warn(
            f"expected standardised points, got coordinates with standard deviations from {float(spread.min()):.3g} to "
            f"{float(spread.max()):.3g}: subtract the mean and divide by the standard deviation before the scores",
            stacklevel=3,
        )


class _Run:
    """One training and everything that a checkpoint must hold."""

    def __init__(
        self,
        points: Tensor,
        scores: Tensor,
        settings: FlowSettings,
        models: int,
        first_model: int,
        seed: int,
        signs: Tensor | None,
        parity: str,
    ):
        self.network = MLP(points.shape[1], settings.hidden, settings.frequencies, output_bias=False)
        self.parameters = self.network.initial(models, seed=seed, first_model=first_model, device=points.device)
        self.partners, self.outward = None, None
        if signs is not None:
            self.partners = mirror(self.network, signs, parity).to(points.device)
            self.outward = sign_of(parity) * signs
            self.parameters = tied(self.parameters, self.partners)
        self.moments = torch.zeros(2, *self.parameters.shape, device=points.device)
        self.losses = self.parameters.new_zeros(models, 0)
        steps = torch.arange(settings.steps, dtype=torch.float64)
        falling = (1 + (math.pi * steps / settings.steps).cos()) / 2 if settings.anneal else torch.ones_like(steps)
        self.rates = settings.rate * falling
        asked = f"{settings} {models} {first_model} {seed} {signs} {parity} {list(points.shape)}"
        digest = hashlib.sha256(asked.encode())
        for value in (points, scores):
            digest.update(value.cpu().contiguous().numpy().tobytes())
        self.identity = torch.tensor(list(digest.digest()), dtype=torch.uint8)

    @property
    def step(self) -> int:
        return self.losses.shape[1]

    def state(self) -> dict[str, Tensor]:
        held = {"parameters": self.parameters, "moments": self.moments, "losses": self.losses}
        return {name: value.clone() for name, value in held.items()} | {"identity": self.identity}

    def load(self, state: dict[str, Tensor]) -> None:
        if not torch.equal(state["identity"].cpu(), self.identity):
            raise ValueError(
                "expected a checkpoint of this training, but it has other settings, models, seed or pairs: give the "
                "same again, or begin anew without a checkpoint"
            )
        device = self.parameters.device
        self.parameters, self.moments, self.losses = (state[n].to(device) for n in ("parameters", "moments", "losses"))


def fit_flow(
    points: Tensor,  # [rows, dimension], float32
    scores: Tensor,  # [rows, dimension], float32
    settings: FlowSettings | None = None,
    *,
    models: int = 1,
    first_model: int = 0,
    seed: int = 0,
    signs: Tensor | None = None,  # [dimension]
    parity: str = "even",
    every: int = 50,
    progress: Callable[[int, Tensor], None] | None = None,
    save: Callable[[dict[str, Tensor]], None] | None = None,
    state: dict[str, Tensor] | None = None,
) -> LearnedFlow:
    """Learns flows that keep the density of the points, whose score is known there (Zhang & Levin 2025, Algorithm 1).

    Each model is a function of (seed, its index) alone, whatever company it is trained in. The result has mean 0 and
    mean |v|^2 = dimension over the pool, and turns counterclockwise: see `LearnedFlow.calibrated`.

    Args:
        points: y, drawn from the noised density, standardised: a pool of 40,000 to 200,000 serves.
        scores: s at each of them; `eqflow.score.pool.make_pool` makes both.
        settings: loss, network and training; None: the defaults.
        models: how many to train.
        first_model: index of the first one.
        seed: of initial weights, minibatches and probes.
        signs: a symmetry P = diag(signs) to build in; `choose_flip` finds one in the data. None: no symmetry.
        parity: "even": v(Px) = P v(x). "odd": v(Px) = -P v(x).
        every: steps between two calls of `progress` and `save`.
        progress: called with (steps done, mean loss [models] since the call before).
        save: called with a checkpoint, a plain dict of tensors.
        state: a checkpoint to go on from; the result has the bits of the undisturbed training.

    Raises:
        TypeError, ValueError: an argument is wrong, or the checkpoint belongs to another training.
        FloatingPointError: the loss is not finite.

    Warns:
        UserWarning: the points are not standardised.

    Example:
        >>> points = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> settings = FlowSettings(hidden=(16, 16), steps=20, rows=64)
        >>> fit_flow(points, -points, settings, models=2).velocities(points).shape
        torch.Size([2, 1000, 2])
    """
    settings = settings or FlowSettings()
    _check(points, scores)
    if models < 1 or every < 1:
        raise ValueError(f"expected models and every from 1 up, got {models} and {every}")
    signs = None if signs is None else torch.as_tensor(signs, dtype=torch.float32).cpu()
    run = _Run(points, scores, settings, models, first_model, seed, signs, parity)
    if state is not None:
        run.load(state)
    while run.step < settings.steps:
        first = run.step
        run.parameters, run.moments, losses = flow_train(
            points,
            scores,
            run.parameters,
            run.moments,
            run.network,
            mirror=run.partners,
            rates=run.rates[first : first + every - first % every],
            first_step=first,
            rows=settings.rows,
            objective=settings.objective,
            probes=settings.probes,
            law=settings.law,
            norm=settings.norm,
            weight_decay=settings.weight_decay,
            seed=seed,
            first_model=first_model,
        )
        if not losses.isfinite().all():
            model = int((~losses.isfinite().all(1)).nonzero()[0]) + first_model
            raise FloatingPointError(f"the loss of model {model} is not finite near step {first}: take a smaller rate")
        run.losses = torch.cat([run.losses, losses], 1)
        if save is not None:
            save(run.state())
        if progress is not None:
            progress(run.step, losses.mean(1))
    flow = LearnedFlow(*_with_bias(run.network, run.parameters), losses=run.losses)
    return flow.calibrated(points, norm=settings.norm, signs=run.outward)


def _with_bias(network: MLP, parameters: Tensor) -> tuple[MLP, Tensor]:
    """The same networks with an output bias of 0."""
    whole = MLP(network.dimension, network.hidden, network.frequencies)
    return whole, torch.cat([parameters, parameters.new_zeros(len(parameters), network.dimension)], 1)
