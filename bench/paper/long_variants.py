"""Remedies for rollouts that leave the data, and the scores and fields that they are tried with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bench.paper.files import digest
from eqflow.dynamics import AnchoredScore, CorrectedFlow, SkewFlow, skew
from eqflow.dynamics.anchored import WAVES
from eqflow.score import PatternScore, StoredScore

STEP = 0.02  # of time; --steps counts in it
GAMMA = -math.sqrt(0.5)  # the sign in which Gray-Scott moves, and the paper's speed


@dataclass(frozen=True)
class Variant:
    """One way to roll out.

    Args:
        eta: strength of the gradient part.
        gamma: speed of the skew part.
        corrections: steps of the score alone after each step.
        pull: their strength.
        dt: time step.
        integrator: see `rollout`.
        anchor: sharpness with which mean and large-scale power are held; see `AnchoredScore`.
    """

    eta: float = 0.1
    gamma: float = GAMMA
    corrections: int = 0
    pull: float = 1.0
    dt: float = STEP
    integrator: str = "exact-ou"
    anchor: float | None = None

    @property
    def evaluations(self) -> float:
        """Of the score, per 0.02 of time."""
        return (self.corrections + (2 if self.integrator == "heun" else 1)) * STEP / self.dt


VARIANTS = {
    "plain": Variant(),
    "score only": Variant(gamma=0.0),
    "score only, eta 1": Variant(gamma=0.0, eta=1.0),
    "eta 0.3": Variant(eta=0.3),
    "eta 0.5": Variant(eta=0.5),
    "eta 1": Variant(eta=1.0),
    "corrected": Variant(corrections=1),
    "corrected, pull 0.3": Variant(corrections=1, pull=0.3),
    "dt 0.01": Variant(dt=STEP / 2),
    "Heun": Variant(integrator="heun"),
    "Heun, eta 0.5": Variant(integrator="heun", eta=0.5),
    "Heun, eta 1": Variant(integrator="heun", eta=1.0),
    "anchored": Variant(anchor=2.0),
    "anchored, eta 0.3": Variant(anchor=2.0, eta=0.3),
    "anchored, sharp": Variant(anchor=5.0),
}


def chosen(words: Sequence[str] | None) -> dict[str, Variant]:
    """Variants by name.

    Raises:
        ValueError: there is none of a name.
    """
    unknown = [word for word in words or () if word not in VARIANTS]
    if unknown:
        raise ValueError(f"expected variants of {', '.join(VARIANTS)}, got {', '.join(unknown)}")
    return {name: VARIANTS[name] for name in words or VARIANTS}


@dataclass(frozen=True, eq=False)
class Case:
    """A score and the fields it starts from and is judged by.

    Args:
        name: of the score.
        stored: the score with its system.
        samples: that roll out.
        data: fields of the data to compare with.
        half: whether D is computed in bfloat16, but for a conservative score.
    """

    name: str
    stored: StoredScore
    samples: int
    data: int
    half: bool = False

    @cached_property
    def score(self) -> PatternScore:
        """At the level it was trained for, in the layout that is fast."""
        score = self.stored.denoiser.at().to(torch.float32)
        score.denoiser.to(memory_format=torch.channels_last)
        return score

    @cached_property
    def clean(self) -> Tensor:
        """The starts."""
        return self.stored.fields(range(self.samples))

    @cached_property
    def others(self) -> Tensor:
        """The data."""
        return self.stored.fields(range(self.samples, self.samples + self.data))

    def anchored(self, sharpness: float) -> AnchoredScore:
        """The score held to the data's mean and power."""
        waves = min(WAVES, self.stored.size[0] // 2)
        return AnchoredScore.fit(self.score, self.others, waves=waves, sharpness=sharpness)

    def flow(self, variant: Variant, fields: Tensor, sign: int = 1) -> Any:
        """The dynamics of rollouts that start from clean fields, with K or -K."""
        half = self.half and not self.stored.denoiser.shape.conservative
        kernel, precision = sign * skew.rotation(variant.gamma), torch.bfloat16 if half else None
        score: Any = self.score
        if variant.anchor:  # each sample keeps its own mean, and all of them the distribution of means
            score = replace(self.anchored(variant.anchor), mean=fields.mean((2, 3)))
        flow = SkewFlow(score, kernel, variant.eta, autocast=precision)
        return CorrectedFlow(flow, variant.corrections, eta=variant.pull) if variant.corrections else flow

    def truth(self, fields: Tensor, steps: int) -> Tensor:
        """The change that so many steps of the system make of fields, in their units."""
        state = self.stored.offset + self.stored.factor * fields
        return (self.stored.system.run(state, steps) - state) / self.stored.factor

    def key(self, variant: Variant) -> str:
        """Stands for everything that decides a trajectory."""
        shape = self.stored.denoiser.shape.config()
        said = {name: value for name, value in asdict(variant).items() if value is not None}
        return digest(*self.stored.denoiser.state_dict().values(), shape, self.samples, self.half, said)
