"""A diffusion model for points: a multilayer perceptron that sees a noised point and the time, and its score.

It predicts epsilon, x0 or v = sqrt(alpha) epsilon - sqrt(1 - alpha) x0; each gives the score, see `folding`.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eqflow.ops import philox
from eqflow.ops.mlp import MLP
from eqflow.score.contract import PREDICTIONS, Folding, folding
from eqflow.score.schedule import ContinuousSchedule, CosineSchedule, LinearSchedule, Schedule

PREDICTED = PREDICTIONS[1:]  # not the score itself, which grows without bound as the noise vanishes
ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU}
_SCHEDULES = {"continuous": ContinuousSchedule, "cosine": CosineSchedule, "linear": LinearSchedule}
_WEIGHTS = philox.STREAMS["weights"]


@dataclass(frozen=True)
class DenoiserShape:
    """What a denoiser for points is made of.

    Args:
        dimension: numbers a point has.
        hidden: widths of the hidden layers.
        frequencies: octaves 2^0 ... 2^(frequencies - 1) of sines and cosines of the state beside it.
        time_frequencies: octaves of sines and cosines of pi tau beside tau.
        predicts: "epsilon", "x0" or "v", which had the smallest error on every set of points tried.
        activation: "silu" or "relu".
        skip: whether the state is added to the output.
        alpha: squared coefficient of the signal at the one noise level it knows, without a time; None: all levels.
        schedule: of the noise levels.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> DenoiserShape(3).inputs, DenoiserShape.released(3).inputs
        (36, 4)
    """

    dimension: int
    hidden: tuple[int, ...] = (128, 128, 128)
    frequencies: int = field(default=4, kw_only=True)
    time_frequencies: int = field(default=4, kw_only=True)
    predicts: str = field(default="v", kw_only=True)
    activation: str = field(default="silu", kw_only=True)
    skip: bool = field(default=False, kw_only=True)
    alpha: float | None = field(default=None, kw_only=True)
    schedule: Schedule = field(default_factory=ContinuousSchedule, kw_only=True)

    def __post_init__(self) -> None:
        _ = self.encoding  # which checks the dimension, the widths and the frequencies
        if self.time_frequencies < 0:
            raise ValueError(f"expected time_frequencies from 0 up, got {self.time_frequencies}")
        if self.predicts not in PREDICTED:
            raise ValueError(f"expected predicts {', '.join(map(repr, PREDICTED))}, got {self.predicts!r}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"expected activation {', '.join(map(repr, ACTIVATIONS))}, got {self.activation!r}")
        if self.alpha is not None and not 0 < self.alpha < 1:
            raise ValueError(f"expected alpha in (0, 1), the squared coefficient of the signal, got {self.alpha}")

    @classmethod
    def released(cls, dimension: int) -> DenoiserShape:
        """The network of the paper's released code for points: two hidden ReLU layers of 64, epsilon plus a skip."""
        return cls(
            dimension, (64, 64), frequencies=0, time_frequencies=0, predicts="epsilon", activation="relu", skip=True,
            schedule=CosineSchedule(),
        )  # fmt: skip

    @property
    def encoding(self) -> MLP:
        """The network that encodes the state as this one does."""
        return MLP(self.dimension, tuple(self.hidden), self.frequencies)

    @property
    def inputs(self) -> int:
        """Numbers that the first layer sees."""
        return self.encoding.inputs + (0 if self.alpha else 1 + 2 * self.time_frequencies)

    def config(self) -> dict[str, Any]:
        """The same as plain values, for JSON.

        Example:
            >>> DenoiserShape.from_config(DenoiserShape.released(2).config()) == DenoiserShape.released(2)
            True
        """
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        names = {kind: name for name, kind in _SCHEDULES.items()}
        schedule = {"name": names[type(self.schedule)], **dataclasses.asdict(self.schedule)}
        return {**values, "hidden": list(self.hidden), "schedule": schedule}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DenoiserShape:
        """The shape whose `config` this is."""
        schedule = dict(config["schedule"])
        kind = _SCHEDULES[schedule.pop("name")]
        return cls(**{**config, "hidden": tuple(config["hidden"]), "schedule": kind(**schedule)})


def _linear(into: int, out: int) -> nn.Linear:
    """A layer without values yet: PyTorch's own would come from the generator that belongs to the caller."""
    return nn.utils.skip_init(nn.Linear, into, out)


