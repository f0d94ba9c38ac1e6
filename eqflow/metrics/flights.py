"""Creatures followed from frame to frame on a periodic grid, with their headings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.metrics.creatures import Sightings
from eqflow.metrics.tracks import Tracks


class Flights(NamedTuple):
    """The tracks of creatures, and row by row what is known of them besides."""

    tracks: Tracks  # area is 0: a match has none
    species: Tensor  # [spots], int64
    heading: Tensor  # [spots], float64, radians, continuous along a track
    match: Tensor  # [spots], float64
    size: tuple[int, int]


def follow_creatures(
    sightings: Sightings,
    size: tuple[int, int],
    *,
    frames: int,
    reach: float,
    interval: float = 1.0,
    memory: int = 2,
    orders: Sequence[int] = (),
) -> Flights:
    """Links what was seen in neighbouring frames, the nearest first, within a species.

    Args:
        sightings: of one world.
        size: of the world.
        frames: number of frames, those without a creature too.
        reach: pixels that a creature moves at most from frame to frame; below half the distance of neighbours.
        interval: time between frames.
        memory: frames that a creature may be missing from and still be the same one.
        orders: rotational order of each species, see `rotational_order`; none: 1 for all.

    Raises:
        ValueError: reach, interval or memory is out of range.
    """
    if not 0 < reach < min(size) / 2 or not interval > 0 or memory < 0:
        raise ValueError(
            f"expected reach in (0, {min(size) / 2:g}), half the grid, interval above 0 and memory from 0 up, got "
            f"{reach}, {interval} and {memory}"
        )
    track = _linked(sightings, size, frames, reach, memory)
    spots = torch.argsort(track * frames + sightings.frame)
    none = torch.zeros_like(track)
    tracks = Tracks.make(sightings.frame, track, sightings.position, none, frames=frames, size=size, interval=interval)
    species = sightings.species[spots]
    order = torch.tensor(list(orders) or [1] * (int(species.max()) + 1 if len(species) else 1))[species]
    heading = _unwrapped(sightings.heading[spots], tracks.track, order)
    return Flights(tracks, species, heading, sightings.match[spots], size)


def _linked(sightings: Sightings, size: tuple[int, int], frames: int, reach: float, memory: int) -> Tensor:
    """The number of the track of every sighting."""
    sides = torch.tensor(size, dtype=torch.float64)
    track, count = torch.full_like(sightings.frame, -1), 0
    last = torch.empty(0, dtype=torch.int64)  # the latest row of each living track
    for frame in range(frames):
        here = (sightings.frame == frame).nonzero()[:, 0]
        last = last[sightings.frame[last] >= frame - 1 - memory]
        away = sightings.position[here, None] - sightings.position[last]
        distance = ((away + sides / 2).remainder(sides) - sides / 2).norm(dim=2)
        same = sightings.species[here, None] == sightings.species[last]
        row, column = ((distance <= reach) & same).nonzero(as_tuple=True)
        taken_rows, taken_columns = set(), set()
        for pair in distance[row, column].argsort(stable=True).tolist():
            at, before = int(row[pair]), int(column[pair])
            if at not in taken_rows and before not in taken_columns:
                track[here[at]] = track[last[before]]
                taken_rows.add(at)
                taken_columns.add(before)
        fresh = here[track[here] < 0]
        track[fresh] = count + torch.arange(len(fresh))
        count += len(fresh)
        lost = [index for index in range(len(last)) if index not in taken_columns]
        last = torch.cat([last[lost], here])
    return track


def _unwrapped(heading: Tensor, track: Tensor, order: Tensor) -> Tensor:
    """Headings without jumps along a track: each step is the shortest one for the symmetry."""
    period = 2 * math.pi / order.clamp(min=1)
    steps = torch.zeros_like(heading)
    steps[1:] = torch.remainder(heading[1:] - heading[:-1] + period[1:] / 2, period[1:]) - period[1:] / 2
    whole = steps.cumsum(0)
    first = torch.searchsorted(track, track)
    return heading[first] + whole - whole[first]
