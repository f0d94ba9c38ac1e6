"""Fields for a training that are scattered as they are needed: none is seen twice.

A training on noised fields alone never sees half a creature, and what its denoiser makes of one is left to chance: in a
long rollout creatures die that way. But what the exact denoiser makes of one is known. With noise of standard deviation
sigma, U a creature over its background and a part f U of it left, the posterior odds of the whole creature to none are
those before times exp((|f U|^2 - |(1 - f) U|^2) / (2 sigma^2)): all or nothing, whichever is nearer, about. So some
fields are given with faded creatures, and the whole or none is asked for; and with what is less than half of one over
others, where none is asked for, since creatures do not overlap.

The odds before, some e^-13, would put the threshold above a half, and balance deaths by births out of noise. These are
too rare to be learned: worlds died out. With a threshold below a half creatures last.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eqflow import ops
from eqflow.score.run import identity


class Scattered:
    """Pictures at random places, as `Fields` of a training.

    Args:
        pictures: float32 [species, channels + 1, side, side], straight alpha last, see `ops.scatter`.
        size: height and width of a field.
        held_out: how many fields are kept apart.
        seed: of the scatter.
        device: where to train.
        background, coverage, scale, overlap, oversample: of the scatter.
        fading: share of the creatures that are faded where a training draws pairs, and as many haunt the others.
        threshold: amplitude from which a faded creature is asked for whole.

    Raises:
        ValueError: the pictures cannot be scattered so.

    Example:
        >>> disc = torch.zeros(1, 2, 12, 12)
        >>> disc[0, :, 3:9, 3:9] = 1.0
        >>> fields = Scattered(disc, (32, 32), held_out=2, seed=0, background=[-1.0])
        >>> fields.draw(range(3)).shape
        torch.Size([3, 1, 32, 32])
    """

    def __init__(
        self,
        pictures: Tensor,
        size: tuple[int, int],
        *,
        held_out: int,
        seed: int,
        background: Sequence[float],
        coverage: float = 0.16,
        scale: Sequence[float] = (1.0, 1.0),
        overlap: float = 0.05,
        fading: float = 0.25,
        threshold: float = 0.4,
        oversample: int = 2,
        device: str | torch.device = "cpu",
    ):
        if held_out < 1:
            raise ValueError(f"expected held_out from 1 up, got {held_out}")
        self._pictures, self._size, self._seed, self._device = pictures, tuple(size), seed, torch.device(device)
        self._options = {"coverage": coverage, "overlap": overlap, "oversample": oversample}
        self._options |= {"background": list(background), "scale": tuple(scale)}
        self._fading = {"fading": fading, "threshold": threshold}
        self.apart = self._fields(range(held_out))

    def _fields(self, samples: range) -> Tensor:
        options = {"seed": self._seed, "first_sample": samples.start, **self._options}
        return ops.scatter(self._pictures, len(samples), self._size, **options).images.to(self._device)

    def draw(self, rows: range) -> Tensor:
        return self._fields(range(len(self.apart) + rows.start, len(self.apart) + rows.stop))

    def pairs(self, rows: range) -> tuple[Tensor, Tensor]:
        """What a denoiser should give, and what it is to be given with noise."""
        first = len(self.apart) + rows.start
        options = {"seed": self._seed, "first_sample": first, **self._fading, **self._options}
        found = ops.scatter(self._pictures, len(rows), self._size, **options)
        faded = found.images if found.faded is None else found.faded
        return found.images.to(self._device), faded.to(self._device)

    def reference(self, count: int) -> Tensor:
        return self.draw(range(count))

    def identity(self) -> Tensor:
        return identity(self.apart, self._size, self._seed, sorted(self._fading.items()), sorted(self._options.items()))
