"""Steps per second of a rollout beside the loop that evaluates the score four times: `python -m bench.bench_rollout`.

The loop is the protocol as released: stochastic Heun in which flow and gradient part each evaluate the score at both
stages, noise from torch.randn, the state copied to the host at every step. It must make the steps of ours from the same
noise before anything is timed. Contestants take turns in one run, each is judged by its best turn, on one thread. On a
GPU ours is timed as a captured CUDA graph too.
"""

from __future__ import annotations

import argparse
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

from bench import timing

timing.one_thread()  # before any library makes its threads

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from bench import machine  # noqa: E402
from eqflow import ops  # noqa: E402
from eqflow.dynamics import SkewFlow, StepWarning, rollout, skew  # noqa: E402
from eqflow.ops.philox import STREAMS  # noqa: E402
from eqflow.score import KernelScore, Mixture, folding  # noqa: E402

ETA, GAMMA, DT, ALPHA = 0.1, 0.5**0.5, 0.01, 0.9448
CHECKED_STEPS = 10
TOLERANCE = 1e-4
_TURN = 0.2  # seconds: what a rollout does once is a small part


class Network(nn.Module):
    """A small convolution network that predicts v: two channels, 16 wide, 5x5 seen."""

    alpha, predicts, lipschitz = ALPHA, "v", 1 / (1 - ALPHA)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        circular = {"padding": 1, "padding_mode": "circular"}
        self.output = nn.Sequential(nn.Conv2d(2, 16, 3, **circular), nn.SiLU(), nn.Conv2d(16, 2, 3, **circular))
        self.state_scale, self.output_scale = folding("v", ALPHA)

    def forward(self, state: Tensor) -> Tensor:
        return self.state_scale * state + self.output_scale * self.output(state)


def four_evaluations(score: Any, kernel: Tensor, steps: int, state: Tensor, draw: Callable[[int], Tensor]) -> Tensor:
    """The loop as released; `draw` makes the noise of a step."""
    scale = math.sqrt(2 * ETA * DT)
    with torch.no_grad():
        for step in range(steps):
            noise = scale * draw(step)
            first = skew.convolve(kernel, score(state)) + ETA * score(state)
            guess = state + DT * first + noise
            second = skew.convolve(kernel, score(guess)) + ETA * score(guess)
            state = state + DT / 2 * (first + second) + noise
            state.cpu().numpy().copy()
    return state


def cases(device: str) -> dict[str, tuple[Any, Tensor]]:
    """Name -> score and start."""
    network, points = Network().to(device).eval(), torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    mixture = Mixture(torch.tensor([[-1.5, 0.0], [1.5, 0.0]], device=device), 0.25)
    kernel = KernelScore(points.to(device), ALPHA)
    fields = {f"network 2x32x32, batch {n}": (network, torch.randn(n, 2, 32, 32, device=device)) for n in (1, 64)}
    return {
        **fields,
        "mixture of 2, batch 64": (mixture, mixture.sample(64, seed=0)),
        "1000 points, batch 64": (kernel, kernel.sample(64, seed=0)),
    }


def contestants(score: Any, start: Tensor, device: str) -> dict[str, Callable[[int], Tensor]]:
    """Name -> a turn of some steps, each checked."""
    kernel = skew.rotation(GAMMA).to(device)
    flow = SkewFlow(score, kernel, ETA)

    def same_noise(step: int) -> Tensor:
        sites = start[0].numel()
        stream = STREAMS["langevin"]
        return ops.normal(len(start), sites, seed=0, step=step, stream=stream, device=device).view_as(start)

    def ours(integrator: str, **more: Any) -> Callable[[int], Tensor]:
        return lambda steps: rollout(start, flow, steps, dt=DT, integrator=integrator, **more).state

    entries = {"ours, heun": ours("heun")}
    if hasattr(score, "alpha"):
        entries["ours, exact-ou"] = ours("exact-ou")
    if device != "cpu":
        entries["ours, heun, graph"] = ours("heun", cuda_graph=True)
    released = four_evaluations(score, kernel, CHECKED_STEPS, start, same_noise)
    for name in entries:
        error = float((entries[name](CHECKED_STEPS) - released).norm() / released.norm())
        if "heun" in name and error > TOLERANCE:
            raise AssertionError(f"{name} is {error:.2g} away from the loop of four evaluations")

    def released_loop(steps: int) -> Tensor:
        return four_evaluations(score, kernel, steps, start, lambda step: torch.randn_like(start))

    entries["four evaluations"] = released_loop
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each case")
    options = parser.parse_args()
    warnings.simplefilter("ignore", StepWarning)
    print(machine.output_of("git", "rev-parse", "--short=12", "HEAD"), "torch", torch.__version__, options.device)
    print("\n| case | contestant | steps/s | over four evaluations | turns |\n|---|---|---|---|---|")
    for case, (score, start) in cases(options.device).items():
        entries = contestants(score, start, options.device)
        steps = {name: timing.turn_size(run, _TURN, CHECKED_STEPS) for name, run in entries.items()}
        turns = {name: (functools.partial(run, steps[name]), steps[name]) for name, run in entries.items()}
        speeds = timing.compete(turns, options.seconds)
        peer = speeds["four evaluations"].best
        for name, speed in speeds.items():
            print(f"| {case} | {name} | {speed.best:,.0f} | {speed.best / peer:.2f} | {speed.turns} |", flush=True)


if __name__ == "__main__":
    main()
