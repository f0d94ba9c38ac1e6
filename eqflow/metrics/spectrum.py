"""Power spectra of pictures."""

from __future__ import annotations

import torch
from torch import Tensor


def radial_spectrum(
    pictures: Tensor,  # [batch, channels, height, width]
) -> Tensor:
    """The power of each picture around its mean at every whole wave number, float64 [batch, channels, waves].

    Wave number k is that of k waves along the shorter axis; the sum over k, corners of the plane included in the last,
    is the variance of the picture (Parseval's theorem).

    Example:
        >>> rows = torch.arange(16) * (2 * torch.pi / 16)
        >>> wave = (3 * rows).cos()[:, None].expand(1, 1, 16, 16)
        >>> radial_spectrum(wave)[0, 0].round(decimals=6).tolist()
        [0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    height, width = pictures.shape[2:]
    shorter = min(height, width)
    waves = shorter // 2
    centred = pictures.double() - pictures.double().mean((2, 3), keepdim=True)
    power = torch.fft.fft2(centred).abs().square() / (height * width) ** 2
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64, device=pictures.device) for n in (height, width))
    ring = (torch.hypot(rows[:, None], columns) * shorter).round().long().clamp(max=waves)
    found = power.new_zeros(*power.shape[:2], waves + 1)
    return found.index_add_(2, ring.flatten(), power.flatten(2))[..., 1:]
