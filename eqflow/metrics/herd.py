"""What creatures do: how fast, how straight, how they turn, how they stand to each other and move with each other.

Every number is a ratio of two sums, over tracks or over blocks of frames, and its standard error is that of the
delete-one jackknife over these.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.metrics.flights import Flights

_BLOCKS = 10  # of frames


class Estimate(NamedTuple):
    """A number and its standard error; NaN where it cannot be known."""

    value: float
    error: float


class Curve(NamedTuple):
    """Numbers over something."""

    x: Tensor  # [points]
    y: Tensor  # [points]
    error: Tensor  # [points]


def ratio(
    top: Tensor,  # [rows], real or complex
    bottom: Tensor,  # [rows]
    group: Tensor,  # [rows], int64
) -> Estimate:
    """Sum over sum, its modulus where it is complex, with the jackknife over groups.

    Example:
        >>> ratio(torch.tensor([1.0, 2.0, 3.0]), torch.ones(3), torch.arange(3))
        Estimate(value=2.0, error=0.5773502691896257)
    """
    _, group = torch.unique(group, return_inverse=True)
    count = int(group.max()) + 1 if len(group) else 0
    sums = [torch.zeros(count, dtype=part.dtype).index_add_(0, group, part) for part in (top, bottom)]
    above, below = (part.to(torch.complex128) for part in sums)
    if not count or below.sum().abs() == 0:
        return Estimate(math.nan, math.nan)

    def number(value: Tensor) -> Tensor:
        return value.abs() if top.is_complex() else value.real

    value = float(number(above.sum() / below.sum()))
    without = number((above.sum() - above) / (below.sum() - below))
    if count < 2 or not without.isfinite().all():
        return Estimate(value, math.nan)
    return Estimate(value, float(((count - 1) * without.var(correction=0)).sqrt()))


class Steps(NamedTuple):
    """Displacements of creatures over a lag, one a row."""

    row: Tensor  # [rows] of the flights, where each begins
    track: Tensor  # [rows]
    frame: Tensor  # [rows]
    velocity: Tensor  # [rows, 2]: pixels per time, rows down and columns right
    turn: Tensor  # [rows]: radians per time, counterclockwise
    time: float


def steps(flights: Flights, lag: int = 1) -> Steps:
    """What each creature does from every frame to the one `lag` later, where it is seen in both."""
    tracks = flights.tracks
    begin = torch.arange(max(0, len(tracks.frame) - lag))
    end = begin + lag
    whole = (tracks.track[begin] == tracks.track[end]) & (tracks.frame[end] - tracks.frame[begin] == lag)
    begin, end = begin[whole], end[whole]
    time = lag * tracks.interval
    velocity = (tracks.path[end] - tracks.path[begin]) / time
    turn = (flights.heading[end] - flights.heading[begin]) / time
    return Steps(begin, tracks.track[begin], tracks.frame[begin], velocity, turn, time)


def speed(flights: Flights, lag: int = 1) -> Estimate:
    """Mean distance over a lag by its time; with a longer lag, jitter counts less."""
    found = steps(flights, lag)
    return ratio(found.velocity.norm(dim=1), torch.ones(len(found.row), dtype=torch.float64), found.track)


def turning(flights: Flights, lag: int = 1, *, signed: bool = True) -> Estimate:
    """Mean rate of turning, radians per time, counterclockwise; or its modulus."""
    found = steps(flights, lag)
    turn = found.turn if signed else found.turn.abs()
    return ratio(turn, torch.ones_like(turn), found.track)


def displacement(flights: Flights, lags: list[int]) -> Curve:
    """Mean square displacement over times."""
    rows = []
    for lag in lags:
        found = steps(flights, lag)
        rows.append(ratio((found.velocity * found.time).square().sum(1), torch.ones_like(found.turn), found.track))
    times = torch.tensor(lags, dtype=torch.float64) * flights.tracks.interval
    return Curve(times, *(torch.tensor(part, dtype=torch.float64) for part in zip(*rows, strict=True)))


def persistence(flights: Flights, lag: int, apart: int | None = None) -> Estimate:
    """Cosine of the velocity with the one `apart` frames later, weighted by their lengths: 1 straight, 0 forgotten."""
    found, apart = steps(flights, lag), apart or lag
    key = found.track * (flights.tracks.frames + apart) + found.frame
    later = torch.searchsorted(key, key + apart).clamp(max=max(0, len(key) - 1))
    both = key[later] == key + apart if len(key) else key.bool()
    now, then = found.velocity[both], found.velocity[later[both]]
    return ratio((now * then).sum(1), now.norm(dim=1) * then.norm(dim=1), found.track[both])


def along_body(flights: Flights, lag: int) -> Estimate:
    """How firmly motion is tied to the body: modulus of the mean of exp i(direction - heading), weighted by speed.

    1 where a creature always moves along the same axis of its body, 0 where it does not care.
    """
    found = steps(flights, lag)
    direction = torch.complex(found.velocity[:, 1], -found.velocity[:, 0])
    heading = flights.heading[found.row]
    return ratio(direction * torch.polar(torch.ones_like(heading), -heading), direction.abs(), found.track)


def lifetime(flights: Flights) -> Estimate:
    """Mean time to a track's end, where the risk is constant: all the time that was seen by all the ends that were."""
    tracks = flights.tracks
    last = torch.ones_like(tracks.track, dtype=torch.bool)
    last[:-1] = tracks.track[1:] != tracks.track[:-1]
    ended = (last & (tracks.frame < tracks.frames - 1)).double()
    return ratio(torch.full_like(ended, tracks.interval), ended, tracks.track)


