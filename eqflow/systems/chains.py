"""Unordered points of an attractor, from many independent trajectories whose start-up is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from eqflow import ops
from eqflow.ops import philox

CHAIN_COUNT = 20_000  # independent trajectories behind the samples of one seed
_STREAM = philox.STREAMS["initial"]  # step 0: where a chain starts; step 1: how long its burn-in is


class Chains(NamedTuple):
    """How a chain is made: times in units of the system's time, starts normal around `centre`."""

    dt: float
    burn_in: float
    interval: float  # between two snapshots of a chain
    centre: tuple[float, ...]
    spread: tuple[float, ...]  # standard deviations


class Chained(Protocol):
    """What `sample_chains` needs of a system."""

    dimension: int
    dt: float
    chains: Chains

    def advance(
        self, state: Tensor, steps: int, seed: int, first_sample: int, first_step: int, dt: float | Tensor
    ) -> Tensor:
        """The state [dimension, chains] some steps later."""
        ...


def sample_chains(system: Chained, batch: int, *, seed: int, first_sample: int, device: str | torch.device) -> Tensor:
    """Point i is snapshot i // 20,000 of chain i % 20,000; see `ChaoticSystem.sample`."""
    if batch < 0 or first_sample < 0:
        raise ValueError(f"expected batch and first_sample from 0 up, got {batch} and {first_sample}")
    points = torch.empty(batch, system.dimension, dtype=torch.float64, device=device)
    if not batch:
        return points
    first_round, first_chain = divmod(first_sample, CHAIN_COUNT)
    rounds = range(first_round, (first_sample + batch - 1) // CHAIN_COUNT + 1)
    one_round = first_chain + batch <= CHAIN_COUNT
    chains = range(first_chain, first_chain + batch) if one_round else range(CHAIN_COUNT)
    for number, state in zip(rounds, _snapshots(system, chains, rounds.start, seed, points.device), strict=False):
        row = number * CHAIN_COUNT + chains.start - first_sample  # of the first chain
        rows = slice(max(row, 0), min(row + len(chains), batch))
        points[rows] = state[:, rows.start - row : rows.stop - row].T
    return points


def _snapshots(system, chains: range, first: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """The states [dimension, chains] of some chains at the snapshots from `first` on."""
    burn_in, interval = (round(time / system.dt) for time in (system.chains.burn_in, system.chains.interval))
    counter = {"seed": seed, "stream": _STREAM}
    normals = ops.normal(len(chains), system.dimension, first_sample=chains.start, device=device, **counter).double()
    indices = torch.arange(chains.start, chains.stop, device=device)
    uniform = philox.unit_interval(philox.words(indices, 1, step=1, **counter)[:, 0])
    centre, spread = (normals.new_tensor(values)[:, None] for values in system.chains[3:])
    state = centre + spread * normals.T
    state = system.advance(state, burn_in, seed, chains.start, 0, system.dt * (1 + uniform) / 2)
    step, steps = burn_in, first * interval
    while True:
        state = system.advance(state, steps, seed, chains.start, step, system.dt)
        step, steps = step + steps, interval
        yield state
