"""Pictures in batches: checked, as many as you like in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

Pictures = Tensor | Iterable[Tensor]  # [batch, channels, height, width], or parts of it that can be read several times
_CELLS = 2**20  # numbers of a batch: they stay in the cache of a large machine
_CONSTANT = 1e-2  # of the mean variation of all pictures


def check(pictures: Pictures, channels: int) -> None:
    """Refuse what cannot be read in several passes, and tensors of another shape.

    Raises:
        TypeError: not a tensor, nor parts that can be read again.
        ValueError: other channels, or no picture.
    """
    if isinstance(pictures, Tensor):
        if pictures.ndim != 4 or pictures.shape[1] != channels or not pictures.numel():
            raise ValueError(
                f"expected pictures [batch, {channels}, height, width], one channel for each variable, got "
                f"{list(pictures.shape)}"
            )
    elif not isinstance(pictures, Iterable) or isinstance(pictures, Iterator):
        raise TypeError(
            "expected pictures as a tensor, or as a list or another collection of tensors that can be read several "
            f"times, got {type(pictures).__name__}"
        )


def batches(pictures: Pictures, channels: int) -> Iterator[Tensor]:
    """The pictures a few at a time, in float32, or in float64 if they are.

    Raises:
        TypeError, ValueError: see `check`; or a number is not finite.
    """
    check(pictures, channels)
    for part in [pictures] if isinstance(pictures, Tensor) else pictures:
        check(part, channels)
        for first in range(0, len(part), size := max(1, _CELLS // part[0].numel())):
            batch = part[first : first + size]
            batch = batch if batch.dtype == torch.float64 else batch.float()
            bad = ~batch.isfinite().flatten(1).all(1)
            if bad.any():
                where = first + int(bad.nonzero()[0])
                raise ValueError(f"expected finite pictures, but picture {where} has NaN or infinite values: mend it")
            yield batch


def living(
    pictures: Tensor,  # [pictures, channels, height, width]
) -> Tensor:
    """Whether each picture varies in each channel, bool [pictures]; a constant one has left the pattern for good.

    Example:
        >>> living(torch.stack([torch.eye(4), torch.ones(4, 4)])[:, None])
        tensor([ True, False])
    """
    deviation = pictures.double().flatten(2).std(2, correction=0)
    usual = deviation.square().mean(0).sqrt()
    return (deviation > _CONSTANT * usual).all(1)
