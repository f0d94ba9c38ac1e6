"""Pictures scattered on a periodic canvas: the population that an artificial world is to keep.

For each image, `attempts` times: draw a species, a place, a turn and a scale; put the picture there, over what is
there, unless its alpha and the alpha already there are both above `overlap` at some pixel, or the canvas would be
covered by more than `coverage`. Every draw is a function of (seed, number of the image, attempt) alone.

Runs on the host only: it makes data, and one core makes more of them than a device uses.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eqflow.ops import _backend, philox

WORDS = 8  # of an attempt: species, row, column, turn, scale, and three spare
_STREAM = philox.STREAMS["scatter"]
_MOST_ATTEMPTS = 2**24
_VISIBLE = 1 / 512  # alpha below this takes no place


class Scatter(NamedTuple):
    """Images and what is on them."""

    images: Tensor  # float32 [count, channels, height, width]
    placements: Tensor  # float32 [count, attempts, 5]: species, row, column, turn, scale; NaN where none was put
    faded: Tensor | None = None  # the images with some pictures faded, of the same shape

    @property
    def placed(self) -> Tensor:
        """Pictures on each image, int64 [count]."""
        return self.placements[..., 0].isfinite().sum(1)


class _Prepared(NamedTuple):
    layers: Tensor  # [species, side, side, channels + 1]: colours times alpha, alpha; blurred, with a clear border
    areas: Tensor  # [species], in pixels of the canvas at scale 1
    radii: Tensor  # [species], likewise


def _prepared(pictures: Tensor, oversample: int) -> _Prepared:
    """Blurred by a tent as wide as two pixels of the canvas, so that one sample of it is an average over a pixel.

    By sums in a fixed order: a convolution of PyTorch gives other bits on another processor.
    """
    colours, alpha = pictures[:, :-1], pictures[:, -1:]
    layers = F.pad(torch.cat([colours * alpha, alpha], 1), [2 * oversample] * 4)
    side, reach = layers.shape[-1], oversample - 1
    for axis, border in ((2, [0, 0, reach, reach]), (3, [reach, reach])):
        padded, layers = F.pad(layers, border), torch.zeros_like(layers)
        for shift in range(2 * reach + 1):
            weight = (oversample - abs(shift - reach)) / oversample**2
            layers = layers + weight * padded.narrow(axis, shift, side)
    squares = (torch.arange(side, dtype=layers.dtype) - (side - 1) / 2).square()
    distance = (squares[:, None] + squares).sqrt().expand(len(layers), -1, -1)
    farthest = torch.where(layers[:, -1] > _VISIBLE, distance, 0.0).amax((1, 2))
    areas = (layers[:, -1].sum((1, 2), dtype=torch.float64) / oversample**2).to(layers)
    return _Prepared(layers.permute(0, 2, 3, 1).contiguous(), areas, (farthest + 1) / oversample)


def reference(pictures, count, height, width, seed, first_sample, attempts, coverage, low, high, overlap, fading,
              threshold, turn, oversample, background) -> Scatter:  # fmt: skip
    """The specification, one attempt after the other."""
    layers, areas, radii = _prepared(pictures, oversample)
    species, side = layers.shape[:2]
    images = background.view(1, -1, 1, 1).repeat(count, 1, height, width)
    faded, placements = images.clone(), images.new_full((count, attempts, 5), math.nan)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for index in range(count):
        sample = torch.tensor([first_sample + index])
        words = philox.words(sample, WORDS * attempts, seed=seed, stream=_STREAM)[0].view(attempts, WORDS)
        uniform = philox.unit_interval(words).to(layers)
        there, covered = torch.zeros(height, width).to(layers), 0.0
        for attempt in range(attempts):
            kind = int(philox.integers(words[attempt, 0], species))
            row, column = uniform[attempt, 1] * height, uniform[attempt, 2] * width
            share = uniform[attempt, 3] if turn else uniform.new_zeros(())
            scale = low + (high - low) * uniform[attempt, 4]
            if covered + areas[kind] * scale**2 > coverage * height * width:
                continue
            dy = (y - row + height / 2).remainder(height) - height / 2  # the nearest image of every pixel
            dx = (x - column + width / 2).remainder(width) - width / 2
            sine, cosine = (2 * math.pi * share).sin(), (2 * math.pi * share).cos()
            at = torch.stack([cosine * dx - sine * dy, sine * dx + cosine * dy], -1) * (oversample / scale)
            grid = at * (2 / (side - 1))
            seen = F.grid_sample(layers[kind].permute(2, 0, 1)[None], grid[None].to(layers), align_corners=True)[0]
            seen = seen * (torch.maximum(dy.abs(), dx.abs()) <= radii[kind] * scale)
            haunts = fading <= uniform[attempt, 5] < 2 * fading
            if not haunts and ((seen[-1] > overlap) & (there > overlap)).any():
                continue
            left = torch.ones_like(there)
            if uniform[attempt, 5] < 2 * fading:
                length = 3 * ((uniform[attempt, 5] - fading * haunts) / fading)
                slope = 2 * math.pi * uniform[attempt, 6]
                left = length * (dy * slope.sin() + dx * slope.cos()) / (radii[kind] * scale)
                left = (left + (1 + length) * uniform[attempt, 7] - length / 2).clamp(0, 1).to(there)
            over = (seen[:-1] - seen[-1] * background.view(-1, 1, 1)).square()
            nearer = (left**2 * over).sum() - ((1 - left) ** 2 * over).sum()
            if haunts and nearer >= 0:
                continue
            faded[index] = faded[index] * (1 - left * seen[-1]) + left * seen[:-1]
            if haunts:
                continue
            if nearer > (2 * threshold - 1) * over.sum():
                images[index] = images[index] * (1 - seen[-1]) + seen[:-1]
            there, covered = there + (1 - there) * seen[-1], covered + float(seen[-1].sum())
            placements[index, attempt] = torch.stack([row.new_tensor(kind), row, column, share, scale])
    return Scatter(images, placements, faded if fading else None)


def scatter(
    pictures: Tensor,  # float32 [species, channels + 1, side, side], straight alpha in [0, 1] last
    count: int,
    size: tuple[int, int],
    *,
    background: Tensor | list[float],  # [channels]
    seed: int,
    first_sample: int = 0,
    attempts: int | None = None,
    coverage: float = 1.0,
    scale: tuple[float, float] = (1.0, 1.0),
    overlap: float = 0.05,
    fading: float = 0.0,
    threshold: float = 0.5,
    turn: bool = True,
    oversample: int = 2,
    backend: str = "auto",
) -> Scatter:
    """Images of pictures at random places, turns and scales, none over another.

    Args:
        pictures: in the units of the images, on the CPU; clear where alpha is 0.
        count: images.
        size: height and width.
        background: where there is no picture.
        seed: key, in [0, 2^64).
        first_sample: number of the first image: images do not depend on how they are split over calls.
        attempts: to put a picture down, on each image; None: as many as would cover it three times.
        coverage: share of the image that pictures may cover in all, by the sum of their alphas.
        scale: smallest and largest size.
        overlap: alpha that two pictures may both have at a pixel.
        fading: share of the pictures that fade: strength + slope . (place / radius), cut to [0, 1], of one is left in
            `faded`, with a slope of length up to 3 in any direction: a faint one, or a part. On `images` it is whole or
            not there at all. As many haunt the others: less than half of one, over others or not, in `faded` alone.
        threshold: amplitude from which a faded picture is whole on `images`: one of amplitude a is a of it everywhere;
            what fades unevenly counts by its squared distances from the whole and from nothing.
        turn: whether pictures are turned, by any angle, counterclockwise as the eye sees rows going down.
        oversample: pixels of a picture for each of the image along a side, at scale 1.
        backend: "auto", "reference" or "native".

    Raises:
        ValueError: an argument is out of range, a picture is empty, or larger than the image.
        BackendError: the backend is not available here.

    Example:
        >>> disc = (torch.hypot(*torch.meshgrid(*[torch.arange(-7.5, 8)] * 2, indexing="ij")) < 7).float()
        >>> found = scatter(torch.stack([-disc, disc])[None], 2, (32, 32), background=[1.0], seed=0)
        >>> found.images.shape, found.placed.tolist()
        (torch.Size([2, 1, 32, 32]), [9, 10])
    """
    background = torch.as_tensor(background, dtype=pictures.dtype)
    _check(
        pictures, count, size, background, seed, first_sample, coverage, scale, overlap, fading, threshold, oversample
    )
    made, (height, width) = _prepared(pictures, oversample), size
    longest = 2 * float(made.radii.max()) * scale[1]
    if longest + 2 > min(size):
        raise ValueError(
            f"expected pictures smaller than the image of {height} x {width}, but one takes {longest:.0f} pixels: "
            "make it smaller, or the image larger"
        )
    if attempts is None:
        typical = float(made.areas.mean()) * (scale[0] ** 2 + scale[0] * scale[1] + scale[1] ** 2) / 3
        attempts = min(_MOST_ATTEMPTS, math.ceil(3 * min(1.0, 4 * coverage) * height * width / typical))
    if not 1 <= attempts <= _MOST_ATTEMPTS:
        raise ValueError(f"expected attempts in [1, {_MOST_ATTEMPTS}], got {attempts}")
    if backend == "triton":
        raise _backend.BackendError("pictures are scattered on the host: take backend 'native' or 'reference'")
    if _backend.choose(backend, torch.device("cpu")) == "reference":
        numbers = (seed, first_sample, attempts, coverage, *scale, overlap, fading, threshold, turn, oversample)
        return reference(pictures, count, height, width, *numbers, background)
    images = torch.empty((count, len(background), height, width))
    faded = torch.empty_like(images) if fading else None
    placements = torch.empty((count, attempts, 5))
    _backend.native_module().scatter(
        made.layers, made.areas, made.radii, background.contiguous(), images, faded, placements, float(oversample),
        float(scale[0]), float(scale[1]), float(overlap), float(coverage * height * width), float(fading),
        float(threshold), turn, seed, first_sample, _STREAM, torch.get_num_threads(),
    )  # fmt: skip
    return Scatter(images, placements, faded)


def _check(pictures, count, size, background, seed, first_sample, coverage, scale, overlap, fading, threshold,
           oversample) -> None:  # fmt: skip
    if pictures.ndim != 4 or pictures.shape[1] != len(background) + 1 or pictures.shape[2] != pictures.shape[3]:
        raise ValueError(
            f"expected square pictures [species, channels + 1, side, side] and a background [channels], got "
            f"{list(pictures.shape)} and {list(background.shape)}"
        )
    if pictures.dtype != torch.float32 or pictures.device.type != "cpu" or not pictures.isfinite().all():
        raise ValueError("expected finite float32 pictures on the CPU: use pictures.float().cpu()")
    empty = ~(pictures[:, -1] > _VISIBLE).any(2).any(1)
    if empty.any():
        raise ValueError(f"expected pictures with something on them, but number {int(empty.nonzero()[0])} is clear")
    for name, value, low, high in (
        ("count", count, 0, 2**32 - first_sample),
        ("seed", seed, 0, 2**64 - 1),
        ("first_sample", first_sample, 0, 2**32 - 1),
        ("coverage", coverage, 0, 1),
        ("overlap", overlap, 0, 1),
        ("fading", fading, 0, 0.5),
        ("threshold", threshold, 0, 0.99),
        ("scale", scale[0], 1e-3, scale[1]),
        ("oversample", oversample, 1, 64),
        ("size", min(size), 3, 2**20),
    ):
        if not low <= value <= high:
            raise ValueError(f"expected {name} in [{low}, {high}], got {value}")
