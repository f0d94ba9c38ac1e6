"""A whole step, network included, captured once as a CUDA graph and replayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from eqflow.dynamics.integrators import Stepper


class Captured(Stepper):
    """Replays one step of another stepper; its number lives on the device, or each replay would repeat the noise."""

    def __init__(self, stepper: Stepper, state: Tensor):
        super().__init__(stepper.name, stepper.dt, stepper.cause)
        self.check = stepper.check
        self._state, self._step = state.clone(), torch.zeros((), dtype=torch.int64, device=state.device)
        with torch.cuda.device(state.device):
            # Libraries choose their algorithms in the first calls, which a capture does not allow.
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    stepper.step(self._state, self._step)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._state.copy_(stepper.step(self._state, self._step))
                self._step += 1

    def advance(self, state: Tensor, step: int, stops: Sequence[int]) -> Iterator[Tensor]:
        self._state.copy_(state)
        self._step.fill_(step)
        for stop in stops:
            for _ in range(step, stop):
                self._graph.replay()
            step = stop
            yield self._state.clone()


def captured(stepper: Stepper, state: Tensor) -> Stepper:
    """`stepper` as a CUDA graph for states like `state`.

    Raises:
        ValueError: the state is not on a GPU, or the stepper advances many steps in one call already.
    """
    if not state.is_cuda:
        raise ValueError(f"expected a state on a GPU for cuda_graph=True, got one on {state.device}: leave it out")
    if stepper.block > 1:
        raise ValueError("expected cuda_graph=False for a ground truth: it makes many steps in one launch already")
    return Captured(stepper, state)
