"""Affine couplings: invertible maps with a triangular Jacobian, whose volume is known (Dinh et al., RealNVP, 2017)."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from eqflow.ops import philox

_WEIGHTS = philox.STREAMS["weights"]
_STEP = 2  # of the weights' stream: flows have 0, denoisers 1


def _network(dimension: int, hidden: tuple[int, ...]) -> nn.Sequential:
    """Tangent layers without values yet."""
    layers: list[nn.Module] = []
    for into, out in itertools.pairwise((dimension, *hidden)):
        layers += [nn.utils.skip_init(nn.Linear, into, out), nn.Tanh()]
    return nn.Sequential(*layers, nn.utils.skip_init(nn.Linear, hidden[-1], dimension))


class Coupling(nn.Module):
    """x = M xi + (1 - M) (xi exp(S) + T), S = a tanh(net_s(M xi)), T = b net_t(M xi), with a = b = 0 at the start.

    So it begins as the identity, exactly. M keeps every second coordinate.

    Args:
        dimension: numbers of a point, 2 or more.
        hidden: widths of the hidden layers of both networks, which have tanh.
        parity: whether the even (0) or the odd (1) coordinates are kept.
        seed, index: of the initial weights, PyTorch's default law, drawn by counter.

    Example:
        >>> coupling = Coupling(2, (8,), parity=0)
        >>> coupling.inverse(coupling(torch.ones(1, 2)))[0].detach()
        tensor([[1., 1.]])
    """

    def __init__(self, dimension: int, hidden: tuple[int, ...], *, parity: int, seed: int = 0, index: int = 0):
        super().__init__()
        if dimension < 2:
            raise ValueError(
                f"expected 2 coordinates or more for a coupling, which moves some by the others, got {dimension}"
            )
        self.scale, self.shift = _network(dimension, hidden), _network(dimension, hidden)
        self.scale_size, self.shift_size = (nn.Parameter(torch.zeros(dimension)) for _ in range(2))
        self.register_buffer("kept", (torch.arange(dimension) % 2 == parity).float(), persistent=False)
        self._initialise(seed, index)

    @torch.no_grad()
    def _initialise(self, seed: int, index: int) -> None:
        layers = [layer for layer in (*self.scale, *self.shift) if isinstance(layer, nn.Linear)]
        sizes = [parameter.numel() for layer in layers for parameter in (layer.weight, layer.bias)]
        words = philox.words(torch.tensor([index]), sum(sizes), seed=seed, step=_STEP, stream=_WEIGHTS)
        parts = iter((2 * philox.unit_interval(words[0]) - 1).split(sizes))
        for layer in layers:
            for parameter in (layer.weight, layer.bias):
                parameter.copy_(next(parts).view_as(parameter) / math.sqrt(layer.in_features))

    def _parts(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """S and T, zero in the coordinates that are kept."""
        moved = 1 - self.kept
        return moved * self.scale_size * self.scale(kept).tanh(), moved * self.shift_size * self.shift(kept)

    def forward(
        self,
        latent: Tensor,  # [batch, dimension]
    ) -> Tensor:
        """x, [batch, dimension]."""
        kept = self.kept * latent
        scale, shift = self._parts(kept)
        return kept + (1 - self.kept) * (latent * scale.exp() + shift)

    def inverse(
        self,
        points: Tensor,  # [batch, dimension]
    ) -> tuple[Tensor, Tensor]:
        """xi, [batch, dimension], and log |det d xi / d x|, [batch]."""
        kept = self.kept * points
        scale, shift = self._parts(kept)
        return kept + (1 - self.kept) * ((points - shift) * (-scale).exp()), -scale.sum(1)
