"""One world from its start to its last frame: what is kept is the clean field, as colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eqflow.cli import _stages

_BLOCK = 10  # steps between two words of progress


class _Clean:
    """A reel that sees the clean field instead of the noised one."""

    def __init__(self, output: Callable[[Any], Any], reel: Any):
        self._output, self._reel, self.every, self.options = output, reel, reel.every, reel.options
        self.state_dict, self.load_state_dict = reel.state_dict, reel.load_state_dict

    def observe(self, step: int, time: float, state: Any) -> None:
        self._reel.observe(step, time, self._output(state).float())


def flow(score: Any, kernel: Any, eta: float, where: str) -> Any:
    """The skew flow, in the precision that is fast where it runs."""
    import torch

    from eqflow.dynamics import SkewFlow

    half = where.startswith("cuda")
    return SkewFlow(score, kernel.to(where), eta, autocast=torch.bfloat16 if half else None)


def begin(stored: Any, score: Any, size: tuple[int, int], start: str, seed: int, where: str) -> Any:
    """The first state, [1, 3, height, width]: a noised scatter that no training has seen, or noise alone."""
    from eqflow import ops
    from eqflow.ops import philox

    if start == "noise":
        sites, stream = len(stored.channels) * size[0] * size[1], philox.STREAMS["initial"]
        return ops.normal(1, sites, seed=seed, stream=stream, device=where).view(1, -1, *size)
    clean = stored.fields(range(1), seed=seed, size=size)
    return score.noised(clean.to(where), seed=seed)


def follow(
    dynamics: Any,
    start: Any,
    path: Path,
    *,
    steps: int,
    every: int,
    dt: float,
    seed: int,
    stage: str,
    checkpoint: Path,
    observer: Callable[[Any], None],
) -> None:
    """Roll out and keep the frames in `path`; goes on from the checkpoint, and has nothing to do where all is there."""
    from eqflow.data.checkpoint import Checkpoint
    from eqflow.data.reel import Reel
    from eqflow.dynamics import rollout
    from eqflow.dynamics.observers import Watcher

    if path.exists():
        return
    reel = Reel(path, steps // every + 1, tuple(start.shape[1:]), every=every)
    try:
        rollout(
            start,
            dynamics,
            steps,
            dt=dt,
            seed=seed,
            observers=[
                _Clean(dynamics.output, reel),
                Watcher(lambda step, _: observer(_stages.Progress(stage, step, steps, "steps")), _BLOCK),
            ],
            checkpoint=Checkpoint(checkpoint, every=_BLOCK, seconds=5.0),
        )
    finally:
        reel.close()
