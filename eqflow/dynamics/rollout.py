"""Follow dynamics for as long as you like: observed, guarded, and able to go on after any interruption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from eqflow.dynamics.checkpoint import Book, Point, Store
from eqflow.dynamics.fingerprint import describe
from eqflow.dynamics.flows import Drift
from eqflow.dynamics.guard import DivergenceGuard
from eqflow.dynamics.integrators import Stepper
from eqflow.dynamics.observers import Observer


class Result(NamedTuple):
    """Where a rollout ended."""

    state: Tensor
    step: int  # counted from the beginning of the trajectory
    time: float
    stopped: bool  # by an observer, before the last step


def rollout(
    state: Tensor,  # [batch, channels, height, width] or [batch, dimension]
    dynamics: Any,
    steps: int,
    *,
    dt: float | None = None,
    integrator: str | None = None,
    seed: int = 0,
    first_step: int = 0,
    first_sample: int = 0,
    observers: Sequence[Observer] = (),
    guard_every: int | None = 100,
    checkpoint: Store | None = None,
    cuda_graph: bool = False,
) -> Result:
    """Advance a batch by many steps.

    Nothing leaves the device between observations. The noise of step n of sample i depends on (seed, n, i) alone, so
    400 steps and then 600 with `first_step=400` are 1000 steps, and two halves of a batch, the second with
    `first_sample`, are the whole one, bit for bit, wherever the score itself gives the same bits for a part of a batch.

    Args:
        state: the start; it is not changed.
        dynamics: a `SkewFlow`, a `GroundTruth`, a `Drift`, or any function f(x) that gives dx/dt.
        steps: number of steps; the trajectory ends at first_step + steps.
        dt: step size. A ground truth brings its own.
        integrator: "exact-ou", "heun", "euler-maruyama" or "rk4"; None takes the best for the dynamics: the exact
            Ornstein-Uhlenbeck step for the score of a denoiser, Heun for other noisy dynamics, RK4 without noise.
        seed: key of the noise, in [0, 2^64).
        first_step: number of the step that `state` stands at.
        first_sample: global index of the first sample.
        observers: see `eqflow.dynamics.observers`. The start of a trajectory (step 0) is observed too.
        guard_every: steps between checks that all is finite and below 1e6; None for no check. Pass your own
            `DivergenceGuard` as an observer for another bound.
        checkpoint: where to keep what is needed to go on, such as `eqflow.data.checkpoint.Checkpoint("run.pt")`. If it
            holds something, the rollout goes on from there and ends as if it had never been interrupted. `steps` may
            be larger than before, everything else must be the same.
        cuda_graph: capture one step on the GPU and replay it.

    Returns:
        The last state, its step and time, and whether an observer ended the rollout.

    Raises:
        ValueError: an argument is wrong, or dt is above the limit of stability.
        Diverged: the state is not finite or beyond all bounds.
        ResumeError: the checkpoint was made with other options.

    Warns:
        StepWarning: the step makes the stationary variance more than 5 % wrong.

    Example:
        >>> import torch
        >>> result = rollout(torch.ones(1, 2), lambda x: -x, 100, dt=0.01)
        >>> round(float(result.state[0, 0]), 4)  # exp(-1)
        0.3679
    """
    for name, value in (("steps", steps), ("first_step", first_step), ("first_sample", first_sample)):
        if value < 0:
            raise ValueError(f"expected {name} from 0 up, got {value}")
    _check_state(state)
    flow = dynamics if hasattr(dynamics, "stepper") else Drift(dynamics)
    stepper: Stepper = flow.stepper(state, integrator=integrator, dt=dt, seed=seed, first_sample=first_sample)
    if first_step % stepper.block:
        raise ValueError(
            f"expected first_step at a multiple of {stepper.block}, where {type(flow).__name__} can be cut without "
            f"changing a bit, got {first_step}"
        )
    watching = [*observers, *_guards(observers, guard_every, stepper, first_sample)]
    if cuda_graph:
        from eqflow.dynamics.graph import captured

        stepper = captured(stepper, state)
    options = checkpoint and {
        "dynamics": describe(flow),
        "integrator": stepper.name,
        "dt": stepper.dt,
        "seed": seed,
        "first_step": first_step,
        "first_sample": first_sample,
        "start": describe(state),
    }
    book = Book(checkpoint, options, watching, first_step + steps)
    begin = book.resume(state.device) or _begin(state, first_step, stepper, watching)
    end = _follow(begin, first_step + steps, stepper, watching, book)
    return Result(end.state, end.step, end.step * stepper.dt, end.stopped)


def _check_state(state: Tensor) -> None:
    if not state.is_floating_point() or state.ndim not in (2, 4):
        raise ValueError(
            "expected a state [batch, dimension] or [batch, channels, height, width] of floating-point numbers, got "
            f"{list(state.shape)} of {state.dtype}"
        )
    bad = ~state.isfinite().flatten(1).all(1)
    if bad.any():
        raise ValueError(
            f"expected a finite start, but sample {int(bad.nonzero()[0])} has NaN or infinite values: mend the input"
        )


def _guards(
    observers: Sequence[Observer], every: int | None, stepper: Stepper, first_sample: int
) -> list[DivergenceGuard]:
    own = [observer for observer in observers if isinstance(observer, DivergenceGuard)]
    added = [] if own or every is None else [DivergenceGuard(every)]
    for guard in (*own, *added):
        guard.arm(first_sample, stepper.cause)
    return added


def _begin(state: Tensor, first_step: int, stepper: Stepper, observers: Sequence[Observer]) -> Point:
    stepper.check(state)
    # A later part of a trajectory begins with a state that the part before has shown.
    stopped = first_step == 0 and _observe(0, stepper.dt, state, observers)
    return Point(state, first_step, stopped)


def _observe(step: int, dt: float, state: Tensor, observers: Sequence[Observer]) -> bool:
    seen = [observer.observe(step, step * dt, state) for observer in observers if step % observer.every == 0]
    return any(seen)


def _stops(step: int, end: int, stepper: Stepper, everys: Sequence[int]) -> list[int]:
    """The next steps at which something happens: one, or all up to the end of the block."""
    if stepper.block == 1:
        return [min([end, *((step // every + 1) * every for every in everys)])]
    last = min(end, (step // stepper.block + 1) * stepper.block)
    return [at for at in range(step + 1, last + 1) if at == last or any(at % every == 0 for every in everys)]


def _follow(point: Point, end: int, stepper: Stepper, observers: Sequence[Observer], book: Book) -> Point:
    everys = [*(observer.every for observer in observers), *book.every]
    while point.step < end and not point.stopped:
        stops = _stops(point.step, end, stepper, everys)
        for step, state in zip(stops, stepper.advance(point.state, point.step, stops), strict=True):
            point = Point(state, step, _observe(step, stepper.dt, state, observers))
            if point.stopped:
                break
        if point.step % stepper.block == 0:
            book.keep(point, last=point.stopped or point.step >= end)
    return point
