"""How a learned flow is made: loss, network and training, with the protocols of the paper by name."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eqflow.ops.divergence import LAWS
from eqflow.ops.flow_loss import OBJECTIVES


@dataclass(frozen=True)
class FlowSettings:
    """The loss of `eqflow.ops.flow_loss`, the network `eqflow.ops.mlp.MLP`, and Adam on minibatches.

    Probes and their law are part of the answer, not of its accuracy alone: on average "sampled" adds (2 / probes)
    strain to the squared residual, as "expected" does without noise, and so decides which of the flows that keep a
    density is found. "exact" and "product" leave the strain out.

    Args:
        objective: "expected", "sampled" (the paper's), "exact" or "product".
        probes: of each point; with "expected" the weight of the strain only.
        law: "gaussian", or "rademacher", whose strain spares the diagonal of the Jacobian.
        norm: "scalar": one scale for all coordinates, mean |v|^2 = dimension. "per-coordinate": mean v_i^2 = 1 for
            each, the paper's; it excludes flows whose coordinates differ in speed.
        hidden: widths of the hidden layers.
        frequencies: octaves of sines and cosines beside x (Zhang & Levin 2025, Eq. 15 and 16).
        steps: of Adam.
        rows: pairs a step, drawn from the pool with replacement.
        rate: learning rate at the beginning.
        anneal: whether the rate falls to 0 along a half cosine.
        weight_decay: added to the gradient, times the parameters.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> FlowSettings(probes=1, norm="per-coordinate").objective
        'expected'
    """

    objective: str = "expected"
    probes: int = 8
    law: str = "gaussian"
    norm: str = "scalar"
    hidden: tuple[int, ...] = (128, 128, 128)
    frequencies: int = 2
    steps: int = 1500
    rows: int = 512
    rate: float = 5e-3
    anneal: bool = True
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("objective", OBJECTIVES), ("law", LAWS), ("norm", ("scalar", "per-coordinate"))):
            if getattr(self, name) not in known:
                raise ValueError(f"expected {name} {', '.join(map(repr, known))}, got {getattr(self, name)!r}")
        if self.objective == "product" and self.probes < 2:
            raise ValueError(f"expected 2 probes or more for 'product', which multiplies them, got {self.probes}")
        if self.rows < 2:
            raise ValueError(f"expected 2 rows or more, whose mean and scale normalise the output, got {self.rows}")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for name, low in (("probes", 1), ("frequencies", 0), ("steps", 1), ("rate", 0.0), ("weight_decay", 0.0)):
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(f"expected finite {name} from {low} up, got {getattr(self, name)}")

    @classmethod
    def paper(cls) -> FlowSettings:
        """What the paper describes: one sampled Gaussian probe, a scale for each coordinate, five octaves.

        The paper leaves probes, width, rate and steps open.
        """
        return cls("sampled", 1, norm="per-coordinate", frequencies=5, steps=2500, rate=3e-3)

    @classmethod
    def released(cls, *, points: int = 50_000) -> FlowSettings:
        """The protocol of the paper's published code: ten probes, 512 epochs in batches of 2048, a small network.

        Args:
            points: how many there are, which says how long an epoch is.
        """
        return cls(
            "sampled",
            probes=10,
            norm="per-coordinate",
            hidden=(64, 64),
            frequencies=4,
            steps=512 * math.ceil(points / 2048),
            rows=2048,
            rate=1e-2,
            anneal=False,
            weight_decay=1e-5,
        )
