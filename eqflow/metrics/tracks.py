"""Paths of things that move on a periodic grid: how many, how long, how fast, how far."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class MeanSquareDisplacement(NamedTuple):
    """How far solitons get in a time, over all of them and all starts; pairs overlap and are not independent."""

    time: Tensor  # [lags]
    value: Tensor  # [lags], in square pixels; NaN where no soliton was seen so long
    pairs: Tensor  # [lags]


class Tracks(NamedTuple):
    """Spots by track and frame, and what follows from them.

    Example:
        >>> frame, track, row = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 0, 0, 1]), torch.tensor([14.0, 15.5, 1, 8])
        >>> place = torch.stack([row, torch.zeros(4)], 1)
        >>> found = Tracks.make(frame, track, place, torch.full((4,), 9), frames=3, size=(16, 16), interval=0.5)
        >>> found.count.tolist(), found.lifetime.tolist(), found.speed.tolist()
        ([1, 2, 1], [1.5, 0.5], [3.0, nan])
        >>> found.mean_square_displacement(2).value.tolist()
        [2.25, 9.0]
    """

    frame: Tensor  # [spots], int64
    track: Tensor  # [spots], int64: 0, 1, ... in the order of birth
    position: Tensor  # [spots, 2], float64: row and column on the grid
    path: Tensor  # [spots, 2], float64: the same without jumps at the borders
    area: Tensor  # [spots], int64: pixels
    frames: int
    interval: float

    @classmethod
    def make(
        cls,
        frame: Tensor,  # [spots]
        track: Tensor,  # [spots]
        position: Tensor,  # [spots, 2]
        area: Tensor,  # [spots]
        *,
        frames: int,
        size: tuple[int, int],
        interval: float = 1.0,
    ) -> Tracks:
        """Sorts the spots and unwraps their paths: every step is the shortest one on the grid of this size."""
        order = torch.argsort(track * frames + frame)
        frame, track, position, area = frame[order], track[order], position[order].double(), area[order]
        sides = torch.tensor(size, dtype=torch.float64)
        steps = torch.zeros_like(position)
        steps[1:] = torch.remainder(position[1:] - position[:-1] + sides / 2, sides) - sides / 2
        whole = steps.cumsum(0)
        first = torch.searchsorted(track, track)
        return cls(frame, track, position, position[first] + whole - whole[first], area, frames, interval)

    @property
    def _ends(self) -> tuple[Tensor, Tensor]:
        """Index of the first and of the last spot of every track."""
        names = torch.arange(int(self.track[-1]) + 1 if len(self.track) else 0)
        return torch.searchsorted(self.track, names), torch.searchsorted(self.track, names, right=True) - 1

    @property
    def count(self) -> Tensor:
        """Solitons in every frame, int64 [frames]."""
        return torch.bincount(self.frame, minlength=self.frames)

    @property
    def born(self) -> Tensor:
        """The first frame of every track, int64 [tracks]."""
        return self.frame[self._ends[0]]

    @property
    def last(self) -> Tensor:
        """The last frame of every track, int64 [tracks]."""
        return self.frame[self._ends[1]]

    @property
    def lifetime(self) -> Tensor:
        """The time from the first to the last frame, both counted, float64 [tracks]; see `whole`."""
        return (self.last - self.born + 1) * self.interval

    @property
    def whole(self) -> Tensor:
        """Whether birth and death were seen, bool [tracks]: other lifetimes are only bounds from below."""
        return (self.born > 0) & (self.last < self.frames - 1)

    @property
    def speed(self) -> Tensor:
        """Length of the path over its time, float64 [tracks], in pixels per unit of time; NaN for one frame alone.

        A soliton that trembles on the spot has one too: compare with the mean square displacement.
        """
        first, last = self._ends
        steps = torch.zeros(len(self.path), dtype=torch.float64)
        steps[1:] = (self.path[1:] - self.path[:-1]).norm(dim=1)
        length = steps.cumsum(0)
        return (length[last] - length[first]) / ((self.last - self.born) * self.interval)

    def mean_square_displacement(self, lags: int) -> MeanSquareDisplacement:
        """E|path(t + lag) - path(t)|^2 for lags of 1, 2, ... `lags` frames."""
        place = self.track * (self.frames + lags) + self.frame  # ascending; lags never reach the next track
        values, pairs = [], []
        for lag in range(1, lags + 1):
            later = torch.searchsorted(place, place + lag).clamp(max=max(len(place) - 1, 0))
            met = place[later] == place + lag
            away = (self.path[later] - self.path)[met].square().sum(1)
            values.append(away.mean() if len(away) else torch.tensor(math.nan, dtype=torch.float64))
            pairs.append(len(away))
        time = torch.arange(1, lags + 1, dtype=torch.float64) * self.interval
        return MeanSquareDisplacement(time, torch.stack(values), torch.tensor(pairs))
