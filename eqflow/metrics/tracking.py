"""Solitons found and followed: spots of a picture on a periodic grid, linked from frame to frame.

A spot is a connected set of pixels above a threshold, by their four neighbours, across the borders too. It stands at
the mean of its pixels, weighted by what they have above the threshold. Spots of neighbouring frames are linked so that
the sum of their squared distances is least (Crocker & Grier 1996, by trackpy) on the torus: an axis becomes a circle of
its length, where no place is a border.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from eqflow.metrics.tracks import Tracks


def _spots(pictures: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frame, position and area of every spot, frame by frame."""
    from scipy.ndimage import label
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    near = np.zeros((3, 3, 3), dtype=int)
    near[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    parts, count = label(pictures > threshold, near)
    left = np.concatenate([parts[:, 0].ravel(), parts[:, :, 0].ravel()])
    right = np.concatenate([parts[:, -1].ravel(), parts[:, :, -1].ravel()])
    joined = (left > 0) & (right > 0)
    links = coo_matrix((np.ones(joined.sum()), (left[joined], right[joined])), (count + 1, count + 1))
    whole = connected_components(links, directed=False)[1][parts]
    pixels = np.nonzero(parts)
    _, first, spot = np.unique(whole[pixels], return_index=True, return_inverse=True)
    order = np.argsort(first)
    spot = np.argsort(order)[spot]
    weight = pictures[pixels].astype(float) - threshold
    mass = np.bincount(spot, weight)
    center = np.empty((len(first), 2))
    for axis, side in enumerate(pictures.shape[1:]):
        angle = 2 * np.pi / side * pixels[axis + 1]
        sine, cosine = (np.bincount(spot, weight * part) for part in (np.sin(angle), np.cos(angle)))
        about = np.arctan2(sine, cosine) * side / (2 * np.pi)
        # The mean on the circle bends the place of a lopsided spot; around it the plain mean does not.
        away = np.mod(pixels[axis + 1] - about[spot] + side / 2, side) - side / 2
        center[:, axis] = np.mod(about + np.bincount(spot, weight * away) / mass, side)
    return pixels[0][first[order]], center, np.bincount(spot)


def track_solitons(
    pictures: Tensor,  # [frames, height, width]
    *,
    threshold: float,
    reach: float,
    interval: float = 1.0,
    memory: int = 0,
    least: int = 1,
    most: int | None = None,
) -> Tracks:
    """Spots of v above a threshold, linked to paths.

    Args:
        pictures: v of one pattern on a periodic grid, frame after frame.
        threshold: between background and spots, in the units of v.
        reach: pixels that a soliton moves at most from frame to frame; below half the distance of neighbours.
        interval: time between frames.
        memory: frames that a soliton may be missing from and still be the same one.
        least, most: pixels of a spot; smaller and larger ones are left out. One that winds around the grid, as a stripe
            does, has no place: let `most` leave it out.

    Returns:
        Tracks: frame, track, position, path and area of every spot, sorted by track and frame; from them the count of
        every frame, lifetimes, speeds and the mean square displacement.

    Raises:
        ValueError: an argument is out of range, or there are too many spots within reach of one another.
        ImportError: trackpy is not installed.
    """
    try:
        import trackpy
        from trackpy.linking.utils import SubnetOversizeException
    except ImportError:
        raise ImportError("tracking solitons needs trackpy: pip install 'eqflow[tracking]'") from None
    if pictures.ndim != 3 or not len(pictures) or not pictures.isfinite().all():
        raise ValueError(f"expected finite pictures [frames, height, width], got {list(pictures.shape)}: v of one run")
    frames, *size = pictures.shape
    if not 0 < reach < min(size) / 2 or not interval > 0 or memory < 0:
        raise ValueError(
            f"expected reach in (0, {min(size) / 2:g}), half the grid, interval above 0 and memory from 0 up, got "
            f"{reach}, {interval} and {memory}"
        )
    frame, position, area = _spots(pictures.detach().cpu().numpy(), threshold)
    kept = (area >= least) & (area <= (math.inf if most is None else most))
    frame, position, area = frame[kept], position[kept], area[kept]
    trackpy.quiet()
    diameter = np.array(size) / np.pi
    circles = {
        "search_range": diameter.min() * math.sin(reach / diameter.min()),  # the chord
        "to_eucl": lambda place: np.hstack([diameter / 2 * turn(2 * place / diameter) for turn in (np.sin, np.cos)]),
    }
    places = (position[frame == index] for index in range(frames))
    try:
        linked = [
            names for _, names in trackpy.link_iter(places, memory=memory, link_strategy="nonrecursive", **circles)
        ]
    except SubnetOversizeException as error:
        raise ValueError(f"expected a reach below the distance of neighbours, got {reach}: {error}") from None
    track = np.unique(np.concatenate([np.asarray(names, dtype=int) for names in linked]), return_inverse=True)[1]
    numbers = (torch.from_numpy(np.asarray(values)) for values in (frame, track, position, area))
    return Tracks.make(*numbers, frames=frames, size=tuple(size), interval=interval)