def _blocks(frame: Tensor, frames: int) -> Tensor:
    return frame * _BLOCKS // frames


class Pairs(NamedTuple):
    """Curves over the distance of two creatures; each has the value of creatures that do not care."""

    correlation: Curve  # g(r), 1 for points without an order
    approach: Curve  # mean speed away from each other, pixels per time; below 0 they come closer
    approach_null: Curve  # the same with the velocities of each frame shuffled
    alignment: Curve  # mean cosine between their directions of motion
    alignment_null: Curve


def pairs(flights: Flights, lag: int, *, farthest: float, bins: int = 12, seed: int = 0) -> Pairs:
    """How creatures stand to each other and move with each other.

    Args:
        flights: of one world.
        lag: frames over which velocities are taken.
        farthest: largest distance, at most half the world.
        bins: of distances.
        seed: of the shuffles.
    """
    if not 0 < farthest <= min(flights.size) / 2:
        raise ValueError(f"expected farthest in (0, {min(flights.size) / 2:g}], half the world, got {farthest}")
    found, generator = steps(flights, lag), torch.Generator().manual_seed(seed)
    place = flights.tracks.position[found.row]
    sides = torch.tensor(flights.size, dtype=torch.float64)
    rows: list[list[Tensor]] = [[] for _ in range(6)]
    ideal = torch.zeros(_BLOCKS, dtype=torch.float64)
    for frame in found.frame.unique().tolist():
        here = (found.frame == frame).nonzero()[:, 0]
        first, second = torch.triu_indices(len(here), len(here), 1)
        away = (place[here[second]] - place[here[first]] + sides / 2).remainder(sides) - sides / 2
        distance = away.norm(dim=1)
        near = (distance < farthest) & (distance > 0)
        outward = away[near] / distance[near, None]
        block = _blocks(torch.tensor(frame), flights.tracks.frames)
        ideal[block] += len(first) / float(sides.prod())
        values = [distance[near], torch.full_like(distance[near], float(block))]
        for order in (torch.arange(len(here)), torch.randperm(len(here), generator=generator)):
            velocity = found.velocity[here[order]]
            one, other = velocity[first[near]], velocity[second[near]]
            lengths = (one.norm(dim=1) * other.norm(dim=1)).clamp(min=1e-12)
            values += [((other - one) * outward).sum(1), (one * other).sum(1) / lengths]
        for part, value in zip(rows, values, strict=True):
            part.append(value)
    distance, block, *quantities = (torch.cat(part) if part else torch.empty(0, dtype=torch.float64) for part in rows)
    edges = torch.linspace(0, farthest, bins + 1, dtype=torch.float64)
    areas = math.pi * (edges[1:] ** 2 - edges[:-1] ** 2)
    which, block = torch.bucketize(distance, edges[1:-1], right=True), block.long()
    present, middles = torch.arange(_BLOCKS)[ideal > 0], (edges[1:] + edges[:-1]) / 2
    counts = [torch.bincount(block[which == k], minlength=_BLOCKS).double()[present] for k in range(bins)]
    correlation = [ratio(counts[k], ideal[present] * areas[k], present) for k in range(bins)]

    def curve(estimates: list[Estimate]) -> Curve:
        return Curve(middles, *(torch.tensor(part, dtype=torch.float64) for part in zip(*estimates, strict=True)))

    ones = torch.ones_like(distance)
    away, along, away_null, along_null = (
        curve([ratio(values[which == k], ones[which == k], block[which == k]) for k in range(bins)])
        for values in quantities
    )
    return Pairs(curve(correlation), away, away_null, along, along_null)


class Order(NamedTuple):
    """How far all move, or stand, in one direction: mean over frames of |mean over creatures of exp(i angle)|."""

    value: Estimate
    null: Estimate  # of angles without an order: about sqrt(pi / (4 n)), with its spread over draws


def polarisation(flights: Flights, lag: int, *, of: str = "motion", draws: int = 200, seed: int = 0) -> Order:
    """Flocking.

    Args:
        flights: of one world.
        lag: frames over which velocities are taken.
        of: "motion", the directions of velocities, or "headings".
        draws: of random angles, as many as there are creatures in each frame, that stay the same over a block.
        seed: of the draws.
    """
    found = steps(flights, lag)
    down, right = found.velocity.unbind(1)
    angle = torch.atan2(-down, right) if of == "motion" else flights.heading[found.row]
    unit = torch.polar(torch.ones_like(angle), angle)
    frames = flights.tracks.frames
    number = torch.bincount(found.frame, minlength=frames)
    seen = number > 1
    total = torch.zeros(frames, dtype=unit.dtype).index_add_(0, found.frame, unit)
    present = torch.arange(frames)[seen]
    order = (total.abs() / number.clamp(min=1))[seen]
    value = ratio(order, torch.ones_like(order), _blocks(present, frames))
    if not len(present):
        return Order(value, Estimate(math.nan, math.nan))
    generator, typical = torch.Generator().manual_seed(seed), int(number[seen].double().mean().round())
    angles = 2 * math.pi * torch.rand(draws, _BLOCKS, max(2, typical), generator=generator, dtype=torch.float64)
    random = torch.polar(torch.ones_like(angles), angles).mean(2).abs().mean(1)
    return Order(value, Estimate(float(random.mean()), float(random.std())))
