"""How a denoiser for patterns is trained, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass

SYMMETRIES = {"none": 1, "flips": 4, "square": 8}  # of fields, and how many there are
PRECISIONS = ("bfloat16", "float32")


@dataclass(frozen=True)
class PatternTraining:
    """How a denoiser for patterns is trained: AdamW on whole fields.

    Args:
        steps: of AdamW.
        batch: fields a step, over all processes.
        rate: learning rate after the warm-up; it falls along half a cosine to a hundredth.
        warm_up: steps over which the rate rises from 0.
        weight_decay: of AdamW.
        average: decay of the running average of the parameters that is kept, at most (1 + step) / (20 + step).
        clip: largest norm of the gradient.
        symmetries: of the system, of which one is drawn a step: "square", the flips and quarter turns of the plane;
            "flips" alone; "none".
        shifts: whether a periodic shift is drawn a step; None: unless the network commutes with them anyway.
        levels: where the denoiser is to know every level, mean and standard deviation of the normal log sigma.
        precision: of the network in training, "bfloat16" by autocast or "float32"; None: bfloat16 on a GPU, unless
            conservative. Some CPUs are faster with bfloat16 and some slower.
        compile: whether `torch.compile` makes the network faster first, which takes up to minutes.
        every: steps between two looks at the error on the fields that are kept apart.
        seed: of weights, draws and noise.

    Raises:
        ValueError: an argument is out of range.
    """

    steps: int = 4000
    batch: int = 2
    rate: float = 3e-3
    warm_up: int = 100
    weight_decay: float = 1e-4
    average: float = 0.998
    clip: float = 1.0
    symmetries: str = "square"
    shifts: bool | None = None
    levels: tuple[float, float] = (-1.2, 1.2)
    precision: str | None = None
    compile: bool = False
    every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, 2**31),
            ("batch", 1, 2**31),
            ("rate", 0.0, math.inf),
            ("warm_up", 0, 2**31),
            ("weight_decay", 0.0, math.inf),
            ("average", 0.0, 1.0),
            ("clip", 0.0, math.inf),
            ("every", 1, 2**31),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"expected {name} in [{low}, {high}], got {getattr(self, name)}")
        if self.symmetries not in SYMMETRIES:
            raise ValueError(f"expected symmetries {', '.join(map(repr, SYMMETRIES))}, got {self.symmetries!r}")
        if self.precision not in (None, *PRECISIONS):
            raise ValueError(f"expected precision {' or '.join(map(repr, PRECISIONS))}, got {self.precision!r}")
        if self.steps * self.batch >= 2**32:
            raise ValueError(f"expected steps * batch below 2^32, got {self.steps} * {self.batch}")
