"""The U-Net of the paper (Zhang & Levin 2025, Listing 1), for comparison: neither local nor equivariant to shifts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MULTIPLE = 4  # of which the sides of the grid must be: the network halves them twice


class UNet(nn.Module):
    """`diffusers.UNet2DModel` of widths 16, 32, 64 with circular padding in every convolution that pads.

    Args:
        inputs: channels in.
        outputs: channels out.
        size: side of the grid that it is configured for; it runs on others, and behaves differently there.

    Raises:
        ImportError: diffusers is not installed.
    """

    radius = None  # attention and group norms couple every pixel to every other

    def __init__(self, inputs: int, outputs: int, *, size: int = 128):
        super().__init__()
        try:
            from diffusers import UNet2DModel
        except ImportError:
            remedy = "pip install 'eqflow[unet]', or take 'local'"
            raise ImportError(f"the network 'unet' needs diffusers: {remedy}") from None
        self.model = UNet2DModel(
            sample_size=size,
            in_channels=inputs,
            out_channels=outputs,
            down_block_types=("DownBlock2D",) * 3,
            up_block_types=("UpBlock2D",) * 3,
            block_out_channels=(16, 32, 64),
            norm_num_groups=8,
        )
        for layer in self.model.modules():
            # The library has no argument for it; a convolution reads the mode at every call.
            if isinstance(layer, nn.Conv2d) and any(layer.padding):
                layer.padding_mode = "circular"

    def forward(
        self,
        state: Tensor,  # [batch, inputs, height, width]
        time: Tensor,  # [batch]
    ) -> Tensor:
        """[batch, outputs, height, width].

        Raises:
            ValueError: a side of the grid is not divisible by 4.
        """
        if any(side % MULTIPLE for side in state.shape[2:]):
            raise ValueError(
                f"expected sides divisible by {MULTIPLE}, since the network 'unet' halves them twice, got "
                f"{list(state.shape[2:])}: take 'local', or another grid"
            )
        return self.model(state, torch.as_tensor(time), return_dict=False)[0]
