"""What a denoiser for patterns is made of: plain values, that a file of weights carries with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eqflow.score.schedule import LinearSchedule

NETWORKS = ("local", "unet")
PRECONDITIONS = ("edm", "v", "x0")
ALPHA = LinearSchedule().alpha(0.1)  # 0.94478, sqrt 0.97200: the level at which the paper rolls patterns out


@dataclass(frozen=True)
class PatternShape:
    """What a denoiser for patterns is made of.

    Args:
        channels: of a field.
        network: "local", or "unet", the paper's.
        width: local: channels within.
        dilations: local: of the residual blocks, one each; they add up to the radius of the field of view.
        first: local: side of the first kernel, odd.
        alpha: squared coefficient of the signal at the one noise level it knows; None: every level.
        precondition: what the network itself estimates: "edm" (Karras et al. 2022, with the mean and the standard
            deviation of each channel of the data), "v", which is the same for data of mean 0 and variance 1, or "x0".
        conservative: whether D(y) = y - grad |y - N(y)|^2 / 2 of the network N, whose Jacobian is symmetric: then the
            score is a gradient. Two to three times the cost.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> PatternShape().radius, PatternShape(dilations=(1, 2, 4, 2, 1)).radius
        (9, 13)
    """

    channels: int = 2
    network: str = field(default="local", kw_only=True)
    width: int = field(default=24, kw_only=True)
    dilations: tuple[int, ...] = field(default=(1,) * 6, kw_only=True)
    first: int = field(default=7, kw_only=True)
    alpha: float | None = field(default=ALPHA, kw_only=True)
    precondition: str = field(default="edm", kw_only=True)
    conservative: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        for name, known in (("network", NETWORKS), ("precondition", PRECONDITIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"expected {name} {' or '.join(map(repr, known))}, got {getattr(self, name)!r}")
        if self.channels < 1 or self.width < 1:
            raise ValueError(f"expected channels and width from 1 up, got {self.channels} and {self.width}")
        if self.first < 1 or self.first % 2 == 0:
            raise ValueError(f"expected first odd and from 1 up, got {self.first}")
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"expected dilations from 1 up, one a block, got {self.dilations}")
        if self.alpha is not None and not 0 < self.alpha < 1:
            raise ValueError(f"expected alpha in (0, 1), the squared coefficient of the signal, got {self.alpha}")

    @property
    def radius(self) -> int | None:
        """Of the field of view in pixels; None where it has no end."""
        return self.first // 2 + sum(self.dilations) if self.network == "local" else None

    def config(self) -> dict[str, Any]:
        """The same as plain values, for JSON.

        Example:
            >>> PatternShape.from_config(PatternShape(width=8).config()) == PatternShape(width=8)
            True
        """
        return {**dataclasses.asdict(self), "dilations": list(self.dilations)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PatternShape:
        """The shape whose `config` this is."""
        return cls(**{**config, "dilations": tuple(config["dilations"])})
