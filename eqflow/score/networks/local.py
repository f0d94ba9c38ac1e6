"""A residual convolutional network that sees as far as it says and no farther, on a periodic grid of any size."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TILE = 256  # pixels of a side that are worked on at once: more makes memory the bottleneck


class Local(nn.Module):
    """conv_k, then h <- h + conv_3(SiLU(h)) a few times, then conv_1(SiLU(h)): no stride, no norm, no attention.

    The grid is wrapped once, by the radius of the field of view, and every convolution is a valid one. So a shift of
    the input shifts the output exactly, and a pixel beyond the radius changes nothing.

    Args:
        inputs: channels in.
        outputs: channels out; their layer starts at zero.
        width: channels within.
        dilations: of the residual blocks, one each.
        first: side of the first kernel, odd.

    Attributes:
        radius: of the field of view, in pixels.

    Example:
        >>> network = Local(2, 2, width=24, dilations=(1,) * 6, first=7)
        >>> network.radius, sum(weight.numel() for weight in network.parameters())
        (9, 33674)
    """

    def __init__(self, inputs: int, outputs: int, *, width: int, dilations: tuple[int, ...], first: int):
        super().__init__()
        self.radius = first // 2 + sum(dilations)
        self.enter = nn.Conv2d(inputs, width, first)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, dilation=dilation) for dilation in dilations)
        self.leave = nn.Conv2d(width, outputs, 1)

    def forward(
        self,
        state: Tensor,  # [batch, inputs, height, width]
    ) -> Tensor:
        """[batch, outputs, height, width]; of a large grid in tiles, unless a gradient is wanted."""
        height, width = state.shape[2:]
        if height * width <= _TILE**2 or torch.is_grad_enabled():
            return self._valid(wrap(state, self.radius))
        whole = state.new_empty(len(state), self.leave.out_channels, height, width)
        for rows, columns in product(*(_parts(size) for size in (height, width))):
            tile = self._valid(wrap(state, self.radius, (rows, columns)))
            whole[:, :, rows.start : rows.stop, columns.start : columns.stop] = tile
        return whole

    def _valid(
        self,
        wrapped: Tensor,  # [batch, inputs, height + 2 radius, width + 2 radius]
    ) -> Tensor:
        hidden = self.enter(wrapped)
        for block in self.blocks:
            edge = block.dilation[0]
            hidden = hidden[..., edge:-edge, edge:-edge] + block(F.silu(hidden))
        return self.leave(F.silu(hidden))


def wrap(
    state: Tensor,  # [batch, channels, height, width]
    radius: int,
    part: tuple[range, range] | None = None,
) -> Tensor:
    """The periodic field, or some rows and columns of it, with `radius` more pixels on every side."""
    for axis, size in ((2, state.shape[2]), (3, state.shape[3])):
        kept = range(size) if part is None else part[axis - 2]
        around = torch.arange(kept.start - radius, kept.stop + radius, device=state.device)
        state = state.index_select(axis, around % size)
    return state


def _parts(size: int) -> list[range]:
    return [range(first, min(first + _TILE, size)) for first in range(0, size, _TILE)]
