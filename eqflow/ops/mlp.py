"""A multilayer perceptron as plain numbers: its shape, where each weight lies in one flat vector, and its values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from eqflow.ops import philox


@dataclass(frozen=True)
class MLP:
    """v(x) = W_o a(... a(W_1 h_0 + b_1) ...) + b_o with a = SiLU and h_0 = [x, sin x, cos x, sin 2x, cos 2x, ...].

    The parameters of a network are one vector [size]: W_1 (row by row), b_1, W_2, b_2, ..., W_o, b_o. Many networks of
    one shape are [models, size]. The encoding is that of Zhang & Levin 2025, Eq. 15 and 16: `frequencies` octaves.

    Args:
        dimension: numbers in, and numbers out.
        hidden: widths of the hidden layers.
        frequencies: octaves 2^0 ... 2^(frequencies - 1) of sines and cosines beside x; 0 for none.
        output_bias: False where the output is centred anyway and b_o would have no gradient.

    Example:
        >>> network = MLP(dimension=2, hidden=(64, 64))
        >>> network.velocity(torch.zeros(5, 2), network.initial(3, seed=0)).shape
        torch.Size([3, 5, 2])
    """

    dimension: int
    hidden: tuple[int, ...]
    frequencies: int = 0
    output_bias: bool = True

    def __post_init__(self) -> None:
        if self.dimension < 1 or not self.hidden or min(self.hidden) < 1 or self.frequencies < 0:
            raise ValueError(
                "expected a dimension and hidden widths from 1 up and frequencies from 0 up, got "
                f"dimension={self.dimension}, hidden={self.hidden}, frequencies={self.frequencies}"
            )

    @property
    def inputs(self) -> int:
        """Numbers that the first layer sees."""
        return self.dimension * (1 + 2 * self.frequencies)

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """[out, in] of every layer."""
        widths = (self.inputs, *self.hidden, self.dimension)
        return list(zip(widths[1:], widths[:-1], strict=True))

    @cached_property
    def size(self) -> int:
        """Number of parameters."""
        return sum(out * (into + 1) for out, into in self.shapes) - (0 if self.output_bias else self.dimension)

    def layers(
        self,
        parameters: Tensor,  # [..., size]
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Views of the weights [..., out, in] and biases [..., out] of every layer."""
        layers, at = [], 0
        for index, (out, into) in enumerate(self.shapes):
            weight = parameters[..., at : at + out * into].unflatten(-1, (out, into))
            at += out * into
            biased = self.output_bias or index < len(self.hidden)
            layers.append((weight, parameters[..., at : at + out] if biased else None))
            at += out if biased else 0
        return layers

    def encode(
        self,
        points: Tensor,  # [..., dimension]
    ) -> Tensor:
        """h_0, [..., inputs]."""
        angles = [2.0**octave * points for octave in range(self.frequencies)]
        return torch.cat([points, *(wave for angle in angles for wave in (angle.sin(), angle.cos()))], -1)

    def velocity(
        self,
        points: Tensor,  # [rows, dimension], or [models, rows, dimension]
        parameters: Tensor,  # [models, size]
    ) -> Tensor:
        """v(x) of every network, [models, rows, dimension], in plain PyTorch; differentiable in everything."""
        state = self.encode(points)
        for index, (weight, bias) in enumerate(self.layers(parameters)):
            state = (F.silu(state) if index else state) @ weight.mT
            state = state if bias is None else state + bias[:, None]
        return state

    def initial(self, models: int, *, seed: int, first_model: int = 0, device: str | torch.device = "cpu") -> Tensor:
        """PyTorch's default initialisation, uniform within 1 / sqrt(in), float32 [models, size].

        A function of (seed, index of the model, parameter) alone: a model is the same in whatever company.
        """
        indices = torch.arange(first_model, first_model + models, device=device)
        words = philox.words(indices, self.size, seed=seed, stream=philox.STREAMS["weights"])
        values = 2 * philox.unit_interval(words) - 1
        for (weight, bias), (_, into) in zip(self.layers(values), self.shapes, strict=True):
            weight /= math.sqrt(into)
            if bias is not None:
                bias /= math.sqrt(into)
        return values.float()
