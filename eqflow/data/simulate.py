"""The states of one shard: starts, time steps, and new starts for the samples that die."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow import ops
from eqflow.data.files import DatasetError
from eqflow.data.recipe import Recipe
from eqflow.systems.gray_scott import DEAD_STD, initial_state, is_dead

MOST_REDRAWS = 20
RULE = (
    f"a sample is dead when the standard deviation of v over the grid of its last frame is at most {DEAD_STD}; with "
    f"redraw_dead it is started again from the next attempt, a function of (seed, sample, attempt), at most "
    f"{MOST_REDRAWS} times"
)

_CHUNK_BYTES = 2**26
_CHUNK_UPDATES = 2**30  # a thread: a quarter of a second, so progress is smooth and Ctrl-C does not wait long


class Chunk(NamedTuple):
    """Some finished samples of a shard."""

    rows: Tensor  # [n]: place in the shard
    attempt: int
    frames: Tensor  # [n, frames, 2, height, width], on the CPU
    dead: int  # kept although dead
    rejected: int  # dead and to be redrawn
    cell_updates: int


def chunk_samples(recipe: Recipe, device: torch.device) -> int:
    """How many samples to compute at a time; this changes no byte."""
    most = max(1, _CHUNK_BYTES // recipe.sample_bytes)
    if device.type == "cuda":
        return most
    few = _CHUNK_UPDATES // max(1, recipe.height * recipe.width * recipe.steps)
    return min(most, max(1, few) * torch.get_num_threads())


def trajectory(
    recipe: Recipe,
    samples: Tensor,  # [batch], int64: global indices, on the CPU
    attempt: int,
    device: torch.device,
    backend: str,
) -> Tensor:
    """The stored frames of some samples: [batch, frames, 2, height, width] on `device`."""
    state = initial_state(
        recipe.initial,
        samples,
        recipe.height,
        recipe.width,
        seed=recipe.seed,
        attempt=attempt,
        parameters=[recipe.system(int(sample)) for sample in samples],
    ).to(device)
    feed, kill, diffusion_u, diffusion_v = recipe.parameters(samples).unbind(1)
    states = ops.gray_scott(
        state,
        recipe.steps,
        feed=feed,
        kill=kill,
        diffusion_u=diffusion_u,
        diffusion_v=diffusion_v,
        dt=recipe.dt,
        dx=recipe.dx,
        stencil=recipe.stencil,
        every=recipe.every,
        backend=backend,
    )
    return states[:, None] if recipe.every is None else torch.cat([state[:, None], states], 1)


def simulate(recipe: Recipe, shard: int, device: torch.device, backend: str) -> Iterator[Chunk]:
    """Every sample of a shard once, in some order.

    Raises:
        DatasetError: a sample died from every start.
    """
    samples, size = torch.tensor(recipe.shard(shard)), chunk_samples(recipe, device)
    rows = torch.arange(len(samples))
    for attempt in range(MOST_REDRAWS + 1):
        again = []
        for part in rows.split(size):
            try:
                frames = trajectory(recipe, samples[part], attempt, device, backend)
            except FloatingPointError:
                raise DatasetError(
                    f"a sample among {int(samples[part[0]])} to {int(samples[part[-1]])} grew beyond all bounds: take "
                    "a smaller dt"
                ) from None
            dead = is_dead(frames[:, -1]).cpu()
            updates = len(part) * recipe.height * recipe.width * recipe.steps
            if recipe.redraw_dead and dead.any():
                again.append(part[dead])
                keep = ~dead
                yield Chunk(part[keep], attempt, frames[keep.to(device)].cpu(), 0, int(dead.sum()), updates)
            else:
                yield Chunk(part, attempt, frames.cpu(), int(dead.sum()), 0, updates)
        if not again:
            return
        rows = torch.cat(again)
    sample = int(samples[rows[0]])
    system = recipe.system(sample)
    raise DatasetError(
        f"sample {sample} (feed = {system.feed:g}, kill = {system.kill:g}, diffusion_u = {system.diffusion_u:g}, "
        f"diffusion_v = {system.diffusion_v:g}) became homogeneous within {recipe.steps} steps from each of "
        f"{MOST_REDRAWS + 1} starts {recipe.initial!r}: these parameters die. Take others, another start, or keep dead "
        "samples with redraw_dead=False"
    )
