"""Philox4x32-10 in PyTorch: the random words that every other draw is made of."""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF

# One stream tag a purpose: two uses of one tag at equal step are correlated.
STREAMS = {
    "test": 0,
    "initial": 1,
    "langevin": 2,
    "probes": 3,
    "data-noise": 4,
    "minibatch": 5,
    "scatter": 6,
    "weights": 7,
    "nulls": 8,
    "test-functions": 9,
}


def _multiply(constant: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a product, in signed 64-bit arithmetic."""
    low_half = constant * (word & 0xFFFF)
    high_half = constant * (word >> 16)
    middle = high_half + (low_half >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low_half & 0xFFFF)


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor],  # each int64 with values below 2^32, broadcastable
    seed: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The specification: four random 32-bit words per counter (Salmon et al. 2011, ten rounds)."""
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = seed & _MASK, seed >> 32 & _MASK
    for _ in range(10):
        high0, low0 = _multiply(0xD2511F53, c0)
        high1, low1 = _multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def words(
    samples: Tensor,  # [batch], int64 below 2^32: the global index of each sample
    sites: int,
    *,
    seed: int,
    step: int = 0,
    stream: int = 0,
) -> Tensor:
    """Random 32-bit words of the sites 0 .. sites - 1 of some samples.

    The word of a site depends on (seed, stream, step, sample, site) alone: key = seed, counter = (site // 4, sample,
    low half of step, stream << 24 | high half of step), lane = site % 4.

    Returns:
        int64 tensor [batch, sites] with values in [0, 2^32).
    """
    group = torch.arange((sites + 3) // 4, device=samples.device)
    low, high = torch.tensor([step & _MASK, stream << 24 | step >> 32], device=samples.device)
    four = philox((group[None, :], samples[:, None], low, high), seed)
    return torch.stack(four, -1).flatten(1)[:, :sites]


def unit_interval(
    words: Tensor,  # int64 in [0, 2^32)
) -> Tensor:
    """Uniforms in (0, 1) from the top 23 bits of each word: float64, but exact in float32."""
    return ((words >> 9).double() + 0.5) * 2.0**-23


def integers(
    words: Tensor,  # int64 in [0, 2^32)
    count: int | Tensor,
) -> Tensor:
    """Whole numbers in [0, count) from each word (bias at most count / 2^32)."""
    return words * count >> 32
