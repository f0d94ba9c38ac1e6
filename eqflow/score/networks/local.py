"""A residual convolutional network that sees as far as it says and no farther, on a periodic grid of any size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STRIP = 2**18  # pixels of a grid that are worked on at once: memory for more is taken for the result alone


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
        """[batch, outputs, height, width]; of a large grid in strips, unless a gradient is wanted."""
        height, width = state.shape[2:]
        if height * width <= _STRIP or torch.is_grad_enabled():
            return self._valid(wrap(state, self.radius))
        rows = max(self.radius, _STRIP // width)
        strips = [range(first, min(first + rows, height)) for first in range(0, height, rows)]
        return torch.cat([self._valid(wrap(state, self.radius, strip)) for strip in strips], 2)

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
    rows: range | None = None,
) -> Tensor:
    """The periodic field, or some rows of it, with `radius` more pixels on every side, of small grids too."""
    for axis, kept in ((2, rows), (3, None)):
        size = state.shape[axis]
        kept = kept or range(size)
        state = state.index_select(
            axis, torch.arange(kept.start - radius, kept.stop + radius, device=state.device) % size
        )
    return state