class Denoiser(nn.Module):
    """output(state, tau) = W_o a(... a(W_1 [state, encoding(state), tau, sin pi tau, cos pi tau, ...] + b_1)) + b_o.

    Args:
        shape: what it is made of.
        seed: of the initial weights, PyTorch's default law, drawn by counter.

    Example:
        >>> score = Denoiser(DenoiserShape(2)).at(0.95)
        >>> score(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(self, shape: DenoiserShape, *, seed: int = 0):
        super().__init__()
        self.shape = shape
        widths = (shape.inputs, *shape.hidden)
        layers: list[nn.Module] = []
        for into, out in itertools.pairwise(widths):
            layers += [_linear(into, out), ACTIVATIONS[shape.activation]()]
        self.layers = nn.Sequential(*layers, _linear(widths[-1], shape.dimension))
        self._initialise(seed)

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        sizes = [parameter.numel() for parameter in self.parameters()]
        # Step 1: a flow that is drawn with the same seed has its weights at step 0.
        words = philox.words(torch.zeros(1, dtype=torch.int64), sum(sizes), seed=seed, step=1, stream=_WEIGHTS)
        parts = iter((2 * philox.unit_interval(words[0]) - 1).split(sizes))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                for parameter in (layer.weight, layer.bias):
                    parameter.copy_(next(parts).view_as(parameter) / math.sqrt(layer.in_features))

    def _time(self, tau: Tensor) -> Tensor:
        """Features of the time, [rows, 1 + 2 time_frequencies]."""
        angles = [math.pi * 2**octave * tau for octave in range(self.shape.time_frequencies)]
        return torch.stack([tau, *(wave for angle in angles for wave in (angle.sin(), angle.cos()))], -1)

    def forward(
        self,
        state: Tensor,  # [batch, dimension]
        tau: Tensor | None = None,  # [batch] or [1]; None where the network knows one level only
    ) -> Tensor:
        """The prediction, [batch, dimension]."""
        features = self.shape.encoding.encode(state)
        if self.shape.alpha is None:
            features = torch.cat([features, self._time(tau).expand(len(state), -1)], -1)
        output = self.layers(features)
        return output + state if self.shape.skip else output

    def at(self, alpha: float) -> DenoiserScore:
        """The score of the data under noise with the squared signal coefficient alpha.

        Raises:
            ValueError: the network was not made for this alpha.
        """
        return DenoiserScore(self, alpha)


@dataclass(frozen=True, eq=False)
class DenoiserScore:
    """The score of a denoiser at one noise level; a `Score`.

    It claims no `lipschitz`: the exact score has 1 / (1 - alpha), and a network may be steeper.

    Args:
        denoiser: the network.
        alpha: squared coefficient of the signal, in (0, 1).
    """

    denoiser: Denoiser
    alpha: float

    def __post_init__(self) -> None:
        shape = self.denoiser.shape
        _ = self._folding
        if shape.alpha is not None and not math.isclose(self.alpha, shape.alpha, rel_tol=1e-6):
            raise ValueError(
                f"expected alpha={shape.alpha:g}, the one level that this denoiser was made for, got {self.alpha:g}: "
                "train another, or one for all levels"
            )
        lowest = shape.schedule.alpha(1.0)
        if shape.alpha is None and self.alpha < lowest:
            raise ValueError(f"expected alpha from {lowest:.4g} up, the end of the schedule, got {self.alpha:g}")

    @property
    def _folding(self) -> Folding:
        return folding(self.predicts, self.alpha)

    @property
    def dimension(self) -> int:
        return self.denoiser.shape.dimension

    @property
    def predicts(self) -> str:
        return self.denoiser.shape.predicts

    @property
    def state_scale(self) -> float:
        return self._folding.state_scale

    @property
    def output_scale(self) -> float:
        return self._folding.output_scale

    def to(self, *to) -> DenoiserScore:
        """The same score in another precision or on another device; takes what Module.to takes."""
        return DenoiserScore(copy.deepcopy(self.denoiser).to(*to), self.alpha)

    def output(self, state: Tensor) -> Tensor:
        """The raw prediction, of the shape of the state."""
        weight = next(self.denoiser.parameters())
        if state.dtype != weight.dtype or state.device != weight.device:
            raise TypeError(
                f"expected a {weight.dtype} state on {weight.device} as this score is, got {state.dtype} on "
                f"{state.device}: use score.to(...)"
            )
        if state.ndim < 2 or state[0].numel() != self.dimension:
            raise ValueError(
                f"expected a state [batch, ...] of {self.dimension} numbers a sample, got {list(state.shape)}"
            )
        tau = state.new_full((1,), self.denoiser.shape.schedule.tau(self.alpha))
        return self.denoiser(state.flatten(1), tau).view_as(state)

    def __call__(self, state: Tensor) -> Tensor:
        scale, output_scale = self._folding
        return scale * state + output_scale * self.output(state)
